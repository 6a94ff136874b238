//! LISTEN where server connections are shared: one connection of each pool hears for all of its sessions.
//!
//! ```text
//!                        ┌─ mailbox ─► session
//! server ─► hub ─► board ┼─ mailbox ─► session
//!            ▲           └─ mailbox ─► session
//!            └──── LISTEN, UNLISTEN: what the board finds stale
//! ```
//!
//! What a session hears must be what it would hear on a server connection of its own, so that it may change over from the
//! one that ran its LISTEN to the hub's without a gap and without an echo. PostgreSQL keeps one queue for all, and each
//! connection reads it in order. So the session has a *mark* put into that queue, on its own connection, when the hub
//! listens as well: up to the mark its own connection speaks, after it the hub's (`session/driver/listening.rs`).

mod board;
mod hub;
mod mailbox;
#[cfg(test)]
mod tests;

pub use board::{Board, Channel, SeatId};
pub use hub::{Hub, Joined, Subscription};
pub use mailbox::{Ended, MAILBOX_BYTES_MAX, Mailbox};

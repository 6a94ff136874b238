//! One client connection: [`state`] decides, `driver` reads and writes.

mod again;
mod begin;
pub(crate) mod driver;
mod early;
mod farewell;
mod identify;
mod lease;
mod letting_in;
mod local;
mod mirroring;
mod own;
pub mod pace;
mod record;
mod refusal;
mod relay;
pub mod state;
mod tunnel;

#[cfg(test)]
mod tests;

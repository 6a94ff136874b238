//! The programs, run against memcached as it is known to behave, in every order of events that dice find.
//!
//! | file | what |
//! |---|---|
//! | `server.rs` | a memcached 1.6.18 in memory; compared with a real one in `server_tests.rs` |
//! | `world.rs` | sidecars, clients, the servers, and what they do |
//! | `world/net.rs` | the mail between them |
//! | `world/events.rs` | everything that may happen next |
//! | `client.rs` | what clients do, in their own words |
//! | `history.rs` | was it a register that may lose its value? |
//! | `chunks.rs` | values in parts: their own small world |
//! | `tests.rs` | seeds, small worlds in full, mutants |

#[cfg(test)]
mod chunks;
mod client;
mod history;
mod server;
#[cfg(test)]
mod server_tests;
mod tests;
mod world;

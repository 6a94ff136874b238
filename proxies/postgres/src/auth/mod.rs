//! Proving who a client is, and who we are to a server, as sums on bytes: no socket, no clock, no dice.

pub mod md5;
mod names;
pub mod scram;
mod stored;
#[cfg(test)]
mod tests;

pub use names::{CertificateName, NameError};
pub use stored::{Stored, StoredError};

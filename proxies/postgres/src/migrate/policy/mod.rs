//! What a migration does next, what stands in its way, and what its parts look like: no server, no file, no clock.

pub(crate) mod findings;
pub(crate) mod listing;
pub(crate) mod phase;
pub(crate) mod progress;
pub(crate) mod roles;
pub(crate) mod route;
pub(crate) mod sql;
#[cfg(test)]
mod tests;
pub(crate) mod verification;

//! One client connection: [`state`] decides, `driver` reads and writes.

pub(crate) mod driver;
mod farewell;
mod identify;
mod lease;
mod own;
mod record;
mod relay;
pub mod state;
mod tunnel;

#[cfg(test)]
mod tests;

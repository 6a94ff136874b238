//! One client connection: [`state`] decides, [`driver`] reads and writes.

pub mod state;

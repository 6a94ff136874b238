//! One client's session.

pub mod prepared;
pub mod settings;
pub mod state;

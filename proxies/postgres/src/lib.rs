//! A PostgreSQL sidecar: a pooler that sessions do not notice.

pub mod auth;
pub mod config;
pub mod error;
pub mod reply;
pub mod route;
pub mod session;
pub mod wire;

//! groove-http: an HTTP sidecar that routes by host and path, edits headers and keeps connections on both sides.

pub mod config;
pub mod error;
pub mod reply;
pub mod route;
pub mod session;
pub mod wire;

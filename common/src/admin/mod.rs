//! The admin server: health, readiness, metrics, the effective configuration, status; and asking one.

mod client;
mod documents;
mod routes;
mod server;

use tokio::sync::oneshot;

pub use client::{Client, ClientError, Lines};
pub use routes::{Body, Request, Response, Routes, json, plain, query, respond, segment, stream};
pub use server::{Change, Server};

/// The type of the metrics' text.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Somebody asked for a reload and waits for what becomes of it.
#[derive(Debug)]
pub struct Reload {
    /// Takes the changes, or what is wrong with the configuration.
    pub answer: oneshot::Sender<Result<Vec<String>, String>>,
}

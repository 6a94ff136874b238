//! The admin server: health, readiness, metrics, the effective configuration, status.

mod client;
mod routes;

pub use client::{Client, ClientError};
pub use routes::{Body, Request, Response, Routes, json, plain, respond};

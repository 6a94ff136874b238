//! The admin server: health, readiness, metrics, the effective configuration, status.

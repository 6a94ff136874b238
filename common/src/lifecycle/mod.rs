//! Drain, signals, readiness, start-up checks.

//! Listeners, streams, TLS and the PROXY protocol.

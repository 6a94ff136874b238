//! groove-http: see ARCHITECTURE.md.

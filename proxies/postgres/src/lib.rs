//! groove-postgres: see ARCHITECTURE.md.

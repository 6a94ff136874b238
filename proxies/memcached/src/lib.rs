//! groove-memcached: see ARCHITECTURE.md.

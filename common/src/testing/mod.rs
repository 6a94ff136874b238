//! Helpers for the tests of all crates.

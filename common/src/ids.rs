//! Names of things: addresses and identifiers.

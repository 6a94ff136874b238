//! The groove-http binary.
fn main() {}

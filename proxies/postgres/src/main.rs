//! The groove-postgres binary.
fn main() {}

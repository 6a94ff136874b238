//! The groove-memcached binary.
fn main() {}

//! The groove-memcached binary.

use std::process::ExitCode;

use groove_memcached::Memcached;

fn main() -> ExitCode {
    groove_common::app::main::<Memcached>()
}

//! The groove-postgres binary.

// See the library.
#![recursion_limit = "256"]

use std::process::ExitCode;

fn main() -> ExitCode {
    groove_common::app::main::<groove_postgres::Postgres>()
}

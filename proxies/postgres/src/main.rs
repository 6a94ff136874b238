//! The groove-postgres binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    groove_common::app::main::<groove_postgres::Postgres>()
}

//! The groove-http binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    groove_common::app::main::<groove_http::Http>()
}

//! The groove-http binary.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// What a connection takes is aligned to 128 bytes by the runtime: here that is no detour, and no padding.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    groove_common::app::main::<groove_http::Http>()
}

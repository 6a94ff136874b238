//! As much of SQL as a pooler has to understand: where statements begin, and what they may leave behind in a
//! server session. It errs on the side of "may": the server is asked afterwards what is there.

mod block;
mod dull;
mod lexer;
mod listen;
mod mask;
mod prepared;
mod reading;
mod recent;
mod set;
mod spans;
#[cfg(test)]
mod tests;

pub use listen::Unlisten;
pub use mask::{Masked, TEXT_MAX, mask};
pub use reading::{Block, Kinds, Prepared, Reading, read};
pub use recent::Recent;
pub use spans::{Part, Span, spans};

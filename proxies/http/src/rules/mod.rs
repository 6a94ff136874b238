//! What a route asks of a request beyond its path and method, and what it does besides choosing servers. Pure.

mod answer;
mod conditions;
mod cors;
mod rewrite;

pub use answer::{Action, Answer, Manner};
pub use conditions::{Conditions, pattern};
pub use cors::{Cors, origin};
pub use rewrite::Place;

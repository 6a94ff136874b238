//! What says why a request was not served: a code for programs, a page for people, and whose it is to mend.

pub mod code;
pub mod maintenance;
pub mod own;
pub mod pages;
pub mod template;

pub use code::{Code, Owner};
pub use maintenance::Maintenance;
pub use pages::{Key, Library, Pages};
pub use template::{Context, Page};

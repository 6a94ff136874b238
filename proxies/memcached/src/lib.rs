//! groove-memcached: a memcached sidecar. The classic protocol in, the meta protocol out, over servers
//! that come and go.
//!
//! | room | what it does |
//! |---|---|
//! | [`wire`] | the codecs: bytes to frames and back, no IO |
//! | [`session`] | one client: the pure machine, and the loop that gives it bytes |
//! | [`error`], [`reply`] | what can go wrong, and the words for it |

pub mod error;
pub mod reply;
pub mod session;
pub mod stats;
pub mod wire;

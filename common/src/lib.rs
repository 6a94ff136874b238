//! What the three Groove proxies share.
//!
//! Rooms, from the front door down; a room may use those below it, never above
//! (`integration` holds a test that reads the imports):
//!
//! | layer | rooms |
//! |---|---|
//! | the program | [`tap`], [`app`], [`admin`], [`lifecycle`] |
//! | sockets and servers | [`pool`], [`net`], [`discovery`], [`store`] |
//! | policy, without IO | [`balance`], [`admission`], [`health`], [`config`], [`telemetry`] |
//! | words | [`error`], [`ids`] |

pub mod admin;
pub mod admission;
pub mod app;
pub mod balance;
pub mod config;
pub mod discovery;
pub mod error;
pub mod health;
pub mod ids;
pub mod lifecycle;
pub mod net;
pub mod pool;
pub mod store;
pub mod tap;
pub mod telemetry;
pub mod testing;

//! What the three proxies do alike: the command line, the admin server, signals, listeners.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in helpers of tests too, a panic is the report"
)]

mod command_line;
mod documents;
mod lifecycle;
mod listeners;
mod subject;

/// Makes a test of each function for each proxy.
macro_rules! for_each_proxy {
    ($($test:ident),* $(,)?) => {
        mod memcached { $(#[test] fn $test() { super::$test(harness::Kind::Memcached).unwrap(); })* }
        mod postgres { $(#[test] fn $test() { super::$test(harness::Kind::Postgres).unwrap(); })* }
        mod http { $(#[test] fn $test() { super::$test(harness::Kind::Http).unwrap(); })* }
    };
}
pub(crate) use for_each_proxy;

/// Runs the client's side of a test.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

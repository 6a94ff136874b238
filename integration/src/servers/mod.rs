//! The real servers that stand behind the proxies.

pub(crate) mod haproxy;
pub(crate) mod memcached;
pub(crate) mod nginx;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
pub(crate) mod release;
pub(crate) mod scripted;

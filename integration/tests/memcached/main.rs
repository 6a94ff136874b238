//! groove-memcached between real clients and real servers.

mod advertise;
mod binary;
mod chunks;
mod client;
mod clients;
mod differential;
mod failover;
mod faults;
mod histories;
mod hot_keys;
mod lifecycle;
mod meta;
#[path = "resize.rs"]
mod resizes;
mod suites;
mod tap;
mod tenants;
mod tiers;
mod untold;

use std::net::SocketAddr;

use anyhow::Result;
use harness::{Kind, Proxy, ProxyBuilder};

/// A proxy in front of these servers, its cluster's section ending with `more`.
fn proxy_to(servers: &[SocketAddr], more: &str) -> ProxyBuilder {
    let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    Proxy::of(Kind::Memcached).config(&format!(
        "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\nworkers: 2\n\
         clusters:\n  main:\n    endpoints: [{}]\n{more}",
        servers.join(", ")
    ))
}

/// A proxy with a store of its own.
fn embedded() -> Result<Proxy> {
    Proxy::of(Kind::Memcached)
        .config(
            "listeners: [{address: $LISTEN}]\nadmin: {address: $ADMIN}\nworkers: 2\n\
             clusters: {main: {endpoints: {embedded: {capacity: 64MiB}}}}\n",
        )
        .start()
}

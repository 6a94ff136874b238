//! Apps, and routes of them, that are closed for a while.

use super::template::Page;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// What a closed app answers, and who is served all the same.
#[derive(Debug, Clone, Default)]
pub struct Maintenance {
    /// Networks whose clients are served.
    pub allow: Vec<IpNet>,
    /// The page; the app's own pages if none.
    pub page: Option<Arc<Page>>,
    /// When to ask again.
    pub retry_after_s: Option<u64>,
}

impl Maintenance {
    /// Whether a client is served all the same. One on a unix socket, which has no address, is none of a network's.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|ip| self.allow.iter().any(|network| network.contains(&ip)))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_in_the_networks_are_served() {
        let allow = vec!["10.0.0.0/8".parse().expect("a network")];
        let closed = Maintenance { allow, ..Maintenance::default() };
        let admits = |ip: &str| closed.admits(Some(ip.parse().expect("an address")));
        assert!(admits("10.1.2.3") && !admits("192.0.2.1") && !admits("::1"));
        assert!(!closed.admits(None), "who has no address is in no network");
        assert!(!Maintenance::default().admits(Some("10.1.2.3".parse().expect("an address"))));
    }
}

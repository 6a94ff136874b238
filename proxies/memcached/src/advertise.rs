//! What clients are told that ask where to connect, as those of ElastiCache do: `config get cluster`.
//!
//! Such a client has one address, asks it for all servers, and spreads its keys over them by itself. What it is told here
//! are proxies, any of which will do for any key: those that `advertise` lists, or else the listener it came in by.

use std::net::SocketAddr;

use bytes::Bytes;
use groove_common::config::Issues;
use groove_common::discovery::tell_nodes;
use groove_common::ids::Address;

use crate::wire::request::Nodes;

/// The proxies that clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Grows when the list changes, also over a restart: the Unix time at which the list came to be.
    version: u64,
    /// None: the address that the client connected to.
    proxies: Vec<Address>,
}

impl Advertised {
    /// As configured, after what was told before.
    pub fn new(proxies: &[Address], before: Option<&Self>, now_s: u64) -> Self {
        match before {
            Some(before) if before.proxies == proxies => before.clone(),
            Some(before) => Self { version: now_s.max(before.version + 1), proxies: proxies.to_vec() },
            None => Self { version: now_s, proxies: proxies.to_vec() },
        }
    }

    /// The answer, but for its last line end, to a client that connected to `own`. None: there is nothing to tell on
    /// a unix socket.
    pub fn answer(&self, asked: Nodes, own: Option<SocketAddr>) -> Option<Bytes> {
        let own = own.map(|own| Address::tcp(own.ip().to_canonical().to_string(), own.port()));
        let proxies = match self.proxies.as_slice() {
            [] => std::slice::from_ref(own.as_ref()?),
            listed => listed,
        };
        let told = tell_nodes(self.version, proxies);
        let head = match asked {
            Nodes::Config => "CONFIG cluster",
            Nodes::Key => "VALUE AmazonElastiCache:cluster",
        };
        Some(Bytes::from(format!("{head} 0 {}\r\n{told}\r\nEND", told.len())))
    }
}

/// Checks what is to be told.
pub(crate) fn check(proxies: &[Address], issues: &mut Issues) {
    for (index, proxy) in proxies.iter().enumerate() {
        let (message, help) = match proxy {
            Address::Unix(_) => ("clients cannot be told a unix socket", "write `HOST:PORT`"),
            Address::Tcp { port: 0, .. } => ("nobody listens on port 0", "write 1 to 65535"),
            Address::Tcp { .. } if proxies.iter().take(index).any(|it| it == proxy) => {
                ("this proxy is told already", "write it once")
            }
            Address::Tcp { .. } => continue,
        };
        issues.at(&["advertise", &index.to_string()], message, Some(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_what_is_listed_or_where_it_came_in() {
        let own = Some("[::ffff:127.0.0.1]:11311".parse().unwrap());
        let own_only = Advertised::new(&[], None, 7);
        assert_eq!(
            own_only.answer(Nodes::Config, own).unwrap(),
            "CONFIG cluster 0 28\r\n7\n127.0.0.1|127.0.0.1|11311\n\r\nEND"
        );
        assert_eq!(own_only.answer(Nodes::Config, None), None);
        let listed = Advertised::new(&[Address::tcp("a", 1), Address::tcp("b", 2)], None, 7);
        assert_eq!(
            listed.answer(Nodes::Key, None).unwrap(),
            "VALUE AmazonElastiCache:cluster 0 12\r\n7\na||1 b||2\n\r\nEND"
        );
    }

    #[test]
    fn the_version_grows_with_each_change_and_with_nothing_else() {
        let one = Advertised::new(&[], None, 7);
        assert_eq!(Advertised::new(&[], Some(&one), 9), one);
        let two = Advertised::new(&[Address::tcp("a", 1)], Some(&one), 7);
        assert_eq!(two.version, 8);
        assert_eq!(Advertised::new(&[], Some(&two), 20).version, 20);
    }
}

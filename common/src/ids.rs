//! Names of things: addresses and identifiers.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a socket listens or a server answers.
///
/// Written `127.0.0.1:11211`, `[::1]:80`, `db.internal:5432`, `unix:/run/app.sock` or just `/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host (a name or an IP address, without brackets) and a port.
    Tcp {
        /// Name or IP address; an IPv6 address has no brackets here.
        host: String,
        /// Port, never 0 for a server; 0 on a listener asks the system for a free one.
        port: u16,
    },
    /// The absolute path of a unix socket.
    Unix(PathBuf),
}

/// Why a text is not an [`Address`]. The message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(Cow<'static, str>);

impl Address {
    /// A TCP address from its parts.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// Whether only this machine can reach it: a unix socket, a loopback IP address or `localhost`.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        if text.starts_with('/') {
            return unix(text);
        }
        if text.starts_with("udp:") {
            return Err(AddressError(Cow::Borrowed(
                "UDP is not spoken here: write `host:port` for TCP, or `unix:/path`",
            )));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest
                    .split_once("]:")
                    .ok_or(AddressError(Cow::Borrowed("an IPv6 address is written like `[::1]:11211`")))?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(AddressError(format!("`{host}` is not an IPv6 address").into()));
                }
                (host, port)
            }
            None => split_host(text)?,
        };
        Ok(Self::tcp(host, parse_port(port)?))
    }
}

fn unix(path: &str) -> Result<Address, AddressError> {
    // sun_path holds 108 bytes with its terminating zero (unix(7)).
    const PATH_BYTES_MAX: usize = 107;
    if !path.starts_with('/') {
        return Err(AddressError(Cow::Borrowed(
            "a unix socket is an absolute path, like `unix:/run/groove.sock`",
        )));
    }
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(AddressError(format!("a unix socket's path has at most {PATH_BYTES_MAX} bytes").into()));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    // `parse` alone would take `+80`.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = digits.then(|| text.parse().ok()).flatten();
    port.ok_or_else(|| AddressError(format!("`{text}` is not a port: write 1 to 65535").into()))
}

fn split_host(text: &str) -> Result<(&str, &str), AddressError> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(AddressError(format!("the port is missing: write `{text}:PORT`").into()));
    };
    if host.contains(':') {
        return Err(AddressError(format!("an IPv6 address needs brackets: write `[{host}]:{port}`").into()));
    }
    if host.is_empty() {
        return Err(AddressError(
            format!("the host is missing: write `0.0.0.0:{port}` for every interface").into(),
        ));
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return Err(AddressError(format!("`{host}` is not a host name or an IP address").into()));
    }
    // Whatever looks like an IPv4 address must be one, or its mistake would be asked of DNS.
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(AddressError(format!("`{host}` is not an IPv4 address").into()));
    }
    Ok((host, port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::tcp(address.ip().to_string(), address.port())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "address",
            "description": "HOST:PORT, [IPV6]:PORT or unix:/PATH",
        })
    }
}

/// One endpoint for as long as the process lives. Never reused, so that a statistic or a pool can
/// never be taken for that of a server which left and came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct EndpointId(pub u64);

impl EndpointId {
    /// The next identifier of this process.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown_again() {
        for (text, shown, local) in [
            ("127.0.0.1:11211", "127.0.0.1:11211", true),
            ("0.0.0.0:0", "0.0.0.0:0", false),
            ("[::1]:80", "[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", true),
            ("db.internal:5432", "db.internal:5432", false),
            ("localhost:5432", "localhost:5432", true),
            ("unix:/run/x.sock", "unix:/run/x.sock", true),
            ("/run/x.sock", "unix:/run/x.sock", true),
        ] {
            let address: Address = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((address.to_string().as_str(), address.is_local()), (shown, local));
            assert_eq!(shown.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (text, message) in [
            ("127.0.0.1", "the port is missing: write `127.0.0.1:PORT`"),
            (":80", "the host is missing: write `0.0.0.0:80` for every interface"),
            ("::1:80", "an IPv6 address needs brackets: write `[::1]:80`"),
            ("[::1]", "an IPv6 address is written like `[::1]:11211`"),
            ("[nine]:80", "`nine` is not an IPv6 address"),
            ("a:65536", "`65536` is not a port: write 1 to 65535"),
            ("a:+80", "`+80` is not a port: write 1 to 65535"),
            ("a:", "`` is not a port: write 1 to 65535"),
            ("1.2.3:80", "`1.2.3` is not an IPv4 address"),
            ("a b:80", "`a b` is not a host name or an IP address"),
            ("udp:127.0.0.1:80", "UDP is not spoken here: write `host:port` for TCP, or `unix:/path`"),
            ("unix:x.sock", "a unix socket is an absolute path, like `unix:/run/groove.sock`"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().to_string(), message, "{text}");
        }
        assert!(format!("/{}", "x".repeat(107)).parse::<Address>().is_err());
    }

    #[test]
    fn endpoints_are_never_named_alike() {
        assert_ne!(EndpointId::next(), EndpointId::next());
    }
}

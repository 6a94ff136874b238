//! What a text must be at a place, by the `format` that its type gives in the schema.

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::files::read;
use super::{Dns, Duration, Mode, Secret, Size};
use crate::ids::Address;

/// Tests a text by the name of its format; the error says what to write instead. A name that is not known here
/// allows every text.
pub(super) fn check(format: &str, text: &str) -> Result<(), String> {
    fn parsed<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<(), String> {
        text.parse::<T>().map(drop).map_err(|error| error.to_string())
    }
    match format {
        "address" => parsed::<Address>(text),
        "duration-text" => parsed::<Duration>(text),
        "size" => parsed::<Size>(text),
        "mode" => parsed::<Mode>(text),
        "dns-name" => parsed::<Dns>(text),
        "network" => network(text),
        "log-level" => log_level(text),
        _ => Ok(()),
    }
}

/// What a text of a format is called.
pub(super) fn noun(format: &str) -> Option<&'static str> {
    Some(match format {
        "address" => "an address",
        "duration-text" => "a length of time",
        "size" => "an amount of bytes",
        "mode" => "a file mode",
        "dns-name" => "a name for DNS",
        "network" => "a network",
        "log-level" => "a log level",
        "certificate-file" | "key-file" | "secret-file" | "input-file" | "endpoints-file" => "a file's path",
        "secret-env" => "the name of an environment variable",
        _ => return None,
    })
}

/// A text of a format that harms nothing.
pub(super) fn stand_in(format: Option<&str>) -> &'static str {
    match format {
        Some("address") => "stand-in.invalid:1",
        Some("duration-text") => "1s",
        Some("size") => "1MiB",
        Some("mode") => "0600",
        Some("dns-name") => "stand-in.invalid:1",
        Some("network") => "192.0.2.0/24",
        Some("log-level") => "info",
        _ => "stand-in",
    }
}

fn network(text: &str) -> Result<(), String> {
    match (text.parse::<ipnet::IpNet>(), text.parse::<std::net::IpAddr>()) {
        (Ok(_), _) => Ok(()),
        (Err(_), Ok(ip)) => {
            Err(format!("write how many bits count, like `{ip}/{}`", if ip.is_ipv4() { 32 } else { 128 }))
        }
        (Err(_), Err(_)) => Err("a network is written like `10.0.0.0/8` or `fd00::/8`".to_owned()),
    }
}

fn log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A single word is a level here; a filter also takes it for the name of a target, which is never meant.
    let word = text.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = if word {
        LEVELS.contains(&text)
    } else {
        tracing_subscriber::EnvFilter::builder().parse(text).is_ok()
    };
    let help = "write error, warn, info, debug or trace, or a filter like `info,groove_common::net=debug`";
    if good { Ok(()) } else { Err(help.to_owned()) }
}

/// A text that names a file, by the format of the type that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Certificate,
    Key,
    Secret,
    /// Read by its owner whenever it needs it; a change to it is a reload.
    Input,
    /// Watched by discovery, so a change to it is no reload.
    Endpoints,
}

impl FileKind {
    pub(super) fn of(format: &str) -> Option<Self> {
        match format {
            "certificate-file" => Some(Self::Certificate),
            "key-file" => Some(Self::Key),
            "secret-file" => Some(Self::Secret),
            "input-file" => Some(Self::Input),
            "endpoints-file" => Some(Self::Endpoints),
            _ => None,
        }
    }

    /// Tests that the file is there and holds what it should.
    pub(super) fn check(self, path: &Path) -> Result<(), String> {
        match self {
            Self::Secret => Secret::from_file(path).map(drop),
            Self::Certificate => certificates(path, &read(path)?),
            Self::Key => PrivateKeyDer::from_pem_slice(&read(path)?)
                .map(|_| ())
                .map_err(|_| format!("{} holds no private key in PEM", path.display())),
            Self::Input | Self::Endpoints => read(path).map(drop),
        }
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<(), String> {
    let mut found = CertificateDer::pem_slice_iter(pem);
    match found.next() {
        None => Err(format!("{} holds no certificate in PEM", path.display())),
        Some(first) => {
            let all = std::iter::once(first).chain(found).collect::<Result<Vec<_>, _>>();
            all.map(drop).map_err(|error| format!("{} is not good PEM: {error}", path.display()))
        }
    }
}

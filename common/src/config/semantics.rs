//! What the types cannot say of the shared sections: combinations, duplicates, what others can reach.
//!
//! [`of_document`] runs for every document. A proxy's `validate` calls [`Endpoints::check`],
//! [`Health::check`] and [`ClientTls::check`] for those it holds, with the path where they stand.

use std::collections::HashMap;
use std::path::Path;

use super::{
    Admin, ClientAuth, ClientTls, Document, EmbeddedDisk, Endpoint, Endpoints, Health, Issues, Listener,
    Size, read,
};
use crate::ids::Address;

/// Checks what every document has.
pub(super) fn of_document<D: Document>(document: &D, issues: &mut Issues) {
    let basics = document.basics();
    listeners(basics.listeners, issues);
    if let Some(found) = basics.admin {
        admin(found, basics.listeners, issues);
    }
    if let Some(path) = basics.handover {
        handover(path, basics.listeners, issues);
    }
    if basics.workers == Some(0) {
        issues.at(
            &["workers"],
            "there must be a worker",
            Some("write 1 or more, or leave it out for one a core"),
        );
    }
}

fn listeners(listeners: &[Listener], issues: &mut Issues) {
    if listeners.is_empty() {
        let help = "write `listeners: [{address: 127.0.0.1:PORT}]`";
        issues.at(&["listeners"], "there is no listener", Some(help));
    }
    let mut names = HashMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        let at = index.to_string();
        let earlier = listeners.iter().take(index);
        if let Some(other) = earlier.clone().position(|other| conflict(&other.address, &listener.address)) {
            let message = format!("listener {other} has this address already");
            issues.at(&["listeners", &at, "address"], message, Some("give each listener its own address"));
        }
        if let Some(name) = &listener.name
            && let Some(other) = names.insert(name, index)
        {
            let message = format!("listener {other} is named `{name}` already");
            issues.at(
                &["listeners", &at, "name"],
                message,
                Some("metrics and logs tell listeners apart by name"),
            );
        }
        if listener.mode.is_some() && matches!(listener.address, Address::Tcp { .. }) {
            let help = "leave it out, or listen on `unix:/PATH`";
            issues.at_key(&["listeners", &at, "mode"], "only a unix socket has permissions", Some(help));
        }
        if let Some(tls) = &listener.tls
            && tls.client_ca.is_none()
            && tls.client_auth() != ClientAuth::None
        {
            let message = "clients' certificates cannot be checked without `client_ca`";
            let help = "add `client_ca: FILE` with the authorities that sign them";
            issues.at(&["listeners", &at, "tls", "client_auth"], message, Some(help));
        }
    }
}

/// Whether both cannot be bound. Port 0 asks the system for a free port, as often as one likes.
fn conflict(one: &Address, other: &Address) -> bool {
    one == other && !matches!(one, Address::Tcp { port: 0, .. })
}

fn admin(admin: &Admin, listeners: &[Listener], issues: &mut Issues) {
    if admin.token.is_none() && !admin.address.is_local() {
        let message = "others than this machine could reach the admin server, and it asks for no token";
        let help = "listen on 127.0.0.1, or add `token: {env: NAME}`";
        issues.at(&["admin", "address"], message, Some(help));
    }
    if listeners.iter().any(|listener| conflict(&listener.address, &admin.address)) {
        let help = "give the admin server its own address";
        issues.at(&["admin", "address"], "a listener has this address already", Some(help));
    }
}

/// What sun_path holds (unix(7)), less what a draft of the socket is called beside it.
const HANDOVER_BYTES_MAX: usize = 107 - ".4194304".len();

fn handover(path: &Path, listeners: &[Listener], issues: &mut Issues) {
    if !path.is_absolute() {
        let help = "write `/run/NAME.handover`: both processes have to find it";
        issues.at(&["handover"], "not an absolute path", Some(help));
    } else if path.as_os_str().len() > HANDOVER_BYTES_MAX {
        let help = format!("a path of at most {HANDOVER_BYTES_MAX} bytes can be listened on");
        issues.at(&["handover"], "too long for a unix socket", Some(&help));
    } else if listeners.iter().any(|listener| listener.address == Address::Unix(path.to_owned())) {
        let help = "clients must not come here: give it a path of its own";
        issues.at(&["handover"], "a listener has this address already", Some(help));
    }
}

/// The least that a disk tier can do with: its journals and a few segments.
const DISK_MIN: Size = Size::mib(128);

impl EmbeddedDisk {
    fn check(&self, path: &[&str], issues: &mut Issues) {
        if !self.path.is_absolute() {
            let help = "write where it is from the root on, like `/var/lib/groove/cache`";
            issues.at(&join(path, &["path"]), "it is not said where this directory is", Some(help));
        }
        if self.capacity < DISK_MIN {
            let at = join(path, &["capacity"]);
            issues.at(&at, "too small for journals and items", Some("write `128MiB` or more"));
        }
    }
}

impl Endpoints {
    /// Checks endpoints of any source, none of which has a role among copies.
    pub fn check(&self, path: &[&str], issues: &mut Issues) {
        if let Self::Static(list) = self {
            for (index, _) in list.iter().enumerate().filter(|(_, endpoint)| endpoint.role.is_some()) {
                let index = index.to_string();
                let at = join(path, &[&index, "role"]);
                issues.at_key(&at, "the servers of this proxy have no roles", Some("leave it out"));
            }
        }
        self.check_any(path, issues);
    }

    fn check_any(&self, path: &[&str], issues: &mut Issues) {
        match self {
            Self::Static(_) => self.check_static(path, issues),
            Self::Dns(dns) => {
                if dns.refresh.is_zero() {
                    let help = "write how often to ask, like `30s`";
                    issues.at(
                        &join(path, &["dns", "refresh"]),
                        "DNS cannot be asked without a pause",
                        Some(help),
                    );
                }
            }
            Self::Elasticache(source) => {
                if source.refresh.is_zero() {
                    let help = "write how often to ask, like `60s`";
                    let at = join(path, &["elasticache", "refresh"]);
                    issues.at(&at, "it cannot be asked without a pause", Some(help));
                }
                if let Some(tls) = &source.tls {
                    let at = join(path, &["elasticache", "tls"]);
                    tls.check(&at, issues);
                }
            }
            // Its errors are a report of their own; here is said that there are some, and the first.
            Self::File(file) => {
                if let Err(report) = read::<Vec<Endpoint>>(file)
                    && let Some(first) = report.findings().first()
                {
                    let message = format!("{}:{}: {}", file.display(), first.line, first.message);
                    issues.at(&join(path, &["file"]), message, first.help.as_deref());
                }
            }
            Self::Embedded(embedded) => {
                if embedded.capacity.0 < 1 << 20 {
                    let at = join(path, &["embedded", "capacity"]);
                    issues.at(&at, "the store needs room", Some("write `1MiB` or more"));
                }
                if let Some(disk) = &embedded.disk {
                    disk.check(&join(path, &["embedded", "disk"]), issues);
                }
            }
        }
    }

    /// Checks endpoints where there must be real servers: `embedded` is refused.
    pub fn check_servers(&self, path: &[&str], issues: &mut Issues) {
        self.refuse_store(path, issues);
        self.check(path, issues);
    }

    /// As [`Endpoints::check_servers`], for servers that may be copies of one database.
    pub fn check_copies(&self, path: &[&str], issues: &mut Issues) {
        self.refuse_store(path, issues);
        self.check_any(path, issues);
    }

    fn refuse_store(&self, path: &[&str], issues: &mut Issues) {
        if matches!(self, Self::Embedded(_)) {
            let help = "write a list of servers, `{dns: NAME:PORT}` or `{file: PATH}`";
            issues.at_key(&join(path, &["embedded"]), "this proxy has no store of its own", Some(help));
        }
    }

    fn check_static(&self, path: &[&str], issues: &mut Issues) {
        let Self::Static(list) = self else { return };
        if list.is_empty() {
            issues.at(path, "there is no endpoint", Some("write at least one, like `[127.0.0.1:PORT]`"));
        } else if list.iter().all(|endpoint| endpoint.weight == 0) {
            let help = "give at least one a weight of 1 or more";
            issues.at(path, "every endpoint has weight 0, so none would get work", Some(help));
        }
        let mut seen = HashMap::new();
        for (index, endpoint) in list.iter().enumerate() {
            let at = index.to_string();
            if let Some(first) = seen.insert(&endpoint.address, index) {
                let message = format!("endpoint {first} has this address already");
                let help = "leave it out; to give a server more work, raise its `weight`";
                issues.at(&join(path, &[&at]), message, Some(help));
            }
            if matches!(endpoint.address, Address::Tcp { port: 0, .. }) {
                issues.at(&join(path, &[&at]), "no server answers at port 0", Some("write 1 to 65535"));
            }
        }
    }
}

impl Health {
    /// Checks probe and breaker.
    pub fn check(&self, path: &[&str], issues: &mut Issues) {
        if let Some(probe) = &self.probe {
            if probe.interval.is_zero() {
                let at = join(path, &["probe", "interval"]);
                issues.at(&at, "probes need a pause between them", Some("write a length of time, like `2s`"));
            }
            if probe.timeout.is_zero() {
                let at = join(path, &["probe", "timeout"]);
                issues.at(&at, "a probe needs time to answer", Some("write a length of time, like `1s`"));
            } else if probe.timeout > probe.interval {
                let message = format!(
                    "a probe may take {}, but the next starts after {}",
                    probe.timeout, probe.interval
                );
                let help = format!("write `{}` or less, or a longer `interval`", probe.interval);
                issues.at(&join(path, &["probe", "timeout"]), message, Some(&help));
            }
        }
        let breaker = &self.breaker;
        if breaker.base_ejection > breaker.max_ejection {
            let message = format!("the first ejection is longer than the longest, {}", breaker.max_ejection);
            let help = format!("write `{}` or less, or a longer `max_ejection`", breaker.max_ejection);
            issues.at(&join(path, &["breaker", "base_ejection"]), message, Some(&help));
        }
        if breaker.base_ejection.is_zero() && breaker.consecutive_failures > 0 {
            let help = "write a length of time, like `1s`; `consecutive_failures: 0` turns the breaker off";
            let at = join(path, &["breaker", "base_ejection"]);
            issues.at(&at, "an ejection must last for some time", Some(help));
        }
    }
}

impl ClientTls {
    /// Checks that its parts fit together.
    pub fn check(&self, path: &[&str], issues: &mut Issues) {
        if self.certificate.is_some() && self.key.is_none() {
            let help = "add `key: FILE` with its private key";
            issues.at_key(
                &join(path, &["certificate"]),
                "a certificate is no use without its key",
                Some(help),
            );
        }
        if self.key.is_some() && self.certificate.is_none() {
            let help = "add `certificate: FILE`";
            issues.at_key(&join(path, &["key"]), "a key is no use without its certificate", Some(help));
        }
        if self.verify == super::Verify::None && self.ca.is_some() {
            let help = "write `verify: full`, or leave `ca` out";
            issues.at(&join(path, &["verify"]), "`ca` is given, but nothing would be checked", Some(help));
        }
    }
}

fn join<'a>(path: &[&'a str], below: &[&'a str]) -> Vec<&'a str> {
    [path, below].concat()
}

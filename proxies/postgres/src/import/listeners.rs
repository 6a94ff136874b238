//! Where clients connect: `listen_addr`, `listen_port`, unix sockets, TLS.

use groove_common::config::Mode;
use groove_common::ids::Address;

use super::convert::Notes;
use super::ini::absolute;
use super::problems::Problems;
use super::source::Source;
use super::users::AuthType;
use super::yaml::{Page, scalar};

/// PgBouncer's, which is also part of its unix sockets' name.
const PORT: u32 = 6432;

/// What its clients are used to; ours has no bound of its own.
const CLIENTS_MAX: u32 = 100;

pub(super) fn write(
    source: &Source,
    auth: AuthType,
    page: &mut Page,
    notes: &mut Notes,
    problems: &mut Problems,
) {
    let tls = Tls::of(source, auth, notes, problems);
    let addresses = addresses(source, auth, &tls, notes, problems);
    page.line(0, "listeners:");
    for address in &addresses {
        page.pair(1, "- address", scalar(&address.to_string()));
        match address {
            Address::Tcp { .. } => tls.write(page),
            // With TLS on a unix socket neither of the two has to do.
            Address::Unix(_) => page.pair(2, "mode", scalar(&mode(source, notes).to_string())),
        }
        page.pair(2, "max_connections", source.number("max_client_conn").unwrap_or(CLIENTS_MAX).max(1));
        if let Some(backlog) = source.number("listen_backlog") {
            page.pair(2, "backlog", backlog.clamp(1, 65535));
        }
    }
    if addresses.len() > 1 {
        notes.look_at(source, "max_client_conn", "here it is a bound for each listener, not for all of them");
    }
}

/// PgBouncer's default lets everybody knock.
fn mode(source: &Source, notes: &mut Notes) -> Mode {
    let mode = Mode(source.number("unix_socket_mode").unwrap_or(0o777) & 0o777);
    if source.text("unix_socket_mode").is_some_and(|text| !text.starts_with('0')) {
        let note = format!("without a 0 in front PgBouncer reads a decimal number, which is {mode}");
        notes.look_at(source, "unix_socket_mode", note);
    }
    mode
}

fn addresses(
    source: &Source,
    auth: AuthType,
    tls: &Tls,
    notes: &mut Notes,
    problems: &mut Problems,
) -> Vec<Address> {
    let Ok(port) = u16::try_from(source.number("listen_port").unwrap_or(PORT)) else {
        problems.setting(source, "listen_port", "expected a port, 1 to 65535");
        return Vec::new();
    };
    let mut addresses = Vec::new();
    // Whoever listens everywhere listens at the others too: a second socket would find the port taken.
    let everywhere = |host: &str| matches!(host, "*" | "0.0.0.0");
    let hosts: Vec<&str> = list(source.text("listen_addr").unwrap_or_default()).collect();
    let wide = hosts.iter().any(|host| everywhere(host)) && !auth.is_for_this_machine(tls.is_on());
    for host in hosts.into_iter().filter(|host| !wide || everywhere(host) || host.contains(':')) {
        let host = match host {
            "*" if !wide => "0.0.0.0",
            "*" => {
                let note = "0.0.0.0 is written, IPv4 alone; `[::]` listens for both where there is IPv6";
                notes.look_at(source, "listen_addr", note);
                "0.0.0.0"
            }
            host => host,
        };
        let address = Address::tcp(host, port);
        let local = address.is_local();
        if let Err(error) = address.to_string().parse::<Address>() {
            problems.setting(source, "listen_addr", error);
        } else if !local && auth.is_for_this_machine(tls.is_on()) {
            let note =
                "127.0.0.1 is written: with this `auth_type` groove-postgres listens to this machine only";
            notes.look_at(source, "listen_addr", note);
            let here = Address::tcp("127.0.0.1", port);
            if !addresses.contains(&here) {
                addresses.push(here);
            }
        } else if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match socket_folder(source) {
        Some(folder) if folder.starts_with('@') => {
            notes.look_at(source, "unix_socket_dir", "there are no abstract sockets here: it is left out");
        }
        Some(folder) => addresses.push(Address::Unix(absolute(&folder).join(format!(".s.PGSQL.{port}")))),
        None => {}
    }
    if addresses.is_empty() && problems.is_empty() {
        notes.look("nothing was listened at but what is left out above: 127.0.0.1 is written".to_owned());
        addresses.push(Address::tcp("127.0.0.1", port));
    }
    addresses
}

/// Where unix sockets are, of clients and of servers; none if they are turned off.
pub(super) fn socket_folder(source: &Source) -> Option<String> {
    match source.settings.get("unix_socket_dir") {
        None => Some("/tmp".to_owned()),
        Some(value) if value.text.is_empty() => None,
        Some(value) => Some(value.text.clone()),
    }
}

/// What stands between commas.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// TLS towards clients.
struct Tls {
    files: Option<(String, String)>,
    authorities: Option<String>,
}

impl Tls {
    fn of(source: &Source, auth: AuthType, notes: &mut Notes, problems: &mut Problems) -> Tls {
        let mode = source.word("client_tls_sslmode").unwrap_or_default();
        let verifies = mode.starts_with("verify");
        if auth == AuthType::Cert && !verifies {
            problems.setting(source, "auth_type", "`cert` needs `client_tls_sslmode = verify-full`");
        }
        if mode.is_empty() || mode == "disable" {
            return Tls { files: None, authorities: None };
        }
        // Who needs a certificate needs TLS.
        if (verifies || mode == "require") && auth != AuthType::Cert {
            let note =
                "a client that asks for no TLS is not turned away: let `sslmode` of the clients see to it";
            notes.look_at(source, "client_tls_sslmode", note);
        }
        let mut file = |name| file(source, name, "client_tls_sslmode", problems);
        let files = file("client_tls_cert_file").zip(file("client_tls_key_file"));
        let authorities = if verifies { file("client_tls_ca_file") } else { None };
        Tls { files, authorities }
    }

    fn is_on(&self) -> bool {
        self.files.is_some()
    }

    fn write(&self, page: &mut Page) {
        let Some((certificate, key)) = &self.files else { return };
        page.line(2, "tls:");
        page.pair(3, "certificate", scalar(certificate));
        page.pair(3, "key", scalar(key));
        if let Some(authorities) = &self.authorities {
            page.pair(3, "client_ca", scalar(authorities));
        }
    }
}

/// A file that has to be there, by its full path: ours are taken from the folder of the YAML.
pub(super) fn file(source: &Source, name: &str, needed_by: &str, problems: &mut Problems) -> Option<String> {
    let Some(path) = source.text(name) else {
        problems.setting(source, needed_by, format!("expected {name} beside it"));
        return None;
    };
    let full = absolute(path);
    if let Err(error) = std::fs::File::open(&full) {
        problems.setting(source, name, format!("cannot be read: {error}"));
    }
    Some(full.display().to_string())
}

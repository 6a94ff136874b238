//! The databases, their servers and their pools.

use groove_common::config::Duration;
use groove_common::ids::Address;

use super::convert::Notes;
use super::ini::absolute;
use super::listeners::{file, list, socket_folder};
use super::problems::Problems;
use super::source::{Line, Source};
use super::yaml::{Page, scalar};

/// PgBouncer's `0`, where it means that there is no bound: a year, longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(31_557_600);

/// A database that each PostgreSQL has: what is written where only `*` was.
pub(super) const EVERY_SERVER_HAS: &str = "postgres";

pub(super) fn write(source: &Source, page: &mut Page, notes: &mut Notes, problems: &mut Problems) {
    let tls = Tls::of(source, notes, problems);
    page.line(0, "databases:");
    if let Some(fallback) = &source.fallback {
        notes.look(format!(
            "{} `*`: each database has to be named here; copy an entry for each that clients use",
            fallback.place
        ));
        let like = if source.databases.is_empty() { "this one" } else { "the others" };
        page.comment(
            1,
            format_args!(
                "PgBouncer's `*` took any name. Name each database here, with an entry like {like}:"
            ),
        );
        if source.databases.is_empty() {
            database(EVERY_SERVER_HAS, fallback, source, &tls, page, notes, problems);
        } else {
            let endpoints: Vec<String> = hosts(fallback, source, problems).iter().map(endpoint).collect();
            page.comment(1, format_args!("  endpoints: [{}]", endpoints.join(", ")));
        }
    } else if source.databases.is_empty() && problems.is_empty() {
        problems.whole("expected a database in [databases]");
    }
    for line in &source.databases {
        database(&line.name, line, source, &tls, page, notes, problems);
    }
}

fn database(
    name: &str,
    line: &Line,
    source: &Source,
    tls: &Tls,
    page: &mut Page,
    notes: &mut Notes,
    problems: &mut Problems,
) {
    let hosts = hosts(line, source, problems);
    page.line(1, format_args!("{}:", scalar(name)));
    let endpoints: Vec<String> = hosts.iter().map(endpoint).collect();
    page.pair(2, "endpoints", format_args!("[{}]", endpoints.join(", ")));
    if let Some(dbname) = line.text("dbname").filter(|dbname| *dbname != name) {
        page.pair(2, "dbname", scalar(dbname));
    }
    page.pair(2, "connect", unless_zero(source.seconds("server_connect_timeout"), 15));
    if hosts.iter().any(|(address, _)| matches!(address, Address::Tcp { .. })) {
        tls.write(page);
    }
    pool(name, line, source, page, problems);
    unsupported(name, line, notes);
}

/// The servers, and how often each is named: as often it takes its turn.
fn hosts(line: &Line, source: &Source, problems: &mut Problems) -> Vec<(Address, u32)> {
    let port: u16 = line.text("port").and_then(|port| port.parse().ok()).unwrap_or(5432);
    let folder = socket_folder(source);
    let named: Vec<&str> = match (line.text("host"), &folder) {
        (Some(hosts), _) => list(hosts).collect(),
        (None, Some(folder)) => vec![folder.as_str()],
        (None, None) => {
            problems.at(&line.place, format!("{}: expected host=, for unix_socket_dir is empty", line.name));
            Vec::new()
        }
    };
    let mut hosts: Vec<(Address, u32)> = Vec::new();
    for host in named {
        let address = match host.chars().next() {
            Some('/') => Address::Unix(absolute(host).join(format!(".s.PGSQL.{port}"))),
            _ if host.starts_with('@') => {
                problems.at(
                    &line.place,
                    format!("{}: host={host}: there are no abstract sockets here", line.name),
                );
                continue;
            }
            _ => Address::tcp(host, port),
        };
        if let Err(error) = address.to_string().parse::<Address>() {
            problems.at(&line.place, format!("{}: host={host}: {error}", line.name));
            continue;
        }
        match hosts.iter_mut().find(|(known, _)| *known == address) {
            Some((_, weight)) => *weight += 1,
            None => hosts.push((address, 1)),
        }
    }
    hosts
}

fn endpoint((address, weight): &(Address, u32)) -> String {
    let address = scalar(&address.to_string());
    if *weight == 1 { address } else { format!("{{address: {address}, weight: {weight}}}") }
}

/// Each is written where PgBouncer's default is not ours.
fn pool(name: &str, line: &Line, source: &Source, page: &mut Page, problems: &mut Problems) {
    let mode = mode(line, source);
    let own = line.number("pool_size").or_else(|| source.number("default_pool_size")).unwrap_or(20);
    let reserve = line.number("reserve_pool").or_else(|| line.number("reserve_pool_size"));
    let reserve = reserve.or_else(|| source.number("reserve_pool_size")).unwrap_or(0);
    if !(1..=100_000).contains(&own) || reserve > 100_000 {
        let message =
            format!("{name}: {own} connections in a pool, and {reserve} of a reserve: expected 1 to 100000");
        problems.at(&line.place, message);
    }
    page.line(2, "pool:");
    page.pair(3, "mode", &mode);
    page.pair(3, "size", own);
    let min = line.number("min_pool_size").or_else(|| source.number("min_pool_size")).unwrap_or(0);
    if min > 0 {
        page.pair(3, "min", min.min(own));
    }
    if reserve > 0 {
        page.pair(3, "reserve", reserve);
        if let Some(after) = source.seconds("reserve_pool_timeout") {
            page.pair(3, "reserve_after", after);
        }
    }
    page.pair(3, "max_wait", unless_zero(source.seconds("query_wait_timeout"), 120));
    if let Some(clients) = source.number("max_client_conn").filter(|clients| *clients > 10_000) {
        page.pair(3, "max_waiters", clients);
    }
    if let Some(idle) = source.seconds("server_idle_timeout") {
        page.pair(3, "idle", unless_zero(Some(idle), 600));
    }
    match line.seconds("server_lifetime").or_else(|| source.seconds("server_lifetime")) {
        Some(lifetime) if lifetime.is_zero() => {
            page.comment(3, "0, which is: used once");
            page.pair(3, "lifetime", "1ms");
        }
        Some(lifetime) => page.pair(3, "lifetime", lifetime),
        None => {}
    }
    if let Some(statements) = source.number("max_prepared_statements").filter(|count| *count > 0) {
        page.pair(3, "statements", statements.min(100_000));
    }
    if mode == "session"
        && let Some(query) = source.text("server_reset_query")
    {
        page.pair(3, "reset_query", scalar(query));
    }
}

/// PgBouncer's default is not ours.
pub(super) fn mode(line: &Line, source: &Source) -> String {
    let own = line.text("pool_mode").map(str::to_ascii_lowercase);
    own.or_else(|| source.word("pool_mode")).unwrap_or_else(|| "session".to_owned())
}

fn unless_zero(value: Option<Duration>, default_secs: u64) -> Duration {
    match value.unwrap_or(Duration::from_secs(default_secs)) {
        zero if zero.is_zero() => FOR_EVER,
        some => some,
    }
}

/// What a database of PgBouncer may have, and ours has not.
fn unsupported(name: &str, line: &Line, notes: &mut Notes) {
    for (key, instead) in [
        (
            "connect_query",
            "nothing is run on a new connection: let `ALTER ROLE … SET` or `ALTER DATABASE … SET` do it",
        ),
        ("client_encoding", "it is the client's; a default is set by `ALTER DATABASE … SET`"),
        ("datestyle", "it is the client's; a default is set by `ALTER DATABASE … SET`"),
        ("timezone", "it is the client's; a default is set by `ALTER DATABASE … SET`"),
        ("application_name", "it is the client's"),
        (
            "max_db_connections",
            "connections are bounded by `pool.size` for each user, and by `limits.server_connections` in all",
        ),
        ("max_db_client_connections", "clients are bounded by `max_connections` of a listener"),
        ("auth_query", "there is one `auth_query` for all databases"),
    ] {
        if let Some(value) = line.text(key).filter(|value| *value != "0") {
            notes.look(format!("{} {name}: {key} = {value}: {instead}", line.place));
        }
    }
}

/// TLS towards servers; lines of the mapping.
struct Tls {
    lines: Vec<String>,
}

impl Tls {
    fn of(source: &Source, notes: &mut Notes, problems: &mut Problems) -> Tls {
        let mode = source.word("server_tls_sslmode").unwrap_or_default();
        let verify = match mode.as_str() {
            "verify-full" => "full",
            "verify-ca" => "ca",
            "require" => "none",
            "prefer" => {
                let note = "a server without TLS is an error here: take `tls` away from its databases";
                notes.look_at(source, "server_tls_sslmode", note);
                "none"
            }
            "allow" => {
                let note = "no TLS is written; add `tls: {verify: full}` where the servers have it";
                notes.look_at(source, "server_tls_sslmode", note);
                return Tls { lines: Vec::new() };
            }
            _ => return Tls { lines: Vec::new() },
        };
        let mut lines = vec![format!("verify: {verify}")];
        for (key, name) in [
            ("ca", "server_tls_ca_file"),
            ("certificate", "server_tls_cert_file"),
            ("key", "server_tls_key_file"),
        ] {
            // Authorities are of no use where nothing is verified.
            if source.text(name).is_some()
                && !(key == "ca" && verify == "none")
                && let Some(path) = file(source, name, name, problems)
            {
                lines.push(format!("{key}: {}", scalar(&path)));
            }
        }
        Tls { lines }
    }

    fn write(&self, page: &mut Page) {
        if !self.lines.is_empty() {
            page.pair(2, "tls", format_args!("{{{}}}", self.lines.join(", ")));
        }
    }
}

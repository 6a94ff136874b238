//! Every setting that some PgBouncer (1.18 to 1.25) knows: what its value must be, and what becomes of it here.

/// What a value must be for PgBouncer to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A whole number; 0 and 1 are also off and on.
    Number,
    /// Seconds, with a fraction if one likes.
    Seconds,
    /// One of these, in letters of either case.
    OneOf(&'static [&'static str]),
}

/// What becomes of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is written; `convert.rs` says how.
    Converted,
    /// Nothing is lost without it: why.
    Needless(&'static str),
    /// Whoever relies on it has to do something: what. Off (`0` or nothing), it is not missed.
    Missing(&'static str),
}

/// A setting of `[pgbouncer]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) fate: Fate,
}

/// The setting of that name.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// What `[databases]` may say of a database.
pub(super) const DATABASE_KEYS: [&str; 21] = [
    "application_name",
    "auth_dbname",
    "auth_query",
    "auth_user",
    "client_encoding",
    "connect_query",
    "datestyle",
    "dbname",
    "host",
    "load_balance_hosts",
    "max_db_client_connections",
    "max_db_connections",
    "min_pool_size",
    "password",
    "pool_mode",
    "pool_size",
    "port",
    "reserve_pool",
    "reserve_pool_size",
    "server_lifetime",
    "timezone",
];

/// What `[users]` may say of a user.
pub(super) const USER_KEYS: [&str; 10] = [
    "client_idle_timeout",
    "idle_transaction_timeout",
    "max_user_client_connections",
    "max_user_connections",
    "pool_mode",
    "pool_size",
    "query_timeout",
    "reserve_pool_size",
    "search_path",
    "transaction_timeout",
];

pub(super) const POOL_MODES: &[&str] = &["session", "transaction", "statement"];
const AUTH_TYPES: &[&str] = &["any", "trust", "plain", "md5", "cert", "hba", "pam", "ldap", "scram-sha-256"];
const SSL_MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

const LOG: Fate = Fate::Needless("logs go to standard error (`log`); `pgbadger` has PgBouncer's beside it");
const STATS: Fate =
    Fate::Needless("metrics are on the admin server, and `groove-postgres status` shows the pools");
const TCP: Fate = Fate::Needless("connections keep themselves alive; the rest is the system's");
const CIPHERS: Fate = Fate::Needless("TLS is 1.2 or 1.3, with the ciphers and curves that are safe today");
const RUNS: Fate = Fate::Needless("it stays in the foreground, as the user that starts it");
const DNS: Fate =
    Fate::Needless("names are looked up for each connection; `endpoints: {dns: …}` follows them");
const WIRE: Fate = Fate::Needless("buffers grow and shrink with what goes through");
const CHECKS: Fate =
    Fate::Needless("a server connection that died is noticed before it is given to a client");
const STARTUP: Fate = Fate::Needless("whatever a client sets at startup or later goes with its session");
const BOUND: Fate = Fate::Missing(
    "connections are bounded by `pool.size` for each pair of database and user, and by `limits.server_connections` in all",
);
const CLIENTS: Fate = Fate::Missing("clients are bounded by `max_connections` of a listener");
const TIMEOUT: Fate = Fate::Missing(
    "set `statement_timeout`, `idle_in_transaction_session_timeout` or `idle_session_timeout` on the server",
);

const fn converted(name: &'static str, kind: Kind) -> Setting {
    Setting { name, kind, fate: Fate::Converted }
}

const fn text(name: &'static str, fate: Fate) -> Setting {
    Setting { name, kind: Kind::Text, fate }
}

const fn number(name: &'static str, fate: Fate) -> Setting {
    Setting { name, kind: Kind::Number, fate }
}

const fn seconds(name: &'static str, fate: Fate) -> Setting {
    Setting { name, kind: Kind::Seconds, fate }
}

/// In the order of their names.
pub(super) const SETTINGS: &[Setting] = &[
    converted("admin_users", Kind::Text),
    number(
        "application_name_add_host",
        Fate::Missing("the log of groove-postgres names the client of each session"),
    ),
    converted("auth_dbname", Kind::Text),
    converted("auth_file", Kind::Text),
    text(
        "auth_hba_file",
        Fate::Missing("its rules are not read: `listeners`, `users` and `auth` say who gets in"),
    ),
    text("auth_ident_file", Fate::Missing("its maps are not read: `users.NAME.server_user` names the role")),
    text(
        "auth_ldap_options",
        Fate::Missing("passwords are asked of the PostgreSQL servers (`auth: passthrough`)"),
    ),
    converted("auth_query", Kind::Text),
    converted("auth_type", Kind::OneOf(AUTH_TYPES)),
    converted("auth_user", Kind::Text),
    seconds(
        "autodb_idle_timeout",
        Fate::Needless("databases are named, and cost nothing while nobody uses them"),
    ),
    seconds("cancel_wait_timeout", Fate::Needless("a cancel request waits for nothing")),
    seconds("client_idle_timeout", TIMEOUT),
    converted("client_login_timeout", Kind::Seconds),
    text("client_tls13_ciphers", CIPHERS),
    converted("client_tls_ca_file", Kind::Text),
    converted("client_tls_cert_file", Kind::Text),
    text("client_tls_ciphers", CIPHERS),
    text("client_tls_dheparams", CIPHERS),
    text("client_tls_ecdhcurve", CIPHERS),
    converted("client_tls_key_file", Kind::Text),
    text("client_tls_protocols", CIPHERS),
    converted("client_tls_sslmode", Kind::OneOf(SSL_MODES)),
    text("conffile", Fate::Needless("the file is given to `run --config`, and read again when it changes")),
    converted("default_pool_size", Kind::Number),
    number("disable_pqexec", Fate::Missing("the simple protocol cannot be turned off")),
    seconds("dns_max_ttl", DNS),
    seconds("dns_nxdomain_ttl", DNS),
    seconds("dns_zone_check_period", DNS),
    seconds("idle_transaction_timeout", TIMEOUT),
    text("ignore_startup_parameters", STARTUP),
    text("job_name", RUNS),
    converted("listen_addr", Kind::Text),
    converted("listen_backlog", Kind::Number),
    converted("listen_port", Kind::Number),
    number("log_connections", LOG),
    number("log_disconnections", LOG),
    number("log_pooler_errors", LOG),
    number("log_stats", STATS),
    text("logfile", LOG),
    converted("max_client_conn", Kind::Number),
    number("max_db_client_connections", CLIENTS),
    number("max_db_connections", BOUND),
    number(
        "max_packet_size",
        Fate::Needless("messages are streamed, whatever their size; see `limits.message`"),
    ),
    converted("max_prepared_statements", Kind::Number),
    number("max_user_client_connections", CLIENTS),
    number("max_user_connections", BOUND),
    converted("min_pool_size", Kind::Number),
    number(
        "peer_id",
        Fate::Missing("one process serves with all cores, and hands no cancel requests to others"),
    ),
    text("pidfile", RUNS),
    number("pkt_buf", WIRE),
    converted("pool_mode", Kind::OneOf(POOL_MODES)),
    seconds("query_timeout", TIMEOUT),
    seconds("query_wait_notify", Fate::Needless("who waits is told nothing before `pool.max_wait`")),
    converted("query_wait_timeout", Kind::Seconds),
    converted("reserve_pool_size", Kind::Number),
    seconds("reserve_pool_timeout", Fate::Converted),
    text("resolv_conf", Fate::Missing("names are looked up as the system is set up to do")),
    number("sbuf_loopcnt", WIRE),
    number(
        "scram_iterations",
        Fate::Needless("4096 iterations, as PostgreSQL, where the password is stored as it is"),
    ),
    seconds("server_check_delay", CHECKS),
    text("server_check_query", CHECKS),
    converted("server_connect_timeout", Kind::Seconds),
    number("server_fast_close", Fate::Needless("a session keeps its connection to its end")),
    converted("server_idle_timeout", Kind::Seconds),
    converted("server_lifetime", Kind::Seconds),
    seconds(
        "server_login_retry",
        Fate::Needless("`health.breaker` says when a server that failed is tried again"),
    ),
    converted("server_reset_query", Kind::Text),
    number(
        "server_reset_query_always",
        Fate::Needless("in transaction mode nothing of a session stays behind"),
    ),
    number("server_round_robin", Fate::Needless("a new connection goes to the server that has the fewest")),
    text("server_tls13_ciphers", CIPHERS),
    converted("server_tls_ca_file", Kind::Text),
    converted("server_tls_cert_file", Kind::Text),
    text("server_tls_ciphers", CIPHERS),
    converted("server_tls_key_file", Kind::Text),
    text("server_tls_protocols", CIPHERS),
    converted("server_tls_sslmode", Kind::OneOf(SSL_MODES)),
    text("service_name", RUNS),
    number("so_reuseport", Fate::Needless("one process serves with all cores")),
    seconds("stats_period", STATS),
    converted("stats_users", Kind::Text),
    seconds("suspend_timeout", Fate::Needless("a drain (`drain`) takes its place")),
    number("syslog", LOG),
    text("syslog_facility", LOG),
    text("syslog_ident", LOG),
    number("tcp_defer_accept", TCP),
    number("tcp_keepalive", TCP),
    number("tcp_keepcnt", TCP),
    number("tcp_keepidle", TCP),
    number("tcp_keepintvl", TCP),
    number("tcp_socket_buffer", TCP),
    number("tcp_user_timeout", TCP),
    text("track_extra_parameters", STARTUP),
    seconds("transaction_timeout", TIMEOUT),
    converted("unix_socket_dir", Kind::Text),
    text(
        "unix_socket_group",
        Fate::Missing("a socket is of the group that starts the program; `mode` says who may use it"),
    ),
    converted("unix_socket_mode", Kind::Number),
    text("user", RUNS),
    converted("verbose", Kind::Number),
];

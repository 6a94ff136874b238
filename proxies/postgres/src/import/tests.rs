use std::path::Path;
use std::rc::Rc;

use super::problems::Problems;
use super::table::Fate;
use super::{ini, pairs, userlist};

/// A folder with files, and the import of the first.
fn imported(files: &[(&str, &str)]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    // What the files say of each other has to be said in full: they are not where the tests run.
    let full = |text: &str| text.replace("$DIR", &folder.path().display().to_string());
    for (name, text) in files {
        std::fs::write(folder.path().join(name), full(text)).unwrap();
    }
    let short = |text: String| text.replace(&folder.path().display().to_string(), "$DIR");
    super::import(&folder.path().join(files[0].0)).map(|imported| short(imported.text)).map_err(short)
}

/// A small configuration with lines of its own in `[databases]` and `[pgbouncer]`.
fn small(databases: &str, settings: &str) -> Result<String, String> {
    let text = format!("[databases]\n{databases}\n[pgbouncer]\nauth_file = $DIR/users\n{settings}\n");
    imported(&[("pgbouncer.ini", &text), ("users", "\"app\" \"secret\"\n")])
}

fn configured(databases: &str, settings: &str) -> crate::config::Config {
    let text = small(databases, settings).unwrap_or_else(|problems| panic!("{problems}"));
    groove_common::config::check_text("imported", &text).unwrap()
}

#[test]
fn connection_strings() {
    let read =
        |text| pairs::read(text).map(|pairs| pairs.into_iter().map(|(k, v)| format!("{k}:{v}")).collect());
    let good = |text| -> Vec<String> { read(text).unwrap() };
    assert_eq!(good("host=a port=1"), ["host:a", "port:1"]);
    assert_eq!(good(" host = a  user='it''s' "), ["host:a", "user:it's"]);
    assert_eq!(good("password='' dbname='a b'"), ["password:", "dbname:a b"]);
    assert!(good("").is_empty());
    for bad in ["host", "host='a", "=a", "host=a port", "a b=c", "host=", "user='a'host=b"] {
        assert!(pairs::read(bad).is_err(), "{bad}");
    }
}

#[test]
fn userlists() {
    let mut problems = Problems::default();
    let text = "; comment\n\"a\" \"b\"\n  \"q\"\"q\"\t\"x \"\"y\"\"\" more\n\"a\" \"c\"\n\nbare word\n\"half\n\"s\" \"SCRAM-SHA-256$x\"\n";
    let known = userlist::read(Path::new("users"), text, &mut problems);
    let seen: Vec<_> = known.iter().map(|user| (user.name.as_str(), user.secret.as_str())).collect();
    assert_eq!(seen, [("a", "c"), ("q\"q", "x \"y\""), ("s", "SCRAM-SHA-256$x")]);
    let told = problems.to_string();
    let lines: Vec<_> = told.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(lines, ["users:6:", "users:7:", "users:8:"], "{told}");
    assert!(!told.contains("SCRAM-SHA-256$x"), "a secret is not told: {told}");
}

#[test]
fn includes_go_on_where_the_included_file_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    std::fs::write(&first, format!("# c\n[databases]\na=\n%include {}\nlisten_port = 1\n", second.display()))
        .unwrap();
    std::fs::write(&second, "b = host=x\n[pgbouncer] pool_mode=session\n").unwrap();
    let mut problems = Problems::default();
    let entries = ini::read(&first, &mut problems);
    assert!(problems.is_empty(), "{problems}");
    let seen: Vec<_> = entries.iter().map(|e| (e.section, e.key.as_str(), e.value.as_str())).collect();
    use ini::Section::{Databases, Pgbouncer};
    assert_eq!(
        seen,
        [
            (Databases, "a", ""),
            (Databases, "b", "host=x"),
            (Pgbouncer, "pool_mode", "session"),
            (Pgbouncer, "listen_port", "1"),
        ]
    );
    let second: Rc<str> = second.display().to_string().into();
    assert_eq!(entries[2].place, ini::Place::new(&second, 2));
}

#[test]
fn a_file_that_includes_itself_ends() {
    let told = imported(&[("a", "%include $DIR/a\n")]).unwrap_err();
    assert_eq!(told, "$DIR/a:1: more than 10 files include each other");
}

#[test]
fn every_error_at_once_with_its_line() {
    let text = "x = 1\n[databases]\na = hots=x\nb = host='x\npgbouncer = host=a\nc = port=0\nd = pool_mode=x\n[what]\ny = 2\n\
                [pgbouncer]\nnonsense = 1\nmax_client_conn = many\nlog_stats = yes\nauth_type = any thing\njust words\n\
                server_lifetime = 3h\n%include $DIR/nothing\n[users]\nu = color=red\n";
    let told = imported(&[("p", text)]).unwrap_err();
    let mut lines: Vec<u32> = told
        .lines()
        .map(|line| line.strip_prefix("$DIR/p:").unwrap().split(':').next().unwrap().parse().unwrap())
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, [1, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 19], "{told}");
    assert_eq!(super::import(Path::new("/nowhere/p")).unwrap_err(), "/nowhere/p: there is no such file");
}

#[test]
fn hosts_become_endpoints() {
    use groove_common::config::Endpoints;
    let config = configured(
        "a = host=10.0.0.1,10.0.0.2,10.0.0.1 port=5433\nb =\nc = host=/run/pg port=6\nd = host=::1\ne = host=db.internal",
        "unix_socket_dir = /run/own",
    );
    let shown = |name: &str| {
        let Endpoints::Static(list) = &config.databases[name].endpoints else { panic!("not a list") };
        list.iter().map(|e| format!("{} {}", e.address, e.weight)).collect::<Vec<_>>()
    };
    assert_eq!(shown("a"), ["10.0.0.1:5433 2", "10.0.0.2:5433 1"]);
    assert_eq!(shown("b"), ["unix:/run/own/.s.PGSQL.5432 1"]);
    assert_eq!(shown("c"), ["unix:/run/pg/.s.PGSQL.6 1"]);
    assert_eq!(shown("d"), ["[::1]:5432 1"]);
    assert_eq!(shown("e"), ["db.internal:5432 1"]);
    assert!(
        small("a =", "unix_socket_dir =\nlisten_addr = 127.0.0.1")
            .unwrap_err()
            .contains(":2: a: expected host=")
    );
    assert!(small("a = host=@abstract", "").unwrap_err().contains("abstract"));
}

#[test]
fn pgbouncers_defaults_and_zeros_are_kept() {
    use crate::config::PoolMode;
    use groove_common::config::Duration;
    let config = configured("a = host=x", "");
    let database = &config.databases["a"];
    assert_eq!((database.pool.mode, database.pool.size), (PoolMode::Session, 20));
    assert_eq!(
        (database.pool.max_wait, database.connect),
        (Duration::from_secs(120), Duration::from_secs(15))
    );
    assert_eq!(config.limits.login, Duration::from_secs(60));
    assert_eq!(config.listeners[0].max_connections, Some(100));
    let zeros = "query_wait_timeout = 0\nserver_idle_timeout = 0\nserver_lifetime = 0\nserver_connect_timeout = 0\n\
                 client_login_timeout = 0\nmax_client_conn = 0\nlisten_backlog = 0\nmax_prepared_statements = 0";
    let pool = configured("a = host=x", zeros).databases["a"].pool.clone();
    assert!(pool.max_wait.get().as_secs() > 86_400 && pool.idle.get().as_secs() > 86_400);
    assert_eq!(pool.lifetime, Duration::from_millis(1));
}

#[test]
fn a_pool_is_the_databases_own_where_it_says_so() {
    use crate::config::PoolMode;
    let config = configured(
        "a = host=x pool_mode=Transaction pool_size=3 reserve_pool=2 min_pool_size=9\nb = host=x",
        "default_pool_size = 7\nmin_pool_size = 1\npool_mode = statement\nreserve_pool_size = 1",
    );
    let pool = |name: &str| {
        let pool = &config.databases[name].pool;
        (pool.mode, pool.size, pool.min, pool.reserve)
    };
    assert_eq!(pool("a"), (PoolMode::Transaction, 3, 3, 2));
    assert_eq!(pool("b"), (PoolMode::Statement, 7, 1, 1));
    assert!(small("a = host=x pool_size=0", "").unwrap_err().contains(":2: a: 0 connections in a pool"));
}

#[test]
fn numbers_are_cs() {
    // As pgbouncer 1.18 does: 511 is 0777, and -1 is the default.
    for (text, mode) in [("0770", 0o770), ("511", 0o777), ("0x1ff", 0o777), ("777", 0o411)] {
        let config = configured("a = host=x pool_size=-1", &format!("unix_socket_mode = {text}"));
        assert_eq!(config.listeners[0].mode.map(|mode| mode.0), Some(mode), "{text}");
        assert_eq!(config.databases["a"].pool.size, 20);
    }
    for bad in ["0o770", "08", "--1", "1x", "0x", "99999999999"] {
        let told = small("a = host=x", &format!("max_client_conn = {bad}")).unwrap_err();
        assert!(told.ends_with("expected a whole number"), "{told}");
    }
}

#[test]
fn the_fallback_has_to_be_named() {
    let text = small("* = host=x\nshop = host=y", "").unwrap();
    assert!(
        text.contains("each database has to be named here") && text.contains("#   endpoints: [\"x:5432\"]"),
        "{text}"
    );
    let alone = configured("* = host=x", "");
    assert_eq!(alone.databases.keys().collect::<Vec<_>>(), ["postgres"]);
}

#[test]
fn a_role_of_all_databases_is_a_role_of_all_users() {
    let config =
        configured("a = host=x user=role password='it''s'\nb = host=y user=role password='it''s'", "");
    let app = &config.users["app"];
    assert_eq!(app.server_user.as_deref(), Some("role"));
    assert_eq!(app.server_password.as_ref().map(|secret| secret.expose()), Some("it's"));
    let text = small("a = host=x user=role password=hidden\nb = host=y", "").unwrap();
    assert!(text.contains(":2 a: user=role: a role belongs to a user here"), "{text}");
    assert!(!text.contains("hidden") && !text.contains("server_user:"), "{text}");
}

#[test]
fn who_is_let_in_without_proof_is_on_this_machine() {
    use crate::config::Auth;
    for (kind, auth) in [("trust", Auth::Trust), ("any", Auth::Trust), ("pam", Auth::Passthrough)] {
        let config = configured("a = host=x", &format!("auth_type = {kind}\nlisten_addr = *, 127.0.0.1"));
        assert_eq!(config.auth, auth, "{kind}");
        assert!(config.listeners.iter().all(|listener| listener.address.is_local()), "{kind}");
    }
    let trusted = configured("a = host=x", "auth_type = trust\nlisten_addr = *\nauth_hba_file = /x");
    let shown: Vec<_> = trusted.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(shown, ["127.0.0.1:6432", "unix:/tmp/.s.PGSQL.6432"]);
    // Where everybody may come, one socket listens for all.
    let config = configured("a = host=x", "listen_addr = 127.0.0.1, *\nunix_socket_dir =");
    let shown: Vec<_> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(shown, ["0.0.0.0:6432"]);
}

/// A certificate and its key, good for nothing but to be there.
fn tls_files(settings: &str) -> Result<String, String> {
    let text = format!(
        "[databases]\na = host=x\n[pgbouncer]\nauth_file = $DIR/users\nclient_tls_cert_file = $DIR/c\n\
         client_tls_key_file = $DIR/k\nclient_tls_ca_file = $DIR/c\nserver_tls_ca_file = $DIR/c\n{settings}\n"
    );
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    imported(&[("p", &text), ("users", "\"app\" \"secret\"\n"), ("c", &certificate), ("k", &key)])
}

#[test]
fn tls_on_both_sides() {
    let full = "client_tls_sslmode = verify-full\nserver_tls_sslmode = verify-full\nlisten_addr = *";
    let text = tls_files(&format!("{full}\nauth_type = cert")).unwrap();
    for line in [
        "      certificate: \"$DIR/c\"\n      key: \"$DIR/k\"\n      client_ca: \"$DIR/c\"\n",
        "    tls: {verify: full, ca: \"$DIR/c\"}\n",
        "  app:\n    certificates: [\"CN=app\"]\n    server_password: secret\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let text =
        tls_files("client_tls_sslmode = allow\nserver_tls_sslmode = require\nlisten_addr = *").unwrap();
    assert!(text.contains("certificate:") && !text.contains("client_ca:"), "{text}");
    // An authority where nothing is verified would be refused by `check`.
    assert!(
        text.contains("    tls: {verify: none}\n") && text.contains("server_tls_ca_file = $DIR/c: of no use"),
        "{text}"
    );
    let told = tls_files("auth_type = cert\nclient_tls_sslmode = require").unwrap_err();
    assert!(told.contains("`cert` needs"), "{told}");
    let told =
        small("a = host=x", "server_tls_sslmode = verify-ca\nserver_tls_ca_file = $DIR/gone").unwrap_err();
    assert!(told.contains(":6: server_tls_ca_file = $DIR/gone: cannot be read"), "{told}");
}

#[test]
fn servers_are_asked_where_pgbouncer_asks() {
    let config =
        configured("a = host=x\nb = host=y", "auth_user = app\nauth_dbname = b\nauth_query = SELECT f($1)");
    let query = config.auth_query.unwrap();
    assert_eq!(
        (query.database.as_str(), query.user.as_str(), query.query.as_str()),
        ("b", "app", "SELECT f($1)")
    );
    assert_eq!(query.password.map(|secret| secret.expose().to_owned()).as_deref(), Some("secret"));
    let told = small("a = host=x", "auth_user = app\nauth_query = SELECT 1").unwrap_err();
    assert!(told.contains("auth_query = SELECT 1: expected `$1`"), "{told}");
    let nobody =
        imported(&[("p", "[databases]\na = host=x\n[pgbouncer]\nauth_file = $DIR/gone\n")]).unwrap_err();
    assert!(nobody.starts_with("$DIR/p:4: auth_file") && nobody.contains("nobody could log in"), "{nobody}");
}

#[test]
fn what_is_off_is_not_missed_and_what_is_on_is() {
    let text = small("a = host=x", "query_timeout = 0\nclient_idle_timeout = 3\ntcp_keepalive = 1").unwrap();
    let (look, rest) = text.split_once("listeners:").unwrap();
    assert!(look.contains("client_idle_timeout = 3") && !look.contains("query_timeout = 0"), "{text}");
    assert!(rest.contains("query_timeout = 0: it is off") && rest.contains("tcp_keepalive = 1"), "{text}");
}

#[test]
fn a_rich_file_is_converted_as_it_was() {
    let ini = include_str!("testdata/pgbouncer.ini");
    let users = include_str!("testdata/userlist.txt");
    let more = include_str!("testdata/more.ini");
    let text = imported(&[("pgbouncer.ini", ini), ("userlist.txt", users), ("more.ini", more)]).unwrap();
    let expected = include_str!("testdata/postgres.yaml");
    assert!(text == expected, "it is now:\n{text}");
    // No setting is passed over: each is a key of ours, or a comment names it.
    let (_, settings) = ini.split_once("[pgbouncer]").unwrap();
    let settings =
        settings.split("[peers]").next().unwrap().lines().filter_map(|line| line.split_once(" = "));
    for (name, value) in settings {
        match super::table::setting(name).unwrap().fate {
            Fate::Converted => {}
            Fate::Needless(_) | Fate::Missing(_) => {
                assert!(text.contains(&format!(" {name} = {value}: ")), "{name}");
            }
        }
    }
}

#[test]
fn no_setting_stands_in_the_table_twice() {
    let names: Vec<&str> = super::table::SETTINGS.iter().map(|setting| setting.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

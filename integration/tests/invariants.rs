//! Invariants 1 to 4 of ARCHITECTURE.md hold, and each check sees a breach when there is one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in helpers of tests too, a panic is the report"
)]

use std::path::Path;

use harness::invariants::{Violation, check, sources};
use harness::paths::repository;
use tempfile::TempDir;

fn listed(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("{violation}\n")).collect()
}

#[test]
fn the_tree_keeps_them() {
    let violations = check(&repository()).unwrap();
    assert!(violations.is_empty(), "\n{}", listed(&violations));
}

/// A copy of the tree with `planted` at the end of `file`, which may be new.
fn copy_with(file: &str, planted: &str) -> anyhow::Result<TempDir> {
    let (root, copy) = (repository(), tempfile::tempdir()?);
    let manifests = ["common", "integration", "proxies/memcached", "proxies/postgres", "proxies/http"]
        .map(|folder| Path::new(folder).join("Cargo.toml"));
    for path in sources(&root)?.into_iter().chain(manifests) {
        let to = copy.path().join(&path);
        std::fs::create_dir_all(to.parent().unwrap_or(copy.path()))?;
        std::fs::copy(root.join(&path), to)?;
    }
    let file = copy.path().join(file);
    std::fs::create_dir_all(file.parent().unwrap_or(copy.path()))?;
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(file, format!("{text}{planted}\n"))?;
    Ok(copy)
}

/// Plants a breach and sees it, and nothing else, reported with its number, file and reason.
fn caught(invariant: u8, file: &str, planted: &str, reason: &str) {
    let copy = copy_with(file, planted).unwrap();
    let before = check(&repository()).unwrap();
    let mut violations = check(copy.path()).unwrap();
    violations.retain(|violation| !before.contains(violation));
    assert_eq!(violations.len(), 1, "{file}: {planted}\n{}", listed(&violations));
    let seen = &violations[0];
    assert_eq!((seen.invariant, seen.file.as_path()), (invariant, Path::new(file)), "{seen}");
    assert!(seen.what.contains(reason), "{seen}");
    let text = std::fs::read_to_string(copy.path().join(file)).unwrap();
    let line = text.lines().nth(seen.line - 1).unwrap();
    assert!(planted.contains(line) && !line.is_empty(), "line {} is {line:?}", seen.line);
}

fn passes(file: &str, planted: &str) {
    let copy = copy_with(file, planted).unwrap();
    assert_eq!(
        listed(&check(copy.path()).unwrap()),
        listed(&check(&repository()).unwrap()),
        "{file}: {planted}"
    );
}

#[test]
fn a_proxy_that_imports_another_is_caught() {
    caught(1, "proxies/http/src/lib.rs", "use groove_memcached::wire;", "http imports `groove_memcached`");
    caught(1, "proxies/memcached/src/planted.rs", "fn f() { groove_postgres::f() }", "`groove_postgres`");
    caught(1, "proxies/postgres/Cargo.toml", "groove-http.workspace = true", "depends on `groove-http`");
    caught(1, "common/src/ids.rs", "use groove_http as up;", "common imports");
    passes("proxies/http/src/lib.rs", "// groove_memcached\nconst A: &str = \"groove_memcached\";");
}

#[test]
fn integration_that_imports_what_it_tests_is_caught() {
    caught(1, "integration/src/lib.rs", "use groove_common::ids;", "integration imports `groove_common`");
    caught(1, "integration/tests/planted.rs", "use groove_http::wire;", "integration imports `groove_http`");
    caught(
        1,
        "integration/Cargo.toml",
        "groove-memcached = { path = \"x\" }",
        "depends on `groove-memcached`",
    );
}

#[test]
fn a_room_that_looks_up_is_caught() {
    caught(2, "common/src/ids.rs", "use crate::config::Size;", "`ids` uses `config`");
    caught(
        2,
        "common/src/health/planted.rs",
        "use crate::{error::Side, net::{Stream}};",
        "`health` uses `net`",
    );
    caught(2, "common/src/net/planted.rs", "use super::super::admin;", "`net` uses `admin`");
    caught(2, "common/src/pool/planted.rs", "fn f() { crate::app::main() }", "`pool` uses `app`");
    caught(2, "common/src/config/planted.rs", "use crate::testing::Clock;", "`config` uses `testing`");
    caught(2, "common/src/attic/planted.rs", "use crate::ids;", "stands in no layer");
    passes(
        "common/src/net/planted.rs",
        "use crate::{config, ids, discovery};\n#[cfg(test)]\nuse crate::testing;",
    );
}

#[test]
fn a_pure_room_that_is_not_is_caught() {
    caught(3, "common/src/balance/planted.rs", "fn f() { std::time::Instant::now(); }", "`Instant::now`");
    caught(3, "common/src/health/planted.rs", "use tokio::{sync, time};", "`tokio::time`");
    caught(3, "common/src/admission/planted.rs", "fn f(x: T) { x.elapsed() }", "`elapsed`");
    caught(3, "proxies/http/src/wire/planted.rs", "use std::net::{IpAddr, TcpStream};", "`TcpStream`");
    caught(3, "proxies/postgres/src/session/state/planted.rs", "use rand::Rng;", "`rand`");
    caught(3, "proxies/memcached/src/route/planted.rs", "fn f() { getrandom::fill(x) }", "`getrandom`");
    passes("proxies/http/src/wire/planted.rs", "use std::net::IpAddr; use std::time::{Duration, Instant};");
    passes("common/src/net/planted.rs", "fn f() { std::time::Instant::now(); }");
}

#[test]
fn a_global_is_caught() {
    caught(
        4,
        "common/src/config/planted.rs",
        "static A: OnceLock<Config> = OnceLock::new();",
        "`A` is a global",
    );
    caught(4, "proxies/http/src/planted.rs", "static HITS: AtomicU64 = AtomicU64::new(0);", "`HITS`");
    caught(4, "proxies/postgres/src/planted.rs", "thread_local! { static B: RefCell<u8> = x; }", "`B`");
    caught(4, "proxies/memcached/src/planted.rs", "static mut C: u8 = 0;", "`C`");
    passes(
        "common/src/config/planted.rs",
        "static TABLE: [u8; 3] = [1, 2, 3];\n#[cfg(test)]\nstatic D: Mutex<()> = x;",
    );
}

#[test]
fn an_allowance_for_nothing_is_caught() {
    let copy = copy_with("common/src/planted.txt", "").unwrap();
    let file = copy.path().join("common/src/ids.rs");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("AtomicU64", "u64")).unwrap();
    let violations = check(copy.path()).unwrap();
    assert!(listed(&violations).contains("the allowance for `LAST` is stale"), "{}", listed(&violations));
}

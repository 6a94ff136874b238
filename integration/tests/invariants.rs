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

/// A file, what is added to its end (it may be new), and the reason it is reported for; none when it is innocent.
type Plant = (&'static str, &'static str, Option<&'static str>);

const fn guilty(file: &'static str, planted: &'static str, reason: &'static str) -> Plant {
    (file, planted, Some(reason))
}

const fn innocent(file: &'static str, planted: &'static str) -> Plant {
    (file, planted, None)
}

/// A copy of what the invariants are read off.
fn copy_of_the_tree() -> TempDir {
    let (root, copy) = (repository(), tempfile::tempdir().unwrap());
    let manifests = ["common", "integration", "proxies/memcached", "proxies/postgres", "proxies/http"]
        .map(|folder| Path::new(folder).join("Cargo.toml"));
    for path in sources(&root).unwrap().into_iter().chain(manifests) {
        let to = copy.path().join(&path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(root.join(&path), to).unwrap();
    }
    copy
}

/// Plants everything in a copy and sees each breach, and nothing else, reported with its number, place and reason.
fn caught(invariant: u8, plants: &[Plant]) {
    let copy = copy_of_the_tree();
    let before = listed(&check(copy.path()).unwrap());
    for (file, planted, _) in plants {
        let file = copy.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(file, format!("{text}{planted}\n")).unwrap();
    }
    let mut violations = check(copy.path()).unwrap();
    violations.retain(|violation| !before.contains(&violation.to_string()));

    for (file, planted, reason) in
        plants.iter().filter_map(|(file, planted, reason)| Some((file, planted, (*reason)?)))
    {
        let at = violations.iter().position(|seen| {
            let text = std::fs::read_to_string(copy.path().join(file)).unwrap();
            let line = text.lines().nth(seen.line - 1).unwrap_or_default();
            seen.invariant == invariant
                && seen.file == Path::new(file)
                && seen.what.contains(reason)
                && !line.is_empty()
                && planted.contains(line)
        });
        assert!(at.is_some(), "{file}: {planted} is not reported in\n{}", listed(&violations));
        violations.remove(at.unwrap());
    }
    assert!(violations.is_empty(), "reported without reason:\n{}", listed(&violations));
}

#[test]
fn a_proxy_that_imports_another_is_caught() {
    caught(
        1,
        &[
            guilty(
                "proxies/http/src/lib.rs",
                "use groove_memcached::wire;",
                "http imports `groove_memcached`",
            ),
            guilty(
                "proxies/memcached/src/planted.rs",
                "fn f() { groove_postgres::f() }",
                "`groove_postgres`",
            ),
            guilty("proxies/postgres/Cargo.toml", "groove-http.workspace = true", "depends on `groove-http`"),
            guilty("common/src/ids.rs", "use groove_http as up;", "common imports"),
            innocent(
                "proxies/http/src/planted.rs",
                "// groove_memcached\nconst A: &str = \"groove_memcached\";",
            ),
        ],
    );
}

#[test]
fn integration_that_imports_what_it_tests_is_caught() {
    caught(
        1,
        &[
            guilty(
                "integration/src/lib.rs",
                "use groove_common::ids;",
                "integration imports `groove_common`",
            ),
            guilty(
                "integration/tests/planted.rs",
                "use groove_http::wire;",
                "integration imports `groove_http`",
            ),
            guilty(
                "integration/Cargo.toml",
                "groove-memcached = { path = \"x\" }",
                "depends on `groove-memcached`",
            ),
        ],
    );
}

#[test]
fn a_room_that_looks_up_is_caught() {
    caught(
        2,
        &[
            guilty("common/src/ids.rs", "use crate::config::Size;", "`ids` uses `config`"),
            guilty(
                "common/src/health/planted.rs",
                "use crate::{error::Side, net::{Stream}};",
                "`health` uses `net`",
            ),
            guilty("common/src/net/planted.rs", "use super::super::admin;", "`net` uses `admin`"),
            guilty("common/src/pool/planted.rs", "fn f() { crate::app::main() }", "`pool` uses `app`"),
            guilty("common/src/config/planted.rs", "use crate::testing::Clock;", "`config` uses `testing`"),
            guilty("common/src/attic/planted.rs", "use crate::ids;", "stands in no layer"),
            innocent(
                "common/src/net/innocent.rs",
                "use crate::{config, ids, discovery};\n#[cfg(test)]\nuse crate::testing;",
            ),
        ],
    );
}

#[test]
fn a_pure_room_that_is_not_is_caught() {
    caught(
        3,
        &[
            guilty(
                "common/src/balance/planted.rs",
                "fn f() { std::time::Instant::now(); }",
                "`Instant::now`",
            ),
            guilty("common/src/health/planted.rs", "use tokio::{sync, time};", "`tokio::time`"),
            guilty("common/src/admission/planted.rs", "fn f(x: T) { x.elapsed() }", "`elapsed`"),
            guilty("proxies/http/src/wire/planted.rs", "use std::net::{IpAddr, TcpStream};", "`TcpStream`"),
            guilty("proxies/postgres/src/session/state/planted.rs", "use rand::Rng;", "`rand`"),
            guilty("proxies/memcached/src/route/planted.rs", "fn f() { getrandom::fill(x) }", "`getrandom`"),
            innocent(
                "proxies/http/src/wire/innocent.rs",
                "use std::net::IpAddr; use std::time::{Duration, Instant};",
            ),
            innocent("common/src/net/innocent.rs", "fn f() { std::time::Instant::now(); }"),
        ],
    );
}

#[test]
fn a_global_is_caught() {
    caught(
        4,
        &[
            guilty(
                "common/src/config/planted.rs",
                "static A: OnceLock<Config> = OnceLock::new();",
                "`A` is a global",
            ),
            guilty("proxies/http/src/planted.rs", "static HITS: AtomicU64 = AtomicU64::new(0);", "`HITS`"),
            guilty("proxies/postgres/src/planted.rs", "thread_local! { static B: RefCell<u8> = x; }", "`B`"),
            guilty("proxies/memcached/src/planted.rs", "static mut C: u8 = 0;", "`C`"),
            innocent(
                "common/src/ids.rs",
                "static TABLE: [u8; 3] = [1, 2, 3];\n#[cfg(test)]\nstatic D: Mutex<()> = x;",
            ),
        ],
    );
}

#[test]
fn an_allowance_for_nothing_is_caught() {
    let copy = copy_of_the_tree();
    let file = copy.path().join("common/src/ids.rs");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("AtomicU64", "u64")).unwrap();
    let violations = listed(&check(copy.path()).unwrap());
    assert!(violations.contains("the allowance for `LAST` is stale"), "{violations}");
}

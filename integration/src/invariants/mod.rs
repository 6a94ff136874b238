//! The invariants of ARCHITECTURE.md that can be read off the source, checked by reading it.
//!
//! Only what is said in code counts: comments, strings and tests may name what they like. A rule knows
//! names, not types, so it can be fooled by one who wants to; it is there for the one who did not notice.

mod source;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use source::{Source, Static, UsedPath};

/// One broken rule, at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's number in ARCHITECTURE.md.
    pub invariant: u8,
    /// The file, from the repository's root.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What stands there and why it may not.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: invariant {}: {}", self.file.display(), self.line, self.invariant, self.what)
    }
}

const PROXIES: [&str; 3] = ["memcached", "postgres", "http"];

/// The rooms of `common` by layer, lowest first. A room uses its own layer and those below it.
const LAYERS: [&[&str]; 5] = [
    &["error", "ids"],
    &["balance", "admission", "health", "config", "telemetry"],
    &["pool", "net", "discovery", "store"],
    &["tap", "app", "admin", "lifecycle"],
    &["testing"],
];

/// Rooms that are pure, as the beginning of their path under `common/src` or a proxy's `src`.
const PURE_IN_COMMON: [&str; 3] = ["balance", "admission", "health"];
const PURE_IN_PROXIES: [&str; 8] =
    ["wire", "session/state", "route", "balance", "queue/line", "fair/line", "retry", "migrate/policy"];

/// What a pure room may not name: a socket, a clock, dice, the machine. Each is a run of path segments.
const IMPURE: [&[&str]; 24] = [
    &["TcpStream"],
    &["TcpListener"],
    &["TcpSocket"],
    &["UdpSocket"],
    &["UnixStream"],
    &["UnixListener"],
    &["tokio", "net"],
    &["socket2"],
    &["Instant", "now"],
    &["SystemTime"],
    &["tokio", "time"],
    &["time", "sleep"],
    &["time", "timeout"],
    &["time", "interval"],
    &["rand"],
    &["fastrand"],
    &["getrandom"],
    &["thread_rng"],
    &["SystemRandom"],
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["tokio", "spawn"],
];

/// Types that make a static more than a constant.
const INTERIOR_MUTABILITY: [&str; 14] = [
    "ArcSwap",
    "ArcSwapOption",
    "Cell",
    "LazyCell",
    "LazyLock",
    "Mutex",
    "Notify",
    "OnceCell",
    "OnceLock",
    "RefCell",
    "RwLock",
    "Semaphore",
    "SyncUnsafeCell",
    "UnsafeCell",
];

/// The globals there are, and why each cannot be part of a snapshot. Whoever adds one argues here.
const ALLOWED_GLOBALS: [Allowance; 6] = [
    Allowance {
        file: "common/src/ids.rs",
        name: "LAST",
        _reason: "identifiers that are never reused are by definition the process's",
    },
    Allowance {
        file: "common/src/config/secret.rs",
        name: "MARKS",
        _reason: "serde gives Serialize no context; set on one thread while two configurations are compared",
    },
    Allowance {
        file: "common/src/net/gather/mod.rs",
        name: "HERE",
        _reason: "a session asks on whichever thread it is whether it is to go on elsewhere",
    },
    Allowance {
        file: "common/src/net/stream.rs",
        name: "SCRATCH",
        _reason: "one read buffer a thread is what lets an idle connection hold none",
    },
    Allowance {
        file: "common/src/telemetry/metric.rs",
        name: "SHARD",
        _reason: "which shard of every counter is this thread's",
    },
    Allowance {
        file: "common/src/telemetry/access.rs",
        name: "STATE",
        _reason: "a thread's dice for sampling and the buffer of its latest line; a lock would cost more than either",
    },
];

struct Allowance {
    file: &'static str,
    name: &'static str,
    _reason: &'static str,
}

/// Reads the tree under `root` and tells every breach of invariants 1 to 4.
///
/// # Errors
/// When the tree cannot be read.
pub fn check(root: &Path) -> Result<Vec<Violation>> {
    let mut found = Vec::new();
    check_manifests(root, &mut found)?;
    for file in sources(root)? {
        let text = std::fs::read_to_string(root.join(&file))?;
        let source = Source::read(&text);
        let mut report = |invariant, line, what: String| {
            found.push(Violation { invariant, file: file.clone(), line, what });
        };
        imports(&file, &source, &mut report);
        layers(&file, &source, &mut report);
        purity(&file, &source, &mut report);
        globals(&file, &source, &mut report);
    }
    stale_allowances(root, &mut found)?;
    found.sort_by(|a, b| (a.invariant, &a.file, a.line).cmp(&(b.invariant, &b.file, b.line)));
    Ok(found)
}

/// Every Rust file of the workspace's own crates that is not a test, from `root`.
///
/// # Errors
/// When a folder cannot be read.
pub fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending: Vec<PathBuf> = ["common", "proxies", "integration", "fuzz"].map(PathBuf::from).to_vec();
    while let Some(folder) = pending.pop() {
        let full = root.join(&folder);
        for entry in std::fs::read_dir(&full).with_context(|| format!("reading {}", full.display()))? {
            let entry = entry?;
            let (path, name) = (folder.join(entry.file_name()), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if name != "target" {
                    pending.push(path);
                }
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

type Report<'a> = &'a mut dyn FnMut(u8, usize, String);

/// The crate a file belongs to: `common`, `integration`, `fuzz`, or a proxy's name.
fn owner(file: &Path) -> Option<&str> {
    let mut parts = file.iter().filter_map(|part| part.to_str());
    match parts.next()? {
        "proxies" => parts.next(),
        other => Some(other),
    }
}

/// The path inside `src` without `.rs` and `mod`, split into modules; `None` for tests and other files.
fn modules(file: &Path) -> Option<Vec<&str>> {
    let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().position(|part| *part == "src")?;
    let mut modules = parts.get(at + 1..)?.to_vec();
    let last = modules.pop()?.strip_suffix(".rs")?;
    if last == "tests" || last.ends_with("_tests") || modules.contains(&"tests") {
        return None;
    }
    if !matches!(last, "mod" | "lib" | "main") {
        modules.push(last);
    }
    Some(modules)
}

/// Whether `owner` may know the crate that is called `name` (with underscores or hyphens).
fn may_import(owner: &str, name: &str) -> bool {
    let Some(other) = name.strip_prefix("groove_").or_else(|| name.strip_prefix("groove-")) else {
        return true;
    };
    let known = other == "common" || PROXIES.contains(&other);
    match owner {
        "fuzz" => true,
        "integration" => !known,
        "common" => !PROXIES.contains(&other),
        proxy => !known || other == "common" || other == proxy,
    }
}

fn imports(file: &Path, source: &Source, report: Report<'_>) {
    let Some(owner) = owner(file) else { return };
    for UsedPath { line, segments, .. } in &source.paths {
        if let Some(name) = segments.iter().find(|name| !may_import(owner, name)) {
            report(1, *line, format!("{owner} imports `{name}`"));
        }
    }
}

fn check_manifests(root: &Path, found: &mut Vec<Violation>) -> Result<()> {
    let proxies = PROXIES.map(|name| Path::new("proxies").join(name));
    for folder in proxies.into_iter().chain(["common".into(), "integration".into()]) {
        let file = folder.join("Cargo.toml");
        let text = std::fs::read_to_string(root.join(&file))
            .with_context(|| format!("reading {}", file.display()))?;
        let owner = owner(&file).unwrap_or_default().to_owned();
        for (index, line) in text.lines().enumerate() {
            let key = line.split(['.', '=', ' ']).next().unwrap_or_default().trim_matches('"');
            if !may_import(&owner, key) {
                let what = format!("{owner} depends on `{key}`");
                found.push(Violation { invariant: 1, file: file.clone(), line: index + 1, what });
            }
        }
    }
    Ok(())
}

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn layers(file: &Path, source: &Source, report: Report<'_>) {
    if owner(file) != Some("common") {
        return;
    }
    let Some(modules) = modules(file) else { return };
    // lib.rs only lists the rooms.
    let Some(room) = modules.first() else { return };
    let Some(own) = layer_of(room) else {
        report(2, 1, format!("the room `{room}` stands in no layer"));
        return;
    };
    for UsedPath { line, segments, .. } in &source.paths {
        let ups = segments.iter().take_while(|segment| *segment == "super").count();
        let from_root = match segments.first().map(String::as_str) {
            Some("crate") => segments.get(1),
            Some("super") if ups == modules.len() => segments.get(ups),
            _ => None,
        };
        if let Some(used) = from_root.filter(|used| layer_of(used).is_some_and(|layer| layer > own)) {
            report(2, *line, format!("`{room}` uses `{used}`, which stands above it"));
        }
    }
}

fn purity(file: &Path, source: &Source, report: Report<'_>) {
    let Some(modules) = modules(file) else { return };
    let rooms: &[&str] = match owner(file) {
        Some("common") => &PURE_IN_COMMON,
        Some(name) if PROXIES.contains(&name) => &PURE_IN_PROXIES,
        _ => return,
    };
    let path = modules.join("/");
    let Some(room) = rooms.iter().find(|room| path == **room || path.starts_with(&format!("{room}/"))) else {
        return;
    };
    for UsedPath { line, segments, after_dot } in &source.paths {
        let named = IMPURE.iter().find(|run| {
            segments.windows(run.len()).any(|window| window.iter().zip(run.iter()).all(|(a, b)| a == b))
        });
        if let Some(named) = named.filter(|_| !after_dot) {
            report(3, *line, format!("the pure room `{room}` names `{}`", named.join("::")));
        }
        if *after_dot && segments.len() == 1 && segments.first().is_some_and(|name| name == "elapsed") {
            report(3, *line, format!("the pure room `{room}` reads the clock by `elapsed`"));
        }
    }
}

fn is_global(declared: &Static) -> bool {
    declared.mutable
        || declared.types.iter().any(|name| {
            INTERIOR_MUTABILITY.contains(&name.as_str()) || (name.starts_with("Atomic") && name != "Atomic")
        })
}

fn is_allowed(file: &Path, declared: &Static) -> bool {
    ALLOWED_GLOBALS.iter().any(|allowed| file == Path::new(allowed.file) && allowed.name == declared.name)
}

fn globals(file: &Path, source: &Source, report: Report<'_>) {
    let checked = owner(file).is_some_and(|owner| owner == "common" || PROXIES.contains(&owner));
    if !checked || modules(file).is_none() {
        return;
    }
    for declared in
        source.statics.iter().filter(|declared| is_global(declared) && !is_allowed(file, declared))
    {
        report(4, declared.line, format!("`{}` is a global that changes", declared.name));
    }
}

/// An allowance for what is no longer there would let it come back unseen.
fn stale_allowances(root: &Path, found: &mut Vec<Violation>) -> Result<()> {
    for Allowance { file, name, .. } in ALLOWED_GLOBALS {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        if !Source::read(&text).statics.iter().any(|declared| declared.name == name && is_global(declared)) {
            let what = format!("the allowance for `{name}` is stale: strike it from the list");
            found.push(Violation { invariant: 4, file: file.into(), line: 1, what });
        }
    }
    Ok(())
}

//! docs/ says what is: every option has its word there, and every example is one.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Kind, paths};
use serde_json::{Map, Value};

/// The words of code on a page, by section: what stands between backticks or in a fence.
fn sections(page: &str) -> Vec<BTreeSet<String>> {
    let (mut sections, mut is_fenced) = (vec![BTreeSet::new()], false);
    for line in page.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if line.starts_with('#') && !is_fenced {
            sections.push(BTreeSet::new());
        }
        let section = sections.last_mut().unwrap();
        let code: Vec<&str> = if is_fenced || line.starts_with('#') {
            vec![line]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        let words =
            code.iter().flat_map(|it| it.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')));
        section.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    sections
}

/// Every key and word of a schema, with the key that it stands under.
struct Walk<'a> {
    definitions: &'a Map<String, Value>,
    seen: BTreeSet<(String, String)>,
    found: BTreeSet<(String, String)>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Value, parent: &str) {
        let Value::Object(node) = node else { return };
        if let Some(Value::String(name)) = node.get("$ref") {
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            if self.seen.insert((parent.to_owned(), name.clone()))
                && let Some(definition) = self.definitions.get(&name)
            {
                self.node(definition, parent);
            }
        }
        if let Some(Value::Object(properties)) = node.get("properties") {
            for (name, property) in properties {
                self.found.insert((parent.to_owned(), name.clone()));
                self.node(property, name);
            }
        }
        let words = node.get("enum").and_then(Value::as_array).into_iter().flatten().chain(node.get("const"));
        self.found.extend(words.filter_map(Value::as_str).map(|word| (parent.to_owned(), word.to_owned())));
        for key in ["anyOf", "oneOf", "allOf", "prefixItems"] {
            for branch in node.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.node(branch, parent);
            }
        }
        for key in ["items", "additionalProperties"] {
            if let Some(below) = node.get(key) {
                self.node(below, parent);
            }
        }
    }
}

/// What the schema has and the page does not name together with the key that it stands under, in any section.
fn unnamed(kind: Kind, page: &str) -> Result<Vec<String>> {
    let output = kind.run(&["schema"])?;
    let schema: Value = serde_json::from_slice(&output.stdout).context("the schema")?;
    let none = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    let mut walk = Walk { definitions, seen: BTreeSet::new(), found: BTreeSet::new() };
    walk.node(&schema, "");
    ensure!(walk.found.len() > 50, "the schema has {} keys", walk.found.len());
    let sections = sections(page);
    let is_named = |parent: &str, name: &str| {
        sections.iter().any(|words| words.contains(name) && (parent.is_empty() || words.contains(parent)))
    };
    let missing = walk
        .found
        .iter()
        .filter(|(parent, name)| !is_named(parent, name) && !is_anothers(kind, parent, name));
    Ok(missing.map(|(parent, name)| format!("{parent}.{name}")).collect())
}

/// What the three share a schema with, and only some of them take: servers of memcached's, roles of PostgreSQL's.
fn is_anothers(kind: Kind, parent: &str, name: &str) -> bool {
    let theirs: &[&str] = match kind {
        Kind::Http => &["elasticache", "embedded", "disk", "role"],
        Kind::Memcached => &["role"],
        Kind::Postgres => &["elasticache", "embedded", "disk"],
    };
    theirs.contains(&parent) || (parent == "endpoints" && theirs.contains(&name))
}

fn page(name: &str) -> Result<String> {
    Ok(std::fs::read_to_string(paths::repository().join("docs").join(name))?)
}

#[test]
fn every_option_is_named() {
    // The page of groove-http has all of its own; for the others what is the same for all three is on that page.
    for (kind, names) in [
        (Kind::Http, &["http.md"][..]),
        (Kind::Memcached, &["memcached.md", "operating.md"]),
        (Kind::Postgres, &["postgres.md", "migration.md", "replication.md", "operating.md"]),
    ] {
        let pages: String = names.iter().map(|name| page(name).unwrap()).collect();
        let missing = unnamed(kind, &pages).unwrap().join("\n");
        assert!(missing.is_empty(), "{names:?} have no section with these and their parents:\n{missing}");
    }
    // One that is not would be seen.
    let page = page("http.md").unwrap();
    let without = page.replace("`tunnel_idle`", "`tunnel`").replace("`idle_per_endpoint`", "`idle`");
    let missing = unnamed(Kind::Http, &without).unwrap();
    assert_eq!(missing, ["limits.idle_per_endpoint", "timeouts.tunnel_idle"]);
}

/// The fences of a page in this language, each with its line.
fn examples<'a>(page: &'a str, language: &str) -> Vec<(usize, &'a str)> {
    let (mut found, mut at) = (Vec::new(), 0);
    let open = format!("\n```{language}\n");
    while let Some(begin) = page[at..].find(&open).map(|it| at + it + open.len()) {
        let end = page[begin..].find("\n```").map_or(page.len(), |it| begin + it);
        found.push((page[..begin].matches('\n').count() + 1, &page[begin..end]));
        at = end;
    }
    found
}

/// The example as a whole configuration: what it leaves out is put around it.
fn whole(kind: Kind, example: &str) -> String {
    let has = |keys: &[&str]| example.lines().any(|line| keys.iter().any(|key| line.starts_with(key)));
    if kind == Kind::Http {
        // Those without listeners are of an app.
        let head = "listeners: [{address: 127.0.0.1:8080}]\napps:\n  shop:\n    hosts: [shop.test]\n    endpoints: [127.0.0.1:9001]\n";
        let app: String = example.lines().map(|line| format!("    {line}\n")).collect();
        return if has(&["listeners:"]) { example.to_owned() } else { format!("{head}{app}") };
    }
    let (around, servers) = match kind {
        Kind::Postgres => {
            ("users: {app: {password: secret}}\n", "databases: {shop: {endpoints: [10.0.0.1:5432]}}\n")
        }
        Kind::Memcached | Kind::Http => ("", "clusters: {main: {endpoints: [10.0.0.1:11211]}}\n"),
    };
    let listeners = "listeners: [{address: 127.0.0.1:7000}, {address: 127.0.0.1:7001, name: batch}]\n";
    let servers = if has(&["clusters:", "databases:"]) { "" } else { servers };
    let listeners = if has(&["listeners:"]) { "" } else { listeners };
    format!("{listeners}{example}\n{servers}{around}")
}

#[test]
fn examples_pass_check() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    // The files that they name.
    write("htpasswd", "ann:$2y$05$F8TQDMcF4RK3YZf.z64FuuLS8rA7bKi1ePU4peZywovqQrzzcHMPO\n");
    write("closed.html", "closed");
    let authority = harness::Authority::new(folder.path()).unwrap();
    authority.issue("shop", &["shop.example.test"]).unwrap();
    let file = folder.path().join("example.yaml");
    for (kind, name, least) in [
        (Kind::Http, "http.md", 4),
        (Kind::Http, "http-moving.md", 11),
        (Kind::Memcached, "memcached.md", 6),
        (Kind::Postgres, "postgres.md", 4),
    ] {
        let page = page(name).unwrap();
        let examples = examples(&page, "yaml");
        for (line, example) in &examples {
            write("example.yaml", &whole(kind, example));
            let mut command = Command::new(kind.binary().unwrap());
            command.args(["check", "--config"]).arg(&file);
            command.env("SHOP_PASSWORD", "a secret of the test").env("ASKER_PASSWORD", "another");
            let output = harness::run(&mut command).unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(output.status.code(), Some(0), "docs/{name}:{line}:\n{said}");
        }
        assert!(examples.len() >= least, "docs/{name} has {} examples", examples.len());
    }
}

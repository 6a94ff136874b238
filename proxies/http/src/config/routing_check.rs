//! What the types cannot say of a route: expressions that are none, actions that exclude each other, weights of nothing.

use super::check::host_problem;
use super::edits::header_problem;
use super::{App, Cors, Redirect, Respond, Rewrite, Route, ValueMatch};
use crate::rules::{Below, pattern};
use crate::wire::scan::is_token;
use groove_common::config::Issues;
use std::collections::BTreeMap;

/// The longest body of a static answer.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Checks what of a route has to do with its conditions and its actions.
pub(super) fn route(path: &[&str], app: &App, route: &Route, issues: &mut Issues) {
    let at = |below: &[&'static str]| [path, below].concat();
    let matches = &route.matches;
    if let Some(Err(problem)) = matches.path_regex.as_deref().map(pattern) {
        issues.at(&at(&["match", "path_regex"]), problem, Some("write one like `/v[0-9]+/.*`"));
    }
    if matches.path_regex.is_some() && matches.path != "/*" {
        issues.at_key(
            &at(&["match", "path_regex"]),
            "`path` says already which paths",
            Some("leave one of the two out"),
        );
    }
    for (key, wanted) in
        [("headers", &matches.headers), ("query", &matches.query), ("cookies", &matches.cookies)]
    {
        values(&at(&["match", key]), key == "query", wanted, issues);
    }
    let prefix = matches.path_regex.is_none() && matches.path.ends_with("/*");
    split(path, app, route, issues);
    if let Some(redirect) = &route.redirect {
        redirected(&at(&["redirect"]), redirect, prefix, issues);
    }
    if let Some(rewrite) = &route.rewrite {
        rewritten(&at(&["rewrite"]), rewrite, prefix, issues);
    }
    if let Some(respond) = &route.respond {
        answered(&at(&["respond"]), respond, issues);
    }
    if let Some(cors) = &route.cors {
        shared(&at(&["cors"]), cors, issues);
    }
    if let Some(mirror) = &route.mirror {
        mirror.check(&at(&["mirror"]), app, issues);
    }
    let actions = [
        (
            "redirect",
            route.redirect.as_ref().is_some_and(|it| !it.wants_scheme_alone() || route.respond.is_some()),
        ),
        ("respond", route.respond.is_some()),
        ("rewrite", route.rewrite.is_some()),
        ("split", !route.split.is_empty()),
        ("cluster", route.cluster.is_some()),
        ("mirror", route.mirror.is_some()),
    ];
    let mut present = actions.iter().filter(|(_, is_there)| *is_there);
    if let Some((first, _)) = present.next().filter(|(name, _)| matches!(*name, "redirect" | "respond")) {
        for (other, _) in present {
            let message = format!("`{first}` answers already, so that this does nothing");
            issues.at_key(&at(&[other]), message, Some("leave one of the two out"));
        }
    }
}

fn values(path: &[&str], any_name: bool, wanted: &BTreeMap<String, ValueMatch>, issues: &mut Issues) {
    for (name, value) in wanted {
        let at = [path, &[name.as_str()]].concat();
        if name.is_empty() || !(any_name || name.bytes().all(is_token)) {
            issues.at_key(&at, "this is no name", Some("write letters, digits and `-`"));
        }
        if let ValueMatch::Regex(text) = value
            && let Err(problem) = pattern(text)
        {
            issues.at(&[&at[..], &["regex"]].concat(), problem, Some("write one like `v[0-9]+`"));
        }
    }
}

fn split(path: &[&str], app: &App, route: &Route, issues: &mut Issues) {
    if route.split.is_empty() {
        return;
    }
    let at = [path, &["split"]].concat();
    if route.cluster.is_some() {
        issues.at_key(&at, "`cluster` says already who serves this route", Some("leave one of the two out"));
    }
    for (index, share) in route.split.iter().enumerate() {
        if let Some(cluster) = &share.cluster
            && !app.clusters.contains_key(cluster)
        {
            let index = index.to_string();
            let help = "add it under the app's `clusters`, or leave this out for the app's own endpoints";
            let message = format!("the app has no cluster `{cluster}`");
            issues.at(&[&at[..], &[&index, "cluster"]].concat(), message, Some(help));
        }
    }
    let sum: u64 = route.split.iter().map(|share| u64::from(share.weight)).sum();
    if sum == 0 || sum > u64::from(u32::MAX) {
        issues.at_key(
            &at,
            "the weights have no sum to share by",
            Some("give one of them a weight of 1 or more"),
        );
    }
}

fn redirected(path: &[&str], redirect: &Redirect, prefix: bool, issues: &mut Issues) {
    let at = |key: &'static str| [path, &[key]].concat();
    let Redirect { scheme, host, port, path: full, prefix: replaced, status } = redirect;
    if ![301, 302, 303, 307, 308].contains(status) {
        issues.at(&at("status"), "this status is no redirect", Some("write 301, 302, 303, 307 or 308"));
    }
    if scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        issues.at(&at("scheme"), "this scheme is not HTTP's", Some("write `http` or `https`"));
    }
    placed(path, host.as_deref(), full.as_deref(), replaced.as_deref(), prefix, issues);
    if scheme.is_none() && host.is_none() && port.is_none() && full.is_none() && replaced.is_none() {
        issues.at_key(
            path,
            "this leads to where the client is",
            Some("write another `scheme`, `host`, `port` or `path`"),
        );
    }
}

fn rewritten(path: &[&str], rewrite: &Rewrite, prefix: bool, issues: &mut Issues) {
    let Rewrite { host, path: full, prefix: replaced } = rewrite;
    placed(path, host.as_deref(), full.as_deref(), replaced.as_deref(), prefix, issues);
}

/// Another host and another path, of a redirect or a rewrite.
fn placed(
    path: &[&str],
    host: Option<&str>,
    full: Option<&str>,
    replaced: Option<&str>,
    has_prefix: bool,
    issues: &mut Issues,
) {
    let at = |key: &'static str| [path, &[key]].concat();
    if let Some(host) = host
        && (host.contains('*') || host_problem(host).is_some())
    {
        issues.at(&at("host"), "this is no host name", Some("write one like `shop.example.com`"));
    }
    for (key, text) in [("path", full), ("prefix", replaced)] {
        let valid = |text: &str| {
            text.starts_with('/')
                && text.bytes().all(|it| it.is_ascii_graphic() && !matches!(it, b'?' | b'#'))
        };
        if text.is_some_and(|text| !valid(text)) {
            issues.at(&at(key), "this is no path", Some("write one like `/v2`"));
        }
    }
    if full.is_some() && replaced.is_some() {
        issues.at_key(
            &at("prefix"),
            "`path` replaces the whole path already",
            Some("leave one of the two out"),
        );
    }
    if replaced.is_some() && !has_prefix {
        issues.at_key(
            &at("prefix"),
            "the route has no prefix",
            Some("let `match.path` end in `/*`, or write `path`"),
        );
    }
}

fn answered(path: &[&str], respond: &Respond, issues: &mut Issues) {
    if respond.body.len() > BODY_BYTES_MAX {
        let help = format!("write at most {} KiB, or let a server answer", BODY_BYTES_MAX >> 10);
        issues.at_key(&[path, &["body"]].concat(), "this is too long to be kept in memory", Some(&help));
    }
    if matches!(respond.status, 204 | 304) && !respond.body.is_empty() {
        issues.at_key(&[path, &["body"]].concat(), "this status has no body", Some("leave it out"));
    }
    for (name, value) in &respond.headers {
        let at = [path, &["headers", name]].concat();
        if let Some((message, help)) = header_problem(name, "set") {
            issues.at_key(&at, message, Some(help));
        }
        if value.bytes().any(|byte| byte.is_ascii_control()) {
            issues.at(
                &at,
                "a header value has no line breaks and no control characters",
                Some("write it on one line"),
            );
        }
    }
}

fn shared(path: &[&str], cors: &Cors, issues: &mut Issues) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let index = index.to_string();
        let at = [path, &["allow_origins", &index]].concat();
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let valid = |host: &str| {
            !host.is_empty()
                && host.bytes().all(|it| it.is_ascii_graphic() && !matches!(it, b'/' | b'*' | b'A'..=b'Z'))
        };
        // Of a pattern that is left which stands behind the star.
        let below = host.filter(|_| Below::parse(origin).is_some()).and_then(|host| host.strip_prefix("*."));
        if origin == "*" && cors.allow_credentials {
            issues.at(&at, "browsers take no `*` where credentials are allowed", Some("write each origin"));
        } else if origin != "*" && origin != "null" && !below.or(host).is_some_and(valid) {
            let help =
                "write one as browsers do, like `https://shop.example.com`, `https://*.example.com`, or `*`";
            issues.at(&at, "this is no origin", Some(help));
        }
    }
    let lists = [
        ("allow_methods", &cors.allow_methods),
        ("allow_headers", &cors.allow_headers),
        ("expose_headers", &cors.expose_headers),
    ];
    for (key, list) in lists {
        for (index, name) in list.iter().enumerate() {
            if name.is_empty() || !name.bytes().all(is_token) {
                let index = index.to_string();
                issues.at(&[path, &[key, &index]].concat(), "this is no name", Some("write one word each"));
            }
        }
    }
}

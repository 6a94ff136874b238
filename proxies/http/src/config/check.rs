//! What the types cannot say: names that must exist, patterns that must match something, edits that must not break
//! a message.

use super::auth::Auth;
use super::body::{self, BodyRules};
use super::{
    AffinityMode, App, AppTimeouts, Balance, Cluster, Config, Headers, Limits, Match, Route, Timeouts,
    auth_check, client_tls, compression, edits, peers, routing_check, signify,
};
use crate::edit::template::Side;
use crate::route::{Hosts, PathMatch};
use crate::wire::scan::is_token;
use groove_common::config::{ClientTls, Duration, Endpoints, Health, Issues, Size};

/// Checks the whole document.
pub(super) fn config(config: &Config, issues: &mut Issues) {
    limits(&config.limits, issues);
    timeouts(&config.timeouts, issues);
    config.http2.check(issues);
    if config.via.as_deref().is_some_and(|via| via.is_empty() || !via.bytes().all(is_token)) {
        issues.at(&["via"], "this cannot stand in a Via header", Some("write one word, or `null` for none"));
    }
    signify::pages(&[], &config.pages, issues);
    if config.apps.is_empty() {
        issues.at(&["apps"], "there is no app", Some("write at least one, with `hosts` and `endpoints`"));
    }
    let mut hosts = Hosts::default();
    for (name, entry) in &config.apps {
        app_hosts(name, entry, &mut hosts, issues);
        app(name, entry, issues);
        if entry.client_tls.is_some() {
            client_tls::check(&["apps", name], &config.listeners, issues);
        }
    }
}

/// Checks one app, as if it were the only one.
pub(crate) fn one(name: &str, entry: &App, issues: &mut Issues) {
    app_hosts(name, entry, &mut Hosts::default(), issues);
    app(name, entry, issues);
}

fn limits(limits: &Limits, issues: &mut Issues) {
    if let Some(in_flight) = &limits.in_flight {
        in_flight.check(issues);
    }
    let sizes = [
        ("head", limits.head, Size::kib(1), Size::kib(1024)),
        ("target", limits.target, Size(64), Size::kib(1024)),
        ("trailers", limits.trailers, Size(64), Size::kib(1024)),
        ("buffer", limits.buffer, Size::kib(4), Size::mib(16)),
    ];
    for (key, size, least, most) in sizes {
        if size < least || size > most {
            let help = format!("write an amount from `{least}` to `{most}`");
            issues.at(&["limits", key], format!("{size} is out of range"), Some(&help));
        }
    }
    peers::min_rate(limits.min_rate.as_ref(), issues);
    if limits.target > limits.head {
        let message = format!("a target of {} cannot stand in a head of {}", limits.target, limits.head);
        issues.at(&["limits", "target"], message, Some("write no more than `head`"));
    }
}

fn timeouts(timeouts: &Timeouts, issues: &mut Issues) {
    let all = [
        ("head", timeouts.head),
        ("keep_alive", timeouts.keep_alive),
        ("connect", timeouts.connect),
        ("first_byte", timeouts.first_byte),
        ("body_idle", timeouts.body_idle),
        ("tunnel_idle", timeouts.tunnel_idle),
        ("server_keep_alive", timeouts.server_keep_alive),
    ];
    for (key, value) in all {
        not_zero(&["timeouts", key], value, issues);
    }
}

fn not_zero(path: &[&str], value: Duration, issues: &mut Issues) {
    if value.is_zero() {
        issues.at(
            path,
            "no time at all would let nothing through",
            Some("write a length of time, like `30s`"),
        );
    }
}

fn app_hosts<'a>(name: &'a str, app: &'a App, hosts: &mut Hosts<&'a str>, issues: &mut Issues) {
    for (index, host) in app.hosts.iter().enumerate() {
        let index = index.to_string();
        let path = ["apps", name, "hosts", &index];
        if let Some(problem) = host_problem(host) {
            let help = "write a name like `shop.example.com`, `*.example.com` for all below it, or `*` for all others";
            issues.at(&path, problem, Some(help));
            continue;
        }
        if hosts.insert(host, name).is_err() {
            let owner = hosts.owner(host).copied().unwrap_or(name);
            let help = "a host belongs to one app: leave it out of one of the two";
            issues.at(&path, format!("app `{owner}` has this host already"), Some(help));
        }
    }
}

pub(super) fn host_problem(host: &str) -> Option<&'static str> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host == "*" {
        return None;
    }
    if let Some(address) = host.strip_prefix('[') {
        let valid = address.strip_suffix(']').is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
        return (!valid).then_some("this is no IPv6 address in brackets");
    }
    if name.contains('*') {
        return Some("`*` stands for whole labels at the start only");
    }
    if name.contains("://") || name.contains('/') {
        return Some("a host has no scheme and no path");
    }
    if name.contains(':') {
        return Some("a host has no port: every port of the listeners serves it");
    }
    let valid = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (name.len() > 253 || !name.split('.').all(valid)).then_some("this is no host name")
}

fn app(name: &str, app: &App, issues: &mut Issues) {
    let path = ["apps", name];
    let health = app.health.as_deref().cloned().unwrap_or_default();
    servers(&path, &app.endpoints, &health, app.health_path.as_deref(), app.tls.as_deref(), issues);
    dispatch(&path, &app.servers(), issues);
    if let Some(tenants) = &app.tenants {
        tenants.check(&[&path[..], &["tenants"]].concat(), issues);
    }
    for (cluster, entry) in &app.clusters {
        let path = ["apps", name, "clusters", cluster];
        servers(
            &path,
            &entry.endpoints,
            &entry.health,
            entry.health_path.as_deref(),
            entry.tls.as_deref(),
            issues,
        );
        dispatch(&path, entry, issues);
    }
    if let Some(rules) = &app.compression {
        compression::check(&[&path[..], &["compression"]].concat(), rules, issues);
    }
    let edits = [app.request_headers.as_deref(), app.response_headers.as_deref()];
    demands(&path, edits, app.auth.as_deref(), app.body.as_deref(), issues);
    signify::pages(&path, &app.pages, issues);
    signify::maintenance(&path, app.maintenance.as_deref(), issues);
    app_timeouts(name, &app.timeouts, issues);
    let mut seen: Vec<&Match> = Vec::new();
    for (index, entry) in app.routes.iter().enumerate() {
        let index = index.to_string();
        let path = ["apps", name, "routes", &index];
        route(&path, app, entry, issues);
        if seen.contains(&&entry.matches) {
            let help = "leave one of the two out";
            issues.at(
                &[&path[..], &["match"]].concat(),
                "another route matches the same requests",
                Some(help),
            );
        }
        seen.push(&entry.matches);
    }
}

fn app_timeouts(name: &str, timeouts: &AppTimeouts, issues: &mut Issues) {
    let all = [
        ("connect", timeouts.connect),
        ("first_byte", timeouts.first_byte),
        ("body_idle", timeouts.body_idle),
    ];
    for (key, value) in all {
        if let Some(value) = value {
            not_zero(&["apps", name, "timeouts", key], value, issues);
        }
    }
}

fn servers(
    path: &[&str],
    endpoints: &Endpoints,
    health: &Health,
    health_path: Option<&str>,
    tls: Option<&ClientTls>,
    issues: &mut Issues,
) {
    endpoints.check_servers(&[path, &["endpoints"]].concat(), issues);
    health.check(&[path, &["health"]].concat(), issues);
    if let Some(tls) = tls {
        tls.check(&[path, &["tls"]].concat(), issues);
    }
    let at = [path, &["health_path"]].concat();
    if let Some(probe) = health_path {
        if !probe.starts_with('/') || !probe.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            issues.at(&at, "this is no path that can be asked for", Some("write one like `/healthz`"));
        }
        if health.probe.is_none() {
            issues.at_key(
                &at,
                "there is no probe to ask for it",
                Some("leave it out, or leave `health.probe` at its default"),
            );
        }
    }
}

/// Which endpoint, how many at once, who waits.
fn dispatch(path: &[&str], servers: &Cluster, issues: &mut Issues) {
    servers.balance.check(&[path, &["balance"]].concat(), issues);
    if let Some(affinity) = &servers.affinity {
        affinity.check(&[path, &["affinity"]].concat(), issues);
        if matches!(servers.balance, Balance::Hash(_)) {
            let help = "leave one of the two out";
            issues.at_key(
                &[path, &["balance"]].concat(),
                "`affinity` says already who gets what",
                Some(help),
            );
        }
    }
    if let Some(concurrency) = &servers.concurrency {
        concurrency.check(&[path, &["concurrency"]].concat(), issues);
    }
    if let Some(queue) = &servers.queue {
        queue.check(&[path, &["queue"]].concat(), issues);
        let is_strict = servers.affinity.as_ref().is_some_and(|it| it.mode == AffinityMode::Strict);
        if queue.max_per_endpoint.is_some() && !is_strict {
            issues.at_key(
                &[path, &["queue", "max_per_endpoint"]].concat(),
                "nobody waits for one endpoint here",
                Some("leave it out, or write `affinity` with `mode: strict`"),
            );
        }
    }
    if let Some(retry) = &servers.retry {
        retry.check(&[path, &["retry"]].concat(), issues);
    }
    if let Some(outlier) = &servers.outlier {
        outlier.check(&[path, &["outlier"]].concat(), issues);
    }
}

fn route(path: &[&str], app: &App, route: &Route, issues: &mut Issues) {
    let at = |below: &[&'static str]| -> Vec<String> {
        path.iter().chain(below).map(|part| (*part).to_owned()).collect()
    };
    let report = |below: &[&'static str], message: String, help: &str, issues: &mut Issues| {
        let full = at(below);
        issues.at(&full.iter().map(String::as_str).collect::<Vec<_>>(), message, Some(help));
    };
    if let Err(problem) = PathMatch::parse(&route.matches.path) {
        let help = "write `/login` for one path, `/api/*` for it and all below it";
        report(&["match", "path"], problem.to_owned(), help, issues);
    }
    for (index, method) in route.matches.methods.iter().enumerate() {
        let index = index.to_string();
        let upper = method.to_ascii_uppercase();
        if method.is_empty() || !method.bytes().all(is_token) {
            issues.at(
                &[path, &["match", "methods", &index]].concat(),
                "this is no method",
                Some("write one like `POST`"),
            );
        } else if *method != upper {
            let help = format!("write `{upper}`");
            let message = "methods know case, and none in use is in small letters";
            issues.at(&[path, &["match", "methods", &index]].concat(), message, Some(&help));
        }
    }
    if let Some(cluster) = &route.cluster
        && !app.clusters.contains_key(cluster)
    {
        let known = app.clusters.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let help = if known.is_empty() {
            "add it under the app's `clusters`, or leave this out for the app's own endpoints".to_owned()
        } else {
            format!("write one of {known}, or add it under the app's `clusters`")
        };
        report(&["cluster"], format!("the app has no cluster `{cluster}`"), &help, issues);
    }
    routing_check::route(path, app, route, issues);
    if let Some(rules) = &route.compression {
        compression::check(&[path, &["compression"]].concat(), rules, issues);
    }
    let edits = [route.request_headers.as_deref(), route.response_headers.as_deref()];
    demands(path, edits, route.auth.as_deref(), route.body.as_deref(), issues);
    signify::maintenance(path, route.maintenance.as_deref(), issues);
}

/// What an app and a route may both say.
fn demands(
    path: &[&str],
    [request, reply]: [Option<&Headers>; 2],
    auth: Option<&Auth>,
    body: Option<&BodyRules>,
    issues: &mut Issues,
) {
    if let Some(request) = request {
        edits::check(&[path, &["request_headers"]].concat(), request, Side::Request, issues);
    }
    if let Some(reply) = reply {
        edits::check(&[path, &["response_headers"]].concat(), reply, Side::Reply, issues);
    }
    if let Some(auth) = auth {
        auth_check::check(&[path, &["auth"]].concat(), auth, issues);
    }
    if let Some(body) = body {
        body::check(&[path, &["body"]].concat(), body, issues);
    }
}

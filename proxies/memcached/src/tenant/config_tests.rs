use groove_common::config::check_text;

use crate::config::Config;

const BEGINNING: &str =
    "listeners: [{address: 127.0.0.1:1, name: a}]\nclusters: {main: {endpoints: [a:1]}}\n";

/// What is said of tenants that cannot be.
fn said(text: &str) -> String {
    let text = format!("{BEGINNING}{text}");
    check_text::<Config>("tenants", &text).err().map(|report| report.to_string()).unwrap_or_default()
}

#[test]
fn everything_that_can_be_written() {
    let text = "tenants:
  shop:
    credentials: [{user: shop, password: secret}, {user: shop, password: newer}]
    certificates: [shop.internal]
    prefix: s
    limits: {requests_per_second: 5, bytes_per_second: 1MiB, patience: 1s, connections: 7, item: 1KiB, in_flight: 9}
  news: {listeners: [a]}
  rest: {}
default_tenant: rest
authentication: {timeout: 1s, pending: 5}
fairness: {window: 8}
state: /tmp/somewhere
";
    assert_eq!(said(text), "");
}

#[test]
fn what_cannot_be_says_what_to_write() {
    for (text, parts) in [
        ("tenants: {shop: {}}", ["no client can be this tenant's", "default_tenant"]),
        ("tenants: {shop: {listeners: [b]}}", ["there is no listener `b`", "`name`"]),
        (
            "tenants: {shop: {listeners: [a]}, news: {listeners: [a]}}",
            ["this listener is the tenant `news`'s", "one tenant"],
        ),
        ("tenants: {shop: {listeners: [a], prefix: 'a/b'}}", ["no key can begin like this", "letters"]),
        ("tenants: {'a b': {listeners: [a]}}", ["no key can begin like this", "`prefix`"]),
        (
            "tenants: {shop: {listeners: [a]}, news: {certificates: [n], prefix: shop}}",
            ["the keys of `news` begin like this already", "`prefix` of its own"],
        ),
        (
            "tenants: {shop: {credentials: [{user: u, password: x}]}, news: {credentials: [{user: u, password: y}]}}",
            ["this user is the tenant `news`'s", "one tenant"],
        ),
        (
            "tenants: {shop: {credentials: [{user: 'a b', password: x}]}}",
            ["no client could say this name", "without spaces"],
        ),
        (
            "tenants: {shop: {credentials: [{user: a, password: $argon2id$x}]}}",
            ["begins like an argon2 hash and is none", "argon2 SALT"],
        ),
        (
            "tenants: {shop: {certificates: [n]}}",
            ["no tenant's clients can come in here", "`default_tenant`"],
        ),
        ("default_tenant: shop", ["there is no tenant `shop`", "`tenants`"]),
        ("authentication: {timeout: 0s}", ["nobody logs in in no time", "10s"]),
        (
            "tenants: {shop: {listeners: [a], limits: {item: 0B}}}",
            ["nothing could be stored", "leave it out"],
        ),
    ] {
        let said = said(text);
        for part in parts {
            assert!(said.contains(part), "{text}: {part:?} is not in\n{said}");
        }
    }
}

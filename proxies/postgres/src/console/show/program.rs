//! The program itself: its version, its configuration, what it counts and holds.

use std::collections::BTreeSet;
use std::mem::size_of;

use serde_json::Value;

use crate::Shared;
use crate::console::VERSION;
use crate::console::table::{Column, Kind::*, NULL, Table, int};
use crate::live;
use crate::session::driver::Session;
use crate::upstream::{Server, UserPool};

pub(super) fn version() -> Table {
    let mut table = Table::new(&[("version", Text)]);
    // Exporters look for this name, and for the number after it.
    let ours = concat!("groove-postgres ", env!("CARGO_PKG_VERSION"));
    table.row([format!("PgBouncer {VERSION} (console of {ours})").into()]);
    table
}

const LISTS: &[Column] = &[("list", Text), ("items", Int4)];

pub(super) fn lists(shared: &Shared) -> Table {
    let directory = &shared.directory;
    let config = directory.config();
    let logins_max = config.limits.logins as usize;
    let mut table = Table::new(LISTS);
    for (list, items) in [
        ("databases", config.databases.len()),
        ("users", config.users.len()),
        ("pools", directory.pools().len()),
        ("free_clients", 0),
        ("used_clients", shared.live.clients().len()),
        ("login_clients", logins_max.saturating_sub(shared.logins.available_permits())),
        ("free_servers", 0),
        ("used_servers", shared.live.servers().len()),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ] {
        table.row([list.into(), int(items)]);
    }
    table
}

const CONFIG: &[Column] = &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text)];

/// What a reload does not change.
const FIXED: [&str; 2] = ["limits.logins", "workers"];

pub(super) fn config(shared: &Shared) -> Table {
    let mut table = Table::new(CONFIG);
    // Secrets do not serialize as what they are.
    let Ok(document) = serde_json::to_value(&*shared.directory.config()) else { return table };
    let mut flat = Vec::new();
    flatten(String::new(), &document, &mut flat);
    for (key, value) in flat {
        let changeable = if FIXED.contains(&&*key) { "no" } else { "yes" };
        table.row([key.into(), value.into(), NULL, changeable.into()]);
    }
    table
}

/// One line a value, its key being the way to it.
fn flatten(key: String, value: &Value, flat: &mut Vec<(String, Option<String>)>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| flatten(below(name), value, flat));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(below(&at.to_string()), item, flat));
        }
        Value::Null => flat.push((key, None)),
        Value::String(text) => flat.push((key, Some(text.clone()))),
        Value::Bool(_) | Value::Number(_) => flat.push((key, Some(value.to_string()))),
    }
}

const MEM: &[Column] = &[("name", Text), ("size", Int4), ("used", Int4), ("free", Int4), ("memtotal", Int4)];

/// What each of them takes by itself; buffers, which only those have that are at work, are not counted.
pub(super) fn mem(shared: &Shared) -> Table {
    let directory = &shared.directory;
    let mut table = Table::new(MEM);
    for (name, size, used) in [
        ("pool_cache", size_of::<UserPool>(), directory.pools().len()),
        ("server_cache", size_of::<Server>() + size_of::<live::Server>(), shared.live.servers().len()),
        ("client_cache", size_of::<Session>() + size_of::<live::Client>(), shared.live.clients().len()),
    ] {
        table.row([name.into(), int(size), int(used), int(0), int(size * used)]);
    }
    table
}

pub(super) fn users(shared: &Shared) -> Table {
    let config = shared.directory.config();
    let pools = shared.directory.pools();
    // Those that only the servers know are here while they have a pool.
    let names: BTreeSet<&str> =
        config.users.keys().map(String::as_str).chain(pools.iter().map(|pool| pool.user.as_str())).collect();
    let mut table = Table::new(&[("name", Text), ("pool_mode", Text)]);
    names.into_iter().for_each(|name| table.row([name.into(), NULL]));
    table
}

pub(super) fn state(shared: &Shared) -> Table {
    let directory = &shared.directory;
    let names: Vec<_> = directory.config().databases.keys().cloned().collect();
    let is_paused = names.iter().all(|name| directory.gate(name).is_paused);
    let mut table = Table::new(&[("key", Text), ("value", Text)]);
    for (key, value) in [("active", !is_paused), ("paused", is_paused), ("suspended", false)] {
        table.row([key.into(), if value { "yes" } else { "no" }.into()]);
    }
    table
}

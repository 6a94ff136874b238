//! Who is connected to whom: pools, clients, servers, databases.

use std::time::Duration;

use groove_common::ids::Address;
use groove_common::net::Peer;

use super::mode;
use crate::Shared;
use crate::console::table::{Cell, Column, Kind::*, NULL, Table, int, pointer, seconds};
use crate::live::{Client, State, Use};
use crate::upstream::replicas_title;

const POOLS: &[Column] = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Int4),
    ("cl_waiting", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active", Int4),
    ("sv_active_cancel", Int4),
    ("sv_being_canceled", Int4),
    ("sv_idle", Int4),
    ("sv_used", Int4),
    ("sv_tested", Int4),
    ("sv_login", Int4),
    ("maxwait", Int4),
    ("maxwait_us", Int4),
    ("pool_mode", Text),
];

/// What is counted of one pool's clients.
#[derive(Default)]
struct Clients {
    served: usize,
    waiting: usize,
    longest: Duration,
}

pub(super) fn pools(shared: &Shared) -> Table {
    let (clients, servers) = (shared.live.clients(), shared.live.servers());
    let mut table = Table::new(POOLS);
    for pool in shared.directory.pools() {
        let mut of_clients = Clients::default();
        for client in clients.iter().filter(|client| client.pool.name == pool.name) {
            match client.state() {
                State::Idle | State::Active => of_clients.served += 1,
                State::Waiting => {
                    of_clients.waiting += 1;
                    of_clients.longest = of_clients.longest.max(client.waits());
                }
            }
        }
        let (mut active, mut idle, mut tested) = (0, 0, 0);
        for server in servers.iter().filter(|s| *s.database == *pool.title && *s.user == *pool.user) {
            match server.used_for() {
                Use::Idle => idle += 1,
                Use::Ours => tested += 1,
                Use::Client(_) => active += 1,
                // None of those that `pool.size` bounds.
                Use::Listening => {}
            }
        }
        let status = pool.status();
        let [wait, wait_us] = seconds(of_clients.longest);
        table.row([
            pool.title.as_str().into(),
            pool.user.as_str().into(),
            int(of_clients.served),
            // Those who wait at their login have no place of their own yet.
            int(of_clients.waiting.max(status.waiting)),
            int(0),
            int(0),
            int(active),
            int(0),
            int(0),
            int(idle),
            int(0),
            int(tested),
            // Those that hold a permit and have no connection yet.
            int((status.leased + status.idle).saturating_sub(active + idle + tested)),
            wait,
            wait_us,
            mode(pool.options().mode).into(),
        ]);
    }
    table
}

const SOCKETS: &[Column] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
];

/// Where numbers of clients and of server connections begin: both columns are called `ptr`.
const CLIENTS_FROM: u64 = 0xc000_0000;
const SERVERS_FROM: u64 = 0x5000_0000;

fn linked(from: u64, number: u64) -> Cell {
    pointer(if number == 0 { 0 } else { from + number })
}

pub(super) fn clients(shared: &Shared) -> Table {
    let mut table = Table::new(SOCKETS);
    for client in shared.live.clients() {
        let state = match client.state() {
            State::Idle => "idle",
            State::Waiting => "waiting",
            State::Active => "active",
        };
        let (addr, port) = peer(&client);
        let (local_addr, local_port) = address(&client.listener.bound);
        let [wait, wait_us] = seconds(client.waits());
        table.row([
            "C".into(),
            client.pool.user.as_str().into(),
            client.pool.database.as_str().into(),
            state.into(),
            addr,
            port,
            local_addr,
            local_port,
            client.connected().into(),
            client.asked().into(),
            wait,
            wait_us,
            int(0),
            linked(CLIENTS_FROM, client.number),
            linked(SERVERS_FROM, client.link()),
            int(0),
            if client.is_tls { "TLS" } else { "" }.into(),
            (*client.application_name).into(),
        ]);
    }
    table
}

pub(super) fn servers(shared: &Shared) -> Table {
    let mut table = Table::new(SOCKETS);
    for server in shared.live.servers() {
        let (state, client) = match server.used_for() {
            Use::Idle => ("idle", 0),
            Use::Ours => ("tested", 0),
            Use::Listening => ("listening", 0),
            Use::Client(number) => ("active", number),
        };
        let (addr, port) = address(&server.target.address);
        table.row([
            "S".into(),
            (*server.user).into(),
            (*server.database).into(),
            state.into(),
            addr,
            port,
            "".into(),
            int(0),
            server.connected().into(),
            server.asked().into(),
            int(0),
            int(0),
            int(0),
            linked(SERVERS_FROM, server.number),
            linked(CLIENTS_FROM, client),
            int(usize::try_from(server.target.key.pid).unwrap_or(0)),
            if server.target.tls.is_some() { "TLS" } else { "" }.into(),
            NULL,
        ]);
    }
    table
}

const DATABASES: &[Column] = &[
    ("name", Text),
    ("host", Text),
    ("port", Int4),
    ("database", Text),
    ("force_user", Text),
    ("pool_size", Int4),
    ("min_pool_size", Int4),
    ("reserve_pool", Int4),
    ("pool_mode", Text),
    ("max_connections", Int4),
    ("current_connections", Int4),
    ("paused", Int4),
    ("disabled", Int4),
];

pub(super) fn databases(shared: &Shared) -> Table {
    let directory = &shared.directory;
    let servers = shared.live.servers();
    let mut table = Table::new(DATABASES);
    for (name, written) in &directory.config().databases {
        let snapshot = directory.cluster(name).map(|cluster| cluster.snapshot());
        let addresses = snapshot.iter().flat_map(|snapshot| &snapshot.members);
        let (hosts, ports): (Vec<_>, Vec<_>) =
            addresses.map(|member| host_and_port(&member.endpoint.address)).unzip();
        let gate = directory.gate(name);
        let is_its = |title: &str| title == name || title == replicas_title(name);
        let connections = servers.iter().filter(|server| is_its(&server.database)).count();
        table.row([
            name.as_str().into(),
            hosts.join(",").into(),
            int(ports.first().copied().unwrap_or(0).into()),
            written.dbname.as_deref().unwrap_or(name).into(),
            NULL,
            int(written.pool.size as usize),
            int(written.pool.min as usize),
            int(written.pool.reserve as usize),
            mode(written.pool.mode).into(),
            int(0),
            int(connections),
            int(gate.is_paused.into()),
            int(gate.is_disabled.into()),
        ]);
    }
    table
}

fn peer(client: &Client) -> (Cell, Cell) {
    match client.peer {
        Peer::Ip(address) => (address.ip().to_string().into(), int(address.port().into())),
        Peer::Unix => ("unix".into(), int(0)),
    }
}

fn address(address: &Address) -> (Cell, Cell) {
    let (host, port) = host_and_port(address);
    (host.into(), int(port.into()))
}

fn host_and_port(address: &Address) -> (String, u16) {
    match address {
        Address::Tcp { host, port } => (host.to_string(), *port),
        Address::Unix(path) => (path.display().to_string(), 0),
    }
}

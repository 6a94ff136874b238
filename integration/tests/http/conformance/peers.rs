//! The proxies that are asked: ours always, nginx and HAProxy where the table is written.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use harness::{HaProxy, Kind, Nginx, Proxy, paths, run};

const OURS: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
log: {access: {sample: 0}}
limits: {body: 1MiB}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$ORIGIN]
    health: {probe: null, breaker: {consecutive_failures: 10000}}
";

pub(super) struct Peers {
    ours: Proxy,
    others: Option<(Nginx, HaProxy)>,
}

impl Peers {
    pub(super) fn start(origin: SocketAddr, with_others: bool) -> Result<Self> {
        let ours = Proxy::of(Kind::Http).config(OURS).set("ORIGIN", origin).start()?;
        let others = if with_others { Some((nginx(origin)?, haproxy(origin)?)) } else { None };
        Ok(Self { ours, others })
    }

    pub(super) fn ours(&self) -> SocketAddr {
        self.ours.address()
    }

    pub(super) fn others(&self) -> impl Iterator<Item = SocketAddr> {
        self.others.iter().flat_map(|(nginx, haproxy)| [nginx.address(), haproxy.address()])
    }

    pub(super) fn access_log(&self) -> Vec<String> {
        self.ours.log().lines()
    }

    /// What nginx and HAProxy call themselves.
    pub(super) fn versions(&self) -> Result<[String; 2]> {
        let nginx = run(Command::new(paths::program("nginx")?).arg("-v"))?;
        let haproxy = run(Command::new(paths::program("haproxy")?).arg("-v"))?;
        let word = |text: &[u8], at| {
            String::from_utf8_lossy(text).split_whitespace().nth(at).unwrap_or("?").to_owned()
        };
        let nginx = word(&nginx.stderr, 2).trim_start_matches("nginx/").to_owned();
        let haproxy = word(&haproxy.stdout, 2).split('-').next().unwrap_or("?").to_owned();
        Ok([format!("nginx {nginx}"), format!("HAProxy {haproxy}")])
    }
}

/// As its documentation has a proxy that keeps connections to its server.
fn nginx(origin: SocketAddr) -> Result<Nginx> {
    Nginx::configured(1, |listen| {
        format!(
            "upstream origin {{ server {origin}; keepalive 8; }}\n\
             server {{ listen {listen} default_server; return 404; }}\n\
             server {{ listen {listen}; server_name shop.test; location / {{ proxy_pass http://origin; \
             proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection ''; \
             proxy_set_header X-Forwarded-For $remote_addr; proxy_next_upstream off; }} }}"
        )
    })
}

fn haproxy(origin: SocketAddr) -> Result<HaProxy> {
    HaProxy::configured(|listen| {
        format!(
            "global\n    maxconn 1000\ndefaults\n    mode http\n    option forwardfor\n    timeout connect 5s\n    \
             timeout client 10s\n    timeout server 10s\nfrontend front\n    bind {listen}\n    \
             acl shop hdr(host),field(1,:) -i shop.test shop.test.\n    http-request return status 404 unless shop\n    \
             default_backend origin\nbackend origin\n    server one {origin}\n"
        )
    })
}

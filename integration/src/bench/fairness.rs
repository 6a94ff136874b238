//! A tenant that asks now and then, beside one that never stops.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::processors::{Apart, go_before_all, yield_to_all};
use super::{Measure, ended};
use crate::load::{memcached, paced};

/// Between two requests of the quiet tenant.
const QUIET_EVERY: Duration = Duration::from_millis(1);

/// The flood has begun by then.
const WARM_UP: Duration = Duration::from_millis(500);

/// Users of two tenants, as in `groove-memcached-tenants.yaml`.
const QUIET: (&str, &str) = ("shop", "secret");
const FLOODING: &[(&str, &str)] = &[("news", "secret")];

/// What the other tenant does.
pub(super) struct Flood {
    pub(super) name: &'static str,
    connections: usize,
    depth: usize,
    set_percent: u32,
    value_bytes: usize,
    keys_per_get: u32,
}

/// The first does nothing, and has the processors awake all the same.
pub(super) const FLOODS: [Flood; 5] = [
    Flood { connections: 0, ..flood("quiet tenant, alone") },
    Flood { depth: 64, ..flood("quiet tenant, flood of pipelined gets") },
    Flood { keys_per_get: 100, ..flood("quiet tenant, flood of gets of 100 keys") },
    Flood { value_bytes: 65_536, set_percent: 100, ..flood("quiet tenant, flood of sets of 64 KiB") },
    Flood { connections: 500, ..flood("quiet tenant, flood from 500 connections") },
];

const fn flood(name: &'static str) -> Flood {
    Flood { name, connections: 16, depth: 1, set_percent: 0, value_bytes: 64, keys_per_get: 1 }
}

impl Flood {
    fn load(&self, address: SocketAddr, has_tenants: bool, measured: Duration) -> memcached::Options {
        memcached::Options {
            address,
            connections: self.connections,
            depth: self.depth,
            set_percent: self.set_percent,
            hot_percent: 0,
            value_bytes: self.value_bytes,
            keys_per_get: self.keys_per_get,
            logins: if has_tenants { FLOODING } else { &[] },
            warm_up: WARM_UP,
            measured,
        }
    }

    /// Latencies are the quiet tenant's; the throughput is the flood's, if there is one.
    pub(super) fn measure(
        &self,
        address: SocketAddr,
        has_tenants: bool,
        apart: &Apart,
        seconds: u64,
    ) -> Result<Measure> {
        let measured = Duration::from_secs(seconds);
        let quiet =
            paced::Options { address, login: has_tenants.then_some(QUIET), every: QUIET_EVERY, measured };
        let (quiet, flood) = thread::scope(|scope| {
            let flood = (self.connections > 0).then(|| {
                let load = self.load(address, has_tenants, measured + WARM_UP);
                scope.spawn(move || -> Result<_> {
                    apart.join_others()?;
                    yield_to_all()?;
                    memcached::run(&load, &mut || Ok(()))
                })
            });
            let quiet = scope.spawn(move || {
                apart.join_others()?;
                // What is measured is not how long this client waits for its processor.
                go_before_all()?;
                thread::sleep(WARM_UP);
                paced::run(&quiet)
            });
            // A flood keeps the processors busy; so that it is not the better for that, they are awake without one too.
            let quiet = if flood.is_none() { apart.awake(|| ended(quiet))? } else { ended(quiet)? };
            Ok::<_, anyhow::Error>((quiet, flood.map(ended).transpose()?))
        })?;
        Ok(Measure {
            throughput: flood.as_ref().unwrap_or(&quiet).throughput(),
            p50_us: quiet.quantile_us(0.5),
            p99_us: quiet.quantile_us(0.99),
            cpu_us: 0.0,
            errors: quiet.errors + flood.map_or(0, |flood| flood.errors),
        })
    }
}

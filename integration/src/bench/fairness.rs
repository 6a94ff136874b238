//! A tenant that asks now and then, beside one that never stops.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::processors::{Apart, go_before_all, yield_to_all};
use super::{Measure, ended, stalls};
use crate::load::paced::{self, Exchange};
use crate::load::{Report, count, memcached, nanoseconds, quantile_us};

/// Between two requests of the quiet tenant.
const QUIET_EVERY: Duration = Duration::from_millis(1);

/// After this the flood is what it will be.
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
        let load = self.load(address, has_tenants, measured + WARM_UP);
        let quiet =
            paced::Options { address, login: has_tenants.then_some(QUIET), every: QUIET_EVERY, measured };
        let ((quiet, flood), stalls) = apart.watched(|| beside(&quiet, &load, apart))?;
        let undelayed = stalls::undelayed(&quiet, &stalls);
        let mut latency_ns = Histogram::new(3)?;
        for exchange in &undelayed {
            latency_ns.record(nanoseconds(exchange.answered.duration_since(exchange.asked)))?;
        }
        let asked = count(quiet.len() as u64);
        Ok(Measure {
            throughput: flood.as_ref().map_or(asked / measured.as_secs_f64(), Report::throughput),
            p50_us: quantile_us(&latency_ns, 0.5),
            p99_us: quantile_us(&latency_ns, 0.99),
            cpu_us: 0.0,
            errors: quiet.iter().filter(|exchange| !exchange.is_right).count() as u64
                + flood.map_or(0, |flood| flood.errors),
            left_out_percent: 100.0 - 100.0 * count(undelayed.len() as u64) / asked,
        })
    }
}

/// What the quiet one hears, once the flood is there, and what the flood does, if it has connections.
fn beside(
    quiet: &paced::Options,
    flood: &memcached::Options,
    apart: &Apart,
) -> Result<(Vec<Exchange>, Option<Report>)> {
    let has_flood = flood.connections > 0;
    let (begun, has_begun) = mpsc::channel();
    thread::scope(|scope| {
        let flood = has_flood.then(|| {
            scope.spawn(move || {
                apart.join_others()?;
                yield_to_all()?;
                memcached::run(flood, &mut || {
                    // At the end nobody waits for it any more.
                    _ = begun.send(());
                    Ok(())
                })
            })
        });
        let quiet = scope.spawn(move || {
            apart.join_others()?;
            // What is measured is not how long this client waits for its processor.
            go_before_all()?;
            if has_flood {
                has_begun.recv().context("the flood has not begun")?;
            }
            paced::run(quiet)
        });
        // A flood keeps the processors busy; so that it is not the better for that, they are awake without one too.
        let quiet = if has_flood { ended(quiet) } else { apart.awake(|| ended(quiet)) };
        // Why the flood failed says more than that it did not begin.
        let flood = flood.map(ended).transpose()?;
        Ok((quiet?, flood))
    })
}

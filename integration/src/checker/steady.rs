//! The hit ratio of a steady key set: what a working application sees of servers that join, leave and die.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::client::{Ask, Client, Protocol, Told};
use super::load::Dice;
use crate::load::count;

/// A point of the series stands for that long.
const POINT: Duration = Duration::from_millis(500);

/// Fewer retrievals say too little: points are put together until they have as many.
const ASKED_MIN: u64 = 200;

/// What happened when.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Since the beginning.
    pub(super) at: Duration,
    /// In words.
    pub(super) what: String,
    /// Whether servers may lose items from here on, until an event that is planned again.
    pub(super) is_planned: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    hits: u64,
    misses: u64,
    failed: u64,
}

impl Point {
    fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
    }

    fn asked(self) -> u64 {
        self.hits + self.misses
    }

    fn ratio(self) -> f64 {
        count(self.hits) / count(self.asked().max(1))
    }
}

/// The series.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<Point>);

impl Series {
    /// Points before the first event: their mean is the steady state. The least of those in planned times
    /// after it. `None` where there were none before or too few after it.
    pub(super) fn steady_and_least(&self, events: &[Event]) -> Option<(f64, f64)> {
        let first = events.first().map_or(Duration::MAX, |event| event.at);
        let told = |from: Duration, is_planned: bool| {
            let event = events.iter().take_while(|event| event.at < from + POINT).last();
            event.is_none_or(|event| event.is_planned) == is_planned
        };
        let points = self.0.iter().zip(0_u32..).map(|(point, number)| (POINT * number, *point));
        let (mut steady, mut window) = (Point::default(), Point::default());
        let mut least: Option<f64> = None;
        for (at, point) in points {
            if at + POINT <= first {
                steady.add(point);
            } else if told(at, true) {
                window.add(point);
                if window.asked() >= ASKED_MIN {
                    let ratio = std::mem::take(&mut window).ratio();
                    least = Some(least.map_or(ratio, |least| least.min(ratio)));
                }
            } else {
                window = Point::default();
            }
        }
        (steady.asked() > 0).then_some(steady.ratio()).zip(least)
    }

    /// The series as comma-separated values, with the events where they happened.
    pub(super) fn table(&self, events: &[Event]) -> Result<String> {
        let mut table = "seconds,hits,misses,failed,ratio,event\n".to_owned();
        for (number, point) in (0_u32..).zip(&self.0) {
            let (from, to) = (POINT * number, POINT * (number + 1));
            let here: Vec<&str> = events
                .iter()
                .filter(|event| event.at >= from && event.at < to)
                .map(|event| event.what.as_str())
                .collect();
            let Point { hits, misses, failed } = point;
            let (seconds, ratio) = (from.as_secs_f64(), point.ratio());
            writeln!(table, "{seconds},{hits},{misses},{failed},{ratio:.4},{}", here.join("; "))?;
        }
        Ok(table)
    }
}

/// Stores the set, then asks for its keys at random until told to stop, and writes back what it misses, as
/// applications do. `ready` is set once all is stored, `missed_at_ms` with each miss.
pub(super) fn run(
    sidecars: &[SocketAddr],
    keys: u32,
    begun: Instant,
    ready: &AtomicBool,
    missed_at_ms: &AtomicU64,
    stop: &Arc<AtomicBool>,
) -> Result<Series> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let set = |key: u64| (format!("steady:{key}"), Ask::Set(format!("value of {key}")));
    runtime.block_on(async {
        let mut clients = Vec::with_capacity(sidecars.len());
        for address in sidecars {
            clients.push(Client::connect(*address, Protocol::Classic).await?);
        }
        let Some(filler) = clients.first_mut() else { return Ok(Series::default()) };
        for key in 0..u64::from(keys) {
            let (name, ask) = set(key);
            anyhow::ensure!(filler.ask(&name, &ask).await? == Told::Done, "{name} was not stored");
        }
        ready.store(true, Ordering::Relaxed);
        let mut series = Series::default();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            turn = (turn + 1) % clients.len();
            let Some((client, address)) = clients.get_mut(turn).zip(sidecars.get(turn)) else { break };
            let (name, ask) = set(dice.below(u64::from(keys)));
            let told = match client.ask(&name, &Ask::Get).await {
                Ok(told) => told,
                Err(_) => {
                    *client = Client::connect(*address, Protocol::Classic).await?;
                    Told::Unknown
                }
            };
            let number = usize::try_from(begun.elapsed().as_millis() / POINT.as_millis())?;
            if series.0.len() <= number {
                series.0.resize(number + 1, Point::default());
            }
            let Some(point) = series.0.get_mut(number) else { break };
            match told {
                Told::Content(..) => point.hits += 1,
                Told::Nothing => {
                    point.misses += 1;
                    missed_at_ms.store(u64::try_from(begun.elapsed().as_millis())?, Ordering::Relaxed);
                    // Whether that worked shows at its next turn.
                    let _told = client.ask(&name, &ask).await;
                }
                Told::Done | Told::Taken | Told::Number(_) | Told::Unknown => point.failed += 1,
            }
        }
        Ok(series)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, is_planned: bool) -> Event {
        Event { at: Duration::from_millis(at_ms), what: format!("at {at_ms}"), is_planned }
    }

    #[test]
    fn the_least_is_of_planned_times_only() {
        let point = |hits| Point { hits, misses: 1000 - hits, failed: 0 };
        let series = Series([1000, 1000, 990, 400, 500, 980].map(point).to_vec());
        let events = [event(1000, true), event(1600, false), event(2500, true)];
        let (steady, least) = series.steady_and_least(&events).unwrap();
        assert!((steady - 1.0).abs() < 1e-9 && (least - 0.98).abs() < 1e-9, "{steady} {least}");
        assert!(series.table(&events).unwrap().contains("1.5,400,600,0,0.4000,at 1600\n"));
        assert!(Series::default().steady_and_least(&events).is_none());
    }
}

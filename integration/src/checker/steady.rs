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

/// Fewer retrievals say too little: points are put together until they are as many and have as much.
const WINDOW_ASKED_MIN: u64 = 1000;
const WINDOW_POINTS_MIN: usize = 2;

/// By how much the hit ratio may be under the steady state while servers join or leave in a planned way.
const UNDER_MAX: f64 = 0.005;

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
        self.failed += other.failed;
    }

    fn asked(self) -> u64 {
        self.hits + self.misses + self.failed
    }

    /// Who is told an error goes without, as after a miss.
    fn ratio(self) -> f64 {
        count(self.hits) / count(self.asked().max(1))
    }
}

/// A part of the series in a planned time after the first event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Since the beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
    /// Hits of all that was asked.
    pub ratio: f64,
}

/// The hit ratio of a steady key set while servers join and leave in a planned way.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// Before the first event.
    pub steady: f64,
    /// Windows of a second or more, in planned times after it.
    pub windows: Vec<Window>,
}

impl Hits {
    /// The worst window.
    #[must_use]
    pub fn least(&self) -> Option<Window> {
        self.windows.iter().copied().min_by(|one, other| one.ratio.total_cmp(&other.ratio))
    }

    /// Windows that are more than half a point under the steady state.
    pub fn broken(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(|window| window.ratio < self.steady - UNDER_MAX)
    }
}

impl std::fmt::Display for Hits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |ratio: f64| ratio * 100.0;
        write!(f, "hit ratio: {:.2} % before; ", percent(self.steady))?;
        let Some(Window { from, ratio, .. }) = self.least() else {
            return write!(f, "too few retrievals afterwards to say more");
        };
        let (windows, broken, at) = (self.windows.len(), self.broken().count(), from.as_secs_f64());
        write!(
            f,
            "{windows} windows while servers join or leave, the worst {:.2} % at {at:.1} s; ",
            percent(ratio)
        )?;
        write!(f, "{broken} more than {} points under", percent(UNDER_MAX))?;
        for Window { from, to, ratio } in self.broken() {
            let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
            write!(f, "\n  {from:7.1} s to {to:.1} s: {:.2} %", percent(*ratio))?;
        }
        Ok(())
    }
}

/// The series.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<Point>);

impl Series {
    /// Points before the first event are the steady state; those in planned times after it make windows.
    pub(super) fn hits(&self, events: &[Event]) -> Hits {
        let first = events.first().map_or(Duration::MAX, |event| event.at);
        let is_planned = |from: Duration| {
            let event = events.iter().take_while(|event| event.at < from + POINT).last();
            event.is_none_or(|event| event.is_planned)
        };
        let points = self.0.iter().zip(0_u32..).map(|(point, number)| (POINT * number, *point));
        let (mut steady, mut window, mut begun) = (Point::default(), Point::default(), None);
        let mut windows = Vec::new();
        let mut points_in = 0;
        for (at, point) in points {
            if at + POINT <= first {
                steady.add(point);
                continue;
            }
            if !is_planned(at) {
                (window, begun, points_in) = (Point::default(), None, 0);
                continue;
            }
            let from = *begun.get_or_insert(at);
            window.add(point);
            points_in += 1;
            if points_in >= WINDOW_POINTS_MIN && window.asked() >= WINDOW_ASKED_MIN {
                windows.push(Window { from, to: at + POINT, ratio: window.ratio() });
                (window, begun, points_in) = (Point::default(), None, 0);
            }
        }
        Hits { steady: steady.ratio(), windows }
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
                Told::Content(..) => {
                    point.hits += 1;
                    continue;
                }
                Told::Nothing => point.misses += 1,
                Told::Done | Told::Taken | Told::Number(_) | Told::Unknown => point.failed += 1,
            }
            missed_at_ms.store(u64::try_from(begun.elapsed().as_millis())?, Ordering::Relaxed);
            if told == Told::Nothing {
                // Whether that worked shows at its next turn.
                let _told = client.ask(&name, &ask).await;
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
    fn only_planned_times_count_and_an_error_is_no_hit() {
        let point = |hits| Point { hits, misses: 990 - hits.min(990), failed: 1000 - hits.max(990) };
        let series = Series([1000, 1000, 1000, 992, 400, 500, 980, 990].map(point).to_vec());
        let events = [event(1000, true), event(2100, false), event(3000, true)];
        let hits = series.hits(&events);
        let windows: Vec<(f64, f64)> =
            hits.windows.iter().map(|window| (window.from.as_secs_f64(), window.ratio)).collect();
        assert_eq!(windows, [(1.0, 0.996), (3.0, 0.985)]);
        assert_eq!((hits.steady, hits.broken().count()), (1.0, 1));
        assert!(hits.to_string().ends_with("3.0 s to 4.0 s: 98.50 %"), "{hits}");
        assert!(series.table(&events).unwrap().contains("2,400,590,10,0.4000,at 2100\n"));
        assert!(Series::default().hits(&events).least().is_none());
    }
}

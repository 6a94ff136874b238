//! All metrics of a program, by name and labels, and their Prometheus text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;

use super::metric::{Counter, Gauge, Histogram};
use super::process::Process;

/// Name and value pairs, in the order of the names.
type Labels = Vec<(&'static str, String)>;

/// Where metrics are made, found again and rendered.
///
/// A series lives as long as someone holds its handle: those of an endpoint that went away go with it.
/// Looking one up takes a lock: do it once and keep the handle.
pub struct Registry {
    workers: usize,
    families: Mutex<BTreeMap<&'static str, Family>>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    series: BTreeMap<Labels, Metric>,
}

#[derive(Debug, Clone)]
enum Metric {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Registry {
    /// A registry for a program with so many worker threads.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { workers, families: Mutex::default() })
    }

    /// Worker threads that each metric has a cell for.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// The counter of this name and these labels. `_total` is added to its name when rendered.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        let fresh = || Metric::Counter(Counter::new(self.workers));
        match self.series(name, help, labels, fresh) {
            Metric::Counter(counter) => counter,
            Metric::Gauge(_) | Metric::Histogram(_) => Counter::new(self.workers),
        }
    }

    /// The gauge of this name and these labels.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        let fresh = || Metric::Gauge(Gauge::new(self.workers));
        match self.series(name, help, labels, fresh) {
            Metric::Gauge(gauge) => gauge,
            Metric::Counter(_) | Metric::Histogram(_) => Gauge::new(self.workers),
        }
    }

    /// The histogram of this name and these labels. Rendered in seconds: its name ends in `_seconds`.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Histogram {
        let fresh = || Metric::Histogram(Histogram::new(self.workers));
        match self.series(name, help, labels, fresh) {
            Metric::Histogram(histogram) => histogram,
            Metric::Counter(_) | Metric::Gauge(_) => Histogram::new(self.workers),
        }
    }

    fn series(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        fresh: impl FnOnce() -> Metric,
    ) -> Metric {
        let mut labels: Labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        labels.sort_unstable();
        let mut families = self.families.lock();
        let family = families.entry(name).or_insert_with(|| Family { help, series: BTreeMap::new() });
        family.series.entry(labels).or_insert_with(fresh).clone()
    }

    /// The text for Prometheus (OpenMetrics 1.0).
    pub fn render(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Series(Arc::clone(self))));
        registry.register_collector(Box::new(Process));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("families", &self.families.lock().len()).finish_non_exhaustive()
    }
}

/// The registry's own series, as prometheus-client wants them.
#[derive(Debug)]
struct Series(Arc<Registry>);

impl Collector for Series {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut families = self.0.families.lock();
        for (name, family) in families.iter_mut() {
            family.series.retain(|_, metric| !metric.is_forgotten());
            let Some(kind) = family.series.values().next().map(Metric::kind) else { continue };
            let mut encoder = encoder.encode_descriptor(name, family.help, None, kind)?;
            for (labels, metric) in &family.series {
                match labels.is_empty() {
                    true => metric.encode(&mut encoder)?,
                    false => metric.encode(&mut encoder.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

impl Metric {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }

    /// Is the registry the only one who still knows it?
    fn is_forgotten(&self) -> bool {
        match self {
            Self::Counter(counter) => counter.is_held_once(),
            Self::Gauge(gauge) => gauge.is_held_once(),
            Self::Histogram(histogram) => histogram.is_held_once(),
        }
    }

    fn encode(&self, encoder: &mut MetricEncoder) -> Result<(), fmt::Error> {
        match self {
            Self::Counter(counter) => encoder.encode_counter::<NoLabelSet, _, u64>(&counter.get(), None),
            Self::Gauge(gauge) => encoder.encode_gauge(&gauge.get()),
            Self::Histogram(histogram) => {
                let all = histogram.snapshot();
                let sum_s = all.sum().as_secs_f64();
                encoder.encode_histogram::<NoLabelSet>(sum_s, all.count(), &all.octaves(), None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let registry = Registry::new(2);
        let gets =
            registry.counter("groove_test_exchanges", "Exchanges", &[("verb", "get"), ("cluster", "a\"b")]);
        gets.add(3);
        let open = registry.gauge("groove_test_open", "Open", &[]);
        open.add(-2);
        let took = registry.histogram("groove_test_seconds", "Time", &[]);
        took.record(Duration::from_micros(100));
        took.record(Duration::from_secs(1000));
        let text = registry.render().unwrap();
        for line in [
            "# HELP groove_test_exchanges Exchanges",
            "# TYPE groove_test_exchanges counter",
            "groove_test_exchanges_total{cluster=\"a\\\"b\",verb=\"get\"} 3",
            "groove_test_open -2",
            "groove_test_seconds_sum 1000.0001",
            "groove_test_seconds_count 2",
            "groove_test_seconds_bucket{le=\"0.000064\"} 0",
            "groove_test_seconds_bucket{le=\"0.000128\"} 1",
            "groove_test_seconds_bucket{le=\"+Inf\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes ") && text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_series() {
        let registry = Registry::new(0);
        let one = registry.counter("groove_test", "", &[("a", "1"), ("b", "2")]);
        registry.counter("groove_test", "", &[("b", "2"), ("a", "1")]).inc();
        registry.counter("groove_test", "", &[("b", "3"), ("a", "1")]).inc();
        assert_eq!(one.get(), 1);
    }

    #[test]
    fn a_series_goes_with_its_last_holder() {
        let registry = Registry::new(0);
        let kept = registry.counter("groove_test", "", &[("endpoint", "kept")]);
        let gone = registry.counter("groove_test", "", &[("endpoint", "gone")]);
        assert!(registry.render().unwrap().contains("gone"));
        drop(gone);
        let text = registry.render().unwrap();
        assert!(text.contains("kept") && !text.contains("gone"), "{text}");
        drop(kept);
        drop((
            registry.gauge("groove_test_open", "", &[]),
            registry.histogram("groove_test_seconds", "", &[]),
        ));
        assert!(!registry.render().unwrap().contains("groove_test"));
    }
}

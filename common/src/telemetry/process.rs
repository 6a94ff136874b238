//! What the process itself takes, under the names that Prometheus client libraries agree on.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads /proc when asked.
#[derive(Debug)]
pub(super) struct Process;

/// One reading; what could not be read is left out.
#[derive(Debug, Default)]
struct Reading {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    threads: Option<u64>,
    start_seconds: Option<f64>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let reading = Reading::now();
        if let Some(cpu) = reading.cpu_seconds {
            let counter = ConstCounter::new(cpu);
            let help = "Processor time, user and system, in seconds";
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        #[allow(clippy::cast_precision_loss, reason = "a gauge's value is a float on the wire")]
        let float = |n: u64| n as f64;
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", reading.resident_bytes.map(float)),
            ("process_virtual_memory_bytes", "Virtual memory", reading.virtual_bytes.map(float)),
            ("process_open_fds", "Open file descriptors", reading.open_fds.map(float)),
            ("process_max_fds", "The limit on open file descriptors", reading.max_fds.map(float)),
            ("process_threads", "Threads", reading.threads.map(float)),
            ("process_start_time_seconds", "Start, in seconds since 1970", reading.start_seconds),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

impl Reading {
    fn now() -> Self {
        let ticks = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the program's name in brackets and may hold anything: count after it (proc(5)).
        let fields: Vec<u64> = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        // Numbered as in proc(5), where the state is field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let seconds = |field_ticks: u64| {
            #[allow(clippy::cast_precision_loss, reason = "ticks since boot are far below 2^52")]
            let seconds = field_ticks as f64 / ticks as f64;
            seconds
        };
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| seconds(user + system)),
            threads: field(20),
            start_seconds: field(22).zip(boot_seconds()).map(|(start, boot)| boot + seconds(start)),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }
}

/// When the machine was started.
fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_process_is_as_it_says() {
        const THREADS: usize = 40;
        let (begun, ended) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
        let reading = std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    begun.wait();
                    ended.wait();
                });
            }
            begun.wait();
            let reading = Reading::now();
            ended.wait();
            reading
        });
        let threads = reading.threads.unwrap();
        assert!((THREADS as u64 + 1..1000).contains(&threads), "{threads} threads");
        let resident = reading.resident_bytes.unwrap();
        assert!(resident > 1 << 20 && resident < reading.virtual_bytes.unwrap(), "{reading:?}");
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age_s = now_s - reading.start_seconds.unwrap();
        assert!((-2.0..100_000.0).contains(&age_s), "{age_s} s old");
        assert!(reading.open_fds.unwrap() > 2 && reading.cpu_seconds.unwrap() >= 0.0, "{reading:?}");
    }
}

//! HTTP: nginx, HAProxy and ours before one nginx that answers at once.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Candidate, Measure, Settings, Suite, filled};
use crate::load::{count, probe};
use crate::process::run;
use crate::{Kind, Nginx, Port, paths};
use tempfile::TempDir;

const CONNECTIONS: &str = "64";
const LARGE_BYTES: usize = 64 * 1024;

/// What is asked, and by whom.
enum Asked {
    /// wrk, with what `wrk.lua` knows and a path.
    Http1(&'static str, &'static str),
    /// h2load.
    Http2,
}

const REQUESTS: [(&str, Asked); 5] = [
    ("GET, a few bytes", Asked::Http1("get", "/")),
    ("POST, 1 KiB", Asked::Http1("post", "/")),
    ("GET, 64 KiB", Asked::Http1("get", "/large")),
    ("GET, a connection each", Asked::Http1("close", "/")),
    ("HTTP/2 GET, 8 connections with 8 streams", Asked::Http2),
];

pub(super) struct Balancers {
    candidates: Vec<Candidate>,
    /// Where those that do not tell versions apart are asked in HTTP/2, by name.
    http2: Vec<(String, Port)>,
    /// Access logs, which are emptied after each measurement.
    logs: [PathBuf; 2],
    _reader: LogReader,
    _app: Nginx,
    _files: TempDir,
}

impl Balancers {
    pub(super) fn start(settings: &Settings) -> Result<Self> {
        let files = TempDir::new()?;
        std::fs::write(files.path().join("large"), vec![b'x'; LARGE_BYTES])?;
        let root = files.path().display();
        let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        let [app_http2, nginx_http2, haproxy_http2] = &ports;
        let app = Nginx::configured(1, |listen| {
            format!(
                "server {{ listen {listen} backlog=4096; listen {app_http2} http2; keepalive_requests 100000000; \
                 root {root}; location = /large {{ }} \
                 location / {{ default_type text/plain; return 200 'hello from nginx\\n'; }} }}"
            )
        })?;
        let logs = ["nginx.log", "groove-http.log"].map(|name| files.path().join(name));
        let [nginx_log, our_log] = &logs;
        let reader = LogReader::start()?;
        let values = vec![
            ("APP", app.address().to_string()),
            ("WORKERS", settings.workers.to_string()),
            ("NGINX_LOG", nginx_log.display().to_string()),
            ("HAPROXY_LOG", reader.address.to_string()),
        ];
        let with = |port: &Port| [&values[..], &[("HTTP2", port.to_string())]].concat();
        let candidates = vec![
            Candidate::direct(app.address()),
            nginx(settings, &with(nginx_http2))?,
            haproxy(with(haproxy_http2))?,
            Candidate::logging(Kind::Http, our_log, &values)?,
        ];
        let http2 = candidates.iter().map(|candidate| candidate.name.clone()).zip(ports).collect();
        Ok(Self { candidates, http2, logs, _reader: reader, _app: app, _files: files })
    }
}

fn nginx(settings: &Settings, values: &[(&'static str, String)]) -> Result<Candidate> {
    // Read once before, so that a mistake in the file is told as such.
    let mut values = values.to_vec();
    values.push(("LISTEN", String::new()));
    filled("nginx.conf", &values)?;
    let server = Nginx::configured(settings.workers, move |listen| {
        values.push(("LISTEN", listen.to_string()));
        filled("nginx.conf", &values).unwrap_or_default()
    })?;
    let pid = server.pid();
    Ok(Candidate::peer("nginx", server.address(), pid, move || server.usage()))
}

fn haproxy(values: Vec<(&'static str, String)>) -> Result<Candidate> {
    Candidate::program("haproxy", "haproxy.cfg", values, |folder, _| {
        let mut command = Command::new(paths::program("haproxy")?);
        command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg"));
        Ok(command)
    })
}

impl Suite for Balancers {
    fn title(&self) -> String {
        format!("HTTP: {CONNECTIONS} connections of wrk, or h2load; one nginx behind")
    }

    fn ours(&self) -> Kind {
        Kind::Http
    }

    fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    fn scenarios(&self) -> Vec<String> {
        REQUESTS.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn notes(&self) -> Vec<&'static str> {
        vec![
            "Each has its timeouts, an access log and its counters on. The log, as each one's documentation has it for \
             many requests: nginx `combined` to a file with `buffer=64k flush=1s`, HAProxy `httplog` to a ring that it \
             sends over TCP to somebody who reads it, ours to a file.",
        ]
    }

    fn turns(&self, settings: &Settings) -> (usize, u64) {
        (usize::try_from(settings.seconds).unwrap_or(1), 1)
    }

    fn measure(&self, candidate: &Candidate, scenario: usize, settings: &Settings) -> Result<Measure> {
        let (_, request) = REQUESTS.get(scenario).context("no such scenario")?;
        let mut load = match request {
            Asked::Http1(what, path) => wrk(candidate.address, what, path, settings.seconds)?,
            Asked::Http2 => h2load(self.http2_address(candidate), settings.seconds)?,
        };
        let asked = probe::Options {
            address: candidate.address,
            host: "bench.test".to_owned(),
            path: "/".to_owned(),
            every: Duration::from_millis(5),
        };

        let before = candidate.usage()?;
        let stop = AtomicBool::new(false);
        let (output, probed) = std::thread::scope(|scope| {
            let probe = scope.spawn(|| probe::run(&asked, &stop));
            let output = run(&mut load);
            stop.store(true, Ordering::Relaxed);
            (output, probe.join().unwrap_or_else(|_| bail!("the probe panicked")))
        });
        let after = candidate.usage()?;

        for log in &self.logs {
            // Both are added to, so that they go on from the beginning.
            File::options().write(true).open(log).and_then(|log| log.set_len(0))?;
        }
        let (output, probed) = (output?, probed?);
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let load = match request {
            Asked::Http1(..) => Counted::of_wrk(&said),
            Asked::Http2 => Counted::of_h2load(&said, settings.seconds),
        };
        let load = load.with_context(|| format!("no counts were said: {said}"))?;
        let all = count(load.requests + probed.operations);
        Ok(Measure {
            throughput: count(load.requests) * 1e6 / count(load.duration_us.max(1)),
            p50_us: probed.quantile_us(0.5),
            p99_us: probed.quantile_us(0.99),
            cpu_us: (after.cpu_s - before.cpu_s) * 1e6 / all.max(1.0),
            errors: load.errors + probed.errors,
            ..Measure::default()
        })
    }

    fn idle(
        &self,
        candidate: &Candidate,
        connections: usize,
        weigh: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut held = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut stream = TcpStream::connect(candidate.address)?;
            stream.set_read_timeout(Some(crate::PATIENCE))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n")?;
            let mut answer = [0; 2048];
            let length = stream.read(&mut answer)?;
            let said = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
            ensure!(said.starts_with("HTTP/1.1 200"), "GET was answered by {said:?}");
            held.push(stream);
        }
        weigh()
    }
}

impl Balancers {
    fn http2_address(&self, candidate: &Candidate) -> SocketAddr {
        let own = self.http2.iter().find(|(name, _)| *name == candidate.name);
        own.map_or(candidate.address, |(_, port)| port.address())
    }
}

/// Reads what HAProxy logs, as a collector would.
struct LogReader {
    address: SocketAddr,
}

impl LogReader {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        // Ends with the program: who may connect again is listened to.
        std::thread::spawn(move || {
            let mut lines = vec![0; 1 << 16];
            for mut stream in listener.incoming().flatten() {
                while stream.read(&mut lines).is_ok_and(|count| count > 0) {}
            }
        });
        Ok(Self { address })
    }
}

fn wrk(address: SocketAddr, what: &str, path: &str, seconds: u64) -> Result<Command> {
    let script = paths::repository().join("integration/bench/wrk.lua");
    let mut wrk = Command::new(paths::program("wrk")?);
    wrk.args(["-t", "2", "-c", CONNECTIONS, "-d", &format!("{seconds}s"), "-s"]).arg(script);
    wrk.arg(format!("http://{address}{path}")).args(["--", what]);
    Ok(wrk)
}

fn h2load(address: SocketAddr, seconds: u64) -> Result<Command> {
    let mut h2load = Command::new(paths::program("h2load")?);
    h2load.args([
        "-t",
        "2",
        "-c",
        "8",
        "-m",
        "8",
        "-D",
        &seconds.to_string(),
        "-H",
        ":authority: bench.test",
    ]);
    h2load.arg(format!("http://{address}/"));
    Ok(h2load)
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    requests: u64,
    duration_us: u64,
    errors: u64,
}

impl Counted {
    /// What `wrk.lua` prints: `counted 100 requests in 200 us, 3 errors`.
    fn of_wrk(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("counted "))?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        Some(Self { requests: numbers.next()?, duration_us: numbers.next()?, errors: numbers.next()? })
    }

    /// h2load's line `requests: 64 total, 64 started, 64 done, 64 succeeded, 0 failed, 0 errored, 0 timeout`. Those that
    /// were under way at the end of the time it counts as failed or not at all; they are no errors.
    fn of_h2load(text: &str, seconds: u64) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
        let numbers: Vec<u64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        let [_total, _started, done, succeeded, ..] = numbers[..] else { return None };
        Some(Self { requests: succeeded, duration_us: seconds * 1_000_000, errors: done - succeeded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_wrk_and_h2load_are_read() {
        let text = "Running\n  noise 5\ncounted 100 requests in 200 us, 3 errors\n";
        assert_eq!(Counted::of_wrk(text), Some(Counted { requests: 100, duration_us: 200, errors: 3 }));
        assert!(Counted::of_wrk("nothing").is_none());
        let text = "finished in 2.00s\nrequests: 64 total, 70 started, 64 done, 60 succeeded, 3 failed, 1 errored, \
                    0 timeout\nstatus codes: 60 2xx, 0 3xx, 4 4xx, 0 5xx\n";
        assert_eq!(
            Counted::of_h2load(text, 2),
            Some(Counted { requests: 60, duration_us: 2_000_000, errors: 4 })
        );
        assert!(Counted::of_h2load("nothing", 2).is_none());
    }
}

//! HTTP: nginx, HAProxy and ours before one nginx that answers at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Candidate, Measure, Settings, Suite, filled};
use crate::load::{count, probe};
use crate::process::run;
use crate::{Kind, Nginx, paths};

const CONNECTIONS: &str = "64";
const REQUESTS: [(&str, &str); 2] = [("GET, a few bytes", "get"), ("POST, 1 KiB", "post")];

pub(super) struct Balancers {
    candidates: Vec<Candidate>,
    _app: Nginx,
}

impl Balancers {
    pub(super) fn start(settings: &Settings) -> Result<Self> {
        let app = Nginx::app()?;
        let values = vec![("APP", app.address().to_string()), ("WORKERS", settings.workers.to_string())];
        let candidates = vec![
            Candidate::direct(app.address()),
            nginx(settings, &values)?,
            haproxy(values.clone())?,
            Candidate::ours(Kind::Http, &values)?,
        ];
        Ok(Self { candidates, _app: app })
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
        format!("HTTP/1.1: {CONNECTIONS} connections of wrk, one nginx behind")
    }

    fn ours(&self) -> Kind {
        Kind::Http
    }

    fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    fn scenarios(&self) -> Vec<String> {
        REQUESTS.map(|(name, _)| name.to_owned()).to_vec()
    }

    fn measure(&self, candidate: &Candidate, scenario: usize, settings: &Settings) -> Result<Measure> {
        let (_, request) = REQUESTS.get(scenario).copied().unwrap_or_default();
        let script = paths::repository().join("integration/bench/wrk.lua");
        let mut wrk = Command::new(paths::program("wrk")?);
        wrk.args(["-t", "2", "-c", CONNECTIONS, "-d", &format!("{}s", settings.seconds), "-s"]).arg(script);
        wrk.arg(format!("http://{}/", candidate.address)).args(["--", request]);
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
            let output = run(&mut wrk);
            stop.store(true, Ordering::Relaxed);
            (output, probe.join().unwrap_or_else(|_| bail!("the probe panicked")))
        });
        let after = candidate.usage()?;

        let (output, probed) = (output?, probed?);
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
        let wrk = Counted::parse(&said).with_context(|| format!("wrk said no counts: {said}"))?;
        let all = count(wrk.requests + probed.operations);
        Ok(Measure {
            throughput: count(wrk.requests) * 1e6 / count(wrk.duration_us.max(1)),
            p50_us: probed.quantile_us(0.5),
            p99_us: probed.quantile_us(0.99),
            cpu_us: (after.cpu_s - before.cpu_s) * 1e6 / all.max(1.0),
            errors: wrk.errors + probed.errors,
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

/// What `wrk.lua` prints: `counted 100 requests in 200 us, 3 errors`.
struct Counted {
    requests: u64,
    duration_us: u64,
    errors: u64,
}

impl Counted {
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("counted "))?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        Some(Self { requests: numbers.next()?, duration_us: numbers.next()?, errors: numbers.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_wrk_is_read() {
        let counted =
            Counted::parse("Running\n  noise 5\ncounted 100 requests in 200 us, 3 errors\n").unwrap();
        assert_eq!((counted.requests, counted.duration_us, counted.errors), (100, 200, 3));
        assert!(Counted::parse("nothing").is_none());
    }
}

//! The comparison on paper: a Markdown table for people, JSON for programs, and a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Comparison, Row, Settings, median, plot};

#[derive(Serialize)]
struct Whole<'a> {
    machine: &'a str,
    settings: &'a Settings,
    comparisons: &'a [Comparison],
}

/// Writes `bench.md`, `bench.json` and `bench.svg` into `folder` and gives the Markdown.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(folder: &Path, settings: &Settings, comparisons: &[Comparison]) -> Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let machine = machine();
    let markdown = markdown(&machine, settings, comparisons)?;
    let whole = Whole { machine: &machine, settings, comparisons };
    std::fs::write(folder.join("bench.json"), serde_json::to_vec_pretty(&whole)?)?;
    std::fs::write(folder.join("bench.svg"), plot::svg(comparisons)?)?;
    std::fs::write(folder.join("bench.md"), &markdown)?;
    Ok(markdown)
}

/// The processor, how many of it, and the kernel.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores, Linux {}", model.map_or("unknown processor", |(_, name)| name), kernel.trim())
}

fn markdown(machine: &str, settings: &Settings, comparisons: &[Comparison]) -> Result<String> {
    let mut text = format!(
        "{machine}. Medians of {} rounds of {} s; CPU is the proxy's own. Ratio: CPU an operation of ours over that \
         of the row, the median of those in the same turn.\n",
        settings.rounds, settings.seconds
    );
    for comparison in comparisons {
        writeln!(text, "\n### {}\n", comparison.title)?;
        writeln!(text, "| | | ops/s | p50 µs | p99 µs | CPU µs/op | ratio |")?;
        writeln!(text, "|---|---|---:|---:|---:|---:|---:|")?;
        for scenario in &comparison.scenarios {
            let ours = scenario.rows.iter().find(|row| row.candidate == comparison.ours);
            for row in &scenario.rows {
                writeln!(text, "| {} | {} | {} |", scenario.name, row.candidate, figures(row, ours))?;
            }
        }
        for note in &comparison.notes {
            writeln!(text, "\n{note}")?;
        }
        if comparison.idle_bytes.is_empty() {
            continue;
        }
        writeln!(text, "\n| {} idle connections | bytes each |\n|---|---:|", settings.idle_connections)?;
        for (candidate, bytes) in &comparison.idle_bytes {
            writeln!(text, "| {candidate} | {bytes:.0} |")?;
        }
    }
    Ok(text)
}

fn figures(row: &Row, ours: Option<&Row>) -> String {
    if let Some(failure) = &row.failure {
        return format!("failed: {} | | | |", failure.lines().next().unwrap_or_default());
    }
    let m = row.median;
    // The server itself has no proxy whose CPU could be told.
    let (cpu, ratio) = if m.cpu_us > 0.0 {
        let ratio = ours.filter(|ours| ours.failure.is_none()).map_or(0.0, |ours| ratio(ours, row));
        (format!("{:.2}", m.cpu_us), format!("{ratio:.2}"))
    } else {
        ("–".to_owned(), "–".to_owned())
    };
    let errors = if m.errors > 0 { format!(" ({} errors)", m.errors) } else { String::new() };
    let left_out = m.left_out_percent;
    let left_out = if left_out > 0.0 { format!(" ({left_out:.1} % left out)") } else { String::new() };
    format!("{:.0}{errors} | {:.0} | {:.0}{left_out} | {cpu} | {ratio}", m.throughput, m.p50_us, m.p99_us)
}

/// Turn by turn, as a machine that slows down slows both.
fn ratio(ours: &Row, row: &Row) -> f64 {
    median(ours.rounds.iter().zip(&row.rounds).map(|(ours, row)| ours.cpu_us / row.cpu_us).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Measure, Scenario};
    use super::*;

    fn row(candidate: &str, cpu_us: f64) -> Row {
        let median = Measure { throughput: 1000.0, p50_us: 10.0, p99_us: 20.0, cpu_us, ..Measure::default() };
        Row { candidate: candidate.to_owned(), median, rounds: vec![median], failure: None }
    }

    #[test]
    fn ratios_are_ours_over_theirs_and_failures_are_said() {
        let failed = Row { failure: Some("no such thing\nat all".to_owned()), ..row("other", 1.0) };
        let rows = vec![row("no proxy", 0.0), row("peer", 8.0), failed, row("groove-x", 4.0)];
        let comparison = Comparison {
            title: "X".to_owned(),
            ours: "groove-x",
            scenarios: vec![Scenario { name: "get".to_owned(), rows }],
            idle_bytes: BTreeMap::from([("peer".to_owned(), 2048.4)]),
            notes: vec!["How it was set."],
        };
        let settings = Settings { rounds: 1, seconds: 1, workers: 1, idle_connections: 10, scenario: None };
        let folder = tempfile::tempdir().unwrap();
        let text = write(folder.path(), &settings, &[comparison]).unwrap();
        assert!(text.contains("| get | peer | 1000 | 10 | 20 | 8.00 | 0.50 |"), "{text}");
        assert!(text.contains("| get | no proxy | 1000 | 10 | 20 | – | – |"), "{text}");
        assert!(text.contains("| get | other | failed: no such thing |"), "{text}");
        assert!(text.contains("| peer | 2048 |"), "{text}");
        assert!(text.contains("\n\nHow it was set.\n\n"), "{text}");
        let svg = std::fs::read_to_string(folder.path().join("bench.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("groove-x"), "{svg}");
        let json = std::fs::read(folder.path().join("bench.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["comparisons"][0]["scenarios"][0]["rows"][1]["median"]["cpu_us"], 8.0);
    }

    #[test]
    fn a_turn_in_which_all_were_slow_does_not_count_more() {
        let turns = |cpu: [f64; 3]| Row {
            rounds: cpu.map(|cpu_us| Measure { cpu_us, ..Measure::default() }).to_vec(),
            ..row("x", 0.0)
        };
        assert!((ratio(&turns([4.0, 40.0, 5.0]), &turns([8.0, 80.0, 8.0])) - 0.5).abs() < 1e-9);
    }
}

//! `groove-memcached tap …`: shows what goes through a running proxy, on a terminal as a page that renews itself if
//! a summary is asked for, else line by line.

use clap::Args;
use groove_common::admin::Client;
use groove_common::app::{StartError, Table};
use groove_common::config::Duration;
use groove_common::tap::{Share, show};

use super::api::{Exchange, Line, Wish};
use super::summary::{Report, Row};

/// Shows what goes through a running proxy.
#[derive(Debug, Clone, Args)]
pub struct Tap {
    /// Requests of this tenant only
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Keys that begin like this only, as clients write them
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Keys of this cluster only
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// How much of it is looked at: 5%, 1/20 or 0.05
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    sample: Share,
    /// Sum up what is asked most instead of showing each exchange, in so many lines
    #[arg(long, value_name = "LINES", num_args = 0..=1, default_missing_value = "20")]
    top: Option<usize>,
    /// How often to sum up
    #[arg(long, value_name = "TIME", default_value = "2s")]
    every: Duration,
}

impl Tap {
    /// Shows it until the proxy has no more to tell, or nobody reads any more.
    ///
    /// # Errors
    ///
    /// When nobody answers, or the answer is no.
    pub async fn run(self, admin: Client) -> Result<(), StartError> {
        let wish = Wish {
            tenant: self.tenant,
            cluster: self.cluster,
            prefix: self.prefix,
            sample: self.sample.0,
            top: self.top,
            every_ms: u64::try_from(self.every.get().as_millis()).unwrap_or(u64::MAX),
        };
        let (sample, pages) = (wish.sample, wish.top.is_some());
        show(&admin, &serde_json::to_value(&wish)?, pages, |line| told(line, sample)).await
    }
}

/// A line for people.
fn told(line: &Line, sample: f64) -> String {
    match line {
        Line::Exchange(exchange) => of_exchange(exchange),
        Line::Summary(report) => of_report(report, sample),
        Line::Dropped { exchanges } => format!("… {exchanges} exchanges not shown, there was no room"),
    }
}

fn of_exchange(exchange: &Exchange) -> String {
    let Exchange { at, tenant, verb, key, result, value_bytes, took_us, server, failure, cluster: _ } =
        exchange;
    // `2026-11-26T12:01:02.123456Z`: people know the day.
    let at = at.get(11..26).unwrap_or(at);
    let result = failure.as_deref().unwrap_or_else(|| result.name());
    let size = value_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes}B"));
    let tenant = tenant.as_ref().map(|tenant| format!("{tenant:<8} ")).unwrap_or_default();
    format!("{at} {tenant}{verb:<7} {result:<10} {size:>8} {took_us:>7}us  {server:<21}  {key}")
}

fn of_report(report: &Report, sample: f64) -> String {
    let Report { seconds, seen, dropped, all, keys, prefixes, tenants } = report;
    let mut text = format!(
        "{:.0} requests a second, {} missed, {:.0} errors a second; {seen} seen in {seconds:.1}s of {}",
        all.per_second,
        percent(all.miss_ratio),
        all.errors_per_second,
        percent(Some(sample)),
    );
    if *dropped > 0 {
        text.push_str(&format!(", no room for {dropped}"));
    }
    text.push('\n');
    for (heading, rows) in [("tenant", tenants), ("prefix", prefixes), ("key", keys)] {
        if !rows.is_empty() {
            text.push_str(&format!("\n{}\n", table(heading, rows, !tenants.is_empty())));
        }
    }
    text
}

fn table(heading: &str, rows: &[Row], has_tenants: bool) -> Table {
    let is_of_tenants = heading == "tenant";
    let mut headings = vec!["requests/s", "share", "missed", "errors/s", "bytes"];
    headings.extend((has_tenants && !is_of_tenants).then_some("tenant"));
    headings.push(heading);
    let mut table = Table::new(headings);
    for row in rows {
        let mut cells = vec![
            format!("{:.0}", row.per_second),
            percent(Some(row.share)),
            percent(row.miss_ratio),
            format!("{:.0}", row.errors_per_second),
            row.value_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
        ];
        let tenant = row.tenant.clone().unwrap_or_default();
        match (is_of_tenants, has_tenants) {
            (true, _) => cells.push(tenant),
            (false, true) => cells.extend([tenant, shown(&row.name)]),
            (false, false) => cells.push(shown(&row.name)),
        }
        table.row(cells);
    }
    table
}

/// Keys without a prefix are together in one line.
fn shown(name: &str) -> String {
    if name.is_empty() { "(none)".to_owned() } else { name.to_owned() }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| Share(share).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::seen;

    #[test]
    fn an_exchange_is_one_line() {
        let exchange = Exchange {
            at: "2026-11-26T12:01:02.123456Z".to_owned(),
            tenant: Some("shop".to_owned()),
            cluster: "main".to_owned(),
            verb: "get".to_owned(),
            key: "user:7".to_owned(),
            result: seen::Result::Hit,
            value_bytes: Some(64),
            took_us: 230,
            server: "10.0.0.1:11211".to_owned(),
            failure: None,
        };
        assert_eq!(
            of_exchange(&exchange),
            "12:01:02.123456 shop     get     hit             64B     230us  10.0.0.1:11211         user:7"
        );
    }

    #[test]
    fn a_summary_has_a_table_for_what_there_is() {
        let row = |name: &str| Row {
            tenant: None,
            name: name.to_owned(),
            per_second: 1234.5,
            share: 0.5,
            miss_ratio: Some(0.001),
            errors_per_second: 0.0,
            value_bytes: None,
        };
        let report = Report {
            seconds: 2.0,
            seen: 20,
            dropped: 3,
            all: row(""),
            keys: vec![row("user:7")],
            prefixes: vec![row("")],
            tenants: Vec::new(),
        };
        assert_eq!(
            of_report(&report, 0.01),
            "1234 requests a second, 0.10% missed, 0 errors a second; 20 seen in 2.0s of 1%, no room for 3\n\n\
             requests/s  share  missed  errors/s  bytes  prefix\n\
             1234        50%    0.10%   0         -      (none)\n\n\
             requests/s  share  missed  errors/s  bytes  key\n\
             1234        50%    0.10%   0         -      user:7\n"
        );
    }
}

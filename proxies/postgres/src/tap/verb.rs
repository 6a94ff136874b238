//! `groove-postgres tap …`: shows which statements go through a running proxy, on a terminal as a page that renews itself
//! if a summary is asked for, else line by line.

use clap::Args;
use groove_common::admin::Client;
use groove_common::app::{StartError, Table};
use groove_common::config::Duration;
use groove_common::tap::{Share, show};

use super::api::{Line, Statement, Wish};
use super::summary::{Report, Row};

/// As much of a text as a line of a table has room for, in characters.
const QUERY_MAX: usize = 120;

/// Shows what goes through a running proxy.
#[derive(Debug, Clone, Args)]
pub struct Tap {
    /// Statements in this database only, as clients name it
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Statements of this user only
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// How much of it is looked at: 5%, 1/20 or 0.05
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    sample: Share,
    /// Sum up what takes most time instead of showing each statement, in so many lines
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
            database: self.database,
            user: self.user,
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
        Line::Statement(statement) => of_statement(statement),
        Line::Summary(report) => of_report(report, sample),
        Line::Dropped { statements } => format!("… {statements} statements not shown, there was no room"),
    }
}

fn of_statement(statement: &Statement) -> String {
    let Statement { at, database, user, query, rows, took_ms, wait_ms, outcome, sqlstate, .. } = statement;
    // `2026-11-26T12:01:02.123456Z`: people know the day.
    let at = at.get(11..26).unwrap_or(at);
    let outcome = sqlstate.as_ref().unwrap_or(outcome);
    let waited = if *wait_ms > 0.0 { format!(" waited {wait_ms:.3}ms") } else { String::new() };
    format!("{at} {database}.{user} {outcome:<5} {rows:>6} rows {took_ms:>9.3}ms{waited}  {query}")
}

fn of_report(report: &Report, sample: f64) -> String {
    let Report { seconds, seen, dropped, all, statements } = report;
    let mut text = format!(
        "{:.0} statements a second, {:.0} errors a second, {:.3}ms on average; {seen} seen in {seconds:.1}s of {}",
        all.count as f64 / seconds.max(0.001),
        all.errors as f64 / seconds.max(0.001),
        all.mean_ms,
        Share(sample),
    );
    if *dropped > 0 {
        text.push_str(&format!(", no room for {dropped}"));
    }
    text.push('\n');
    if !statements.is_empty() {
        text.push_str(&format!("\n{}\n", table(statements)));
    }
    text
}

fn table(rows: &[Row]) -> Table {
    let mut table =
        Table::new(["share", "count", "rows", "errors", "mean", "p50", "p99", "total", "database", "query"]);
    for row in rows {
        let ms = |ms: f64| format!("{ms:.3}ms");
        table.row([
            Share(row.share).to_string(),
            row.count.to_string(),
            row.rows.to_string(),
            row.errors.to_string(),
            ms(row.mean_ms),
            ms(row.p50_ms),
            ms(row.p99_ms),
            ms(row.total_ms),
            row.database.clone(),
            cut(&row.query),
        ]);
    }
    table
}

fn cut(query: &str) -> String {
    match query.char_indices().nth(QUERY_MAX) {
        None => query.to_owned(),
        Some((end, _)) => format!("{}…", query.get(..end).unwrap_or(query)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_one_line() {
        let mut statement = Statement {
            at: "2026-11-26T12:01:02.123456Z".to_owned(),
            database: "shop".to_owned(),
            user: "app".to_owned(),
            peer: "127.0.0.1:40000".to_owned(),
            application_name: "shop".to_owned(),
            server: "10.0.0.1:5432".to_owned(),
            protocol: "extended".to_owned(),
            fingerprint: "7d966d4a86732505".to_owned(),
            query: "select ?".to_owned(),
            rows: 1,
            took_ms: 0.23,
            wait_ms: 0.0,
            outcome: "done".to_owned(),
            sqlstate: None,
            together: 1,
        };
        assert_eq!(
            of_statement(&statement),
            "12:01:02.123456 shop.app done       1 rows     0.230ms  select ?"
        );
        (statement.sqlstate, statement.wait_ms) = (Some("22012".to_owned()), 5.0);
        assert_eq!(
            of_statement(&statement),
            "12:01:02.123456 shop.app 22012      1 rows     0.230ms waited 5.000ms  select ?"
        );
    }

    #[test]
    fn a_summary_has_a_row_for_each_fingerprint() {
        let row = Row {
            database: "shop".to_owned(),
            fingerprint: "7d966d4a86732505".to_owned(),
            query: format!("select {}", "a".repeat(200)),
            count: 300,
            rows: 600,
            errors: 1,
            share: 0.5,
            total_ms: 600.0,
            mean_ms: 2.0,
            p50_ms: 1.5,
            p99_ms: 20.0,
        };
        let report =
            Report { seconds: 2.0, seen: 3, dropped: 4, all: row.clone(), statements: vec![row.clone()] };
        let shown = of_report(&report, 0.01);
        let mut lines = shown.lines();
        assert_eq!(
            lines.next(),
            Some(
                "150 statements a second, 0 errors a second, 2.000ms on average; 3 seen in 2.0s of 1%, no room for 4"
            )
        );
        let cells = "50%    300    600   1       2.000ms  1.500ms  20.000ms  600.000ms  shop      select aaa";
        let last = lines.next_back().unwrap();
        assert!(last.starts_with(cells) && last.ends_with("a…"), "{last}");
    }
}

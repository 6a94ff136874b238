//! What was seen, beside what was expected.

use std::fmt;

#[derive(Debug)]
pub(crate) struct Row {
    proxy: &'static str,
    what: String,
    expected: String,
    seen: String,
    good: bool,
}

impl Row {
    /// A row that is good when what was seen is what was expected.
    pub(crate) fn same(
        proxy: &'static str,
        what: &str,
        expected: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        let (expected, seen) = (expected.into(), seen.into());
        let good = expected == seen;
        Self { proxy, what: what.to_owned(), expected, seen, good }
    }

    /// A row whose goodness is told.
    pub(crate) fn judged(
        proxy: &'static str,
        what: &str,
        expected: &str,
        seen: impl Into<String>,
        good: bool,
    ) -> Self {
        Self { proxy, what: what.to_owned(), expected: expected.to_owned(), seen: seen.into(), good }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    /// Adds a row when a part could not be shown to its end.
    pub(crate) fn conclude(&mut self, proxy: &'static str, shown: anyhow::Result<()>) {
        if let Err(error) = shown {
            eprintln!("{proxy}: {error:#}");
            let first = error.to_string().lines().next().unwrap_or_default().to_owned();
            self.push(Row::judged(proxy, "shown to its end", "no error", first, false));
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.0.iter().all(|row| row.good)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["proxy", "what", "expected", "seen", "ok"].map(str::to_owned);
        let rows = self.0.iter().map(|row| {
            let verdict = if row.good { "yes" } else { "NO" };
            [
                row.proxy.to_owned(),
                row.what.clone(),
                row.expected.clone(),
                row.seen.clone(),
                verdict.to_owned(),
            ]
        });
        let lines: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..5).map(width).collect();
        for (index, line) in lines.iter().enumerate() {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
            if index == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(f, "{}", rules.join("  "))?;
            }
        }
        Ok(())
    }
}

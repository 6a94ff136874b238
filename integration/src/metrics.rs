//! Reading a Prometheus page.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Parses the text format; lines that are not samples are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(Sample::parse).collect() }
    }

    /// The sum over all samples of `name` whose labels include `labels`; `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut matching = self
            .samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(|sample| {
                labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
            })
            .map(|sample| sample.value)
            .peekable();
        matching.peek()?;
        Some(matching.sum())
    }

    /// Every metric name on the page, once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = match line.rfind('}') {
            Some(end) => line.split_at_checked(end + 1)?,
            None => line.split_once(' ')?,
        };
        let value = value.split_whitespace().next()?.parse().ok()?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Self { name: name.trim().to_owned(), labels: labels_of(labels.trim_end_matches('}')), value })
    }
}

/// `a="x",b="y"` with backslash escapes inside the quotes.
fn labels_of(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => break,
                },
                '"' => {
                    end = at + 1;
                    break;
                }
                plain => value.push(plain),
            }
        }
        labels.insert(key.trim_start_matches(',').trim().to_owned(), value);
        rest = after.get(end..).unwrap_or_default();
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE hits counter\nhits_total{cluster=\"a\",verb=\"get\"} 3\n\
                        hits_total{cluster=\"a\",verb=\"set\"} 4 1700000000\nup 1\nodd{text=\"a\\\"},b\"} 2\n";

    #[test]
    fn sums_over_labels_that_are_not_named() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.sum("hits_total", &[("cluster", "a")]), Some(7.0));
        assert_eq!(metrics.sum("hits_total", &[("verb", "set")]), Some(4.0));
        assert_eq!(metrics.sum("hits_total", &[("verb", "touch")]), None);
        assert_eq!(metrics.sum("up", &[]), Some(1.0));
    }

    #[test]
    fn quoted_braces_and_commas_stay_in_the_value() {
        assert_eq!(Metrics::parse(PAGE).sum("odd", &[("text", "a\"},b")]), Some(2.0));
        assert_eq!(Metrics::parse(PAGE).names(), ["hits_total", "odd", "up"]);
    }
}

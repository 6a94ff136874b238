//! Tables for the terminal.

use std::fmt;

use serde_json::{Map, Value};

/// Columns as wide as they need to be.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<T: Into<String>>(headings: impl IntoIterator<Item = T>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |cell: &String| cell.chars().count();
        (0..columns).map(|column| cells(column).map(width).max().unwrap_or(0)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

/// Columns that come first, in this order; the rest follow as they are named.
const FIRST: [&str; 8] = ["name", "cluster", "address", "state", "health", "connections", "size", "in_use"];

/// A status as tables: the scalars first, then a table for each list.
pub(super) fn of_status(status: &Value) -> String {
    let Value::Object(fields) = status else { return status.to_string() };
    let mut parts = Vec::new();
    let scalars: Vec<_> =
        fields.iter().filter(|(_, value)| objects(value).is_none() && !value.is_object()).collect();
    let mut head = Table { rows: Vec::new() };
    for (name, value) in scalars {
        head.row([name.clone(), cell(value)]);
    }
    parts.push(head.to_string());
    for (name, value) in fields {
        if let Some(list) = objects(value) {
            parts.push(format!("{}\n{}", name.to_uppercase(), of_list(&list)));
            parts.extend(nested(name, &list));
        }
    }
    parts.join("\n\n")
}

/// The lists within a list's objects, each as one table whose first column says whose they are.
fn nested(outer: &str, list: &[&Map<String, Value>]) -> Vec<String> {
    let mut names: Vec<&String> = list.iter().flat_map(|object| object.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let owner = outer.trim_end_matches('s');
    let table = |name: &String| {
        let mut rows: Vec<Map<String, Value>> = Vec::new();
        for object in list {
            for inner in object.get(name).and_then(objects).into_iter().flatten() {
                let mut row = inner.clone();
                row.insert(owner.to_owned(), object.get("name").cloned().unwrap_or_default());
                rows.push(row);
            }
        }
        let rows: Vec<&Map<String, Value>> = rows.iter().collect();
        (!rows.is_empty()).then(|| format!("{}\n{}", name.to_uppercase(), of_list(&rows)))
    };
    names.into_iter().filter_map(table).collect()
}

/// A list of nothing but objects, and of at least one.
fn objects(value: &Value) -> Option<Vec<&Map<String, Value>>> {
    let list = value.as_array().filter(|list| !list.is_empty())?;
    list.iter().map(Value::as_object).collect()
}

fn of_list(objects: &[&Map<String, Value>]) -> Table {
    let mut names: Vec<&str> = Vec::new();
    let named = objects.iter().flat_map(|object| object.keys().map(String::as_str));
    for name in FIRST.into_iter().chain(named) {
        if !names.contains(&name) && objects.iter().any(|object| object.contains_key(name)) {
            names.push(name);
        }
    }
    let mut table = Table::new(names.iter().copied());
    for object in objects {
        let cells = names.iter().map(|name| object.get(*name).map(short).unwrap_or_default());
        table.row(cells);
    }
    table
}

/// A cell: of a list with its own table only the length.
fn short(value: &Value) -> String {
    objects(value).map_or_else(|| cell(value), |list| list.len().to_string())
}

/// A value in few words.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_becomes_tables() {
        let status = json!({
            "name": "groove-x",
            "workers": [1, 2],
            "clusters": [
                { "source": "static", "name": "main", "endpoints": [
                    { "address": "127.0.0.1:1", "state": "up", "error": null },
                    { "address": "127.0.0.1:22", "state": "down", "error": "refused" },
                ] },
                { "source": "dns", "name": "far", "endpoints": [] },
            ],
        });
        let expected = "\
name     groove-x
workers  1 2

CLUSTERS
name  endpoints  source
main  2          static
far   -          dns

ENDPOINTS
cluster  address       state  error
main     127.0.0.1:1   up     -
main     127.0.0.1:22  down   refused";
        assert_eq!(of_status(&status), expected);
    }
}

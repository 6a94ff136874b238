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
        fields.iter().filter(|(_, value)| !is_list_of_objects(value) && !value.is_object()).collect();
    let mut head = Table { rows: Vec::new() };
    for (name, value) in scalars {
        head.row([name.clone(), cell(value)]);
    }
    parts.push(head.to_string());
    for (name, value) in fields {
        if let Some(table) = value.as_array().filter(|_| is_list_of_objects(value)).map(|list| of_list(list))
        {
            parts.push(format!("{}\n{table}", name.to_uppercase()));
        }
    }
    parts.join("\n\n")
}

fn is_list_of_objects(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_object))
}

fn of_list(list: &[Value]) -> Table {
    let objects: Vec<&Map<String, Value>> = list.iter().filter_map(Value::as_object).collect();
    let mut names: Vec<&str> = Vec::new();
    let named = objects.iter().flat_map(|object| object.keys().map(String::as_str));
    for name in FIRST.into_iter().chain(named) {
        if !names.contains(&name) && objects.iter().any(|object| object.contains_key(name)) {
            names.push(name);
        }
    }
    let mut table = Table::new(names.iter().copied());
    for object in objects {
        table.row(names.iter().map(|name| object.get(*name).map(cell).unwrap_or_default()));
    }
    table
}

/// A value in few words.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
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

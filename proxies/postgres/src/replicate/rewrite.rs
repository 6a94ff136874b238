//! What members would each make up for themselves, found in a text and replaced by what the leader has made up.
//!
//! The text is edited where these stand and nowhere else. What is drawn for a whole statement (its time) may stand
//! anywhere; what is drawn for each row (dice, numbers) only where rows are written out.

use std::ops::Range;

use super::schema::{Column, Table};
use super::statement::{Insert, Refusal, Verb, Write};
use crate::session::settings::quote;
use crate::sql::{Part, Span, spans};

/// Something the leader is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// An expression that gives it.
    pub expression: String,
    /// What it is, as a type's name.
    pub kind: String,
    /// Where its value goes.
    pub place: Place,
}

/// Where a value goes in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Instead of this.
    Instead(Range<usize>),
    /// In the row of VALUES that ends here, as one value more.
    AtEnd(usize),
}

/// What is to be done to a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to ask the leader for.
    pub draws: Vec<Draw>,
    /// What to put in besides: where, and what.
    pub inserts: Vec<(usize, String)>,
    /// Sequences that are drawn from, by the text that names them.
    pub sequences: Vec<String>,
    /// The row's image is one more column of RETURNING.
    pub image: String,
}

/// Names without parentheses, and what they are.
const KEYWORDS: [(&str, &str); 5] = [
    ("current_date", "date"),
    ("current_time", "timetz"),
    ("current_timestamp", "timestamptz"),
    ("localtime", "time"),
    ("localtimestamp", "timestamp"),
];

/// Functions that give the same throughout a statement.
const OF_THE_STATEMENT: [(&str, &str); 11] = [
    ("inet_client_addr", "inet"),
    ("inet_client_port", "int4"),
    ("inet_server_addr", "inet"),
    ("inet_server_port", "int4"),
    ("now", "timestamptz"),
    ("pg_backend_pid", "int4"),
    ("pg_postmaster_start_time", "timestamptz"),
    ("statement_timestamp", "timestamptz"),
    ("transaction_timestamp", "timestamptz"),
    ("txid_current", "int8"),
    ("version", "text"),
];

/// Functions that give something else each time.
const OF_THE_ROW: [(&str, &str); 11] = [
    ("clock_timestamp", "timestamptz"),
    ("currval", "int8"),
    ("gen_random_uuid", "uuid"),
    ("lastval", "int8"),
    ("nextval", "int8"),
    ("random", "float8"),
    ("timeofday", "text"),
    ("uuid_generate_v1", "uuid"),
    ("uuid_generate_v4", "uuid"),
    ("uuidv4", "uuid"),
    ("uuidv7", "uuid"),
];

fn kind_of(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// Whether the leader is asked for this one.
pub fn is_drawn(name: &str) -> bool {
    [&KEYWORDS[..], &OF_THE_STATEMENT, &OF_THE_ROW].iter().any(|table| kind_of(table, name).is_some())
}

/// A call to be drawn, as found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its bytes.
    pub at: Range<usize>,
    /// The function.
    pub name: String,
    /// What it gives.
    pub kind: &'static str,
    /// Whether each row gets its own.
    pub is_of_the_row: bool,
    /// Its only argument, if that is a plain string: a sequence's name.
    pub text: Option<String>,
    /// Whether it has parameters in it.
    pub has_parameters: bool,
}

/// Finds the calls to be drawn.
pub fn calls(text: &str) -> Option<Vec<Call>> {
    let spans = spans(text)?;
    let (mut calls, mut at) = (Vec::new(), 0);
    while let Some(span) = spans.get(at) {
        match call(text, &spans, at) {
            Some((call, next)) => {
                calls.push(call);
                at = next;
            }
            None => at += 1,
        }
        let _ = span;
    }
    Some(calls)
}

fn call(text: &str, spans: &[Span], at: usize) -> Option<(Call, usize)> {
    let name = spans.get(at)?;
    let mark = |at: usize, mark: u8| spans.get(at).is_some_and(|span| span.is(mark));
    let folded = name.name(text)?;
    let mut begin = name.at.start;
    if at > 0 && mark(at - 1, b'.') {
        let schema = at.checked_sub(2).and_then(|at| spans.get(at))?;
        let is_own =
            schema.name(text)? == "pg_catalog" && !at.checked_sub(3).is_some_and(|at| mark(at, b'.'));
        is_own.then_some(())?;
        begin = schema.at.start;
    }
    let is_called = mark(at + 1, b'(');
    let is_keyword = name.part == Part::Word && begin == name.at.start && !mark(at + 1, b'.');
    if let Some(kind) = kind_of(&KEYWORDS, &folded).filter(|_| is_keyword) {
        // A precision.
        let end = if is_called && mark(at + 3, b')') { at + 3 } else { at };
        let at = begin..spans.get(end)?.at.end;
        let call = Call { at, name: folded, kind, is_of_the_row: false, text: None, has_parameters: false };
        return Some((call, end + 1));
    }
    is_called.then_some(())?;
    let (kind, is_of_the_row) = match kind_of(&OF_THE_STATEMENT, &folded) {
        Some(kind) => (kind, false),
        None => (kind_of(&OF_THE_ROW, &folded)?, true),
    };
    let (mut depth, mut end) = (0, at + 1);
    loop {
        let span = spans.get(end)?;
        depth += i32::from(span.is(b'(')) - i32::from(span.is(b')'));
        if depth == 0 {
            break;
        }
        end += 1;
    }
    let inner = spans.get(at + 2..end)?;
    let is_regclass = |rest: &[Span]| match rest {
        [] => true,
        [a, b, c] => a.is(b':') && b.is(b':') && c.is_word(text, "regclass"),
        _ => false,
    };
    let literal = match inner {
        [first, rest @ ..] if first.part == Part::Text && is_regclass(rest) => plain_text(first.of(text)),
        _ => None,
    };
    let has_parameters = inner.iter().any(|span| span.of(text).starts_with('$') && span.part != Part::Text);
    let at = begin..spans.get(end)?.at.end;
    Some((Call { at, name: folded, kind, is_of_the_row, text: literal, has_parameters }, end + 1))
}

/// What a string without escapes says.
fn plain_text(written: &str) -> Option<String> {
    let inner = written.strip_prefix('\'')?.strip_suffix('\'')?;
    (!inner.contains('\\')).then(|| inner.replace("''", "'"))
}

/// An expression that gives the text of a value which reads the same in any session.
pub fn as_text(expression: &str, kind: &str) -> String {
    match kind {
        "timestamptz" | "timestamp" | "date" | "time" | "timetz" => {
            format!("(pg_catalog.to_jsonb({expression}) OPERATOR(pg_catalog.#>>) '{{}}')")
        }
        _ => format!("({expression})::pg_catalog.text"),
    }
}

/// Plans how a write is made the same for all members.
pub fn plan(text: &str, write: &Write, table: &Table) -> Result<Plan, Refusal> {
    let calls = calls(text)
        .ok_or_else(|| Refusal::new("the statement is not understood", "Write it in another way."))?;
    // What the parser has found and what the edit finds have to be the same.
    let found = write.seen.calls.iter().filter(|(_, name)| is_drawn(name)).count();
    if found != calls.len() {
        return Err(Refusal::new(
            "a function that gives another value on each member stands where it cannot be replaced",
            "Call it in a SELECT of its own, and use the value.",
        ));
    }
    let mut plan = Plan { image: image(write), ..Plan::default() };
    let values = write.insert.as_ref().map_or(0..0, Insert::values);
    let rows_select = write.insert.as_ref().is_some_and(|insert| insert.selects(text));
    for call in calls {
        let in_values = values.contains(&call.at.start) && !rows_select;
        if call.is_of_the_row && !in_values {
            return Err(Refusal::new(
                format!("{}() for rows that the servers find cannot be replicated", call.name),
                "SELECT the rows first, and write each with a value of its own.",
            ));
        }
        if call.has_parameters {
            return Err(Refusal::new(
                format!("{}() of a parameter cannot be replicated", call.name),
                "Write the argument into the statement.",
            ));
        }
        if call.name == "nextval" {
            plan.sequences.push(call.text.clone().ok_or_else(odd_sequence)?);
        }
        let expression = text.get(call.at.clone()).unwrap_or_default().to_owned();
        plan.draws.push(Draw { expression, kind: call.kind.to_owned(), place: Place::Instead(call.at) });
    }
    if write.verb == Verb::Insert
        && let Some(insert) = &write.insert
    {
        fill(insert, table, &mut plan)?;
    }
    Ok(plan)
}

fn odd_sequence() -> Refusal {
    Refusal::new(
        "nextval() of what is not a sequence's plain name cannot be replicated",
        "Write the name as a string.",
    )
}

/// The image of a row, by which members are compared.
fn image(write: &Write) -> String {
    format!("pg_catalog.md5(ROW({}.*)::pg_catalog.text)", write.alias)
}

/// Has an INSERT say what its columns' defaults would make up.
fn fill(insert: &Insert, table: &Table, plan: &mut Plan) -> Result<(), Refusal> {
    let width = insert.rows.iter().map(|row| row.values.len()).max().unwrap_or(0);
    let named: Vec<&str> = match &insert.columns {
        Some((columns, _)) => columns.iter().map(String::as_str).collect(),
        None if insert.defaults.is_some() => Vec::new(),
        None if insert.rows.is_empty() => table.columns.iter().map(|column| column.name.as_str()).collect(),
        None => table.columns.iter().take(width).map(|column| column.name.as_str()).collect(),
    };
    // DEFAULT as a value.
    for row in &insert.rows {
        for (index, (at, is_default)) in row.values.iter().enumerate() {
            let column = named.get(index).and_then(|name| table.column(name));
            if let Some(column) = column.filter(|column| *is_default && column.is_made_up()) {
                let expression = plan_sequences(plan, column)?;
                plan.draws.push(draw(column, Place::Instead(at.clone()), expression));
            }
        }
    }
    let missing: Vec<&Column> = table
        .columns
        .iter()
        .filter(|column| column.is_made_up() && !named.contains(&column.name.as_str()))
        .collect();
    let is_identity = |column: &&Column| column.is_identity;
    let replaced = named.iter().filter_map(|name| table.column(name)).any(|column| {
        column.is_identity
            && insert.rows.iter().any(|row| row.values.iter().any(|(_, is_default)| *is_default))
    });
    if (missing.iter().any(is_identity) || replaced) && !insert.overrides {
        plan.inserts.push((insert.source, "OVERRIDING SYSTEM VALUE ".to_owned()));
    }
    if missing.is_empty() {
        return Ok(());
    }
    if insert.rows.is_empty() && insert.defaults.is_none() {
        return Err(Refusal::new(
            format!(
                "INSERT ... SELECT without the column \"{}\", whose default differs from row to row, cannot be replicated",
                missing.first().map(|column| column.name.as_str()).unwrap_or_default()
            ),
            "SELECT the rows first, and INSERT them with VALUES.",
        ));
    }
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let added: Vec<String> = missing.iter().map(|column| quoted(&column.name)).collect();
    match (&insert.columns, &insert.defaults) {
        (Some((_, close)), None) => plan.inserts.push((*close, format!(", {}", added.join(", ")))),
        (None, None) => {
            let all: Vec<String> = named.iter().map(|name| quoted(name)).chain(added).collect();
            plan.inserts.push((insert.after_table, format!(" ({})", all.join(", "))));
        }
        (columns, Some(defaults)) => {
            if columns.is_some() {
                return Err(Refusal::new(
                    "DEFAULT VALUES with columns is not understood",
                    "Leave the columns out.",
                ));
            }
            plan.inserts.push((insert.after_table, format!(" ({})", added.join(", "))));
            for (index, column) in missing.iter().enumerate() {
                let sequence = plan_sequences(plan, column)?;
                let place =
                    Place::Instead(defaults.start..if index == 0 { defaults.end } else { defaults.start });
                plan.draws.push(draw(column, place, sequence));
            }
            return Ok(());
        }
    }
    for row in &insert.rows {
        for column in &missing {
            let sequence = plan_sequences(plan, column)?;
            plan.draws.push(draw(column, Place::AtEnd(row.close), sequence));
        }
    }
    Ok(())
}

/// The expression that gives a column's value, once its sequences are noted.
fn plan_sequences(plan: &mut Plan, column: &Column) -> Result<String, Refusal> {
    let expression = column.default.clone().unwrap_or_default();
    for call in calls(&expression).unwrap_or_default() {
        if call.name == "nextval" {
            plan.sequences.push(call.text.ok_or_else(odd_sequence)?);
        }
    }
    Ok(expression)
}

fn draw(column: &Column, place: Place, expression: String) -> Draw {
    Draw { expression, kind: column.kind.clone(), place }
}

/// Edits a text: each draw's place gets its value.
pub fn edit(text: &str, plan: &Plan, values: &[Option<String>]) -> String {
    let mut edits: Vec<(Range<usize>, String)> =
        plan.inserts.iter().map(|(at, what)| (*at..*at, what.clone())).collect();
    let mut defaults: Vec<String> = Vec::new();
    let mut defaults_at = None;
    for (draw, value) in plan.draws.iter().zip(values) {
        let value = match value {
            Some(value) => format!("({}::{})", quote(value), draw.kind),
            None => format!("(NULL::{})", draw.kind),
        };
        match &draw.place {
            Place::AtEnd(at) => edits.push((*at..*at, format!(", {value}"))),
            Place::Instead(at)
                if is_default_values(text, at) || defaults_at.is_some_and(|start| start == at.start) =>
            {
                if defaults_at.is_none() {
                    defaults_at = Some(at.start);
                    edits.push((at.clone(), String::new()));
                }
                defaults.push(value);
            }
            Place::Instead(at) => edits.push((at.clone(), value)),
        }
    }
    if let Some(start) = defaults_at
        && let Some((_, what)) = edits.iter_mut().find(|(at, what)| at.start == start && what.is_empty())
    {
        *what = format!("VALUES ({})", defaults.join(", "));
    }
    edits.sort_by_key(|(at, _)| (at.start, at.end));
    let (mut edited, mut last) = (String::with_capacity(text.len() + 64), 0);
    for (at, what) in edits {
        edited.push_str(text.get(last..at.start).unwrap_or_default());
        edited.push_str(&what);
        last = at.end;
    }
    edited.push_str(text.get(last..).unwrap_or_default());
    edited
}

fn is_default_values(text: &str, at: &Range<usize>) -> bool {
    let words = text.get(at.clone()).unwrap_or_default();
    words.len() > 7 && words.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("default"))
}

/// The same with the row's image as the last column of what it returns.
pub fn with_image(text: &str, write: &Write, plan: &Plan) -> String {
    let link = if write.returning { "," } else { " RETURNING" };
    // A comment may be the last thing in it.
    format!("{}\n{link} {}", text.trim_end(), plan.image)
}

//! What a statement is to a group: a read, a write and what it touches, a transaction's beginning or end, a setting.
//!
//! Whatever is not understood is refused: a statement that one member takes otherwise than another ends a group.

mod control;
mod insert;
#[cfg(test)]
mod tests;
mod walk;

use std::thread;

use sqlparser::ast::{
    self, AssignmentTarget, FromTable, ObjectName, OnConflictAction, OnInsert, SetExpr, TableFactor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

pub use control::{Level, Modes, is_kept};
pub use insert::{Insert, Row};
pub use walk::{Seen, folded};

use crate::sql::{Span, spans};

/// A name and its schema, as the server knows them.
pub type Name = Vec<String>;

/// The parser recurses: it gets a stack that the longest text cannot exhaust, of which no more is real than is used.
const STACK: usize = 128 << 20;
/// The longest text that is parsed.
pub const TEXT_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 64;

/// A statement, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// Nothing.
    Empty,
    /// It reads.
    Read(Read),
    /// It changes rows of one table.
    Write(Box<Write>),
    /// It changes what there is: replicated as it is written, beside no other.
    Definition,
    /// TRUNCATE of these.
    Truncate(Vec<Name>),
    /// BEGIN.
    Begin(Modes),
    /// SET TRANSACTION.
    SetTransaction(Modes),
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT, RELEASE.
    Savepoint,
    /// ROLLBACK TO.
    RollbackTo,
    /// SET, or RESET, of this setting.
    Set {
        /// As the server knows it.
        name: String,
        /// For the transaction only.
        is_local: bool,
    },
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL.
    DiscardAll,
    /// SET CONSTRAINTS.
    Constraints,
    /// LOCK TABLE.
    Lock(Vec<Name>),
}

/// What reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Read {
    /// What is in it.
    pub seen: Seen,
    /// It locks what it reads.
    pub locks: bool,
}

/// What changes rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// How.
    pub verb: Verb,
    /// The table.
    pub table: Name,
    /// What it is called in the statement, as it is written.
    pub alias: String,
    /// Columns that are assigned to rows that were there before.
    pub assigned: Vec<String>,
    /// Whether it has RETURNING.
    pub returning: bool,
    /// What is in it.
    pub seen: Seen,
    /// What an INSERT is made of.
    pub insert: Option<Insert>,
}

/// How rows are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// INSERT
    Insert,
    /// UPDATE
    Update,
    /// DELETE
    Delete,
}

/// Why a statement is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl Refusal {
    /// Why, and what to do.
    pub fn new(message: impl Into<String>, hint: &'static str) -> Refusal {
        Refusal { message: message.into(), hint }
    }
}

/// Cuts a text into statements.
pub fn split(text: &str) -> Result<Vec<&str>, Refusal> {
    if text.len() > TEXT_MAX {
        return Err(Refusal::new("the statement is too long to be replicated", "Send less at once."));
    }
    let spans = spans(text).ok_or_else(unreadable)?;
    let (mut statements, mut begin, mut depth, mut is_empty) = (Vec::new(), 0, 0i32, true);
    for span in &spans {
        depth += i32::from(span.is(b'(')) - i32::from(span.is(b')'));
        if span.is(b';') && depth == 0 {
            if !is_empty {
                statements.extend(text.get(begin..span.at.start));
            }
            (begin, is_empty) = (span.at.end, true);
        } else {
            is_empty = false;
        }
    }
    if !is_empty {
        statements.extend(text.get(begin..));
    }
    Ok(statements)
}

/// Understands one statement.
pub fn understand(text: &str) -> Result<Statement, Refusal> {
    if text.len() > TEXT_MAX {
        return Err(Refusal::new("the statement is too long to be replicated", "Send less at once."));
    }
    let spans = spans(text).ok_or_else(unreadable)?;
    if spans.iter().all(|span| span.is(b';')) {
        return Ok(Statement::Empty);
    }
    if let Some(control) = control::read(text, &spans)? {
        return Ok(control);
    }
    // On a thread of its own, for the sake of its stack; what makes the parser panic is not understood.
    let parsed = thread::scope(|scope| {
        let parser = thread::Builder::new().name("sql".to_owned()).stack_size(STACK);
        parser.spawn_scoped(scope, || parse(text, &spans)).ok()?.join().ok()
    });
    parsed.unwrap_or_else(|| Err(unreadable()))
}

fn unreadable() -> Refusal {
    Refusal::new(
        "this statement is not understood, so that it cannot be replicated",
        "Write it in another way; docs/replication.md lists what is understood.",
    )
}

#[allow(clippy::wildcard_enum_match_arm, reason = "all others are looked at as definitions")]
fn parse(text: &str, spans: &[Span]) -> Result<Statement, Refusal> {
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(DEPTH_MAX).try_with_sql(text);
    let statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(|_| unreadable())?;
    let [statement] = &statements[..] else { return Err(unreadable()) };
    let seen = Seen::of(statement, text, spans);
    if let Some(refusal) = seen.never() {
        return Err(refusal);
    }
    match statement {
        // In WITH: the leader alone would carry it out.
        ast::Statement::Query(_) if seen.writes => Err(plain()),
        ast::Statement::Query(query) => {
            let locks = seen.locks || !query.locks.is_empty();
            Ok(Statement::Read(Read { seen, locks }))
        }
        ast::Statement::Explain { analyze, options, .. }
            if !seen.writes || (!analyze && options.is_none()) =>
        {
            Ok(Statement::Read(Read { seen, locks: false }))
        }
        ast::Statement::ShowVariable { .. } => Ok(Statement::Read(Read::default())),
        ast::Statement::Copy { to: true, target: ast::CopyTarget::Stdout, .. } if !seen.writes => {
            Ok(Statement::Read(Read { seen, locks: false }))
        }
        ast::Statement::Copy { .. } => Err(Refusal::new(
            "COPY FROM is not replicated",
            "Use INSERT, or load the members one by one while the proxy is down.",
        )),
        ast::Statement::Insert(insert) => write_insert(insert, seen, text, spans),
        ast::Statement::Update(update) => write_update(update, seen, text),
        ast::Statement::Delete(delete) => write_delete(delete, seen, text),
        other => definition(other, &seen, text, spans),
    }
}

fn plain() -> Refusal {
    Refusal::new(
        "this form of the statement is not replicated",
        "Write to one table by its name, with the changes as the statement itself.",
    )
}

fn name(object: &ObjectName) -> Result<Name, Refusal> {
    folded(object).ok_or_else(plain)
}

fn write_insert(insert: &ast::Insert, seen: Seen, text: &str, spans: &[Span]) -> Result<Statement, Refusal> {
    let ast::TableObject::TableName(object) = &insert.table else { return Err(plain()) };
    let has_with = insert.source.as_ref().is_some_and(|source| source.with.is_some());
    let is_odd = insert.or.is_some()
        || insert.ignore
        || insert.overwrite
        || insert.replace_into
        || insert.partitioned.is_some()
        || insert.insert_alias.is_some()
        || has_with;
    if is_odd || seen.writes_beside(1) {
        return Err(plain());
    }
    let assigned = match &insert.on {
        None => Vec::new(),
        Some(OnInsert::OnConflict(conflict)) => match &conflict.action {
            OnConflictAction::DoNothing => Vec::new(),
            OnConflictAction::DoUpdate(update) => columns(&update.assignments)?,
        },
        Some(_) => return Err(plain()),
    };
    let shape = insert::read(text, spans).ok_or_else(plain)?;
    let is_values = insert.source.as_ref().is_some_and(|source| matches!(*source.body, SetExpr::Values(_)));
    let rows = shape.rows.len();
    if is_values != (rows > 0) {
        return Err(plain());
    }
    let alias = match &insert.table_alias {
        Some(alias) => alias.alias.to_string(),
        None => last(object)?,
    };
    Ok(Statement::Write(Box::new(Write {
        verb: Verb::Insert,
        table: name(object)?,
        alias,
        assigned,
        returning: insert.returning.is_some(),
        seen,
        insert: Some(shape),
    })))
}

fn write_update(update: &ast::Update, seen: Seen, text: &str) -> Result<Statement, Refusal> {
    let (table, alias) = target(&update.table)?;
    let is_odd = update.or.is_some() || !update.order_by.is_empty() || update.limit.is_some();
    if is_odd || seen.writes_beside(1) || starts_with_with(text) {
        return Err(plain());
    }
    Ok(Statement::Write(Box::new(Write {
        verb: Verb::Update,
        table,
        alias,
        assigned: columns(&update.assignments)?,
        returning: update.returning.is_some(),
        seen,
        insert: None,
    })))
}

fn write_delete(delete: &ast::Delete, seen: Seen, text: &str) -> Result<Statement, Refusal> {
    let FromTable::WithFromKeyword(tables) = &delete.from else { return Err(plain()) };
    let [only] = &tables[..] else { return Err(plain()) };
    let (table, alias) = target(only)?;
    let is_odd = !delete.tables.is_empty() || !delete.order_by.is_empty() || delete.limit.is_some();
    if is_odd || seen.writes_beside(1) || starts_with_with(text) {
        return Err(plain());
    }
    Ok(Statement::Write(Box::new(Write {
        verb: Verb::Delete,
        table,
        alias,
        assigned: Vec::new(),
        returning: delete.returning.is_some(),
        seen,
        insert: None,
    })))
}

fn starts_with_with(text: &str) -> bool {
    text.trim_start().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("with"))
}

fn target(table: &ast::TableWithJoins) -> Result<(Name, String), Refusal> {
    let TableFactor::Table { name: object, alias, args: None, .. } = &table.relation else {
        return Err(plain());
    };
    if !table.joins.is_empty() {
        return Err(plain());
    }
    let alias = match alias {
        Some(alias) if alias.columns.is_empty() => alias.name.to_string(),
        Some(_) => return Err(plain()),
        None => last(object)?,
    };
    Ok((name(object)?, alias))
}

/// The last part of a name, as it is written.
fn last(object: &ObjectName) -> Result<String, Refusal> {
    match object.0.last() {
        Some(ast::ObjectNamePart::Identifier(ident)) => Ok(ident.to_string()),
        Some(ast::ObjectNamePart::Function(_)) | None => Err(plain()),
    }
}

fn columns(assignments: &[ast::Assignment]) -> Result<Vec<String>, Refusal> {
    let mut columns = Vec::new();
    for assignment in assignments {
        let names = match &assignment.target {
            AssignmentTarget::ColumnName(column) => std::slice::from_ref(column),
            AssignmentTarget::Tuple(columns) => &columns[..],
        };
        for column in names {
            columns.extend(name(column)?.into_iter().next());
        }
    }
    Ok(columns)
}

/// Statements that change what there is. Of the forms of these that do not say the same to every member each is refused.
#[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is refused")]
fn definition(
    statement: &ast::Statement,
    seen: &Seen,
    text: &str,
    spans: &[Span],
) -> Result<Statement, Refusal> {
    use ast::Statement as S;
    let has = |word: &str| spans.iter().any(|span| span.is_word(text, word));
    let refuse =
        |what: &str, hint: &'static str| Err(Refusal::new(format!("{what} cannot be replicated"), hint));
    let alone = "Run it on each member while the proxy is down.";
    if has("concurrently") {
        return refuse("CONCURRENTLY", "Leave it out: it cannot be in a transaction.");
    }
    if has("unlogged") {
        return refuse(
            "an unlogged table",
            "A member that crashes would have it empty; use an ordinary table.",
        );
    }
    if has("temp") || has("temporary") {
        return refuse(
            "a temporary table",
            "A transaction that uses one cannot be prepared; use an ordinary table.",
        );
    }
    match statement {
        S::CreateTable(table) if table.query.is_some() => {
            refuse("CREATE TABLE AS", "Create the table, and INSERT ... SELECT.")
        }
        S::AlterTable(_) => {
            let draws = !seen.is_quiet()
                || ["serial", "bigserial", "smallserial", "identity", "trigger", "rule"]
                    .iter()
                    .any(|word| has(word));
            match draws {
                true => refuse(
                    "an ALTER TABLE that calls functions, numbers rows or is about triggers",
                    "Add the column without a default, UPDATE the rows, and set the default then.",
                ),
                false => Ok(Statement::Definition),
            }
        }
        S::Truncate(_) if !seen.relations.is_empty() => Ok(Statement::Truncate(seen.relations.clone())),
        S::CreateTable(_)
        | S::CreateIndex(_)
        | S::CreateView(_)
        | S::CreateSequence { .. }
        | S::CreateSchema { .. }
        | S::CreateType { .. }
        | S::CreateDomain(_)
        | S::CreateFunction(_)
        | S::Drop { .. }
        | S::DropFunction(_)
        | S::DropDomain(_)
        | S::Comment { .. }
        | S::Grant(_)
        | S::Revoke(_)
        | S::AlterIndex { .. }
        | S::AlterType(_)
        | S::AlterSchema(_)
            if !has("database") && !has("materialized") =>
        {
            Ok(Statement::Definition)
        }
        _ => refuse("this kind of statement", alone),
    }
}

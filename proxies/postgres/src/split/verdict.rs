//! One text, parsed and judged.

use std::ops::ControlFlow;
use std::thread;

use sqlparser::ast::{
    CopyTarget, DescribeAlias, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, Set, SetExpr,
    Statement, TableFactor, TransactionAccessMode, TransactionIsolationLevel, TransactionMode, Visit,
    Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::Functions;
use crate::sql;

/// What a text does, as far as it matters to where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It reads, and nothing else.
    Reads,
    /// It begins a transaction.
    Begins(Modes),
    /// It says what the transaction is that it stands in.
    Sets(Modes),
    /// It writes, or may.
    Writes,
}

/// Modes of a transaction, as far as they are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// READ ONLY or READ WRITE.
    pub is_read_only: Option<bool>,
    /// ISOLATION LEVEL SERIALIZABLE, or another one.
    pub is_serializable: Option<bool>,
}

impl Modes {
    fn read(modes: &[TransactionMode]) -> Modes {
        let mut read = Modes::default();
        for mode in modes {
            match mode {
                TransactionMode::AccessMode(access) => {
                    read.is_read_only = Some(*access == TransactionAccessMode::ReadOnly);
                }
                TransactionMode::IsolationLevel(level) => {
                    read.is_serializable = Some(*level == TransactionIsolationLevel::Serializable);
                }
            }
        }
        read
    }

    /// The same after `later` has been said, too.
    pub fn then(self, later: Modes) -> Modes {
        Modes {
            is_read_only: later.is_read_only.or(self.is_read_only),
            is_serializable: later.is_serializable.or(self.is_serializable),
        }
    }
}

/// The parser and what it makes recurse deeply where a text nests, or is a long chain (`1+1+1…`): it gets a stack that the
/// longest text cannot exhaust, of which no more is real than is used.
const STACK: usize = 128 << 20;
/// The longest text that is parsed, in bytes.
pub(super) const TEXT_MAX: usize = 16 << 10;
/// Levels of parentheses and queries within each other.
const DEPTH_MAX: usize = 64;

/// Names of views and their like that tell of the server itself, or of a session of it.
const OF_THE_SERVER: [&str; 8] = [
    "pg_cursors",
    "pg_locks",
    "pg_prepared_statements",
    "pg_prepared_xacts",
    "pg_replication_origin_status",
    "pg_replication_slots",
    "pg_settings",
    "pg_subscription",
];

/// Settings that tell whether a server is a replica: a database that is split takes writes, whoever is asked.
const OF_THE_ROLE: [&str; 3] = ["in_hot_standby", "transaction_read_only", "all"];

/// Judges a text. On a thread of its own, for the sake of its stack; what makes the parser panic writes.
pub(super) fn judge(text: &str, functions: &Functions) -> Verdict {
    if text.len() > TEXT_MAX || !sql::read(text.as_bytes()).is_nothing() {
        return Verdict::Writes;
    }
    let judged = thread::scope(|scope| {
        let parser = thread::Builder::new().name("sql".to_owned()).stack_size(STACK);
        let parser = parser.spawn_scoped(scope, || parse(text, functions)).ok()?;
        parser.join().ok()
    });
    judged.unwrap_or(Verdict::Writes)
}

fn parse(text: &str, functions: &Functions) -> Verdict {
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(DEPTH_MAX).try_with_sql(text);
    let Ok(statements) = parser.and_then(|mut parser| parser.parse_statements()) else {
        return Verdict::Writes;
    };
    if let [Statement::StartTransaction { modes, statements, .. }] = &statements[..]
        && statements.is_empty()
    {
        return Verdict::Begins(Modes::read(modes));
    }
    if let [Statement::Set(Set::SetTransaction { modes, snapshot: None, session: false })] = &statements[..] {
        return Verdict::Sets(Modes::read(modes));
    }
    match statements.visit(&mut Reader { functions }) {
        ControlFlow::Continue(()) => Verdict::Reads,
        ControlFlow::Break(()) => Verdict::Writes,
    }
}

/// Walks what only reads, and breaks off at the first that does not.
struct Reader<'a> {
    functions: &'a Functions,
}

impl Visitor for Reader<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        let tells_the_role = |variable: &[Ident]| {
            variable.iter().any(|name| OF_THE_ROLE.iter().any(|of| name.value.eq_ignore_ascii_case(of)))
        };
        only_if(
            matches!(statement, Statement::Query(_))
                // What it explains is visited as well, and so has to read, ANALYZE or not.
                || matches!(statement, Statement::Explain { describe_alias: DescribeAlias::Explain, .. })
                || matches!(statement, Statement::Copy { to: true, target: CopyTarget::Stdout, .. })
                || matches!(statement, Statement::ShowVariable { variable } if !tells_the_role(variable)),
        )
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let is_plain =
            query.locks.is_empty() && query.for_clause.is_none() && query.pipe_operators.is_empty();
        let names_the_server = match &*query.body {
            SetExpr::Table(table) => table.table_name.as_deref().is_none_or(is_of_the_server),
            SetExpr::Select(_)
            | SetExpr::Query(_)
            | SetExpr::SetOperation { .. }
            | SetExpr::Values(_)
            | SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_) => false,
        };
        only_if(is_plain && !names_the_server)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        only_if(select.into.is_none())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        only_if(last(relation).is_some_and(|name| !is_of_the_server(&name)))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } = factor {
            return only_if(self.calls_what_reads(name));
        }
        only_if(matches!(
            factor,
            TableFactor::Table { .. }
                | TableFactor::Derived { .. }
                | TableFactor::UNNEST { .. }
                | TableFactor::JsonTable { .. }
                | TableFactor::NestedJoin { .. }
        ))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        only_if(self.calls_what_reads(&call.name))
    }
}

impl Reader<'_> {
    fn calls_what_reads(&self, name: &ObjectName) -> bool {
        match &name.0[..] {
            [ObjectNamePart::Identifier(name)] => self.functions.contains(None, &folded(name)),
            [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(name)] => {
                self.functions.contains(Some(&folded(schema)), &folded(name))
            }
            _ => false,
        }
    }
}

fn only_if(reads: bool) -> ControlFlow<()> {
    if reads { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn is_of_the_server(relation: &str) -> bool {
    let relation = relation.to_ascii_lowercase();
    relation.starts_with("pg_stat") || OF_THE_SERVER.contains(&&*relation)
}

/// A name without its schema, as the server knows it.
fn last(name: &ObjectName) -> Option<String> {
    match name.0.last()? {
        ObjectNamePart::Identifier(name) => Some(folded(name)),
        ObjectNamePart::Function(_) => None,
    }
}

/// As the server knows it: in lower case, unless it is quoted.
fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

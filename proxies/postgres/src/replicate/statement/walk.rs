//! What is in a statement, found by walking all of it.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Distinct, Expr, Function, LockClause, NonBlock, ObjectName, ObjectNamePart, Query, Select, SetExpr,
    Statement, TableFactor, Visit, Visitor,
};

use super::{Name, Refusal};
use crate::sql::Span;

/// Columns that tell where a row lies on this server, or who has written it.
const OF_THE_ROW: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
/// Types whose values are numbers that each server gives out for itself.
const OF_THE_SERVER: [&str; 12] = [
    "oid",
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];
/// Aggregates that give the same whatever order the rows come in.
const IN_ANY_ORDER: [&str; 6] = ["count", "min", "max", "bool_and", "bool_or", "every"];

/// What is in a statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Tables, views, and names of WITH.
    pub relations: Vec<Name>,
    /// Functions, with their schema if it is written.
    pub calls: Vec<(Option<String>, String)>,
    /// Something in it writes.
    pub writes: bool,
    /// Something in it locks rows.
    pub locks: bool,
    /// What it gives may depend on the order in which a server reads rows, or on numbers of its own.
    pub is_loose: bool,
    writes_count: usize,
    skips_locked: bool,
    limit_without_order: bool,
    of_the_row: bool,
    samples: bool,
    into: bool,
}

impl Seen {
    /// Walks all of a statement.
    pub fn of(statement: &Statement, text: &str, spans: &[Span]) -> Seen {
        let mut seen = Seen::default();
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) = statement.visit(&mut seen);
        let is_of_the_server = |span: &Span| OF_THE_SERVER.iter().any(|word| span.is_word(text, word));
        seen.is_loose |= spans.iter().any(is_of_the_server);
        seen.writes = seen.writes_count > 0 || seen.into;
        seen
    }

    /// Why such a statement is never carried out.
    pub fn never(&self) -> Option<Refusal> {
        let because = |what: &str, hint| Some(Refusal::new(format!("{what} cannot be replicated"), hint));
        if self.skips_locked {
            return because(
                "SKIP LOCKED",
                "Which rows are locked differs from member to member; leave it out.",
            );
        }
        if self.into {
            return because("SELECT INTO", "Create the table, and INSERT ... SELECT.");
        }
        let calls = |name: &str| self.calls.iter().any(|(_, called)| called == name);
        if calls("set_config") {
            return because("set_config", "Use SET.");
        }
        if calls("setval") {
            return because(
                "setval",
                "Use nextval, or set the sequence on each member while the proxy is down.",
            );
        }
        let advisory = self.calls.iter().any(|(_, name)| name.contains("_advisory_") || name == "pg_notify");
        if advisory {
            return because(
                "an advisory lock or notification",
                "A lock would be one member's; LOCK TABLE is the group's.",
            );
        }
        None
    }

    /// Why a write with this in it is not carried out.
    pub fn not_written(&self) -> Option<Refusal> {
        let because =
            |what: &str, hint| Some(Refusal::new(format!("{what} in a write cannot be replicated"), hint));
        if self.limit_without_order {
            return because("LIMIT without ORDER BY", "Say which rows: add an ORDER BY that decides.");
        }
        if self.of_the_row {
            return because(
                "a system column",
                "Where a row lies differs from member to member; use its key.",
            );
        }
        if self.samples {
            return because("TABLESAMPLE", "Each member would take another sample; SELECT first.");
        }
        None
    }

    /// Whether more in it writes than so many.
    pub(super) fn writes_beside(&self, count: usize) -> bool {
        self.writes_count > count
    }

    /// Whether it calls nothing at all.
    pub fn is_quiet(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether it calls this one.
    pub fn has_call(&self, name: &str) -> bool {
        self.calls.iter().any(|(_, called)| called == name)
    }

    fn call(&mut self, name: &ObjectName) {
        let Some(mut name) = folded(name) else {
            self.calls.push((None, String::from("?")));
            return;
        };
        let last = name.pop().unwrap_or_default();
        self.calls.push((name.pop(), last));
    }

    fn function(&mut self, call: &Function) {
        self.call(&call.name);
        let name = self.calls.last().map(|(_, name)| name.clone()).unwrap_or_default();
        let may_be_aggregate =
            IS_AGGREGATE.contains(&name.as_str()) && !IN_ANY_ORDER.contains(&name.as_str());
        self.is_loose |= call.over.is_some() || may_be_aggregate;
    }
}

/// Aggregates of PostgreSQL's own whose result may depend on the order of rows, floating point included.
const IS_AGGREGATE: [&str; 25] = [
    "any_value",
    "array_agg",
    "avg",
    "corr",
    "covar_pop",
    "covar_samp",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "mode",
    "percentile_cont",
    "percentile_disc",
    "range_agg",
    "regr_slope",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
    "xmlagg",
    "json_arrayagg",
];

impl Visitor for Seen {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        let writes = matches!(
            statement,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_)
        );
        self.writes_count += usize::from(writes);
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.locks |= !query.locks.is_empty();
        let skips = |lock: &LockClause| matches!(lock.nonblock, Some(NonBlock::SkipLocked));
        self.skips_locked |= query.locks.iter().any(skips);
        let limits = query.limit_clause.is_some() || query.fetch.is_some();
        self.limit_without_order |= limits && query.order_by.is_none();
        self.is_loose |= limits;
        if let SetExpr::Table(table) = &*query.body {
            self.relations.push(table.schema_name.iter().chain(&table.table_name).cloned().collect());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.into |= select.into.is_some();
        self.is_loose |= matches!(select.distinct, Some(Distinct::On(_)));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.relations.extend(folded(relation));
        ControlFlow::Continue(())
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is rare, or new, is not known")]
    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args, sample, .. } => {
                self.samples |= sample.is_some();
                if args.is_some() {
                    self.call(name);
                }
            }
            TableFactor::Function { name, .. } => self.call(name),
            TableFactor::Derived { .. } | TableFactor::UNNEST { .. } | TableFactor::NestedJoin { .. } => {}
            // Rare; it counts as a call of something that nobody knows.
            _ => self.calls.push((None, String::from("?"))),
        }
        ControlFlow::Continue(())
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "there are sixty, and three matter")]
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let is_of_the_row = |name: &str| OF_THE_ROW.iter().any(|of| name.eq_ignore_ascii_case(of));
        match expr {
            Expr::Function(call) => self.function(call),
            Expr::Identifier(name) => self.of_the_row |= is_of_the_row(&name.value),
            Expr::CompoundIdentifier(names) => {
                self.of_the_row |= names.last().is_some_and(|name| is_of_the_row(&name.value));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A name's parts as the server knows them; `None` for what is no name.
pub fn folded(name: &ObjectName) -> Option<Name> {
    let part = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => Some(match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_ascii_lowercase(),
        }),
        ObjectNamePart::Function(_) => None,
    };
    name.0.iter().map(part).collect()
}

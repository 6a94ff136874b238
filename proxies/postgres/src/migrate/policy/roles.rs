//! Roles, as `pg_dumpall --roles-only` writes them: those that the target lacks.

use std::collections::BTreeSet;

/// The statements that make what is missing: those on roles of `there` are left out.
pub(crate) fn missing(dump: &str, there: &BTreeSet<String>) -> Vec<String> {
    let wanted = |statement: &String| match subject(statement) {
        Some(role) => !there.contains(&role),
        None => false,
    };
    statements(dump).into_iter().map(without_grantor).filter(wanted).collect()
}

/// Whom a statement is about; `None` for one that is not about a role, such as a `SET`.
fn subject(statement: &str) -> Option<String> {
    let of = ["CREATE ROLE ", "ALTER ROLE ", "COMMENT ON ROLE "];
    if let Some(rest) = of.iter().find_map(|head| statement.strip_prefix(head)) {
        return Some(name(rest)?.0);
    }
    // `GRANT group TO member`.
    let rest = statement.strip_prefix("GRANT ")?;
    let (_, rest) = name(rest)?;
    Some(name(rest.strip_prefix(" TO ")?)?.0)
}

/// The role at the beginning of a text, and what follows it.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([' ', ';']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

/// Who granted a membership on the source may not be there on the target.
fn without_grantor(statement: String) -> String {
    match statement.starts_with("GRANT ").then(|| statement.rfind(" GRANTED BY ")).flatten() {
        Some(at) => statement.chars().take(statement[..at].chars().count()).collect(),
        None => statement,
    }
}

/// The statements of a script, without comments and their semicolons.
fn statements(script: &str) -> Vec<String> {
    let (mut found, mut text) = (Vec::new(), String::new());
    let mut quote: Option<char> = None;
    let mut rest = script;
    while let Some(character) = rest.chars().next() {
        let after = rest.get(character.len_utf8()..).unwrap_or_default();
        let is_at_start = text.trim().is_empty();
        if quote.is_none() && is_at_start && (rest.starts_with("--") || rest.starts_with('\\')) {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        rest = after;
        match quote {
            // A doubled quote closes and opens at once. Texts with backslashes double these, and never a quote.
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if character == '\'' || character == '"' => quote = Some(character),
            None if character == ';' => {
                let statement = text.trim().to_owned();
                text.clear();
                if !statement.is_empty() {
                    found.push(statement);
                }
                continue;
            }
            None => {}
        }
        text.push(character);
    }
    found
}

//! The parts of a schema, as `pg_restore --list` names them: what has to be there before the rows, the keys by which changes
//! find their rows, and what is quicker or safer to make after them.

/// Where an entry belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Before the rows.
    Before,
    /// Before the rows as well, but after all of the others: primary keys.
    Keys,
    /// After the rows.
    After,
    /// Not at all.
    Never,
}

/// The lines of a listing for each part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) before: String,
    pub(crate) keys: String,
    pub(crate) after: String,
}

/// What belongs after the rows.
const AFTER: [&str; 12] = [
    "CONSTRAINT ",
    "INDEX ",
    "INDEX ATTACH ",
    "TRIGGER ",
    "FK CONSTRAINT ",
    "EVENT TRIGGER ",
    "MATERIALIZED VIEW DATA ",
    "RULE ",
    "POLICY ",
    "ROW SECURITY ",
    "STATISTICS ",
    "DEFAULT ACL ",
];

/// Large objects are not copied; the migration's own triggers are its own business.
const NEVER: [&str; 6] =
    ["BLOB ", "BLOBS ", "BLOB METADATA ", "ACL - LARGE OBJECT", "EVENT TRIGGER - groove_", "SUBSCRIPTION "];

/// Divides a listing. `keys` are primary keys by schema and name: of the constraint, and so of its index.
pub(crate) fn divide(listing: &str, keys: &[(String, String)]) -> Parts {
    let mut parts = Parts::default();
    for line in listing.lines() {
        let Some(entry) = entry(line) else { continue };
        let into = match part(entry, keys) {
            Part::Before => &mut parts.before,
            Part::Keys => &mut parts.keys,
            Part::After => &mut parts.after,
            Part::Never => continue,
        };
        into.push_str(line);
        into.push('\n');
    }
    parts
}

/// What follows the three numbers: `3456; 2606 16400 CONSTRAINT public t t_pkey owner`.
fn entry(line: &str) -> Option<&str> {
    let rest = line.trim_start();
    let (number, rest) = rest.split_once("; ")?;
    number.parse::<u64>().ok()?;
    let (_, rest) = rest.split_once(' ')?;
    Some(rest.split_once(' ')?.1)
}

fn part(entry: &str, keys: &[(String, String)]) -> Part {
    if NEVER.iter().any(|kind| entry.starts_with(kind)) {
        return Part::Never;
    }
    let is_key = |rest: &str, has_table: bool| {
        keys.iter().any(|(schema, name)| {
            let Some(rest) = rest.strip_prefix(schema.as_str()).and_then(|rest| rest.strip_prefix(' '))
            else {
                return false;
            };
            // `TABLE NAME OWNER`, or `NAME OWNER`; names may hold spaces.
            match has_table {
                true => rest.contains(&format!(" {name} ")),
                false => rest.starts_with(&format!("{name} ")),
            }
        })
    };
    let attached = entry.strip_prefix("INDEX ATTACH ");
    let constraint = entry.strip_prefix("CONSTRAINT ");
    match (attached, constraint) {
        (Some(rest), _) if is_key(rest, false) => Part::Keys,
        (_, Some(rest)) if is_key(rest, true) => Part::Keys,
        _ if AFTER.iter().any(|kind| entry.starts_with(kind)) => Part::After,
        _ => Part::Before,
    }
}

/// A script without what only psql understands: newer releases put it between a pair of lines that begin with `\`.
pub(crate) fn without_psql(script: &str) -> String {
    let is_psqls = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    script.lines().filter(|line| !is_psqls(line)).fold(
        String::with_capacity(script.len()),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

//! Connection strings of `[databases]` and `[users]`: `key=value` pairs, values in single quotes where they have to be.

use super::ini::unquoted;

/// The pairs in the order of the text, or what was expected where it is no connection string.
pub(super) fn read(text: &str) -> Result<Vec<(String, String)>, String> {
    let (mut pairs, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let Some(after) = after.trim_start().strip_prefix('=').filter(|_| !key.is_empty()) else {
            return Err(format!("expected `key=value`, not `{key}`"));
        };
        let after = after.trim_start();
        let quoted = after.strip_prefix('\'');
        let (value, after) = match quoted {
            Some(quoted) => unquoted(quoted, '\'').ok_or_else(|| {
                format!("the value of `{key}` has no closing quote (`''` stands for one quote)")
            })?,
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                let (value, after) = after.split_at_checked(end).unwrap_or((after, ""));
                (value.to_owned(), after)
            }
        };
        if quoted.is_none() && value.is_empty() {
            return Err(format!("expected a value after `{key}=`; an empty one is `''`"));
        }
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err(format!("expected a space after the value of `{key}`"));
        }
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

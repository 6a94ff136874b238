//! Configuration texts in which `$NAME` stands for a value.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// Replaces each `$NAME` (capitals, digits, underscores); a name without a value is a mistake. A `$` before
/// anything else stands for itself.
pub(crate) fn fill(template: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        let length = after.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        let (name, tail) = after.split_at(length.unwrap_or(after.len()));
        text.push_str(before);
        match values.get(name) {
            Some(value) => text.push_str(value),
            None if name.is_empty() => text.push('$'),
            None => bail!("${name} has no value in the configuration"),
        }
        rest = tail;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_and_unknown_ones_refused() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("A_B2".to_owned(), "2".to_owned())]);
        assert_eq!(fill("x: $A, y: [$A_B2]", &values).unwrap(), "x: 1, y: [2]");
        assert_eq!(fill("no names, $host", &values).unwrap(), "no names, $host");
        assert!(fill("$C", &values).unwrap_err().to_string().contains("$C"));
    }
}

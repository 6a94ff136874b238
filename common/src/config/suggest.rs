//! What a misspelt word was meant to be.

/// The nearest of `known`, if it is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = normal(word);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&plain, &normal(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len().min(word.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `max-connections` and `maxConnections` both mean `max_connections`.
fn normal(word: &str) -> String {
    // A word longer than any key is none of them; its distance is not worth computing.
    const LENGTH_MAX: usize = 64;
    let letters = word.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    letters.take(LENGTH_MAX).flat_map(char::to_lowercase).collect()
}

/// `a`, `b` or `c`; a long list is cut.
pub(super) fn choices<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    const SHOWN_MAX: usize = 16;
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) if words.len() <= SHOWN_MAX => format!("{} or {last}", others.join(", ")),
        Some(_) => format!("{}, ...", words.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_near_and_leaves_the_far() {
        let known = ["address", "max_connections", "tls", "backlog"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("maxConnections", known), Some("max_connections"));
        assert_eq!(nearest("max-conections", known), Some("max_connections"));
        assert_eq!(nearest("tsl", known), Some("tls"));
        assert_eq!(nearest("hosts", known), None);
        assert_eq!(nearest("x", known), None);
    }
}

//! Rust source as far as the rules need it: the paths it names and the statics it declares, without
//! comments, strings and what is compiled for tests only.

/// What one file says in code.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) paths: Vec<UsedPath>,
    pub(crate) statics: Vec<Static>,
}

/// A path such as `crate::net::Stream`; `use` trees are given as one path a leaf.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsedPath {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// A field or a method.
    pub(crate) after_dot: bool,
}

/// `static NAME: TYPE`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Static {
    pub(crate) line: usize,
    pub(crate) name: String,
    /// Every name in its type.
    pub(crate) types: Vec<String>,
    /// `static mut`, or `static ref` of a macro.
    pub(crate) mutable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    /// `::`
    Join,
    Mark(char),
}

type Placed = (usize, Token);

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let tokens = without_tests(&tokens(text));
        Self { paths: paths(&tokens), statics: statics(&tokens) }
    }
}

/// Splits into names and marks; numbers, strings, lifetimes and comments leave nothing behind.
fn tokens(text: &str) -> Vec<Placed> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = next(rest, first);
        let (taken, tail) = rest.split_at(length);
        tokens.extend(token.map(|token| (line, token)));
        line += taken.matches('\n').count();
        rest = tail;
    }
    tokens
}

fn next(rest: &str, first: char) -> (Option<Token>, usize) {
    if let Some(length) = comment(rest).or_else(|| literal(rest)) {
        return (None, length);
    }
    if is_word(first) {
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let name = rest.split_at(length).0;
        return ((!first.is_ascii_digit()).then(|| Token::Name(name.to_owned())), length);
    }
    if rest.starts_with("::") {
        return (Some(Token::Join), 2);
    }
    ((!first.is_whitespace()).then_some(Token::Mark(first)), first.len_utf8())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(tail) = rest.get(at..) {
        let open = tail.find("/*").unwrap_or(usize::MAX);
        let close = tail.find("*/").unwrap_or(usize::MAX);
        if open == usize::MAX && close == usize::MAX {
            return Some(rest.len());
        }
        depth = if open < close { depth + 1 } else { depth - 1 };
        at += open.min(close) + 2;
        if depth == 0 {
            return Some(at);
        }
    }
    Some(rest.len())
}

/// A string of any kind, a character, or a lifetime; its length.
fn literal(rest: &str) -> Option<usize> {
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    let body = rest.get(prefix.min(2)..)?;
    let is_raw = rest.get(..prefix).is_some_and(|prefix| prefix.contains('r'));
    let hashes = body.len() - body.trim_start_matches('#').len();
    if prefix <= 2 && is_raw && body.get(hashes..)?.starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = body.get(hashes + 1..)?;
        return Some(prefix + hashes + 1 + inside.find(&end).map_or(inside.len(), |at| at + end.len()));
    }
    if prefix <= 1 && body.starts_with('"') {
        return Some(prefix + quoted(body, '"'));
    }
    if prefix <= 1 && body.starts_with('\'') {
        let mut inside = body.chars().skip(1);
        let is_char = inside.next() == Some('\\') || inside.next() == Some('\'');
        let lifetime =
            || body.char_indices().skip(1).find(|(_, c)| !is_word(*c)).map_or(body.len(), |(at, _)| at);
        return Some(prefix + if is_char { quoted(body, '\'') } else { lifetime() });
    }
    None
}

/// The length of a quoted text, its quotes included.
fn quoted(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    body.len()
}

/// Leaves out each item that is under `#[cfg(test)]`.
fn without_tests(tokens: &[Placed]) -> Vec<Placed> {
    let marker: Vec<Token> = {
        use Token::{Mark, Name};
        let name = |text: &str| Name(text.to_owned());
        vec![Mark('#'), Mark('['), name("cfg"), Mark('('), name("test"), Mark(')'), Mark(']')]
    };
    let mut kept = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let Some((first, tail)) = rest.split_first() {
        let here = rest.iter().map(|(_, token)| token).take(marker.len());
        if here.eq(marker.iter()) {
            rest = rest.get(marker.len()..).map(after_item).unwrap_or_default();
        } else {
            kept.push(first.clone());
            rest = tail;
        }
    }
    kept
}

/// What follows an item: past its `;`, or past the block that ends it.
fn after_item(tokens: &[Placed]) -> &[Placed] {
    let mut depth = 0_usize;
    for (at, (_, token)) in tokens.iter().enumerate() {
        let ends = match token {
            Token::Mark('(' | '[' | '{') => {
                depth += 1;
                false
            }
            Token::Mark(closing @ (')' | ']' | '}')) => {
                depth = depth.saturating_sub(1);
                depth == 0 && *closing == '}'
            }
            Token::Mark(';') => depth == 0,
            Token::Mark(_) | Token::Name(_) | Token::Join => false,
        };
        if ends {
            return tokens.get(at + 1..).unwrap_or_default();
        }
    }
    &[]
}

fn paths(tokens: &[Placed]) -> Vec<UsedPath> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((_, token)) = tokens.get(at) {
        let after_dot = at > 0 && matches!(tokens.get(at - 1), Some((_, Token::Mark('.'))));
        at = match token {
            Token::Name(_) => path(tokens, at, &[], after_dot, &mut found),
            Token::Join | Token::Mark(_) => at + 1,
        };
    }
    found
}

/// Reads one path from `at` on, with the groups of a `use` tree; gives where it ends.
fn path(
    tokens: &[Placed],
    at: usize,
    before: &[String],
    after_dot: bool,
    found: &mut Vec<UsedPath>,
) -> usize {
    let mut segments = before.to_vec();
    let mut at = at;
    let mut line = 0;
    while let Some((here, Token::Name(name))) = tokens.get(at) {
        line = *here;
        segments.push(name.clone());
        at += 1;
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some((_, Token::Join)), Some((_, Token::Name(_)))) => at += 1,
            (Some((_, Token::Join)), Some((_, Token::Mark('{')))) => {
                return group(tokens, at + 2, &segments, found);
            }
            _ => break,
        }
    }
    found.push(UsedPath { line, segments, after_dot });
    at
}

fn group(tokens: &[Placed], at: usize, before: &[String], found: &mut Vec<UsedPath>) -> usize {
    let mut at = at;
    while let Some((_, token)) = tokens.get(at) {
        at = match token {
            Token::Mark('}') => return at + 1,
            // The new name after `as` is no path of its own.
            Token::Name(name) if name == "as" => at + 2,
            Token::Name(_) => path(tokens, at, before, false, found),
            Token::Mark(_) | Token::Join => at + 1,
        };
    }
    at
}

fn statics(tokens: &[Placed]) -> Vec<Static> {
    let mut found = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        if *token != Token::Name("static".to_owned()) {
            continue;
        }
        let mut names = Vec::new();
        for (_, token) in tokens.iter().skip(at + 1) {
            match token {
                Token::Mark('=' | ';' | '{') => break,
                Token::Name(name) => names.push(name.clone()),
                Token::Mark(_) | Token::Join => {}
            }
        }
        let mutable = names.first().is_some_and(|first| first == "mut" || first == "ref");
        let mut names = names.into_iter().skip(usize::from(mutable));
        if let Some(name) = names.next() {
            found.push(Static { line: *line, name, types: names.collect(), mutable });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        Source::read(text).paths.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_given_leaf_by_leaf() {
        let text = "use a::{b, c::{d, e as f}, g::*};";
        assert_eq!(named(text), ["use", "a::b", "a::c::d", "a::c::e", "a::g"]);
    }

    #[test]
    fn comments_strings_and_lifetimes_say_nothing() {
        let text = "// a::b\n/* c /* d */ e */ \"f\\\"::g\" r#\"h\"i\"# b'j' '\\'' x::<'k, y>(b\"l\") 'm'";
        assert_eq!(named(text), ["x", "y"]);
        assert_eq!(named("r\"a\" rate::limit bytes"), ["rate::limit", "bytes"]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "a!(); #[cfg(test)]\nmod tests { b; { c } } d; #[cfg(test)] use e; fn f() {}";
        assert_eq!(named(text), ["a", "d", "fn", "f"]);
        assert_eq!(named("#[cfg(test)] fn a() -> [u8; 4] { b } c"), ["c"]);
    }

    #[test]
    fn statics_are_told_from_lifetimes() {
        let text = "static A: Mutex<u8> = x; fn f(a: &'static str) {}\nstatic mut B: u8 = 1;";
        let statics = Source::read(text).statics;
        assert_eq!(statics.len(), 2);
        assert_eq!((statics[0].name.as_str(), statics[0].types.join(" ")), ("A", "Mutex u8".to_owned()));
        assert_eq!((statics[1].line, statics[1].mutable), (2, true));
    }
}

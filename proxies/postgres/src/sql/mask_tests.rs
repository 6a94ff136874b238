//! What texts look like to others, and that nothing of a literal is in it.

use groove_common::testing::Dice;

use super::*;

fn masked(text: &str) -> String {
    mask(text.as_bytes(), false).text.into_string()
}

#[test]
fn texts_are_shown_without_their_literals() {
    for (text, shown) in [
        ("", ""),
        ("SELECT  1", "select ?"),
        ("select\n\t$1 -- why\n + /* a /* b */ c */ 2;", "select ? + ?"),
        (
            "SELECT a.B, \"Odd name\" FROM T WHERE x = 'y''z' AND n >= -1.5e-3",
            "select a.b, \"Odd name\" from t where x = ? and n >= ?",
        ),
        ("SELECT a - 1, -1, +.5, a -.5, (b) - 2, t.c", "select a - ?, ?, ?, a - ?, (b) - ?, t.c"),
        (
            "SELECT E'a\\'b', $$c$$, $x$d $$ e$x$, B'01', U&'f' UESCAPE '!', N'g'",
            "select ?, ?, ?, ?, ? uescape ?, ?",
        ),
        ("SELECT 'a'\n'b'", "select ?"),
        ("SELECT count(*), f(1, 2)::int8 FROM t", "select count(*), f(?, ?) :: int8 from t"),
        ("SELECT a->>'b', a @> '{}', c||'d' FROM t", "select a ->> ?, a @> ?, c || ? from t"),
        (
            "SELECT 1 WHERE a IN (1, $2, 'c') AND b IN (1) AND c NOT IN ($1::int, $2::int)",
            "select ? where a in (?) and b in (?) and c not in (? :: int)",
        ),
        (
            "SELECT 1 WHERE (a, b) IN ((1, 2), (3, 4)) OR a IN (b, c) OR a = ANY(ARRAY[1, 2])",
            "select ? where (a, b) in ((?, ?)) or a in (b, c) or a = any (array[?])",
        ),
        (
            "INSERT INTO t (a, b) VALUES (1, 'x'), (2, null), (3, true) ON CONFLICT DO NOTHING",
            "insert into t(a, b) values (?, ?) on conflict do nothing",
        ),
        ("SELECT a IS NULL, b IS NOT TRUE, c = true, NULL", "select a is null, b is not true, c = ?, ?"),
        ("BEGIN; ; SELECT 1;;", "begin; select ?"),
        ("SET app.token = secret", "set app.token = ?"),
        ("SET search_path TO a, b; SELECT c", "set search_path to ?; select c"),
        ("ALTER ROLE r SET app.token TO secret", "alter role r set app.token to ?"),
        ("UPDATE t SET a = b, c = 1 WHERE d = 2", "update t set a = b, c = ? where d = ?"),
        ("SELECT 'never closed; SELECT secret", "select ?"),
        ("SELECT \"never closed; SELECT secret", "select ?"),
        ("SELECT $x$never closed; SELECT secret", "select ?"),
        ("SELECT 1 /* never closed; SELECT secret", "select ?"),
        ("SELECT \u{1b}[2J", "select ?[?"),
    ] {
        assert_eq!(masked(text), shown, "{text}");
    }
    assert_eq!(&*mask(b"SELECT 'a\\' || secret || 'b'", true).text, "select ?");
    assert_eq!(&*mask(b"SELECT 'a\\' || name || 'b'", false).text, "select ? || name || ?");
}

#[test]
fn long_texts_are_cut_and_told_apart_by_all_of_them() {
    let columns = |count: usize| format!("SELECT {}", vec!["ä"; count].join(","));
    let (one, other) = (mask(columns(2000).as_bytes(), false), mask(columns(2001).as_bytes(), false));
    assert!(one.text.len() <= TEXT_MAX && one.text.ends_with('…'), "{}", one.text.len());
    assert_eq!(one.text, other.text);
    assert_ne!(one.id, other.id);
}

/// Parts that are literals, and that none of the others contain. Each throw is another literal.
fn literal(dice: &mut Dice) -> String {
    let number = dice.below(1_000_000_007);
    let odd = ["", "''", "\\\\", "--", "/*", "$$ ", ";", "?", " (", "é", "\n"][dice.below(11)];
    match dice.below(9) {
        0 => format!("'zq{odd}zq{number}'"),
        1 => format!("E'zq\\'{odd}{number}'"),
        2 => format!("$tag$zq'{odd}\"{number}$tag$"),
        3 => format!("${}", number % 100 + 1),
        4 => format!("{number}"),
        5 => format!("{}.{number}e-{}", number % 7, number % 11),
        6 => format!("-{number}"),
        7 => format!("$$zq{number}$$"),
        _ => format!("X'{number:x}'"),
    }
}

/// A statement in two wordings, with other literals, other spaces, other comments.
fn pair(dice: &mut Dice) -> [String; 2] {
    const WORDS: [&str; 12] =
        ["SELECT", "FROM", "t", "WHERE", "a", "=", "(", ")", ",", "AND", "\"q n\"", "count"];
    let mut texts = [String::new(), String::new()];
    for _ in 0..dice.below(30) {
        let choice = dice.below(20);
        for text in &mut texts {
            let word = match WORDS.get(choice) {
                Some(word) if dice.below(2) == 0 => (*word).to_owned(),
                Some(word) if word.starts_with('"') => (*word).to_owned(),
                Some(word) => word.to_ascii_lowercase(),
                // Behind an operator a sign is its number's.
                None if choice < 16 => format!("< {}", literal(dice)),
                None if choice < 18 => {
                    let list: Vec<_> = (0..=dice.below(5)).map(|_| literal(dice)).collect();
                    format!("in ({})", list.join(","))
                }
                None => {
                    let row = |dice: &mut Dice| format!("({}, {})", literal(dice), literal(dice));
                    let rows: Vec<_> = (0..=dice.below(3)).map(|_| row(dice)).collect();
                    format!("values {}", rows.join(" , "))
                }
            };
            let space = [" ", "\n ", " /* zq '1' */ ", " --zq 2\n"][dice.below(4)];
            text.push_str(&word);
            text.push_str(space);
        }
    }
    texts
}

#[test]
fn no_literal_survives_and_only_literals_tell_texts_apart() {
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let [one, other] = pair(&mut dice);
        let (seen, also) = (mask(one.as_bytes(), false), mask(other.as_bytes(), false));
        assert_eq!(seen, also, "seed {seed}:\n{one}\n{other}");
        let leaks = seen.text.contains("zq") || seen.text.contains(|char: char| char.is_ascii_digit());
        assert!(!leaks, "seed {seed}: {one}\n{}", seen.text);
        // Wherever it is cut.
        let (cut, _) = one.as_bytes().split_at(dice.below(one.len() + 1));
        let seen = mask(cut, false);
        let leaks = seen.text.contains("zq") || seen.text.contains(|char: char| char.is_ascii_digit());
        assert!(!leaks, "seed {seed}: {one}\n{}", seen.text);
    }
}

#[test]
fn no_bytes_are_too_odd() {
    const PIECES: [&[u8]; 20] = [
        b"'",
        b"\"",
        b"$",
        b"$$",
        b"\\",
        b"(",
        b")",
        b"[",
        b"]",
        b",",
        b".",
        b";",
        b"1",
        b"e",
        b"-",
        b" ",
        b"in",
        b"values",
        b"\xff\x00",
        b"set a=",
    ];
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let text: Vec<u8> =
            (0..dice.below(40)).flat_map(|_| PIECES[dice.below(20)].iter().copied()).collect();
        let seen = mask(&text, seed % 2 == 0);
        assert!(!seen.text.contains(char::is_control), "seed {seed}: {}", seen.text);
        assert_eq!(seen, mask(&text, seed % 2 == 0));
    }
}

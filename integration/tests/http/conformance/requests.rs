//! Requests that are malformed, ambiguous or at an edge, each with the outcome that is required.
//!
//! `{get}` and `{post}` stand for a first line and its Host, `{chunked}` for `{post}` with `Transfer-Encoding: chunked`,
//! `{a*9000}` for so many letters. A character up to U+00FF is one byte.

use super::case::{Case, answered, closes, refused, served, then_refused, twice};

/// All of them, by class.
pub(super) fn requests() -> Vec<Case> {
    [
        length_and_coding(),
        lengths(),
        codings(),
        chunks(),
        trailers(),
        lines(),
        names_and_values(),
        first_lines(),
        targets(),
        hosts(),
        connection(),
        expect_and_upgrade(),
        bounds(),
        pipelines(),
        sound(),
    ]
    .concat()
}

fn length_and_coding() -> Vec<Case> {
    let class = "Content-Length beside Transfer-Encoding";
    vec![
        refused(
            class,
            "CL then TE (CL.TE)",
            "{post}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
            400,
        ),
        refused(
            class,
            "TE then CL (TE.CL)",
            "{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nG",
            400,
        ),
        refused(
            class,
            "CL 0 and TE (CL.0)",
            "{post}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "TE in another case and CL",
            "{post}content-length: 4\r\ntRANSFER-eNCODING: ChUnKeD\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "TE and CL in a GET",
            "{get}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "TE.0: chunked without chunks before a request",
            "{post}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{get}\r\n",
            400,
        ),
        refused(
            class,
            "CL beside an obfuscated TE",
            "{post}Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\nabcd",
            400,
        ),
        refused(
            class,
            "CL beside TE named by Connection",
            "{post}Connection: Transfer-Encoding\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "CL beside Transfer_Encoding",
            "{post}Content-Length: 4\r\nTransfer_Encoding: chunked\r\n\r\nabcd",
            400,
        ),
        refused(class, "Content_Length beside TE", "{chunked}Content_Length: 4\r\n\r\n0\r\n\r\n", 400),
    ]
}

fn lengths() -> Vec<Case> {
    let class = "Content-Length";
    vec![
        refused(class, "two that differ", "{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        refused(class, "two that agree", "{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        refused(class, "a list that agrees", "{post}Content-Length: 5, 5\r\n\r\nhello", 400),
        refused(class, "a list that differs", "{post}Content-Length: 5, 6\r\n\r\nhello", 400),
        refused(class, "a plus sign", "{post}Content-Length: +5\r\n\r\nhello", 400),
        refused(class, "a minus sign", "{post}Content-Length: -5\r\n\r\nhello", 400),
        refused(class, "minus zero", "{post}Content-Length: -0\r\n\r\n", 400),
        refused(class, "hexadecimal", "{post}Content-Length: 0x5\r\n\r\nhello", 400),
        refused(class, "an exponent", "{post}Content-Length: 5e0\r\n\r\nhello", 400),
        refused(class, "a fraction", "{post}Content-Length: 5.0\r\n\r\nhello", 400),
        refused(class, "an underscore between digits", "{post}Content-Length: 1_0\r\n\r\nhellohello", 400),
        refused(class, "words", "{post}Content-Length: five\r\n\r\nhello", 400),
        refused(class, "nothing", "{post}Content-Length:\r\n\r\nhello", 400),
        refused(class, "spaces inside", "{post}Content-Length: 5 5\r\n\r\nhello", 400),
        refused(class, "quotes", "{post}Content-Length: \"5\"\r\n\r\nhello", 400),
        refused(class, "2^64", "{post}Content-Length: 18446744073709551616\r\n\r\n", 400),
        refused(
            class,
            "2^64 + 5, which wraps to 5",
            "{post}Content-Length: 18446744073709551621\r\n\r\nhello",
            400,
        ),
        refused(class, "digits of another script", "{post}Content-Length: \u{b2}\r\n\r\nhello", 400),
        refused(class, "a semicolon", "{post}Content-Length: 5;x=1\r\n\r\nhello", 400),
        refused(class, "an empty list member", "{post}Content-Length: ,5\r\n\r\nhello", 400),
        served(class, "leading zeroes", "{post}Content-Length: 0005\r\n\r\nhello"),
        refused(class, "Content_Length, which CGI takes for it", "{post}Content_Length: 5\r\n\r\nhello", 400),
    ]
}

fn codings() -> Vec<Case> {
    let class = "Transfer-Encoding";
    vec![
        refused(
            class,
            "a real coding before chunked",
            "{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        refused(
            class,
            "two real codings before chunked",
            "{post}Transfer-Encoding: deflate, gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        refused(
            class,
            "an unknown coding before chunked",
            "{post}Transfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "chunked not last", "{post}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        refused(
            class,
            "chunked then identity",
            "{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "identity then chunked",
            "{post}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "identity", "{post}Transfer-Encoding: identity\r\n\r\nhello", 400),
        refused(class, "gzip alone", "{post}Transfer-Encoding: gzip\r\n\r\nhello", 400),
        refused(
            class,
            "chunked twice in a list",
            "{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "chunked in two fields", "{chunked}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        refused(
            class,
            "a second field with nonsense",
            "{chunked}Transfer-Encoding: cow\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "nothing", "{post}Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
        refused(class, "a comma alone", "{post}Transfer-Encoding: ,\r\n\r\n0\r\n\r\n", 400),
        refused(class, "a comma before", "{post}Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", 400),
        refused(class, "a comma behind", "{post}Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
        refused(class, "xchunked", "{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        refused(class, "quotes", "{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
        refused(class, "a parameter", "{post}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
        refused(
            class,
            "a vertical tab before",
            "{post}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "a form feed behind", "{post}Transfer-Encoding: chunked\u{c}\r\n\r\n0\r\n\r\n", 400),
        refused(class, "a NUL behind", "{post}Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", 400),
        refused(
            class,
            "a no-break space before",
            "{post}Transfer-Encoding: \u{a0}chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "a space before the colon", "{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        refused(class, "a tab before the colon", "{post}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
        refused(
            class,
            "a line end before the colon",
            "{post}Transfer-Encoding\r\n: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "the value on a folded line",
            "{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "a letter that only looks the same",
            "{post}Transfer-Encod\u{ef}ng: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "behind a bare CR", "{post}X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        refused(class, "behind a bare LF", "{post}X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        refused(
            class,
            "Transfer_Encoding, which CGI takes for it",
            "{post}Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        refused(
            class,
            "in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        served(
            class,
            "spaces and tabs around chunked",
            "{post}Transfer-Encoding: \t chunked \t\r\n\r\n0\r\n\r\n",
        ),
        served(class, "chunked in capitals", "{post}Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n"),
    ]
}

fn chunks() -> Vec<Case> {
    let class = "Chunks";
    vec![
        refused(class, "no hexadecimal", "{chunked}\r\nx\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "no size", "{chunked}\r\n\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "a minus sign", "{chunked}\r\n-5\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "a plus sign", "{chunked}\r\n+5\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "0x", "{chunked}\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "a space before the size", "{chunked}\r\n 5\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "a space behind the size", "{chunked}\r\n5 \r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "an underscore", "{chunked}\r\n0_5\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "more than 64 bits", "{chunked}\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", 400),
        refused(
            class,
            "so many zeroes that it may wrap",
            "{chunked}\r\n00000000000000005\r\nhello\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "sizes whose sum overflows", "{chunked}\r\n5\r\nhello\r\nffffffffffffffff\r\nx", 400),
        refused(class, "size line ends in LF", "{chunked}\r\n5\nhello\r\n0\r\n\r\n", 400),
        refused(class, "size line ends in CR", "{chunked}\r\n5\rhello\r\n0\r\n\r\n", 400),
        refused(class, "size line ends in CR CR LF", "{chunked}\r\n5\r\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "data ends in LF", "{chunked}\r\n5\r\nhello\n0\r\n\r\n", 400),
        refused(class, "data is longer than its size", "{chunked}\r\n5\r\nhelloX\r\n0\r\n\r\n", 400),
        refused(class, "data is shorter than its size", "{chunked}\r\n6\r\nhello\r\n0\r\n\r\n", 400),
        refused(
            class,
            "an extension that ends in LF (TERM.EXT)",
            "{chunked}\r\n5;a\nhello\r\n0\r\n\r\n",
            400,
        ),
        refused(class, "an extension with a bare CR", "{chunked}\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "an extension without a name", "{chunked}\r\n5;\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "an open quote", "{chunked}\r\n5;a=\"\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "a line end within quotes", "{chunked}\r\n5;a=\"b\r\n\"\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "a NUL in an extension", "{chunked}\r\n5;a=\0\r\nhello\r\n0\r\n\r\n", 400),
        refused(class, "an endless extension", "{chunked}\r\n5;{a*4000}\r\nhello\r\n0\r\n\r\n", 400),
        served(
            class,
            "an extension as the grammar has it",
            "{chunked}\r\n5;a=b;c=\"d e\"\r\nhello\r\n0\r\n\r\n",
        ),
        served(
            class,
            "a size in capitals with a zero in front",
            "{chunked}\r\n0A\r\nhellohello\r\n0\r\n\r\n",
        ),
        served(class, "a last chunk of many zeroes", "{chunked}\r\n5\r\nhello\r\n0000\r\n\r\n"),
    ]
}

fn trailers() -> Vec<Case> {
    let class = "Trailers";
    vec![
        refused(class, "Content-Length", "{chunked}\r\n0\r\nContent-Length: 3\r\n\r\n", 400),
        refused(class, "Transfer-Encoding", "{chunked}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        refused(class, "Host", "{chunked}\r\n0\r\nHost: other.test\r\n\r\n", 400),
        refused(class, "X-Forwarded-For", "{chunked}\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", 400),
        refused(class, "Connection", "{chunked}\r\n0\r\nConnection: close\r\n\r\n", 400),
        refused(class, "no colon", "{chunked}\r\n0\r\nX\r\n\r\n", 400),
        refused(class, "a space before the colon", "{chunked}\r\n0\r\nX : 1\r\n\r\n", 400),
        refused(class, "a folded line", "{chunked}\r\n0\r\nX: 1\r\n y\r\n\r\n", 400),
        refused(class, "a line that ends in LF", "{chunked}\r\n0\r\nX: 1\n\r\n", 400),
        refused(class, "a NUL", "{chunked}\r\n0\r\nX: \0\r\n\r\n", 400),
        refused(class, "the blank line is LF", "{chunked}\r\n0\r\n\n", 400),
        refused(class, "the blank line is CR and a letter", "{chunked}\r\n0\r\n\rX", 400),
        refused(class, "too long", "{chunked}\r\n0\r\nX: {a*9000}\r\n\r\n", 431),
        served(class, "a field", "{chunked}\r\n0\r\nX-Sum: 1\r\n\r\n"),
    ]
}

fn lines() -> Vec<Case> {
    let class = "Line ends and folding";
    vec![
        refused(class, "LF everywhere", "GET / HTTP/1.1\nHost: shop.test\n\n", 400),
        refused(class, "LF behind the first line", "GET / HTTP/1.1\nHost: shop.test\r\n\r\n", 400),
        refused(class, "LF behind a field", "{get}X: a\n\r\n", 400),
        refused(class, "LF as the blank line", "{get}X: a\r\n\n", 400),
        refused(class, "CR everywhere", "GET / HTTP/1.1\rHost: shop.test\r\r\n\r\n", 400),
        refused(class, "a bare CR in a value", "{get}X: a\rb\r\n\r\n", 400),
        refused(class, "a bare CR at a value's end", "{get}X: a\r\r\n\r\n", 400),
        refused(class, "a bare CR in the target", "GET /\rx HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a folded value", "{get}X: a\r\n b\r\n\r\n", 400),
        refused(class, "a value folded with a tab", "{get}X: a\r\n\tb\r\n\r\n", 400),
        refused(class, "a fold before the first field", "GET / HTTP/1.1\r\n Host: shop.test\r\n\r\n", 400),
        refused(class, "a folded Host", "GET / HTTP/1.1\r\nHost:\r\n shop.test\r\n\r\n", 400),
        refused(class, "a line of spaces", "{get} \r\n\r\n", 400),
        served(class, "one empty line before the request", "\r\n{get}\r\n"),
        refused(class, "two empty lines before the request", "\r\n\r\n{get}\r\n", 400),
        refused(class, "a bare LF before the request", "\n{get}\r\n", 400),
    ]
}

fn names_and_values() -> Vec<Case> {
    let class = "Names and values";
    vec![
        refused(class, "a space before the colon", "{get}X : a\r\n\r\n", 400),
        refused(class, "a tab before the colon", "{get}X\t: a\r\n\r\n", 400),
        refused(class, "no name", "{get}: a\r\n\r\n", 400),
        refused(class, "no colon", "{get}nothing\r\n\r\n", 400),
        refused(class, "a space in a name", "{get}X Y: a\r\n\r\n", 400),
        refused(class, "brackets in a name", "{get}X[]: a\r\n\r\n", 400),
        refused(class, "a NUL in a name", "{get}X\0Y: a\r\n\r\n", 400),
        refused(class, "DEL in a name", "{get}X\u{7f}: a\r\n\r\n", 400),
        refused(class, "a byte above 0x7f in a name", "{get}X\u{e9}: a\r\n\r\n", 400),
        refused(class, "a NUL in a value", "{get}X: a\0b\r\n\r\n", 400),
        refused(class, "a control character in a value", "{get}X: a\u{1}b\r\n\r\n", 400),
        refused(class, "a backspace in a value", "{get}X: a\u{8}b\r\n\r\n", 400),
        refused(class, "a vertical tab in a value", "{get}X: a\u{b}b\r\n\r\n", 400),
        refused(class, "DEL in a value", "{get}X: a\u{7f}b\r\n\r\n", 400),
        served(class, "bytes above 0x7f in a value", "{get}X: \u{e9}\u{ff}\r\n\r\n"),
        served(class, "an empty value", "{get}X:\r\n\r\n"),
        served(class, "tabs in and around a value", "{get}X:\ta\tb\t\r\n\r\n"),
        served(class, "no space behind the colon", "{get}X:a\r\n\r\n"),
    ]
}

fn first_lines() -> Vec<Case> {
    let class = "The first line";
    vec![
        refused(class, "HTTP/0.9", "GET /\r\n\r\n", 400),
        refused(class, "HTTP/0.9 without a blank line", "GET /\r\n", 400),
        refused(class, "HTTP/0.9 with fields", "GET /\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "version 0.9 written out", "GET / HTTP/0.9\r\nHost: shop.test\r\n\r\n", 505),
        refused(class, "version 1.2", "GET / HTTP/1.2\r\nHost: shop.test\r\n\r\n", 505),
        refused(class, "version 1.9", "GET / HTTP/1.9\r\nHost: shop.test\r\n\r\n", 505),
        refused(class, "version 2.0", "GET / HTTP/2.0\r\nHost: shop.test\r\n\r\n", 505),
        refused(class, "version 3.0", "GET / HTTP/3.0\r\nHost: shop.test\r\n\r\n", 505),
        refused(class, "version 1.10", "GET / HTTP/1.10\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "version 01.1", "GET / HTTP/01.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "version 1", "GET / HTTP/1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "version 1,1", "GET / HTTP/1,1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "version +1.1", "GET / HTTP/+1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "small letters in the version", "GET / http/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "another protocol", "GET / HTTPS/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a space behind the version", "GET / HTTP/1.1 \r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a tab before the version", "GET /\tHTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "two spaces before the target", "GET  / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "two spaces before the version", "GET /  HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a space before the method", " GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a tab for a space", "GET\t/ HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "no method", "/ HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a method that is no token", "G@T / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a method in parentheses", "(GET) / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a NUL in the method", "GE\0T / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(
            class,
            "a byte above 0x7f in the method",
            "G\u{c9}T / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            400,
        ),
        refused(class, "a method longer than any", "{a*40} / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        served(class, "a method that nobody knows", "BREW / HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        served(class, "a method in small letters", "get / HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        refused(class, "a TLS hello", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}", 400),
        refused(class, "the reply of a server", "HTTP/1.1 200 OK\r\nHost: shop.test\r\n\r\n", 400),
        then_refused(
            class,
            "HTTP/2's preface behind a request",
            "{get}\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            505,
        ),
    ]
}

fn targets() -> Vec<Case> {
    let class = "The target";
    vec![
        refused(class, "a fragment", "GET /#part HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a space", "GET /a b HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a NUL", "GET /\0 HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a control character", "GET /\u{1} HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "DEL", "GET /\u{7f} HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "a byte above 0x7f", "GET /\u{e9} HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "no slash", "GET x HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "only a query", "GET ?x HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "an asterisk for GET", "GET * HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "two asterisks", "OPTIONS ** HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        served(class, "an asterisk for OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            .sees("OPTIONS * HTTP/1.1"),
        refused(class, "authority-form for GET", "GET shop.test:80 HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        refused(class, "CONNECT", "CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n", 405),
        refused(class, "CONNECT with a path", "CONNECT /x HTTP/1.1\r\nHost: shop.test\r\n\r\n", 405),
        refused(
            class,
            "absolute-form of another host",
            "GET http://other.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            400,
        ),
        refused(
            class,
            "absolute-form of another port",
            "GET http://shop.test:81/ HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            400,
        ),
        refused(
            class,
            "absolute-form with a user",
            "GET http://me@shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            400,
        ),
        refused(
            class,
            "absolute-form without a host",
            "GET http:///x HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            400,
        ),
        refused(
            class,
            "absolute-form with a bad port",
            "GET http://shop.test:x/ HTTP/1.1\r\nHost: shop.test:x\r\n\r\n",
            400,
        ),
        refused(
            class,
            "absolute-form of another scheme",
            "GET ftp://shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            400,
        ),
        refused(class, "absolute-form without a Host", "GET http://shop.test/ HTTP/1.1\r\n\r\n", 400),
        served(class, "absolute-form", "GET http://shop.test/x HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            .sees("GET /x HTTP/1.1"),
        served(
            class,
            "absolute-form without a path",
            "GET http://shop.test HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        )
        .sees("GET / HTTP/1.1"),
        served(
            class,
            "dots and encoded slashes stay as they are",
            "GET /a/../%2e%2e/%2fb HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        )
        .sees("GET /a/../%2e%2e/%2fb HTTP/1.1"),
    ]
}

fn hosts() -> Vec<Case> {
    let class = "Host";
    vec![
        refused(class, "none", "GET / HTTP/1.1\r\n\r\n", 400),
        refused(class, "two that agree", "{get}Host: shop.test\r\n\r\n", 400),
        refused(class, "two that differ", "{get}Host: other.test\r\n\r\n", 400),
        refused(class, "two, the second in another case", "{get}hOST: other.test\r\n\r\n", 400),
        refused(class, "a list", "GET / HTTP/1.1\r\nHost: shop.test, other.test\r\n\r\n", 400),
        refused(class, "a user", "GET / HTTP/1.1\r\nHost: me@shop.test\r\n\r\n", 400),
        refused(class, "a path", "GET / HTTP/1.1\r\nHost: shop.test/x\r\n\r\n", 400),
        refused(class, "a scheme", "GET / HTTP/1.1\r\nHost: http://shop.test\r\n\r\n", 400),
        refused(class, "a space inside", "GET / HTTP/1.1\r\nHost: shop test\r\n\r\n", 400),
        refused(class, "a port that is no number", "GET / HTTP/1.1\r\nHost: shop.test:http\r\n\r\n", 400),
        refused(class, "a port beyond 65535", "GET / HTTP/1.1\r\nHost: shop.test:65536\r\n\r\n", 400),
        refused(class, "a negative port", "GET / HTTP/1.1\r\nHost: shop.test:-80\r\n\r\n", 400),
        refused(class, "a colon without a port", "GET / HTTP/1.1\r\nHost: shop.test:\r\n\r\n", 400),
        refused(class, "two ports", "GET / HTTP/1.1\r\nHost: shop.test:80:81\r\n\r\n", 400),
        refused(class, "only a port", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
        refused(class, "an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        refused(class, "brackets around no address", "GET / HTTP/1.1\r\nHost: [::::]\r\n\r\n", 400),
        refused(class, "a byte above 0x7f", "GET / HTTP/1.1\r\nHost: sh\u{f6}p.test\r\n\r\n", 400),
        refused(class, "percent encoding", "GET / HTTP/1.1\r\nHost: shop%2etest\r\n\r\n", 400),
        refused(class, "a backslash", "GET / HTTP/1.1\r\nHost: shop.test\\x\r\n\r\n", 400),
        answered(class, "empty, which is a host of nobody's", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 404),
        answered(class, "unknown", "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n", 404),
        served(class, "with a port and a final dot", "GET / HTTP/1.1\r\nHost: SHOP.test.:8080\r\n\r\n"),
    ]
}

fn connection() -> Vec<Case> {
    let class = "Connection and hop-by-hop fields";
    vec![
        served(class, "Connection names Host", "{get}Connection: Host\r\n\r\n").sees("Host: shop.test"),
        served(
            class,
            "Connection names Content-Length",
            "{post}Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        )
        .sees("Content-Length: 5"),
        served(
            class,
            "Connection names Transfer-Encoding",
            "{chunked}Connection: Transfer-Encoding\r\n\r\n0\r\n\r\n",
        )
        .sees("Transfer-Encoding: chunked"),
        served(class, "Connection names X-Forwarded-For", "{get}Connection: X-Forwarded-For\r\n\r\n")
            .sees("X-Forwarded-For: 127.0.0.1"),
        served(class, "Connection names a field of one hop", "{get}Connection: X-Hop\r\nX-Hop: 1\r\n\r\n")
            .hides("X-Hop"),
        served(class, "Keep-Alive and Proxy-Connection", "{get}Keep-Alive: 5\r\nProxy-Connection: x\r\n\r\n")
            .hides("Keep-Alive"),
        served(class, "TE", "{get}Connection: TE\r\nTE: trailers\r\n\r\n").hides("TE: trailers"),
        served(class, "an X-Forwarded-For that nobody vouches for", "{get}X-Forwarded-For: 6.6.6.6\r\n\r\n")
            .hides("6.6.6.6"),
        served(class, "X_Forwarded_For, which CGI takes for it", "{get}X_Forwarded_For: 6.6.6.6\r\n\r\n")
            .hides("6.6.6.6"),
        served(class, "Forwarded that nobody vouches for", "{get}Forwarded: for=6.6.6.6\r\n\r\n")
            .hides("6.6.6.6"),
        closes(class, "Connection: close", "{get}Connection: close\r\n\r\n"),
        closes(class, "close among others, in capitals", "{get}Connection: keep-alive, CLOSE\r\n\r\n"),
        closes(class, "HTTP/1.0", "GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n"),
        served(
            class,
            "HTTP/1.0 that stays",
            "GET / HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n",
        ),
    ]
}

fn expect_and_upgrade() -> Vec<Case> {
    let class = "Expect and Upgrade";
    vec![
        served(class, "100-continue with the body behind it", "{post}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello").sees("Expect: 100-continue"),
        served(class, "100-Continue", "{post}Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello"),
        answered(class, "another expectation", "{get}Expect: the-impossible\r\n\r\n", 417),
        answered(class, "100-continue and another", "{get}Expect: 100-continue, x\r\n\r\n", 417),
        answered(class, "100-continue, then another field", "{get}Expect: 100-continue\r\nExpect: x\r\n\r\n", 417),
        answered(class, "nothing expected", "{get}Expect:\r\n\r\n", 417),
        served(class, "h2c smuggling", "{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n").hides("h2c"),
        served(class, "h2c among others", "{get}Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n").hides("H2C"),
        served(class, "Upgrade that Connection does not name", "{get}Upgrade: websocket\r\n\r\n").hides("websocket"),
        served(class, "Upgrade with a body", "{post}Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello").hides("websocket"),
        closes(class, "Upgrade in HTTP/1.0", "GET / HTTP/1.0\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").hides("websocket"),
        served(class, "Upgrade that the server does not take up", "{get}Connection: Upgrade\r\nUpgrade: echo\r\n\r\n").sees("Upgrade: echo"),
    ]
}

fn bounds() -> Vec<Case> {
    let class = "Bounds";
    vec![
        refused(class, "a target that is too long", "GET /{a*9000} HTTP/1.1\r\nHost: shop.test\r\n\r\n", 414),
        refused(class, "a first line without end", "GET /{a*40000}", 414),
        refused(class, "a field that is too long", "{get}X: {a*40000}\r\n\r\n", 431),
        refused(class, "a name that is too long", "{get}{a*40000}: x\r\n\r\n", 431),
        refused(class, "too many fields", "{get}{fields*200}\r\n", 431),
        refused(class, "a body that is too large", "{post}Content-Length: 1048577\r\n\r\n", 413),
        refused(class, "a chunk that makes the body too large", "{chunked}\r\n100001\r\n", 413),
        served(class, "as many fields as there may be", "{get}{fields*99}\r\n"),
    ]
}

fn pipelines() -> Vec<Case> {
    let class = "What follows a message";
    vec![
        twice(class, "another request", "{get}\r\n{get}\r\n"),
        twice(class, "another request behind a body", "{post}Content-Length: 5\r\n\r\nhello{get}\r\n"),
        twice(class, "another request behind chunks", "{chunked}\r\n5\r\nhello\r\n0\r\n\r\n{get}\r\n"),
        then_refused(class, "garbage", "{get}\r\n\u{1}\u{2}\u{3}", 400),
        then_refused(class, "a body that nobody announced", "{post}\r\n\u{b}hello", 400),
        then_refused(class, "garbage behind chunks", "{chunked}\r\n0\r\n\r\n\0\0", 400),
        then_refused(
            class,
            "a request line that is none",
            "{get}\r\nG@T / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
            400,
        ),
        then_refused(
            class,
            "a smuggled request that is ambiguous",
            "{get}\r\n{post}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
    ]
}

fn sound() -> Vec<Case> {
    let class = "Unusual, and sound";
    vec![
        served(class, "GET with a body", "{get}Content-Length: 5\r\n\r\nhello"),
        served(class, "GET with chunks", "{get}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        served(class, "HEAD", "HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        served(
            class,
            "DELETE with a body",
            "DELETE / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\n{}",
        ),
        served(class, "POST without a body", "{post}\r\n"),
        served(class, "POST with Content-Length: 0", "{post}Content-Length: 0\r\n\r\n"),
        served(class, "two slashes in front", "GET //other.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            .sees("GET //other.test/ HTTP/1.1"),
        served(class, "a header twice", "{get}X: 1\r\nX: 2\r\n\r\n"),
    ]
}

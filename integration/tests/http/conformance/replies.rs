//! Replies of servers that are malformed, ambiguous or at an edge, each with the outcome that is required.

/// What has to come of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// 502 with this code; the server's connection is closed.
    Gateway(&'static str),
    /// It goes on with this status. `true`: the server's connection stays for another exchange.
    Relayed(u16, bool),
    /// Its head has gone on, the rest cannot: both connections are closed.
    Cut(u16),
}

/// A reply, or whatever a server may send.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) fate: Fate,
    pub(super) method: &'static str,
    /// The server closes behind it.
    pub(super) ends: bool,
}

impl Reply {
    fn asked_by_head(mut self) -> Self {
        self.method = "HEAD";
        self
    }

    fn then_end(mut self) -> Self {
        self.ends = true;
        self
    }
}

fn bad(name: &'static str, text: &'static str) -> Reply {
    Reply { name, text, fate: Fate::Gateway("H17"), method: "GET", ends: false }
}

fn over(name: &'static str, text: &'static str) -> Reply {
    Reply { fate: Fate::Gateway("H25"), ..bad(name, text) }
}

fn good(name: &'static str, text: &'static str, status: u16) -> Reply {
    Reply { fate: Fate::Relayed(status, true), ..bad(name, text) }
}

/// Relayed, and the server is not spoken to again.
fn last(name: &'static str, text: &'static str, status: u16) -> Reply {
    Reply { fate: Fate::Relayed(status, false), ..bad(name, text) }
}

fn cut(name: &'static str, text: &'static str, status: u16) -> Reply {
    Reply { fate: Fate::Cut(status), ..bad(name, text) }
}

/// All of them.
pub(super) fn replies() -> Vec<Reply> {
    [lengths(), codings(), heads(), status_lines(), interim(), ends()].concat()
}

fn lengths() -> Vec<Reply> {
    vec![
        bad(
            "Content-Length beside chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        bad(
            "chunked beside Content-Length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        bad(
            "two lengths that differ",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        ),
        bad("two lengths that agree", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab"),
        bad("a list of lengths that agrees", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab"),
        bad("a list of lengths that differs", "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nab"),
        bad("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        bad("a length with a plus sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab"),
        bad(
            "a length of more than 64 bits",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nab",
        ),
        bad("a length in words", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nab"),
        bad("an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nab"),
    ]
}

fn codings() -> Vec<Reply> {
    vec![
        bad("a coding that is not chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab"),
        bad(
            "a coding before chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        bad(
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        bad("an empty coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nab"),
        bad("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        bad("chunks with 204", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        bad("a length with 204", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nab"),
        bad(
            "a chunk size that is none, with the head",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        ),
        bad(
            "a chunk size too large, with the head",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        ),
        bad(
            "a trailer that frames, with the head",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
        ),
        good(
            "chunks, an extension and a trailer",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n",
            200,
        ),
    ]
}

fn heads() -> Vec<Reply> {
    vec![
        bad("a folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        bad("LF everywhere", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        bad("LF behind a field", "HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n"),
        bad("a bare CR in a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n"),
        bad("a NUL in a value", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        bad("a control character in a value", "HTTP/1.1 200 OK\r\nX: a\u{1}b\r\nContent-Length: 0\r\n\r\n"),
        bad("a space before the colon", "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n"),
        bad("a length with a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        bad("no colon", "HTTP/1.1 200 OK\r\nnothing\r\nContent-Length: 0\r\n\r\n"),
        bad("no name", "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n"),
        bad("a byte above 0x7f in a name", "HTTP/1.1 200 OK\r\nX\u{e9}: a\r\nContent-Length: 0\r\n\r\n"),
        over("a head that is too long", "HTTP/1.1 200 OK\r\nX: {a*40000}\r\n\r\n"),
        over("too many fields", "HTTP/1.1 200 OK\r\n{fields*200}\r\n"),
        over("a status line without end", "HTTP/1.1 200 {a*40000}"),
        good(
            "fields of one hop",
            "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
            200,
        ),
    ]
}

fn status_lines() -> Vec<Reply> {
    vec![
        bad("a status below 100", "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n"),
        bad("a status above 599", "HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n"),
        bad("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        bad("a status of letters", "HTTP/1.1 2xx OK\r\nContent-Length: 0\r\n\r\n"),
        bad("no status", "HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        bad("two spaces before the status", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
        bad("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        bad("HTTP/1.2", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
        bad("small letters in the version", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        bad("HTTP/0.9: a bare page", "<html>hello</html>\r\n\r\n"),
        bad("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        bad("an empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        bad("a NUL in the reason", "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"),
        good("no reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200),
        good("neither a reason nor its space", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200),
        good("a status that nobody knows", "HTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n", 299),
    ]
}

fn interim() -> Vec<Reply> {
    vec![
        good(
            "100 that nobody asked for, then 200",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
        ),
        good(
            "102, then 200",
            "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
        ),
        good(
            "103 with a Link, then 200",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
        ),
        bad(
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        bad(
            "103 with a length",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        bad("103 with chunks", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        bad(
            "more interim replies than anyone needs",
            "{hints*40}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
    ]
}

fn ends() -> Vec<Reply> {
    vec![
        Reply { fate: Fate::Gateway("H13"), ..bad("nothing, and the end", "").then_end() },
        Reply {
            fate: Fate::Gateway("H18"),
            ..bad("half a head, and the end", "HTTP/1.1 200 OK\r\nContent-Le").then_end()
        },
        cut(
            "a body shorter than its length, and the end",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
            200,
        )
        .then_end(),
        cut(
            "chunks without their end, and the end",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            200,
        )
        .then_end(),
        last("a body that ends with the connection", "HTTP/1.1 200 OK\r\n\r\nab", 200).then_end(),
        last("a body of HTTP/1.0 that ends with the connection", "HTTP/1.0 200 OK\r\n\r\nab", 200).then_end(),
        last("bytes beyond the length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd", 200),
        last(
            "another reply behind it",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
        ),
        last(
            "bytes behind the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",
            200,
        ),
        last("a body for HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 200).asked_by_head(),
        last("a body with 204", "HTTP/1.1 204 No Content\r\n\r\nab", 204),
        last("a body with 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nab", 304),
        good("a length for HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200).asked_by_head(),
        good("304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", 304),
        last("Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200),
        last("HTTP/1.0 without keep-alive", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ]
}

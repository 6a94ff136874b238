//! One exchange as a machine over buffers: bytes of a request and its reply go in, what each side is to get comes
//! out. It names no socket and no clock, so that every order in which two peers can speak is a test.
//!
//! ```text
//!            upload()                                     download()
//!  client ── request body ──> server        client <── 1xx* ── head ── body ── server
//!                                           Head ──1xx──> Head ──head──> Body ──end──> Done
//!                                           Head ──101──> Switched
//! ```

use crate::compress::{Compress, Encoding};
use crate::edit::ReplyProgram;
use crate::retry::Retry;
use crate::wire::scan::HeadScan;
use crate::wire::{
    Body, Edits, Fields, Framing, Limits, Malformed, Outlet, Output, ReplyHead, RequestHead, Version, render,
    tokens,
};
use bytes::{Buf, BytesMut};
use std::time::Duration;
use thiserror::Error;

/// Interim replies relayed for one request; a server that sends more is taken for broken.
const INTERIM_MAX: u8 = 32;

/// What of a request decides how its exchange goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The client's version.
    pub version: Version,
    /// The method is HEAD: the reply has no body whatever it says.
    pub is_head: bool,
    /// The client will read another reply on this connection.
    pub keeps_alive: bool,
    /// It may be sent a second time: idempotent, and without a body.
    pub may_replay: bool,
    /// Doing it twice is doing it once.
    pub is_idempotent: bool,
    /// It asks to leave HTTP for one of these protocols, and 101 is a reply it understands.
    pub offered: Option<Box<[u8]>>,
}

impl Asked {
    /// What `head` asks.
    pub fn of(head: &RequestHead<'_>) -> Self {
        Self {
            version: head.version,
            is_head: head.method == b"HEAD",
            keeps_alive: head.keeps_alive(),
            is_idempotent: head.is_idempotent(),
            may_replay: head.is_idempotent() && head.framing == Framing::None,
            offered: head.upgrade().map(Into::into),
        }
    }
}

/// What rules the replies: limits, the edits of the route, and whether this connection is to end.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Bounds of a head and of a trailer section.
    pub limits: &'a Limits,
    /// Edits to the reply's head; what they remove does not come as a trailer either.
    pub edits: &'a Edits,
    /// Edits that are worked out for this reply, beside those.
    pub program: Option<&'a ReplyProgram<'a>>,
    /// Say goodbye with this reply.
    pub draining: bool,
    /// After which statuses the request is sent again, if it may be.
    pub again: Option<Again<'a>>,
    /// Lines for a 101, which has no edits: where the client's session lives.
    pub session: &'a [u8],
    /// Whether the reply's body is compressed, and into what.
    pub compress: Option<Compress<'a>>,
}

impl<'a> Rules<'a> {
    /// Limits and edits, and nothing else.
    pub fn plain(limits: &'a Limits, edits: &'a Edits) -> Self {
        Self { limits, edits, program: None, draining: false, again: None, session: &[], compress: None }
    }
}

/// What is sent again, and the time of the budget for that.
#[derive(Debug, Clone, Copy)]
pub struct Again<'a> {
    /// The rules.
    pub retry: &'a Retry,
    /// The cluster's time.
    pub now: Duration,
}

/// Why an exchange cannot be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The request's body is not what its head promised.
    #[error("the request's body is malformed: {0}")]
    Request(Malformed),
    /// The reply is not HTTP as we read it.
    #[error("the server's reply is malformed: {0}")]
    Reply(Malformed),
    /// The server closed before a byte of its reply.
    #[error("the server closed the connection without a reply")]
    Unanswered,
    /// The server closed in the midst of its reply.
    #[error("the server closed the connection in the midst of its reply")]
    Cut,
    /// The reply has a status after which the request is sent again. Nothing of it has gone to the client.
    #[error("the server answered {0}, and is asked again")]
    Status(u16),
    /// The reply's body cannot be compressed: there is no memory for it.
    #[error("the reply could not be compressed")]
    Encoder,
}

/// What an exchange waits for, which decides the time it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The client is sending its body.
    Upload,
    /// The server has the request and owes the reply's first byte.
    FirstByte,
    /// The reply is on its way.
    Download,
}

#[derive(Debug)]
enum Reply {
    Head,
    Body(Body),
    Done,
    Switched,
}

/// One request and its reply, after the request's head has gone.
#[derive(Debug)]
pub struct Exchange {
    asked: Asked,
    upload: Body,
    reply: Reply,
    scan: HeadScan,
    interims: u8,
    status: Option<u16>,
    leaving: render::Leaving,
    server_stays: bool,
    client_stays: bool,
    /// The edits of this reply, where they are its own: its trailers are held against them too.
    edits: Option<Box<Edits>>,
    /// What its body goes through.
    encoding: Option<Box<Encoding>>,
}

impl Exchange {
    /// An exchange for a request with a body of that framing.
    pub fn new(asked: Asked, framing: Framing) -> Self {
        Self {
            asked,
            upload: Body::new(framing),
            reply: Reply::Head,
            scan: HeadScan::default(),
            interims: 0,
            status: None,
            leaving: render::Leaving::default(),
            server_stays: false,
            client_stays: false,
            edits: None,
            encoding: None,
        }
    }

    /// Takes from `input` what belongs to this request's body and puts it into `output`. What follows it stays: it is
    /// the next request. What `edits` remove does not come as a trailer either.
    pub fn upload(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
        limits: &Limits,
        edits: &Edits,
    ) -> Result<(), Fault> {
        self.upload.pass(input, output, limits, edits).map_err(Fault::Request)?;
        self.check_invariants();
        Ok(())
    }

    /// Takes from `input` what the server sent and puts what the client is to get into `output`.
    pub fn download(
        &mut self,
        input: &mut BytesMut,
        output: &mut Outlet,
        rules: &Rules<'_>,
        fields: &mut Fields,
    ) -> Result<(), Fault> {
        while !input.is_empty() {
            match &self.reply {
                // Head -> Head (interim) | Body | Switched
                Reply::Head => match self.scan.advance(input, rules.limits).map_err(Fault::Reply)? {
                    Some(length) => self.head(length, input, output, rules, fields)?,
                    None => break,
                },
                // Body -> Body | Done
                Reply::Body(_) => {
                    let before = input.len();
                    self.body(input, output, rules)?;
                    // The rest of a trailer section is to come.
                    if input.len() == before {
                        break;
                    }
                }
                // A server that speaks out of turn is not spoken to again.
                Reply::Done => {
                    self.server_stays = false;
                    break;
                }
                // What follows a 101 is the tunnel's.
                Reply::Switched => break,
            }
        }
        self.check_invariants();
        Ok(())
    }

    /// The server has closed its side. `output` gets what ends the reply, if that was its end.
    pub fn server_closed(&mut self, input: &BytesMut, output: &mut Outlet) -> Result<(), Fault> {
        self.server_stays = false;
        match &mut self.reply {
            Reply::Head if input.is_empty() && self.interims == 0 => Err(Fault::Unanswered),
            Reply::Head => Err(Fault::Cut),
            // Body -> Done, where the close was to be its end
            Reply::Body(body) => {
                if !body.closed() {
                    return Err(Fault::Cut);
                }
                if let Some(encoding) = &mut self.encoding {
                    encoding.finish(output.tail()).map_err(|_| Fault::Encoder)?;
                }
                if self.leaving.chunk {
                    output.tail().extend_from_slice(b"0\r\n\r\n");
                }
                self.reply = Reply::Done;
                Ok(())
            }
            Reply::Done | Reply::Switched => Ok(()),
        }
    }

    /// Nothing more of the reply comes for now: what of it is held back goes on, if its reader can make use of it. Whether
    /// there was anything.
    pub fn pause(&mut self, output: &mut Outlet) -> Result<bool, Fault> {
        match &mut self.encoding {
            None => Ok(false),
            Some(encoding) => encoding.pause(output.tail()).map_err(|_| Fault::Encoder),
        }
    }

    /// Whether so much was compressed that others have their turn now.
    pub fn has_had_its_turn(&mut self) -> bool {
        self.encoding.as_mut().is_some_and(|encoding| encoding.has_had_its_turn())
    }

    /// Starts over with the same request on another connection. Only before anything of the reply has come.
    pub fn restart(&mut self) {
        debug_assert!(matches!(self.reply, Reply::Head), "a reply has begun");
        self.scan = HeadScan::default();
    }

    /// Whether all of the request's body has been taken.
    pub fn is_uploaded(&self) -> bool {
        self.upload.is_done()
    }

    /// Whether the reply is complete (or HTTP is over, see [`Self::is_switched`]).
    pub fn is_answered(&self) -> bool {
        matches!(self.reply, Reply::Done | Reply::Switched)
    }

    /// Whether the final reply's head has gone to the client, so that no other reply can be given.
    pub fn is_begun(&self) -> bool {
        !matches!(self.reply, Reply::Head)
    }

    /// Whether the connections carry another protocol from here on.
    pub fn is_switched(&self) -> bool {
        matches!(self.reply, Reply::Switched)
    }

    /// Whether a failure now, with nothing answered, may be tried again elsewhere.
    pub fn may_replay(&self) -> bool {
        self.asked.may_replay && !self.is_begun() && self.interims == 0
    }

    /// Whether nothing of a reply has come.
    pub fn is_unanswered(&self) -> bool {
        !self.is_begun() && self.interims == 0
    }

    /// Whether it asks to leave HTTP.
    pub fn may_switch(&self) -> bool {
        self.asked.offered.is_some()
    }

    /// Whether doing it twice is doing it once.
    pub fn is_idempotent(&self) -> bool {
        self.asked.is_idempotent
    }

    /// What is being waited for.
    pub fn phase(&self) -> Phase {
        match (&self.reply, self.upload.is_done()) {
            (Reply::Head, false) => Phase::Upload,
            (Reply::Head, true) => Phase::FirstByte,
            (Reply::Body(_) | Reply::Done | Reply::Switched, _) => Phase::Download,
        }
    }

    /// The final reply's status, once there is one.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether the client's connection carries another exchange after this one.
    pub fn keeps_client(&self) -> bool {
        self.client_stays && self.upload.is_done() && matches!(self.reply, Reply::Done)
    }

    /// Whether the server's connection carries another exchange after this one.
    pub fn keeps_server(&self) -> bool {
        self.server_stays && self.upload.is_done() && matches!(self.reply, Reply::Done)
    }

    fn head(
        &mut self,
        length: usize,
        input: &mut BytesMut,
        output: &mut Outlet,
        rules: &Rules<'_>,
        fields: &mut Fields,
    ) -> Result<(), Fault> {
        let raw = input.get(..length).unwrap_or_default();
        let head = ReplyHead::parse(raw, self.asked.is_head, rules.limits, fields).map_err(Fault::Reply)?;
        self.scan = HeadScan::default();
        if head.status == 101 {
            let chosen = head.fields.upgrade.map(|protocol| protocol.of(head.raw)).unwrap_or_default();
            let offered = self.asked.offered.as_deref().unwrap_or_default();
            if !offers(offered, chosen) {
                return Err(Fault::Reply(Malformed::UpgradeMisplaced));
            }
            self.status = Some(101);
            self.reply = Reply::Switched;
            render::interim(&head, rules.session, output.tail());
        } else if head.is_interim() {
            self.interims += 1;
            if self.interims > INTERIM_MAX {
                return Err(Fault::Reply(Malformed::InterimMisplaced));
            }
            if self.asked.version == Version::Http11 {
                render::interim(&head, &[], output.tail());
            }
        } else if let Some(again) = rules.again.filter(|_| self.interims == 0)
            && again.retry.takes_status(head.status, again.now)
        {
            return Err(Fault::Status(head.status));
        } else {
            self.decide(&head, rules.draining);
            self.edits = rules.program.map(|program| Box::new(program.edits(&head, rules.edits)));
            if let Some(compress) = &rules.compress {
                self.treat(&head, compress, rules.edits);
            }
            let edits = self.edits.as_deref().unwrap_or(rules.edits);
            render::reply(&head, &self.leaving, edits, output.tail());
            let body = Body::new(head.framing);
            self.reply = if body.is_done() { Reply::Done } else { Reply::Body(body) };
        }
        input.advance(length);
        if matches!(self.reply, Reply::Done) && !input.is_empty() {
            self.server_stays = false;
        }
        Ok(())
    }

    /// How the final reply leaves, and what stays open after it.
    fn decide(&mut self, head: &ReplyHead<'_>, draining: bool) {
        let speaks_11 = self.asked.version == Version::Http11;
        // A client that still sends its body would have us read all of it before the next request: it is told to
        // stop instead.
        let mut stays = self.asked.keeps_alive && !draining && self.upload.is_done();
        let unchunk = head.framing == Framing::Chunked && !speaks_11;
        let chunk = head.framing == Framing::Close && speaks_11;
        if unchunk || (head.framing == Framing::Close && !chunk) {
            stays = false;
        }
        self.status = Some(head.status);
        self.client_stays = stays;
        self.server_stays = head.keeps_alive();
        self.leaving = render::Leaving { close: !stays, say_keep_alive: stays && !speaks_11, unchunk, chunk };
    }

    /// What compression makes of the reply's head, and of the body that follows.
    fn treat(&mut self, head: &ReplyHead<'_>, compress: &Compress<'_>, edits: &Edits) {
        let can_be_chunked = self.asked.version == Version::Http11;
        let Some(treatment) = compress.treat(head, self.asked.is_head, can_be_chunked) else { return };
        let edits = self.edits.as_deref().unwrap_or(edits).then(&treatment.edits);
        self.edits = Some(Box::new(edits));
        self.leaving.chunk |= treatment.encoding.is_some();
        self.encoding = treatment.encoding;
    }

    fn body(&mut self, input: &mut BytesMut, output: &mut Outlet, rules: &Rules<'_>) -> Result<(), Fault> {
        let Reply::Body(body) = &mut self.reply else { return Ok(()) };
        let limits = Limits { body_bytes: u64::MAX, ..*rules.limits };
        if let Some(encoding) = &mut self.encoding {
            let edits = self.edits.as_deref().unwrap_or(rules.edits);
            encode(body, encoding, input, output.tail(), (&limits, edits))?;
        } else if self.leaving.unchunk {
            let tail = output.tail();
            let taken =
                body.advance(input, &limits, |data| tail.extend_from_slice(data)).map_err(Fault::Reply)?;
            input.advance(taken);
        } else if self.leaving.chunk {
            let tail = output.tail();
            tail.extend_from_slice(format!("{:x}\r\n", input.len()).as_bytes());
            let taken =
                body.advance(input, &limits, |data| tail.extend_from_slice(data)).map_err(Fault::Reply)?;
            tail.extend_from_slice(b"\r\n");
            input.advance(taken);
        } else {
            let edits = self.edits.as_deref().unwrap_or(rules.edits);
            body.pass(input, output, &limits, edits).map_err(Fault::Reply)?;
        }
        if body.is_done() {
            self.reply = Reply::Done;
            self.server_stays &= input.is_empty();
        }
        Ok(())
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.is_begun() == self.status.is_some(),
            "a reply has begun exactly when its status is known"
        );
        debug_assert!(!self.is_switched() || self.asked.offered.is_some(), "only who asks is switched");
        debug_assert!(
            !self.keeps_client() || !self.leaving.close,
            "a client told of the close is not read again"
        );
        debug_assert!(self.interims <= INTERIM_MAX + 1, "interim replies are counted");
    }
}

/// Takes what there is of a body, and puts out what its encoder makes of it, in chunks; behind the last the trailers.
fn encode(
    body: &mut Body,
    encoding: &mut Encoding,
    input: &mut BytesMut,
    output: &mut BytesMut,
    (limits, edits): (&Limits, &Edits),
) -> Result<(), Fault> {
    let (mut trailers, mut has_failed) = (BytesMut::new(), false);
    let data = |data: &[u8]| has_failed |= encoding.put(data, output).is_err();
    body.decode(input, &mut trailers, limits, edits, data).map_err(Fault::Reply)?;
    if body.is_done() {
        has_failed |= encoding.finish(output).is_err();
        output.extend_from_slice(b"0\r\n");
        output.extend_from_slice(if trailers.is_empty() { b"\r\n" } else { &trailers });
    }
    if has_failed { Err(Fault::Encoder) } else { Ok(()) }
}

/// Whether all that a server switches to was offered (RFC 9110, 7.8), and it is something.
fn offers(offered: &[u8], chosen: &[u8]) -> bool {
    let is_offered = |protocol: &[u8]| tokens(offered).any(|token| token.eq_ignore_ascii_case(protocol));
    tokens(chosen).next().is_some() && tokens(chosen).all(is_offered)
}

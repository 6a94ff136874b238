//! What clients ask, whatever they speak. The machine takes these; each protocol's decoder makes them.

use std::fmt;

use bytes::Bytes;

use super::meta::{self, Mode, Op, Wants};
use super::words::{Span, bytes_of, next_token};

/// One complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A classic retrieval of any number of keys.
    Get(Get),
    /// One thing to do with one key.
    One(One),
    /// A store whose value is over the limit. The value is swallowed by the decoder; what is left to do is
    /// the error and, where memcached does so, taking the old value away.
    Oversized(Oversized),
    /// `flush_all`.
    FlushAll {
        /// Seconds from now, or a Unix time; never below 0.
        delay: i32,
        /// For the answer.
        to: To,
    },
    /// `verbosity`.
    Verbosity {
        /// As given.
        level: u32,
        /// For the answer.
        to: To,
    },
    /// `cache_memlimit`.
    MemLimit {
        /// As given.
        megabytes: u32,
        /// For the answer.
        to: To,
    },
    /// `stats` with what follows it.
    Stats(Stats),
    /// `version`.
    Version(To),
    /// Where to connect, as clients of ElastiCache ask.
    Nodes(Nodes),
    /// `mn`, and the binary protocol's no-op: answered when everything before it is.
    Noop(To),
    /// The end, at the client's wish. Only the binary protocol answers.
    Quit(To),
}

/// In which way a client asks where to connect, which is how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// `config get cluster`.
    Config,
    /// `get AmazonElastiCache:cluster`, before there was the other.
    Key,
}

/// How a client wants its answer: in which language, and what it would rather not hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A line of the classic protocol.
    Classic {
        /// None at all, whatever happens.
        noreply: bool,
    },
    /// A line of the meta protocol.
    Meta {
        /// None if all went well.
        quiet: bool,
    },
    /// A packet. The opcode says whether it is quiet.
    Binary {
        /// Of the request, and of its answer.
        opcode: u8,
        /// Comes back as it went.
        opaque: [u8; 4],
    },
}

impl To {
    /// A classic client that wants an answer.
    pub const TEXT: Self = Self::Classic { noreply: false };
}

/// A retrieval. The keys are checked but not taken apart: a line may hold a hundred thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    pub(super) line: Bytes,
    pub(super) key: Option<Span>,
    /// The answers carry the CAS token.
    pub cas: bool,
    /// `gat` and `gats`: the new expiry.
    pub touch: Option<i32>,
}

impl Get {
    /// The key at hand; none when all have been passed.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|span| bytes_of(&self.line, span))
    }

    /// Goes on to the next key.
    pub fn advance(&mut self) {
        self.key = self.key.and_then(|span| next_token(&self.line, span.end));
    }

    /// The keys from the one at hand on, and where they are in the line.
    pub fn keys(&self) -> impl Iterator<Item = (Span, &[u8])> {
        let mut next = self.key;
        std::iter::from_fn(move || {
            let span = next?;
            next = next_token(&self.line, span.end);
            Some((span, bytes_of(&self.line, span)))
        })
    }

    /// Goes on behind these keys.
    pub fn pass(&mut self, keys: Span) {
        self.key = next_token(&self.line, keys.end);
    }

    /// Is it about the values of more keys than the one at hand, and about nothing else?
    pub fn is_of_several(&self) -> bool {
        !self.cas
            && self.touch.is_none()
            && self.key.is_some_and(|span| next_token(&self.line, span.end).is_some())
    }

    /// What the server of the key at hand is asked.
    pub fn request(&self) -> Option<meta::Request<'_>> {
        let wants = if self.cas { Wants::ITEM.and(Wants::CAS) } else { Wants::ITEM };
        let op = Op::Get(meta::Get { wants, touch: self.touch, ..Default::default() });
        Some(meta::Request { key: self.key()?, is_coded: false, op })
    }
}

/// A key in the line or packet it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    pub(super) line: Bytes,
    pub(super) span: Span,
    /// It travels in base64, because the client sent it so or because no line can hold it.
    pub is_coded: bool,
}

impl Key {
    /// Its true bytes: 1 to [`super::KEY_LEN_MAX`]; no space, no NUL, no line feed unless it is coded.
    pub fn as_bytes(&self) -> &[u8] {
        bytes_of(&self.line, self.span)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.line.slice(self.span.start..self.span.end), f)
    }
}

/// One thing to do with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct One {
    /// What the client calls it.
    pub command: Command,
    /// Where.
    pub key: Key,
    /// What.
    pub intent: Intent,
    /// For the answer.
    pub to: To,
    /// For the answer to a meta client: its flags, in its order.
    pub flags: Bytes,
}

impl One {
    /// What the key's server is asked.
    pub fn request(&self) -> meta::Request<'_> {
        meta::Request { key: self.key.as_bytes(), is_coded: self.key.is_coded, op: self.intent.op() }
    }
}

/// An [`Op`] that owns its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// `mg`.
    Get(meta::Get),
    /// `ms`.
    Store(Store),
    /// `md`.
    Delete(meta::Delete),
    /// `ma`.
    Arith(meta::Arith),
    /// `me`.
    Debug,
}

impl Intent {
    /// As a server is asked.
    pub fn op(&self) -> Op<'_> {
        match self {
            Self::Get(get) => Op::Get(*get),
            Self::Store(store) => Op::Store(meta::Store {
                mode: store.mode,
                flags: store.flags,
                exptime: store.exptime,
                value: &store.value,
                compare: store.compare,
                new_cas: store.new_cas,
                invalidate: store.invalidate,
                vivify: store.vivify,
                wants: store.wants,
            }),
            Self::Delete(delete) => Op::Delete(*delete),
            Self::Arith(arith) => Op::Arith(*arith),
            Self::Debug => Op::Debug,
        }
    }
}

/// A [`meta::Store`] that owns its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// How.
    pub mode: Mode,
    /// The client's own bits.
    pub flags: u32,
    /// Seconds from now, a Unix time, 0 for never, below 0 for at once.
    pub exptime: i32,
    /// The value without its line end.
    pub value: Bytes,
    /// Only if the item's CAS value is this one.
    pub compare: Option<u64>,
    /// The item's new CAS value.
    pub new_cas: Option<u64>,
    /// With a smaller CAS value, stored and marked stale.
    pub invalidate: bool,
    /// Appending to nothing makes an item that lives so long.
    pub vivify: Option<i32>,
    /// What comes back.
    pub wants: Wants,
}

/// A store that is too large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oversized {
    /// What the client calls it.
    pub command: Command,
    /// Where it would have gone.
    pub key: Key,
    /// The old value is taken away.
    pub deletes: bool,
    /// For the answer.
    pub to: To,
}

/// `stats` with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    pub(super) line: Bytes,
    /// Where the arguments begin in it.
    pub(super) at: usize,
    /// For the answer.
    pub to: To,
}

impl Stats {
    /// What follows the word `stats`, one space between the parts.
    pub fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = self.at;
        std::iter::from_fn(move || {
            let span = next_token(&self.line, at)?;
            at = span.end;
            Some(bytes_of(&self.line, span))
        })
    }
}

/// Names the commands, for metrics and the access log.
macro_rules! commands {
    ($($command:ident = $name:literal,)*) => {
        /// What was asked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Command {
            $(#[doc = concat!("`", $name, "`")] $command,)*
        }

        impl Command {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$command),*];

            /// Its name on the wire, the classic one if it has several; `refused` stands for whatever was
            /// not understood.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$command => $name,)*
                }
            }
        }
    };
}

commands! {
    Get = "get",
    Gets = "gets",
    Gat = "gat",
    Gats = "gats",
    Set = "set",
    Add = "add",
    Replace = "replace",
    Append = "append",
    Prepend = "prepend",
    Cas = "cas",
    Incr = "incr",
    Decr = "decr",
    Touch = "touch",
    Delete = "delete",
    MetaGet = "mg",
    MetaSet = "ms",
    MetaDelete = "md",
    MetaArith = "ma",
    MetaDebug = "me",
    FlushAll = "flush_all",
    Verbosity = "verbosity",
    MemLimit = "cache_memlimit",
    Stats = "stats",
    Version = "version",
    Nodes = "config",
    Noop = "noop",
    Quit = "quit",
    Refused = "refused",
}

/// Why a request cannot be. The words for the client are in `reply.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No such command, or not with so many words.
    UnknownCommand,
    /// A key, flags, expiry or length that cannot be.
    BadFormat,
    /// The value is not followed by a line end.
    BadDataChunk,
    /// An expiry that is no number.
    InvalidExptime,
    /// An amount that is no number.
    InvalidDelta,
    /// `delete` with a time.
    DeleteUsage,
    /// `shutdown`, which only an operator may.
    Shutdown,
    /// A command that makes sense for one server only.
    OneServer,
    /// A value over the limit.
    TooLarge,
    /// A key whose base64 is over the limit.
    KeyTooLong,
    /// Statistics of that name there are none of.
    NoSuchStats,
    /// What the meta protocol finds wrong with flags.
    Flags(BadFlags),
    /// A packet whose parts have lengths that its opcode does not go with.
    BadPacket,
}

/// What is wrong with a meta command's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadFlags {
    /// One is there twice.
    Duplicate,
    /// One is no flag.
    Unknown,
    /// `md` and `ma` do not tell what is wrong.
    Any,
    /// The client's bits are no number.
    Format,
    /// A number that is none.
    Number,
    /// A key that is no base64.
    Key,
    /// `M` is not followed by one letter.
    ModeLength,
    /// No mode of `ms`.
    StoreMode,
    /// No mode of `ma`.
    ArithMode,
    /// `J` without a number.
    Initial,
    /// `D` without a number.
    Delta,
    /// More than 31 bytes behind `O`.
    Opaque,
    /// More than 17 flags for `mg`.
    TooManyForGet,
    /// More than 17 flags for another.
    TooMany,
}

/// A request that is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A request that cannot be. The client is told, and may go on.
    #[error("refused: {refusal:?}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// For the answer.
        to: To,
    },
    /// A request after which nothing can be understood. The client is told and hung up on.
    #[error("hung up on: {refusal:?}")]
    HangUp {
        /// Why.
        refusal: Refusal,
        /// For the answer.
        to: To,
    },
    /// A `get` line over the limit: told, then closed.
    #[error("line too long")]
    LineTooLong,
    /// An endless line that is no `get`: closed without a word, as memcached does.
    #[error("not a command")]
    Garbage,
    /// An HTTP request: closed without a word, as memcached does.
    #[error("an HTTP request")]
    Http,
    /// The first bytes of TLS: told in TLS's own terms, then closed.
    #[error("TLS on a port without it")]
    Tls,
    /// A packet that does not begin as packets do: closed without a word, as memcached does.
    #[error("not a packet of the binary protocol")]
    BadMagic,
}

impl DecodeError {
    /// A refusal that a text client is told.
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self::Refused { refusal, to: To::TEXT }
    }

    /// One of a classic command that may want no answer.
    pub(super) fn classic(refusal: Refusal, noreply: bool) -> Self {
        Self::Refused { refusal, to: To::Classic { noreply } }
    }
}

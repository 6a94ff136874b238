//! A connection to one member, and what is asked over it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use groove_common::ids::Address;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_128;

use super::log::{Effect, Entry};
use crate::error::Error;
use crate::upstream::{Server, Target, connect};
use crate::wire::backend::{Status, data_row, error_field};
use crate::wire::{Frame, HEADER, Limits, decode, frontend, put, put_cstr};

/// A message of a member's, rows included.
const LIMITS: Limits = Limits { message: 256 << 20 };
/// Bytes of an answer that is held whole.
pub const ANSWER_MAX: usize = 64 << 20;

/// Why a member did not do what it was asked.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be reached, or the connection has ended, or it takes too long.
    Lost(Error),
    /// It says no; the body of its ErrorResponse.
    Said(Bytes),
}

impl Fault {
    /// The member's SQLSTATE, if it has said something.
    pub fn code(&self) -> Option<&[u8]> {
        match self {
            Fault::Said(body) => error_field(body, b'C'),
            Fault::Lost(_) => None,
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Fault::Said(body) => {
                String::from_utf8_lossy(error_field(body, b'M').unwrap_or_default()).into_owned()
            }
            Fault::Lost(error) => error.to_string(),
        }
    }
}

fn late() -> Fault {
    Fault::Lost(Error::Lost(std::io::ErrorKind::TimedOut.into()))
}

/// A statement to be carried out, by the extended protocol.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its text.
    pub text: &'a str,
    /// Types of its parameters.
    pub types: &'a [u32],
    /// Formats and values, as in a Bind; empty for none.
    pub parameters: &'a [u8],
    /// Formats of what it gives, as in a Bind.
    pub formats: &'a [i16],
    /// Rows at most; 0 is all.
    pub rows_max: i32,
}

/// What a statement gave.
#[derive(Debug, Default)]
pub struct Answer {
    /// The RowDescription, if it gives rows.
    pub description: Option<Frame>,
    /// DataRows.
    pub rows: Vec<Frame>,
    /// The command's tag.
    pub tag: String,
}

/// A connection to one member.
pub struct Link {
    server: Box<Server>,
    input: BytesMut,
    out: BytesMut,
    /// What the member said last of where the session stands.
    pub status: Status,
}

impl Link {
    /// Logs in.
    pub async fn open(
        target: &Target,
        address: &Address,
        extra: &[(String, String)],
        time_max: Duration,
    ) -> Result<Link, Fault> {
        let connected = Box::pin(connect(target, address, extra, time_max));
        match timeout(time_max, connected).await {
            Ok(Ok(server)) => Ok(Link {
                server: Box::new(server),
                input: BytesMut::new(),
                out: BytesMut::new(),
                status: Status::Idle,
            }),
            Ok(Err(Error::Refused(body))) => Err(Fault::Said(body)),
            Ok(Err(error)) => Err(Fault::Lost(error)),
            Err(_) => Err(late()),
        }
    }

    /// The settings that the member tells of at a login.
    pub fn server(&self) -> &Server {
        &self.server
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        let out = &mut self.out;
        self.server.stream.send(out).await.map_err(|error| Fault::Lost(Error::Lost(error)))
    }

    async fn next(&mut self) -> Result<Frame, Fault> {
        loop {
            let decoded = decode(&mut self.input, &LIMITS);
            if let Some(frame) = decoded.map_err(|error| Fault::Lost(Error::Upstream(error)))? {
                return Ok(frame);
            }
            match self.server.stream.fill(&mut self.input).await {
                Ok(0) => {
                    return Err(Fault::Lost(Error::Lost(std::io::ErrorKind::UnexpectedEof.into())));
                }
                Ok(_) => {}
                Err(error) => return Err(Fault::Lost(Error::Lost(error))),
            }
        }
    }

    /// Takes a ReadyForQuery's word on the transaction.
    fn ready(&mut self, frame: &Frame) -> Result<(), Fault> {
        let status = Status::read(frame.body());
        self.status = status.map_err(|error| Fault::Lost(Error::Upstream(error)))?;
        Ok(())
    }

    /// Reads to the next ReadyForQuery. What the member has said of an error, if there was one, is the outcome.
    async fn rest(&mut self, mut on: impl FnMut(Frame) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut failure = None;
        loop {
            let frame = self.next().await?;
            match frame.tag {
                b'Z' => {
                    self.ready(&frame)?;
                    return failure.map_or(Ok(()), |body| Err(Fault::Said(body)));
                }
                b'E' => failure = Some(frame.raw.slice(HEADER..)),
                b'N' | b'S' | b'A' => {}
                _ => on(frame)?,
            }
        }
    }

    /// Runs statements of ours, which may be several. Gives all rows as texts.
    pub async fn rows(&mut self, text: &str) -> Result<Vec<Vec<Option<String>>>, Fault> {
        frontend::put_query(&mut self.out, text);
        self.flush().await?;
        let mut rows = Vec::new();
        self.rest(|frame| {
            if frame.tag == b'D' {
                let values = data_row(&frame.raw.slice(HEADER..));
                let values = values.map_err(|error| Fault::Lost(Error::Upstream(error)))?;
                let text = |value: Option<Bytes>| value.map(|v| String::from_utf8_lossy(&v).into_owned());
                rows.push(values.into_iter().map(text).collect());
            }
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// The same within a time.
    pub async fn rows_within(
        &mut self,
        text: &str,
        time_max: Duration,
    ) -> Result<Vec<Vec<Option<String>>>, Fault> {
        timeout(time_max, self.rows(text)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Runs a statement of ours that gives nothing.
    pub async fn run(&mut self, text: &str) -> Result<(), Fault> {
        self.rows(text).await.map(|_| ())
    }

    /// The same within a time.
    pub async fn run_within(&mut self, text: &str, time_max: Duration) -> Result<(), Fault> {
        timeout(time_max, self.run(text)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Has a statement described: its ParameterDescription, and its RowDescription if it gives rows.
    pub async fn describe(&mut self, text: &str, types: &[u32]) -> Result<(Frame, Option<Frame>), Fault> {
        put_parse(&mut self.out, text, types);
        frontend::put_describe_statement(&mut self.out, b"");
        frontend::put_sync(&mut self.out);
        self.flush().await?;
        let (mut parameters, mut rows) = (None, None);
        self.rest(|frame| {
            match frame.tag {
                b't' => parameters = Some(frame),
                b'T' => rows = Some(frame),
                _ => {}
            }
            Ok(())
        })
        .await?;
        let missing = || Fault::Lost(Error::Upstream(crate::wire::DecodeError::Format));
        Ok((parameters.ok_or_else(missing)?, rows))
    }

    /// Carries a statement out and holds its answer.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Answer, Fault> {
        put_call(&mut self.out, call);
        self.flush().await?;
        let (mut answer, mut bytes) = (Answer::default(), 0);
        let mut too_large = false;
        self.rest(|frame| {
            match frame.tag {
                b'T' => answer.description = Some(frame),
                b'D' => {
                    bytes += frame.raw.len();
                    too_large |= bytes > ANSWER_MAX;
                    if !too_large {
                        answer.rows.push(frame);
                    }
                }
                b'C' => answer.tag = tag(&frame),
                _ => {}
            }
            Ok(())
        })
        .await?;
        match too_large {
            true => Err(Fault::Lost(Error::Protocol(crate::wire::DecodeError::TooLarge {
                bytes,
                max: ANSWER_MAX,
            }))),
            false => Ok(answer),
        }
    }

    /// Begins to carry a statement out; [`Link::step`] gives what comes of it.
    pub async fn start(&mut self, call: Call<'_>) -> Result<(), Fault> {
        put_call(&mut self.out, call);
        self.flush().await
    }

    /// The next message of what was started; `None` at its end. An error is kept until then.
    pub async fn step(&mut self, failure: &mut Option<Bytes>) -> Result<Option<Frame>, Fault> {
        loop {
            let frame = self.next().await?;
            match frame.tag {
                b'Z' => {
                    self.ready(&frame)?;
                    return Ok(None);
                }
                b'E' => *failure = Some(frame.raw.slice(HEADER..)),
                b'1' | b'2' | b'S' | b'A' => {}
                _ => return Ok(Some(frame)),
            }
        }
    }

    /// Carries out what the log says, and tells what it did.
    pub async fn apply(&mut self, entry: &Entry) -> Result<Effect, Fault> {
        let Entry { text, types, parameters, .. } = entry;
        let answer = self.call(Call { text, types, parameters, formats: &[], rows_max: 0 }).await?;
        Ok(effect(&answer, entry.effect.is_some()))
    }
}

/// What a statement did, by its answer: the last column is the row's image, if there is one.
pub fn effect(answer: &Answer, has_image: bool) -> Effect {
    let (mut rows, mut images) = (0, 0u128);
    if has_image {
        for row in &answer.rows {
            rows += 1;
            images = images.wrapping_add(last_column(row).map_or(0, |(_, image)| xxh3_128(image)));
        }
    }
    Effect { tag: answer.tag.clone(), rows, images }
}

/// Where a DataRow's last column begins, its length included, and its bytes.
fn last_column(row: &Frame) -> Option<(usize, &[u8])> {
    let body = row.body();
    let count = u16::from_be_bytes(*body.first_chunk::<2>()?);
    let mut at = 2;
    for index in 1..=count {
        let length = i32::from_be_bytes(*body.get(at..)?.first_chunk::<4>()?);
        let length = usize::try_from(length).unwrap_or(0);
        if index == count {
            return Some((at, body.get(at + 4..at + 4 + length)?));
        }
        at += 4 + length;
    }
    None
}

/// Writes a DataRow without its last column.
pub fn put_without_image(out: &mut BytesMut, row: &Frame) {
    let body = row.body();
    let count = body.first_chunk::<2>().map_or(0, |count| u16::from_be_bytes(*count));
    let end = last_column(row).map_or(2, |(at, _)| at);
    put(out, b'D', |out| {
        out.put_u16(count.saturating_sub(1));
        out.put_slice(body.get(2..end).unwrap_or_default());
    });
}

fn tag(frame: &Frame) -> String {
    let body = frame.body();
    String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned()
}

fn put_parse(out: &mut BytesMut, text: &str, types: &[u32]) {
    put(out, b'P', |out| {
        put_cstr(out, b"");
        put_cstr(out, text.as_bytes());
        out.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
        types.iter().for_each(|kind| out.put_u32(*kind));
    });
}

fn put_call(out: &mut BytesMut, call: Call<'_>) {
    put_parse(out, call.text, call.types);
    put(out, b'B', |out| {
        put_cstr(out, b"");
        put_cstr(out, b"");
        match call.parameters {
            [] => out.put_slice(&[0; 4]),
            parameters => out.put_slice(parameters),
        }
        out.put_u16(u16::try_from(call.formats.len()).unwrap_or(u16::MAX));
        call.formats.iter().for_each(|format| out.put_i16(*format));
    });
    put(out, b'D', |out| {
        out.put_u8(b'P');
        put_cstr(out, b"");
    });
    put(out, b'E', |out| {
        put_cstr(out, b"");
        out.put_i32(call.rows_max);
    });
    frontend::put_sync(out);
}

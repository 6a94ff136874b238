//! Between exchanges, when the session has no server connection: what needs one, and what does not.

use std::sync::Arc;

use bytes::BytesMut;

use super::Machine;
use crate::error::Error;
use crate::session::prepared::Statement;
use crate::wire::DecodeError;
use crate::wire::backend::{put_close_complete, put_parse_complete, put_ready};
use crate::wire::frontend::{self, Parse, Tag, Target};

/// What to do with bytes that come while there is no server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing but incomplete bytes: read on.
    More,
    /// The next message is for a server.
    Server,
    /// The client said goodbye.
    Close,
}

/// What becomes of a batch's first messages.
enum Batch {
    Answered,
    /// Not to be told before more of it is here.
    Incomplete,
    ForServer,
}

/// A message that we answer in the server's place.
enum Answer {
    Prepared(Box<[u8]>, Arc<Statement>),
    Closed(Box<[u8]>),
}

impl Machine {
    /// What the client needs while it has no server connection. Messages that a server would ignore are dropped,
    /// and batches that need none are answered.
    pub fn need(&mut self, input: &mut BytesMut, to_client: &mut BytesMut) -> Result<Need, Error> {
        debug_assert!(!self.is_busy(), "asked between exchanges only");
        loop {
            if !self.drop_left(input) {
                return Ok(Need::More);
            }
            let Some((tag, total)) = frontend::header(input)? else { return Ok(Need::More) };
            // Who is slow to say what it wants keeps nobody from a server meanwhile. Of what is not held whole there is as
            // much as is ever looked at.
            if self.is_shared() && is_for_server(tag) && input.len() < total.min(self.bounds.message + 1) {
                return Ok(Need::More);
            }
            match tag {
                Tag::Terminate => return Ok(Need::Close),
                // What a client still sends after the server has ended its COPY with an error; and a Flush
                // when there is nothing to flush.
                Tag::CopyData | Tag::CopyDone | Tag::CopyFail | Tag::Flush => self.client_left = total,
                Tag::Password => return Err(DecodeError::FrontendType(b'p').into()),
                Tag::Parse | Tag::Close | Tag::Sync if self.is_shared() => {
                    match self.answer_batch(input, to_client)? {
                        Batch::Answered => {}
                        Batch::Incomplete => return Ok(Need::More),
                        Batch::ForServer => return Ok(Need::Server),
                    }
                }
                // Who is slow to say what it wants keeps nobody from a server meanwhile.
                Tag::Query if self.is_shared() && total <= self.bounds.message && input.len() < total => {
                    return Ok(Need::More);
                }
                Tag::Query => match self.answer_block(total, input, to_client) {
                    Some(true) => {}
                    Some(false) => return Ok(Need::Server),
                    None => return Ok(Need::More),
                },
                Tag::Bind
                | Tag::Close
                | Tag::Describe
                | Tag::Execute
                | Tag::FunctionCall
                | Tag::Parse
                | Tag::Sync => return Ok(Need::Server),
            }
        }
    }

    /// Answers a Sync, alone or after one Parse (of what some server of the pool has parsed before) or Close.
    /// pgbench prepares synchronously while others of its clients hold every connection: only because this
    /// needs none does it get on.
    fn answer_batch(&mut self, input: &mut BytesMut, to_client: &mut BytesMut) -> Result<Batch, Error> {
        let Some((tag, total)) = frontend::header(input)? else { return Ok(Batch::Incomplete) };
        let Some((message, rest)) = input.split_at_checked(total) else {
            let is_held = total <= self.bounds.message;
            return Ok(if is_held { Batch::Incomplete } else { Batch::ForServer });
        };
        if tag == Tag::Sync {
            put_ready(to_client, self.status);
            let _ = input.split_to(total);
            return Ok(Batch::Answered);
        }
        let answer = if tag == Tag::Parse { self.known_parse(message) } else { named_close(message) };
        let Some(answer) = answer else { return Ok(Batch::ForServer) };
        // A server would say nothing before a Sync or a Flush either.
        let sync_total = match frontend::header(rest)? {
            None => return Ok(Batch::Incomplete),
            Some((Tag::Sync, sync_total)) if rest.len() < sync_total => return Ok(Batch::Incomplete),
            Some((Tag::Sync, sync_total)) => sync_total,
            Some(_) => return Ok(Batch::ForServer),
        };
        match answer {
            Answer::Prepared(name, statement) => {
                self.names.insert(name, statement, self.statements.tick());
                put_parse_complete(to_client);
            }
            Answer::Closed(name) => {
                self.names.remove(&name);
                self.forget_by_sql(&name);
                put_close_complete(to_client);
            }
        }
        put_ready(to_client, self.status);
        let _ = input.split_to(total + sync_total);
        Ok(Batch::Answered)
    }

    fn known_parse(&self, message: &[u8]) -> Option<Answer> {
        let parse = Parse::read(message).ok()?;
        let is_new = !parse.name.is_empty() && self.names.get(parse.name).is_none();
        if !is_new || self.names.check_room(self.bounds.statements, parse.name, parse.content).is_err() {
            return None;
        }
        let statement = self.statements.proven(parse.content)?;
        Some(Answer::Prepared(parse.name.into(), statement))
    }

    /// Drops what is left of a message that nobody wants; true once it is gone.
    fn drop_left(&mut self, input: &mut BytesMut) -> bool {
        let here = self.client_left.min(input.len());
        let _ = input.split_to(here);
        self.client_left -= here;
        self.client_left == 0
    }

    /// Starts to answer an exchange for which there is no server. The driver has written the error.
    pub fn refuse(&mut self) {
        self.fail_deferred();
        self.refusing = true;
    }

    /// Drops what belongs to a refused exchange; true when it is over, and the client was told so.
    pub fn drop_refused(&mut self, input: &mut BytesMut, to_client: &mut BytesMut) -> Result<bool, Error> {
        while self.refusing || self.client_left > 0 {
            if !self.drop_left(input) {
                return Ok(false);
            }
            if !self.refusing {
                break;
            }
            let Some((tag, total)) = frontend::header(input)? else { return Ok(false) };
            self.client_left = total;
            match tag {
                // Within a batch the server would skip queries, too; only the first message decides.
                Tag::Query | Tag::FunctionCall if !self.skipping => {
                    put_ready(to_client, self.status);
                    self.refusing = false;
                }
                Tag::Sync => {
                    put_ready(to_client, self.status);
                    self.refusing = false;
                }
                Tag::Terminate => {
                    self.terminated = true;
                    return Ok(true);
                }
                Tag::Bind
                | Tag::Close
                | Tag::CopyData
                | Tag::CopyDone
                | Tag::CopyFail
                | Tag::Describe
                | Tag::Execute
                | Tag::Flush
                | Tag::FunctionCall
                | Tag::Parse
                | Tag::Password
                | Tag::Query => self.skipping = true,
            }
        }
        self.skipping = false;
        Ok(true)
    }
}

fn is_for_server(tag: Tag) -> bool {
    match tag {
        Tag::Bind
        | Tag::Close
        | Tag::Describe
        | Tag::Execute
        | Tag::FunctionCall
        | Tag::Parse
        | Tag::Query
        | Tag::Sync => true,
        Tag::CopyData | Tag::CopyDone | Tag::CopyFail | Tag::Flush | Tag::Password | Tag::Terminate => false,
    }
}

fn named_close(message: &[u8]) -> Option<Answer> {
    match Target::read(message) {
        Ok(Target::Statement(name)) if !name.is_empty() => Some(Answer::Closed(name.into())),
        Ok(_) | Err(_) => None,
    }
}

//! Statements that only read: on the leader within a transaction, elsewhere on any member that is in.

use super::super::link::{Call, Fault, Link};
use super::super::locks::Wants;
use super::super::rewrite::{self};
use super::super::schema::Schema;
use super::super::statement::{Level, Modes, Name, Read, Refusal};
use super::super::trouble::Trouble;
use super::{Session, UNSENT_MAX, put_description};
use crate::error::Error;
use crate::wire::Frame;
use crate::wire::backend;

impl Session {
    pub(super) async fn read_statement(
        &mut self,
        call: Call<'_>,
        read: &Read,
        describes: bool,
    ) -> Result<(), Trouble> {
        let draws = read.seen.has_call("nextval");
        if self.connections.transaction.is_none() {
            if !draws && !read.locks {
                if self.reads_only(read).await? {
                    return self.read_anywhere(call, describes).await;
                }
                // The server sees to it that what nobody knows does not write.
                let modes = Modes { is_read_only: Some(true), level: None };
                self.connections.begin(modes, true).await?;
                return self.read_in(call, describes).await;
            }
            self.connections.begin(Modes::default(), true).await?;
        }
        let (_, schema) = self.schema().await?;
        let is_pure = |(_, name): &(Option<String>, String)| schema.is_pure(name) || rewrite::is_drawn(name);
        if let Some((_, name)) = read.seen.calls.iter().find(|call| !is_pure(call)) {
            return Err(Refusal::new(
                format!("what the function {name}() does is not known, so that it is not called in a transaction that may write"),
                "Call it outside of a transaction, or in one that is READ ONLY.",
            )
            .into());
        }
        if schema.has_odd_views
            && let Some(refusal) = self.odd_view(&schema, &read.seen.relations).await?
        {
            return Err(refusal.into());
        }
        if draws {
            return self.draw_numbers(call, describes).await;
        }
        if read.locks {
            let oids = self.resolve(&read.seen.relations).await?;
            let keys = schema.keys(oids.into_iter().flatten());
            let wants = match keys {
                Some(keys) => Wants { writes: keys.into_iter().collect(), ..Wants::default() },
                None => Wants::everything(),
            };
            self.connections.lock(wants).await?;
        } else if self.connections.transaction.as_ref().is_some_and(|open| open.level != Level::Committed) {
            // Its snapshot has to be the same on every member that it comes to write to.
            self.connections.lock(Wants::everything()).await?;
        }
        self.read_in(call, describes).await
    }

    /// Whether a read calls nothing that could write.
    pub(super) async fn reads_only(&mut self, read: &Read) -> Result<bool, Trouble> {
        if read.seen.is_quiet() && read.seen.relations.is_empty() {
            return Ok(true);
        }
        let (_, schema) = self.schema().await?;
        // What a view calls is not looked up here.
        let knows_views = !schema.has_odd_views || read.seen.relations.is_empty();
        Ok(schema.only_reads(&read.seen) && knows_views)
    }

    /// Why a view is not read where something may be written.
    pub(super) async fn odd_view(
        &mut self,
        schema: &Schema,
        names: &[Name],
    ) -> Result<Option<Refusal>, Trouble> {
        let oids = self.resolve(names).await?;
        let odd =
            oids.into_iter().flatten().filter_map(|oid| schema.tables.get(&oid)).find(|table| table.is_odd);
        Ok(odd.map(|table| {
            Refusal::new(
                format!("the view {} calls what is not known, so that it is not read in a transaction that may write", table.name),
                "Read it outside of a transaction, or in one that is READ ONLY.",
            )
        }))
    }

    /// Reads within the transaction, where it runs.
    pub(super) async fn read_in(&mut self, call: Call<'_>, describes: bool) -> Result<(), Trouble> {
        let Some(index) = self.connections.transaction.as_ref().map(|open| open.leader) else {
            return Ok(());
        };
        let Session { connections, conn, out, doubtful, .. } = self;
        let flushes = doubtful.is_none();
        let work = |mut link: Link| async move {
            let done = async {
                let mut failure = None;
                link.start(call).await?;
                while let Some(frame) = link.step(&mut failure).await? {
                    put_read(out, &frame, call.formats, describes);
                    if flushes
                        && out.len() > UNSENT_MAX
                        && let Err(error) = conn.stream.send(out).await
                    {
                        return Ok(Some(error));
                    }
                }
                failure.map_or(Ok(None), |body| Err(Fault::Said(body)))
            };
            let done = done.await;
            (link, done)
        };
        match connections.on_leader(index, work).await? {
            None => Ok(()),
            Some(error) => Err(Trouble::Fatal(Error::Client(error))),
        }
    }

    /// Reads on a member whose turn it is; on another if it fails before it has said anything.
    async fn read_anywhere(&mut self, call: Call<'_>, describes: bool) -> Result<(), Trouble> {
        loop {
            self.connections.leader()?;
            let view = self.connections.group.now();
            let Some(index) = self.connections.group.reader(&view) else {
                return Err(Trouble::leader_lost());
            };
            let Session { connections, conn, out, doubtful, registered, .. } = self;
            let mut sent = 0;
            let flushes = doubtful.is_none();
            let link = match connections.idle_link(index).await {
                Ok(link) => link,
                Err(Fault::Said(body)) if !is_about_member(&body) => return Err(Trouble::Said(body)),
                Err(fault) => {
                    connections.lost(index, &fault.text());
                    continue;
                }
            };
            registered.leased(&link.server().cancel);
            let done = async {
                let mut failure = None;
                link.start(call).await?;
                while let Some(frame) = link.step(&mut failure).await? {
                    sent += usize::from(frame.tag != b'N');
                    put_read(out, &frame, call.formats, describes);
                    if flushes
                        && out.len() > UNSENT_MAX
                        && let Err(error) = conn.stream.send(out).await
                    {
                        return Ok(Err(Trouble::Fatal(Error::Client(error))));
                    }
                }
                Ok::<_, Fault>(failure.map_or(Ok(()), |body| Err(Trouble::Said(body))))
            };
            let done = done.await;
            if registered.canceller.released() && !registered.canceller.settled().await {
                connections.forget(index);
            }
            match done {
                Ok(done) => return done,
                Err(fault) => {
                    connections.lost(index, &fault.text());
                    if sent > 0 {
                        return Err(Trouble::own(
                            "40001",
                            "the member that was read from is lost",
                            "Read again.",
                        ));
                    }
                }
            }
        }
    }
}

/// What a read gives, as the client gets it.
fn put_read(out: &mut bytes::BytesMut, frame: &Frame, formats: &[i16], describes: bool) {
    match frame.tag {
        b'T' if describes => put_description(out, frame, formats, false),
        // Described before, or not wanted.
        b'T' | b'n' => {}
        _ => out.extend_from_slice(&frame.raw),
    }
}

fn is_about_member(body: &[u8]) -> bool {
    let code = backend::error_field(body, b'C').unwrap_or_default();
    code.starts_with(b"57") || code.starts_with(b"53")
}

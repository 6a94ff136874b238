//! Reads that are split from writes: where an exchange goes, and what becomes of a read that fails on a replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{AGAIN_MAX, Session, UNSENT_MAX};
use crate::error::Error;
use crate::session::Lease;
use crate::session::state::{Grant, Placement};
use crate::split::{FirstWord, Owed, Why, Wrote, first_word};
use crate::sql::Kinds;
use crate::upstream::{Split, UserPool};

/// How long a replica may take to say what comes after its error.
const REST_MAX: Duration = Duration::from_secs(1);

/// A session of a database whose reads are split from its writes.
pub(in crate::session) struct Splitting {
    /// What one server gets of the exchange that is about to begin, if that only reads.
    grant: Option<Grant>,
    /// Where connections to replicas come from, if the exchange is for one.
    source: Option<Arc<UserPool>>,
    /// The exchange writes nothing, wherever it runs.
    only_reads: bool,
    /// What it has to find in what it reads.
    pub(in crate::session) wrote: Option<Wrote<Instant>>,
    /// A replica has failed at what comes next.
    is_barred: bool,
    /// A replica can do nothing for it: its transactions are serializable, wherever that was said.
    is_unfit: bool,
}

impl Splitting {
    /// A session that has written this so far.
    pub(in crate::session) fn new(wrote: Option<Wrote<Instant>>) -> Splitting {
        Splitting { grant: None, source: None, only_reads: false, wrote, is_barred: false, is_unfit: false }
    }
}

/// What the server of this lease gets of an exchange that begins, and whether that is a replica's to answer. Nothing is said
/// of one on a connection that was kept.
pub(super) fn granted(splitting: &mut Option<Box<Splitting>>, lease: &Lease) -> (Option<Grant>, bool) {
    let Some(splitting) = splitting else { return (None, false) };
    let grant = splitting.grant.take();
    splitting.only_reads &= grant.is_some();
    (grant, splitting.source.is_some() && !lease.is_on_primary())
}

/// Where the connection of an exchange comes from.
pub(super) fn source<'a>(
    splitting: &'a Option<Box<Splitting>>,
    pool: &'a Arc<UserPool>,
) -> &'a Arc<UserPool> {
    splitting.as_ref().and_then(|splitting| splitting.source.as_ref()).unwrap_or(pool)
}

impl Session {
    /// Whether it is known where the exchange goes that begins with what the client has sent.
    pub(super) fn is_placed(&mut self) -> bool {
        if self.splitting.is_none() && !self.pool.is_split() {
            return true;
        }
        let mut splitting = self.splitting.take().unwrap_or_else(|| Box::new(Splitting::new(None)));
        (splitting.grant, splitting.source, splitting.only_reads) = (None, None, false);
        let is_placed = self.pool.split().is_none_or(|split| self.place(&split, &mut splitting));
        self.splitting = Some(splitting);
        is_placed
    }

    fn place(&self, split: &Split, splitting: &mut Splitting) -> bool {
        let grant = match self.machine.placement(&self.from_client, &split.judge) {
            Placement::Unknown => return false,
            Placement::Primary => {
                splitting.is_barred = false;
                split.metrics.primary.inc();
                return true;
            }
            Placement::Replica(grant) => grant,
        };
        splitting.grant = Some(grant);
        splitting.only_reads = !grant.in_transaction;
        if std::mem::take(&mut splitting.is_barred) || splitting.is_unfit {
            return true;
        }
        if let Some(wrote) = splitting.wrote.filter(|_| self.reads_own_writes(split)) {
            let (wrote, has_replica) = split.look_up(wrote);
            splitting.wrote = Some(wrote);
            if !has_replica {
                split.metrics.own_writes.inc();
                return true;
            }
        }
        splitting.source = Some(Arc::clone(&split.replicas));
        true
    }

    fn reads_own_writes(&self, split: &Split) -> bool {
        if self.machine.asked("groove.role") == Some("replica") {
            return false;
        }
        match self.machine.asked("groove.read_your_writes") {
            Some("on" | "true" | "1" | "yes") => true,
            Some("off" | "false" | "0" | "no") => false,
            Some(_) | None => split.read_your_writes,
        }
    }

    /// Whether the replica whose connection the session has got has not replayed what the session has written, though
    /// another one has. It is given back then, and the exchange is for the primary.
    pub(super) fn is_behind(&mut self) -> bool {
        let (Some(splitting), Some(lease)) = (&self.splitting, &self.lease) else { return false };
        let (Some(_), Some(split)) = (&splitting.source, self.pool.split()) else { return false };
        let is_behind = match splitting.wrote {
            Some(Wrote::Upto(position)) => !lease.is_at(position) && self.reads_own_writes(&split),
            Some(Wrote::Before(_)) | None => false,
        };
        if is_behind {
            split.metrics.own_writes.inc();
            self.splitting.iter_mut().for_each(|splitting| splitting.is_barred = true);
            self.lease = None;
            self.seen.released();
        } else {
            split.metrics.replica.inc();
        }
        is_behind
    }

    /// Notes that the session may have written, once its exchange is over.
    pub(super) fn note_written(&mut self) {
        let Some(splitting) = &mut self.splitting else { return };
        if splitting.source.is_some() || splitting.only_reads {
            return;
        }
        splitting.wrote = Some(Wrote::Before(Instant::now()));
        if let Some(split) = self.pool.split().filter(|split| self.reads_own_writes(split)) {
            split.has_written();
        }
    }

    /// Whether what a replica answers is held back: it may turn out that it cannot do what it was asked.
    pub(super) fn holds_answers(&self) -> bool {
        self.again.as_ref().is_some_and(|again| again.is_on_replica)
    }

    /// Whether more has come from the client than is read ahead of what is for another server.
    pub(super) fn is_ahead(&self) -> bool {
        self.from_client.len() > UNSENT_MAX && self.machine.has_fence()
    }

    /// Looks at what a replica has said that is held back. Whether the exchange is for the primary after all, and all is as
    /// before it.
    pub(super) fn is_misplaced(&mut self) -> Result<bool, Error> {
        let owed = Owed { ready: self.machine.is_in_settings(), begun: self.machine.is_beginning() };
        match first_word(&self.from_server, owed) {
            FirstWord::Undecided(ours) if self.from_server.len() <= AGAIN_MAX => {
                let rest = self.from_server.split_off(ours);
                self.take_answers()?;
                self.from_server.unsplit(rest);
                return Ok(false);
            }
            FirstWord::Fails(why) if self.is_worth_repeating(why) => {
                if self.take_back() {
                    return Ok(true);
                }
            }
            FirstWord::Undecided(_) | FirstWord::Stands | FirstWord::Fails(_) => {}
        }
        self.again = None;
        self.take_answers()?;
        Ok(false)
    }

    /// Whether the primary may do what a replica has failed at. What a replica never does it is not asked for again.
    fn is_worth_repeating(&mut self, why: Why) -> bool {
        let Some(again) = &self.again else { return false };
        match why {
            Why::Farewell => true,
            Why::Itself => false,
            // What a transaction that only reads may not do, it may not do elsewhere either.
            Why::IsNoRead | Why::IsReplica if again.before.is_in_transaction() => false,
            Why::IsReplica => true,
            Why::IsSerializable => {
                self.splitting.iter_mut().for_each(|splitting| splitting.is_unfit = true);
                true
            }
            Why::IsNoRead => {
                if let Some(split) = self.pool.split() {
                    self.machine.misjudged(&again.from_client, &split.judge);
                }
                true
            }
        }
    }

    /// Takes an exchange back that a replica has not answered, if it can be: it has only read.
    pub(super) fn take_back(&mut self) -> bool {
        let Some(again) = self.again.take_if(|again| again.is_on_replica) else { return false };
        let Some(lease) = &mut self.lease else { return false };
        if !self.machine.has_sent_all() || !self.machine.may_unsend(&again.before) {
            return false;
        }
        self.machine.unsend(again.before, &mut lease.backend);
        let rest = std::mem::replace(&mut self.from_client, again.from_client);
        self.from_client.extend_from_slice(&rest);
        self.to_client.clear();
        true
    }

    /// What was taken back goes to the primary; the replica's connection to its pool, if it still is one.
    pub(super) async fn misplaced(&mut self) {
        if let Some(split) = self.pool.split() {
            split.metrics.repeated.inc();
        }
        if let Some(splitting) = &mut self.splitting {
            splitting.is_barred = true;
        }
        let lease = self.lease.take().filter(|_| self.to_server.is_empty());
        let mut left = std::mem::take(&mut self.from_server);
        self.forsake().await;
        if let Some(Lease::Pooled(mut lease)) = lease
            && let Ok(Ok(())) = timeout(REST_MAX, lease.rest(&mut left)).await
        {
            // What it has parsed of that it was told to forget.
            lease.backend.dirt |= Kinds::PREPARED;
            self.pool.wash(lease).await;
        }
    }
}

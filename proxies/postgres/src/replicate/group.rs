//! A group: its members, who of them is in, and what its sessions share.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use groove_common::ids::Address;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use super::link::{Fault, Link};
use super::log::Log;
use super::metrics::GroupMetrics;
use super::schema::Schema;
use super::waiting::Locks;
use crate::config::Replicate;
use crate::upstream::Target;

/// A member's place in the group.
pub type Index = usize;

/// How a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It carries out every write, and is read from.
    In,
    /// It is not written to; why.
    Aside(String),
    /// It is fed from the log.
    CatchingUp,
    /// It is compared with the leader.
    Verifying,
    /// It has something else in it than the leader; why. It stays out until it is told to try again.
    Diverged(String),
    /// It cannot belong to the group as it is; why. It is tried again.
    Refused(String),
}

impl State {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            State::In => "in",
            State::Aside(_) => "set_aside",
            State::CatchingUp => "catching_up",
            State::Verifying => "verifying",
            State::Diverged(_) => "diverged",
            State::Refused(_) => "refused",
        }
    }

    /// Why, where there is more to say.
    pub fn why(&self) -> Option<&str> {
        match self {
            State::Aside(why) | State::Diverged(why) | State::Refused(why) => Some(why),
            State::In | State::CatchingUp | State::Verifying => None,
        }
    }
}

/// One member at one time.
#[derive(Debug, Clone)]
pub struct Member {
    /// Where it answers.
    pub address: Address,
    /// How it is.
    pub state: State,
    /// How often it has come in: a connection of before is not used after.
    pub round: u64,
    /// Transactions of the log that are known to be on it, by their place.
    pub position: usize,
}

/// The group at one time.
#[derive(Debug, Clone)]
pub struct View {
    /// All members.
    pub members: Vec<Member>,
    /// Where statements run first.
    pub leader: Option<Index>,
    /// Why nobody is served, while that is so.
    pub closed: Option<String>,
}

impl View {
    /// Whether a member is in.
    pub fn is_in(&self, index: Index) -> bool {
        self.members.get(index).is_some_and(|member| member.state == State::In)
    }

    /// Those who are in.
    pub fn ins(&self) -> impl Iterator<Item = Index> + '_ {
        (0..self.members.len()).filter(|index| self.is_in(*index))
    }
}

/// A group.
pub struct Group {
    /// The database, as clients name it.
    pub name: String,
    /// As configured.
    pub options: Replicate,
    /// How its members are.
    pub view: watch::Sender<Arc<View>>,
    /// Who may run beside whom.
    pub locks: Arc<Locks>,
    /// Where sessions of clients are counted.
    pub sessions: Arc<Semaphore>,
    /// What is counted.
    pub metrics: GroupMetrics,
    /// Whom the proxy itself logs in as.
    pub(super) control: Target,
    /// Told when a member is to be looked at before its time.
    pub(super) nudge: Notify,
    log: Mutex<Option<Arc<Log>>>,
    epoch: AtomicU64,
    last: AtomicU64,
    turn: AtomicU64,
    in_flight: Mutex<HashSet<u64>>,
    schema: Mutex<(u64, Option<Arc<Schema>>)>,
}

impl Group {
    /// A group that nobody leads yet.
    pub fn new(
        name: String,
        options: Replicate,
        addresses: Vec<Address>,
        control: Target,
        metrics: GroupMetrics,
    ) -> Group {
        let members = addresses.into_iter().map(|address| Member {
            address,
            state: State::Aside("not looked at yet".to_owned()),
            round: 0,
            position: 0,
        });
        let closed = Some("the group is starting".to_owned());
        let view = View { members: members.collect(), leader: None, closed };
        Group {
            name,
            sessions: Arc::new(Semaphore::new(options.sessions as usize)),
            options,
            view: watch::Sender::new(Arc::new(view)),
            locks: Arc::default(),
            metrics,
            control,
            nudge: Notify::new(),
            log: Mutex::default(),
            epoch: AtomicU64::new(0),
            last: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            in_flight: Mutex::default(),
            schema: Mutex::default(),
        }
    }

    /// The group as it is now.
    pub fn now(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// The log, once this process holds it.
    pub fn log(&self) -> Option<Arc<Log>> {
        self.log.lock().clone()
    }

    /// This process leads from here on.
    pub(super) fn lead(&self, log: Arc<Log>, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
        *self.log.lock() = Some(log);
    }

    /// Which of all processes that have led this is.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A number for a transaction that writes: no other has it, in this process or another.
    pub fn number(&self) -> u64 {
        (self.epoch() << 32) | self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// The least number that is not given yet.
    pub(super) fn next_number(&self) -> u64 {
        (self.epoch() << 32) | self.last.load(Ordering::Relaxed)
    }

    /// What members call a prepared transaction.
    pub fn gid(&self, log: &Log, number: u64) -> String {
        format!("groove_{:016x}_{number}", log.id)
    }

    /// Notes that a transaction may be prepared somewhere, until what this gives is dropped.
    pub fn begin_commit(self: &Arc<Group>, number: u64) -> InFlight {
        self.in_flight.lock().insert(number);
        InFlight { group: Arc::clone(self), number }
    }

    pub(super) fn is_in_flight(&self, number: u64) -> bool {
        self.in_flight.lock().contains(&number)
    }

    /// Changes the group. Who leads is settled here: the first that is in, as long as it is in.
    pub(super) fn change(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(|view| {
            let mut next = View::clone(view);
            change(&mut next);
            if !next.leader.is_some_and(|leader| next.is_in(leader)) {
                let first = next.ins().next();
                next.leader = first;
            }
            *view = Arc::new(next);
        });
        let ins = self.now().ins().count();
        self.metrics.members_in.set(i64::try_from(ins).unwrap_or(i64::MAX));
    }

    /// Sets a member's state.
    pub(super) fn set_state(&self, index: Index, state: State) {
        self.change(|view| {
            if let Some(member) = view.members.get_mut(index) {
                member.state = state;
            }
        });
    }

    /// Takes a member out, whose connection of this round has failed: it is fed from the log until it has everything.
    pub fn set_aside(&self, index: Index, round: u64, why: &str) {
        let mut address = None;
        self.change(|view| {
            if let Some(member) = view.members.get_mut(index)
                && member.round == round
                && member.state == State::In
            {
                member.state = State::Aside(why.to_owned());
                address = Some(member.address.clone());
            }
        });
        if let Some(address) = address {
            self.metrics.set_aside.inc();
            tracing::warn!(group = self.name, member = %address, why, "a member is set aside");
            self.nudge.notify_waiters();
        }
    }

    /// The member whose turn it is to be read from.
    pub fn reader(&self, view: &View) -> Option<Index> {
        let ins: Vec<Index> = view.ins().collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(turn).unwrap_or(0).checked_rem(ins.len())?;
        ins.get(at).copied()
    }

    /// The tables as they are known now, and which state of them this is.
    pub fn known_schema(&self) -> (u64, Option<Arc<Schema>>) {
        let known = self.schema.lock();
        (known.0, known.1.clone())
    }

    /// The tables are not what they were.
    pub fn forget_schema(&self) {
        let mut known = self.schema.lock();
        *known = (known.0 + 1, None);
    }

    /// The tables, read from the leader if they are not known.
    pub async fn schema(&self) -> Result<(u64, Arc<Schema>), Fault> {
        if let (generation, Some(schema)) = self.known_schema() {
            return Ok((generation, schema));
        }
        let generation = self.known_schema().0;
        let view = self.now();
        let leader = view.leader.and_then(|leader| view.members.get(leader));
        let Some(leader) = leader else {
            return Err(Fault::Lost(crate::error::Error::NoEndpoint));
        };
        let mut link = self.control_link(&leader.address).await?;
        let schema = Arc::new(Schema::load(&mut link).await?);
        let mut known = self.schema.lock();
        if known.0 == generation {
            known.1 = Some(Arc::clone(&schema));
        }
        Ok((generation, schema))
    }

    /// A connection of the proxy's own, whose settings make texts of values the same everywhere.
    pub(super) async fn control_link(&self, address: &Address) -> Result<Link, Fault> {
        let extra = [
            ("application_name", "groove replicate"),
            ("search_path", "pg_catalog"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
            ("lc_monetary", "C"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
        ];
        let extra = extra.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Link::open(&self.control, address, &extra, self.connect_max()).await
    }

    /// A connection to carry out the log's transactions on, with no settings but theirs.
    pub(super) async fn feeder_link(&self, address: &Address) -> Result<Link, Fault> {
        let extra = [("application_name".to_owned(), "groove replicate feed".to_owned())];
        Link::open(&self.control, address, &extra, self.connect_max()).await
    }

    /// For a connection to a member, login included.
    pub fn connect_max(&self) -> std::time::Duration {
        self.options.member_wait.get().max(self.control.connect)
    }
}

/// A transaction that may be prepared somewhere.
pub struct InFlight {
    group: Arc<Group>,
    number: u64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.group.in_flight.lock().remove(&self.number);
    }
}

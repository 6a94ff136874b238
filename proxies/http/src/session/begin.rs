//! A request's beginning: what was read of it, where it goes, and what the server gets.

use super::again::Naming;
use super::driver::Session;
use super::early::{Asking, Early, skip_body};
use super::letting_in::Question;
use super::local::Local;
use super::own::Own;
use super::record::Record;
use super::refusal::{About, Refused};
use super::relay::Outgoing;
use super::state::{Again, Asked, Exchange};
use crate::apps::Seat;
use crate::auth::{Auth, Identity};
use crate::balance::{self, Key};
use crate::compress::{Compress, Compression};
use crate::error::Error;
use crate::identity::IpText;
use crate::mirror::Copy;
use crate::reply::{Audience, Form};
use crate::scene::{Connection, Kept, split_target};
use crate::table::{App, Table, Target};
use crate::wire::{Edits, Field, Framing, Limits, Malformed, Name, Outlet, RequestHead, Version};
use crate::worker::{View, Worker};
use bytes::{Buf, BytesMut};
use groove_common::ids::EndpointId;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::SystemTime;
use tokio::time::Instant;

/// A request that has been read, admitted and routed.
pub(super) struct Begun<'v> {
    pub(super) at: Instant,
    /// When its reply was with the client.
    pub(super) ended: Instant,
    pub(super) seat: &'v Seat,
    pub(super) app: &'v App,
    /// To the reply.
    pub(super) edits: Cow<'v, Edits>,
    pub(super) target: &'v Target,
    /// The client behind all trusted proxies, where that is not the peer.
    pub(super) client: Option<IpAddr>,
    pub(super) exchange: Exchange,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: BytesMut,
    pub(super) reply: Outlet,
    /// The client has had some of the final reply.
    pub(super) is_heard: bool,
    pub(super) audience: Audience,
    /// Where it belongs.
    pub(super) key: Key,
    /// Whose turn it takes under the proxy's own bound.
    pub(super) flow: u64,
    /// What tells its client where its session lives, where that is news.
    pub(super) naming: Option<Box<Naming>>,
    /// Whether its reply is compressed, and into what.
    pub(super) compress: Option<Compress<'v>>,
    /// All of it is in the head's buffer: it can be sent again.
    pub(super) is_whole: bool,
    /// Endpoints that failed it.
    pub(super) failed: Vec<EndpointId>,
    /// After which statuses it is sent again.
    pub(super) again: Option<Again<'v>>,
    /// What this request has of its own beside its route's; nothing for most.
    pub(super) own: Option<Box<Own<'v>>>,
    /// Its copy in the making, where its route wants one.
    pub(super) copy: Option<Box<Copy>>,
}

impl<'v> Begun<'v> {
    fn new(
        (seat, target): (&'v Seat, &'v Target),
        exchange: Exchange,
        written: Written<'v>,
        client: Option<IpAddr>,
        audience: Audience,
    ) -> Self {
        let Written { out, edits, key, flow, own, compress } = written;
        let at = Instant::now();
        Self {
            at,
            ended: at,
            seat,
            app: &seat.app,
            edits,
            target,
            client,
            is_whole: exchange.is_uploaded(),
            exchange,
            outgoing: Outgoing::new(out),
            // Lent when there is something to put in: a server may take its time.
            incoming: BytesMut::new(),
            reply: Outlet::default(),
            is_heard: false,
            audience,
            key,
            flow,
            naming: None,
            compress,
            failed: Vec::new(),
            again: None,
            own,
            copy: None,
        }
    }

    /// What the client was told: the server's word if any of it was sent, or else ours.
    pub(super) fn status(&self, error: Option<&Error>) -> u16 {
        let relayed = self.exchange.status().filter(|_| self.is_heard || error.is_none());
        relayed.or(error.map(Error::status)).unwrap_or_default()
    }
}

/// A request's head for the server, and what was found out on the way.
struct Written<'v> {
    out: BytesMut,
    edits: Cow<'v, Edits>,
    key: Key,
    flow: u64,
    own: Option<Box<Own<'v>>>,
    compress: Option<Compress<'v>>,
}

impl Session {
    /// Reads the head, and makes of it what the server gets.
    ///
    /// Where who sends it has to be known, that is what stops it until `identity` says so.
    pub(super) fn begin<'v>(
        &mut self,
        view: &View,
        place: &'v OnceCell<Rc<Seat>>,
        length: usize,
        mut identity: Option<Box<Identity>>,
    ) -> Result<Begun<'v>, Early<'v>> {
        let table = &*view.table;
        let raw = self.inbox.get(..length).unwrap_or_default();
        let mut fields = self.worker.fields();
        let mut head = RequestHead::parse(raw, &table.limits, &mut fields).map_err(|error| {
            let about = About::unread(&self.inbox, &self.worker.request_id());
            Early::Refused(Refused::unread(Error::Request(error), about))
        })?;
        let (asked, framing) = (Asked::of(&head), head.framing);
        let mut audience = audience(&asked);
        let trusted = table.trusts(&self.conn.peer);
        let client = if trusted { self.client_behind(table, &head) } else { None };
        let mut target = None;
        let routed = admit(&head, &table.limits).and_then(|()| {
            let (seat, found) = route(&self.worker, place, &head)?;
            target = Some(found);
            self.admit_to(&seat.app, found, client).map(|()| (seat, found))
        });
        let request_id = identity.as_ref().and_then(|identity| identity.request_id);
        let request_id = request_id.unwrap_or_else(|| self.worker.request_id());
        if let (Ok((seat, target)), None) = (&routed, &identity)
            && let Some(auth) = target.auth().filter(|_| !target.answers_anybody(&head, self.scheme()))
        {
            let found = (&**seat, *target, auth);
            return Err(self.question(&head, found, (trusted, client), request_id, audience));
        }
        let routed = routed.and_then(|found| found.1.admit(&head, &table.limits).map(|()| found));
        // Without the credentials that stood in it; and what is logged of it before they are known.
        let sent = identity.as_mut().and_then(|identity| identity.target.take());
        let is_unknown = identity.is_none() && target.is_some_and(|target| target.auth().is_some());
        let shown = if is_unknown { split_target(head.target).0 } else { head.target };
        let shown = sent.as_deref().unwrap_or(shown);
        let (seat, target) = match routed {
            Ok(found) => found,
            Err(error) => {
                // Whose it would have been, where that was not come to.
                let app = place.get().map(Rc::clone).or_else(|| self.worker.seat(head.host));
                let app = app.map(|seat| &*place.get_or_init(|| seat).app);
                audience.form = Form::accepted(head.value(Name::Accept));
                head.target = shown;
                let given_id = if trusted { head.value(Name::XRequestId) } else { None };
                let about = About::of(&head, client, given_id, &request_id);
                // An operator's word on the app counts before any of its routes is looked at.
                let whose = app.map(|app| (app, target.unwrap_or_else(|| app.target(&head, || 0.0))));
                let local = whose.and_then(|whose| {
                    self.local(&head, whose, (trusted, client), &request_id, identity.as_deref())
                });
                drop(fields);
                self.inbox.advance(length);
                audience.close |= !skip_body(framing, &mut self.inbox, &table.limits);
                return Err(Refused::read(error, audience, (app, target), about, local));
            }
        };
        let asking = Asking { client, identity: identity.as_deref(), target: shown };
        if let Some(action) = &target.action
            && let Some((mut answered, taken)) = self.answered(&head, action, seat, audience.close, &asking)
        {
            let whose = (&*seat.app, target);
            let local = self.local(&head, whose, (trusted, client), &request_id, identity.as_deref());
            drop(fields);
            if let Some(local) = local {
                local.apply(&mut answered.out, &mut self.worker.fields());
            }
            self.inbox.advance(taken);
            return Err(Early::Answered(Box::new(answered)));
        }
        head.target = sent.as_deref().unwrap_or(head.target);
        let written = self.write(table, &head, (seat, target), (trusted, client), &request_id, identity);
        drop(fields);
        self.inbox.advance(length);
        // A connection from before the app's restart ends with this reply.
        let asked =
            Asked { keeps_alive: asked.keeps_alive && self.restarts >= seat.app.stand.restarted(), ..asked };
        let exchange = Exchange::new(asked, framing);
        let mut begun = Begun::new((seat, target), exchange, written, client, audience);
        self.upload(table, &mut begun)?;
        self.mirror(&mut begun);
        Ok(begun)
    }

    /// Writes the head that the server gets, and finds out what else depends on the request's.
    fn write<'v>(
        &self,
        table: &Table,
        head: &RequestHead<'_>,
        (seat, target): (&'v Seat, &'v Target),
        (trusted, client): (bool, Option<IpAddr>),
        request_id: &[u8],
        identity: Option<Box<Identity>>,
    ) -> Written<'v> {
        let (action, rewritten) = (target.action.as_ref(), OnceCell::new());
        let cors = action.and_then(|action| action.cors.as_ref());
        let edits = cors.map_or(Cow::Borrowed(&target.reply), |cors| cors.edits(head));
        let compress = target.compression().map(|rules| compress(rules, head, table));
        // Only where something depends on the request: it is seen as its client asked, before it is rewritten.
        let own = self.own(head, (trusted, client), request_id, (seat, target), identity);
        let mut head = RequestHead { ..*head };
        if let Some(place) = action.and_then(|action| action.rewrite.as_ref()) {
            head.target = rewritten.get_or_init(|| place.of(head.target));
        }
        let (peer, behind) = (self.client(), client.map(|ip| IpText::of(Some(ip))));
        let address = behind.as_ref().unwrap_or(&peer).bytes();
        let shown = own.as_ref().and_then(|own| own.identity.as_deref()).filter(|_| target.asks_tokens());
        let key = target.upstream.plan.as_ref().map_or(Key::None, |plan| plan.key(&head, address, shown));
        let tenants = seat.app.tenants.as_deref();
        let fair = table.fair.as_ref();
        let flow = fair.map_or(0, |_| balance::flow(&seat.app.name, tenants, &head, address));
        let request_edits = own.as_ref().map_or(&target.request, |own| &own.request);
        let mut out = self.worker.take_buffer();
        self.write_head(table, &head, request_id, (&peer, trusted, behind.as_ref()), request_edits, &mut out);
        Written { out, edits, key, flow, own, compress }
    }

    /// What is kept of a request that is looked at after its head.
    fn kept(&self, head: &RequestHead<'_>, (trusted, behind): (bool, Option<IpAddr>), id: &[u8]) -> Kept {
        let client = behind.map_or_else(|| self.client(), |ip| IpText::of(Some(ip)));
        let connection = Connection {
            client: client.text(),
            scheme: self.scheme(),
            trusted,
            tls: self.conn.tls.as_deref(),
        };
        Kept::new(head, &connection, id, SystemTime::now())
    }

    /// What a request has of its own, where it is asked for something that is not the same for all.
    fn own<'v>(
        &self,
        head: &RequestHead<'_>,
        known: (bool, Option<IpAddr>),
        id: &[u8],
        (seat, target): (&'v Seat, &'v Target),
        identity: Option<Box<Identity>>,
    ) -> Option<Box<Own<'v>>> {
        let demands = target.demands.as_deref()?;
        let programs = demands.programs.as_deref()?;
        let kept = self.kept(head, known, id);
        Some(Own::new(kept, (&seat.app, demands, programs), identity))
    }

    /// What its app's authentication is asked.
    fn question<'v>(
        &self,
        head: &RequestHead<'_>,
        (seat, target, auth): (&'v Seat, &'v Target, &'v Auth),
        known: (bool, Option<IpAddr>),
        request_id: [u8; 32],
        mut audience: Audience,
    ) -> Early<'v> {
        audience.form = Form::accepted(head.value(Name::Accept));
        Early::Asks(Box::new(Question {
            seat,
            target,
            auth,
            stripped: target.demands.as_ref().and_then(|demands| demands.stripped.as_deref()),
            client: known.1,
            kept: self.kept(head, known, &request_id),
            request_id,
            framing: head.framing,
            audience,
            length: head.raw.len(),
        }))
    }

    /// How what is answered here is edited.
    fn local<'v>(
        &self,
        head: &RequestHead<'_>,
        whose: (&'v App, &'v Target),
        known: (bool, Option<IpAddr>),
        id: &[u8],
        identity: Option<&Identity>,
    ) -> Option<Box<Local<'v>>> {
        let named = |field: &&Field| field.name.of(head.raw).eq_ignore_ascii_case(b"origin");
        let origin = head.fields.iter().find(named).map(|field| field.value.of(head.raw));
        Local::of(whose, origin, identity, || self.kept(head, known, id))
    }

    /// What is there of the body goes with the head, in one piece.
    fn upload<'v>(&mut self, table: &Table, begun: &mut Begun<'v>) -> Result<(), Early<'v>> {
        if begun.exchange.is_uploaded() {
            return Ok(());
        }
        let limits = begun.target.limits(&table.limits);
        let edits = begun.own.as_ref().map_or(&begun.target.request, |own| &own.request);
        let taken = begun.exchange.upload(&mut self.inbox, &mut begun.outgoing.head, &limits, edits);
        begun.is_whole = begun.exchange.is_uploaded();
        taken.map_err(|fault| {
            let head = &begun.outgoing.head;
            let (about, mut audience) = (About::written(head, begun.client), begun.audience);
            audience.form = Form::accepted(Record::of(head).field("accept"));
            let whose = (Some(begun.app), Some(begun.target));
            let program = begun.own.take().and_then(|own| own.reply);
            let edits = std::mem::take(&mut begun.edits);
            let local = (program.is_some() || !edits.is_empty()).then(|| Box::new(Local { edits, program }));
            Refused::read(fault.into(), audience, whose, about, local)
        })
    }
}

/// What its client makes of the rules for compression.
fn compress<'v>(rules: &'v Compression, head: &RequestHead<'_>, table: &Table) -> Compress<'v> {
    let named = |field: &&Field| field.name.of(head.raw).eq_ignore_ascii_case(b"accept-encoding");
    let accepted = head.fields.iter().filter(named).map(|field| field.value.of(head.raw));
    Compress { rules, choice: rules.choice(accepted), encoders_max: table.encoders_max }
}

/// Whom a request's reply is for, as far as its head says without being asked.
fn audience(asked: &Asked) -> Audience {
    Audience {
        form: Form::Any,
        is_head: asked.is_head,
        is_http10: asked.version == Version::Http10,
        close: !asked.keeps_alive,
    }
}

/// What no server needs to see to be refused.
fn admit(head: &RequestHead<'_>, limits: &Limits) -> Result<(), Error> {
    if head.method == b"CONNECT" {
        return Err(Error::Connect);
    }
    if !head.expectation_can_be_met() {
        return Err(Error::Expectation);
    }
    match head.framing {
        Framing::Length(length) if length > limits.body_bytes => Err(Error::Request(Malformed::BodyTooLarge)),
        Framing::None | Framing::Length(_) | Framing::Chunked | Framing::Close => Ok(()),
    }
}

/// The app that answers for the host, and what of it serves this path and method.
fn route<'v>(
    worker: &Rc<Worker>,
    place: &'v OnceCell<Rc<Seat>>,
    head: &RequestHead<'_>,
) -> Result<(&'v Seat, &'v Target), Error> {
    let Some(seat) = worker.seat(head.host) else {
        return Err(Error::UnknownHost(String::from_utf8_lossy(head.host).into_owned()));
    };
    let seat = place.get_or_init(|| seat);
    if let Some(error) = seat.app.stand.refusal(&seat.app.name) {
        return Err(error);
    }
    Ok((seat, seat.app.target(head, || worker.dice().unit())))
}

//! What a route asks of a request and does to it beside choosing its servers: who may send it, what body it may have, and
//! which edits depend on it. All of it is made ready when an app is built.

use crate::auth::{Auth, Identity, Providers};
use crate::body::Bodies;
use crate::compress::Compression;
use crate::config::{self, Headers};
use crate::edit::Program;
use crate::edit::template::Side;
use crate::error::Error;
use crate::metrics::CompressionMetrics;
use crate::upstream::Ground;
use crate::wire::edits::Stripped;
use crate::wire::{Limits, RequestHead};
use groove_common::app::StartError;
use groove_common::net::ClientAuthority;
use std::sync::Arc;

/// What a route asks, or an app where no route matches.
#[derive(Debug)]
pub struct Demands {
    /// Who may ask; anybody if left out.
    pub auth: Option<Arc<Auth>>,
    /// What no client may say of itself: all that authentication writes for this app, on any of its routes.
    pub stripped: Option<Arc<Stripped>>,
    /// Edits that are worked out for each message, in place of those that are always the same.
    pub programs: Option<Box<Programs>>,
    /// What of the replies is compressed.
    pub compression: Option<Compression>,
    /// Whose certificates clients show.
    pub clients: Option<Arc<ClientAuthority>>,
    bodies: Option<Bodies>,
}

/// Edits that are worked out for each message.
#[derive(Debug)]
pub struct Programs {
    /// To the request.
    pub request: Program,
    /// To its reply.
    pub reply: Program,
    /// The reply's differ from reply to reply.
    varies_reply: bool,
}

/// What the rules of all routes of an app have in common.
#[derive(Debug)]
pub struct AppDemands<'a> {
    name: &'a Arc<str>,
    app: &'a config::App,
    ground: &'a Arc<Ground>,
    auth: Option<Arc<Auth>>,
    clients: Option<Arc<ClientAuthority>>,
    /// See [`Demands::stripped`].
    pub stripped: Option<Arc<Stripped>>,
}

impl<'a> AppDemands<'a> {
    /// Makes ready what the app itself asks.
    pub fn new(
        name: &'a Arc<str>,
        app: &'a config::App,
        ground: &'a Arc<Ground>,
        providers: &mut Providers,
    ) -> Result<Self, StartError> {
        let written = app
            .auth
            .as_deref()
            .into_iter()
            .chain(app.routes.iter().filter_map(|route| route.auth.as_deref()));
        let names: Vec<String> = written.clone().flat_map(config::auth::Auth::written).collect();
        let stripped = written.count() > 0;
        let auth = app.auth.as_deref().map(|auth| Auth::new(name, auth, providers)).transpose()?.flatten();
        let clients = app.client_tls.as_deref().map(|written| {
            let is_required = written.auth == config::Demand::Required;
            ClientAuthority::read(&written.ca, is_required, &ground.client_authorities)
        });
        Ok(Self {
            name,
            app,
            ground,
            auth: auth.map(Arc::new),
            clients: clients.transpose()?.map(Arc::new),
            stripped: stripped.then(|| Arc::new(Stripped::new(&names))),
        })
    }

    /// What one of its routes asks, or the app of requests that none matches; `None`: nothing.
    pub fn of(
        &self,
        route: Option<&config::Route>,
        providers: &mut Providers,
    ) -> Result<Option<Arc<Demands>>, StartError> {
        let auth = match route.and_then(|route| route.auth.as_deref()) {
            Some(auth) => Auth::new(self.name, auth, providers)?.map(Arc::new),
            None => self.auth.clone(),
        };
        let host = route.and_then(|route| route.rewrite.as_ref()).and_then(|it| it.host.clone());
        // Where the host is rewritten, that stands between the app's word and the route's.
        let host = host.map(|host| Headers { set: [("Host".to_owned(), host)].into(), ..Headers::default() });
        let own = route.and_then(|route| route.request_headers.as_deref());
        let request = [self.app.request_headers.as_deref(), host.as_ref(), own];
        let request: Vec<&Headers> = request.into_iter().flatten().collect();
        let reply = self.replies(route);
        let varies_reply = varies(&reply);
        let programs = if auth.is_some() || varies(&request) || varies_reply {
            Some(Box::new(Programs {
                request: Program::new(&request, Side::Request)?,
                // What is always the same is the target's, and needs no program.
                reply: if varies_reply { Program::new(&reply, Side::Reply)? } else { Program::default() },
                varies_reply,
            }))
        } else {
            None
        };
        let bodies = Bodies::new(self.app.body.as_deref(), route.and_then(|route| route.body.as_deref()));
        let compression = self.compression(route);
        let asks = auth.is_some()
            || self.stripped.is_some()
            || programs.is_some()
            || compression.is_some()
            || self.clients.is_some()
            || bodies.is_some();
        let (stripped, clients) = (self.stripped.clone(), self.clients.clone());
        Ok(asks.then(|| Arc::new(Demands { auth, stripped, programs, compression, clients, bodies })))
    }

    /// A route's own word on compression, or else the app's.
    fn compression(&self, route: Option<&config::Route>) -> Option<Compression> {
        let own = route.and_then(|route| route.compression.as_deref());
        let rules = own.or(self.app.compression.as_deref())?;
        let (ground, label) = (Arc::clone(self.ground), Arc::clone(self.name));
        let metrics = move || CompressionMetrics::new(&ground.registry, &label);
        Compression::new(rules, Arc::clone(&self.ground.encoders), metrics)
    }

    /// Whether replies are edited by a program alone.
    pub fn varies_reply(&self, route: Option<&config::Route>) -> bool {
        varies(&self.replies(route))
    }

    fn replies<'l>(&'l self, route: Option<&'l config::Route>) -> Vec<&'l Headers> {
        let own = route.and_then(|route| route.response_headers.as_deref());
        [self.app.response_headers.as_deref(), own].into_iter().flatten().collect()
    }
}

fn varies(lists: &[&Headers]) -> bool {
    !lists.iter().all(|list| list.is_fixed())
}

impl Demands {
    /// Refuses a request whose body is not taken here.
    pub fn admit(&self, head: &RequestHead<'_>, limits: &Limits) -> Result<(), Error> {
        self.bodies.as_ref().map_or(Ok(()), |bodies| bodies.check(head, limits))
    }

    /// The limits, with this route's own bound of bodies.
    pub fn limits(&self, limits: &Limits) -> Limits {
        self.bodies.as_ref().map_or(*limits, |bodies| bodies.limits(limits))
    }
}

impl Programs {
    /// Whether the reply to a request of this client has to be looked at too.
    pub fn edit_reply(&self, identity: Option<&Identity>) -> bool {
        self.varies_reply || identity.is_some_and(Identity::has_reply)
    }
}

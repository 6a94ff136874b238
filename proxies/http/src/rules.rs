//! What a route asks of a request and does to it beside choosing its servers: who may send it, what body it may have, and
//! which edits depend on it. All of it is made ready when a table is built.

use crate::auth::{Auth, Identity, Providers};
use crate::body::Bodies;
use crate::config;
use crate::edit::Program;
use crate::edit::template::Side;
use crate::error::Error;
use crate::wire::edits::Stripped;
use crate::wire::{Limits, RequestHead};
use groove_common::app::StartError;
use std::sync::Arc;

/// The rules of a route, or of an app where no route matches.
#[derive(Debug)]
pub struct Rules {
    /// Who may ask; anybody if left out.
    pub auth: Option<Arc<Auth>>,
    /// What no client may say of itself: all that authentication writes for this app, on any of its routes.
    pub stripped: Option<Arc<Stripped>>,
    /// Edits that are worked out for each message, in place of those that are always the same.
    pub programs: Option<Box<Programs>>,
    /// The limits, with this route's own bound of bodies.
    pub limits: Limits,
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
pub struct AppRules<'a> {
    name: &'a str,
    app: &'a config::App,
    limits: &'a Limits,
    auth: Option<Arc<Auth>>,
    /// See [`Rules::stripped`].
    pub stripped: Option<Arc<Stripped>>,
}

impl<'a> AppRules<'a> {
    /// Makes ready what the app itself asks.
    pub fn new(
        name: &'a str,
        app: &'a config::App,
        limits: &'a Limits,
        providers: &mut Providers,
    ) -> Result<Self, StartError> {
        let written = app.auth.iter().chain(app.routes.iter().filter_map(|route| route.auth.as_ref()));
        let names: Vec<String> = written.clone().flat_map(config::auth::Auth::written).collect();
        let stripped = written.count() > 0;
        let auth = app.auth.as_ref().map(|auth| Auth::new(name, auth, providers)).transpose()?.flatten();
        Ok(Self {
            name,
            app,
            limits,
            auth: auth.map(Arc::new),
            stripped: stripped.then(|| Arc::new(Stripped::new(&names))),
        })
    }

    /// The rules of one of its routes, or of requests that none matches.
    pub fn of(&self, route: Option<&config::Route>, providers: &mut Providers) -> Result<Rules, StartError> {
        let auth = match route.and_then(|route| route.auth.as_ref()) {
            Some(auth) => Auth::new(self.name, auth, providers)?.map(Arc::new),
            None => self.auth.clone(),
        };
        let mut request = vec![&self.app.request_headers];
        let mut reply = vec![&self.app.response_headers];
        request.extend(route.map(|route| &route.request_headers));
        reply.extend(route.map(|route| &route.response_headers));
        let varies = |lists: &[&config::Headers]| !lists.iter().all(|list| list.is_fixed());
        let programs = if auth.is_some() || varies(&request) || varies(&reply) {
            Some(Box::new(Programs {
                request: Program::new(&request, Side::Request)?,
                reply: Program::new(&reply, Side::Reply)?,
                varies_reply: varies(&reply),
            }))
        } else {
            None
        };
        let body = route.and_then(|route| route.body.as_ref());
        let (bodies, limits) = Bodies::new(self.app.body.as_ref(), body, self.limits);
        Ok(Rules { auth, stripped: self.stripped.clone(), programs, limits, bodies })
    }
}

impl Rules {
    /// Refuses a request whose body is not taken here.
    pub fn admit(&self, head: &RequestHead<'_>) -> Result<(), Error> {
        self.bodies.as_ref().map_or(Ok(()), |bodies| bodies.check(head, &self.limits))
    }
}

impl Programs {
    /// Whether the reply to a request of this client has to be looked at too.
    pub fn edit_reply(&self, identity: Option<&Identity>) -> bool {
        self.varies_reply || identity.is_some_and(Identity::has_reply)
    }
}

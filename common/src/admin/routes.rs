//! Which path answers what: the table that the server, its front page and the OpenAPI document are made of.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

/// A request whose body has been read.
pub type Request = http::Request<Bytes>;
/// What an answer's body is.
#[derive(Debug)]
pub enum Body {
    /// All of it, until it has been taken.
    Whole(Option<Bytes>),
    /// Whatever comes, until nobody is left to send more.
    Stream(mpsc::Receiver<Bytes>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.take()),
            Self::Stream(parts) => parts.poll_recv(cx),
        };
        data.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer.
pub type Response = http::Response<Body>;

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Handler = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// One path and method.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    pub(super) handler: Handler,
    /// Answered without a token, and by any name.
    pub(super) is_open: bool,
}

impl Route {
    /// Whether it answers a path. A segment of its own path in braces stands for any segment.
    pub(super) fn takes(&self, path: &str) -> bool {
        if !self.path.contains('{') {
            return self.path == path;
        }
        let (mut own, mut given) = (self.path.split('/'), path.split('/'));
        loop {
            match (own.next(), given.next()) {
                (None, None) => return true,
                (Some(own), Some(given)) if own.starts_with('{') && !given.is_empty() || own == given => {}
                (Some(_) | None, _) => return false,
            }
        }
    }
}

/// A segment of the path of a request, decoded: of `/api/v1/apps/shop`, which begins with a slash, the third is `shop`.
pub fn segment(request: &Request, index: usize) -> Option<String> {
    decoded(request.uri().path().split('/').nth(index + 1)?)
}

/// A parameter of the query of a request, decoded.
pub fn query(request: &Request, name: &str) -> Option<String> {
    let mut pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(given, _)| *given == name).and_then(|(_, value)| decoded(value))
}

/// What `%` and two digits stand for.
fn decoded(written: &str) -> Option<String> {
    let (mut decoded, mut rest) = (Vec::with_capacity(written.len()), written.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|it| std::str::from_utf8(it).ok());
        match digits.map(|digits| u8::from_str_radix(digits, 16)) {
            Some(byte) => {
                decoded.push(byte.ok()?);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

/// The paths that are answered, in the order of the front page.
#[derive(Clone, Default)]
pub struct Routes {
    pub(super) routes: Vec<Route>,
}

impl Routes {
    /// No paths.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers GET on `path`; `about` is a line for people.
    #[must_use]
    pub fn get<F>(
        self,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::GET, path, about, handler)
    }

    /// Answers GET on `path` to anybody who can connect: the probes of orchestrators and load balancers can
    /// send no token. The answer must tell nothing that is worth one.
    #[must_use]
    pub fn probe<F>(
        self,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let mut routes = self.get(path, about, handler);
        if let Some(route) = routes.routes.last_mut() {
            route.is_open = true;
        }
        routes
    }

    /// Answers POST on `path`; `about` is a line for people.
    #[must_use]
    pub fn post<F>(
        self,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::POST, path, about, handler)
    }

    /// Answers PUT on `path`; `about` is a line for people.
    #[must_use]
    pub fn put<F>(
        self,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::PUT, path, about, handler)
    }

    /// Answers DELETE on `path`; `about` is a line for people.
    #[must_use]
    pub fn delete<F>(
        self,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::DELETE, path, about, handler)
    }

    fn route<F>(
        mut self,
        method: Method,
        path: &'static str,
        about: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        self.routes.push(Route { method, path, about, handler, is_open: false });
        self
    }

    /// These and then `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.routes.extend(others.routes);
        self
    }
}

/// An answer of JSON.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(StatusCode::OK, "application/json", body)
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// An answer of text.
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text = text.into();
    text.push('\n');
    respond(status, "text/plain; charset=utf-8", text)
}

/// An answer of any type.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    answer(status, content_type, Body::Whole(Some(body.into())))
}

/// An answer that goes on: what is sent to `parts` is on its way at once. It ends with the last sender; when the
/// client hangs up, `parts` is closed. A sender that finds no room for long has a client that does not read, and
/// should end.
pub fn stream(content_type: &'static str, parts: mpsc::Receiver<Bytes>) -> Response {
    answer(StatusCode::OK, content_type, Body::Stream(parts))
}

fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

//! Somebody else is asked: whether a request may go on is what an HTTP server says to its head.
//!
//! 2xx lets it on, and chosen headers of that answer go to the app. A redirect or a refusal goes to the client as it is. A
//! server that fails has not refused anybody: 503.

use super::digest::{Digest, FilingKey};
use super::outbound::{Client, Heard, Url};
use super::{Answer, Denial, Known, Outcome};
use crate::config::auth as written;
use crate::scene::Scene;
use crate::wire::Name;
use groove_common::app::StartError;
use http::header::{HeaderName, HeaderValue};
use moka::sync::Cache;
use std::sync::Arc;
use tracing::debug;

/// Answers that are remembered, if the configuration does not say how many.
const CACHE_LEN_MAX: u64 = 10_000;
/// The longest refusal that is passed on.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Who is asked, and what is remembered of it.
#[derive(Debug)]
pub struct Forward {
    url: Url,
    client: Arc<Client>,
    copy: Vec<String>,
    user_header: Option<String>,
    cache: Option<Remembered>,
}

/// Answers that let a request on.
#[derive(Debug)]
struct Remembered {
    by: Vec<String>,
    known: Cache<Digest, Arc<Known>>,
    filing: FilingKey,
}

impl Forward {
    /// Makes ready what is written.
    pub fn new(forward: &written::ForwardAuth, client: Arc<Client>) -> Result<Self, StartError> {
        let cache = forward.cache.as_ref().map(|cache| {
            let known = Cache::builder()
                .max_capacity(cache.entries.unwrap_or(CACHE_LEN_MAX))
                .time_to_live(cache.ttl.get())
                .build();
            Remembered { by: cache.by.clone(), known, filing: FilingKey::new() }
        });
        Ok(Self {
            url: Url::parse(&forward.url)?,
            client,
            copy: forward.copy.clone(),
            user_header: forward.user_header.clone(),
            cache,
        })
    }

    /// Asks for a request.
    pub async fn look(&self, scene: &Scene<'_>) -> Outcome {
        let filed = self.filed(scene);
        let remembered = filed.as_ref().and_then(|(cache, filed)| cache.get(filed));
        if let Some(known) = remembered {
            return Outcome::Known(Box::new((*known).clone()));
        }
        let heard = match self.ask(scene).await {
            Ok(heard) => heard,
            Err(problem) => {
                debug!(asked = %self.url.address, problem, "forward authentication has no answer");
                return Denial::unreachable("who is asked does not answer");
            }
        };
        match heard.status {
            200..=299 => {
                let known = self.known(&heard);
                if let Some((cache, filed)) = filed {
                    cache.insert(filed, Arc::new(known.clone()));
                }
                Outcome::Known(Box::new(known))
            }
            300..=499 => Outcome::Instead(Box::new(refusal(&heard))),
            status => {
                debug!(asked = %self.url.address, status, "forward authentication fails");
                Denial::unreachable("who is asked fails")
            }
        }
    }

    /// Where the answer to this request is remembered; nowhere if it shows nothing of what tells two clients apart.
    fn filed(&self, scene: &Scene<'_>) -> Option<(&Cache<Digest, Arc<Known>>, Digest)> {
        let Remembered { by, known: cache, filing } = self.cache.as_ref()?;
        let mut parts = vec![scene.host.to_ascii_lowercase()];
        let mut shows_something = false;
        for name in by {
            parts.push(match name.as_str() {
                ":method" => scene.method.to_vec(),
                ":path" => scene.path().to_vec(),
                ":query" => scene.query().to_vec(),
                name => {
                    let values = scene.headers().filter(|(it, _)| it.eq_ignore_ascii_case(name.as_bytes()));
                    let values: Vec<&[u8]> = values.map(|(_, value)| value).collect();
                    shows_something |= !values.is_empty();
                    values.join(&b'\n')
                }
            });
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        shows_something.then(|| (cache, filing.file(&parts)))
    }

    async fn ask(&self, scene: &Scene<'_>) -> Result<Heard, String> {
        let mut request =
            http::Request::get(&self.url.path).body(bytes::Bytes::new()).map_err(|it| it.to_string())?;
        let headers = request.headers_mut();
        for (name, value) in scene.headers().filter(|(name, _)| is_asked(name)) {
            // What hyper does not take, the one who is asked could not read either.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        for (name, value) in [
            ("x-forwarded-method", scene.method),
            ("x-forwarded-proto", scene.scheme.as_bytes()),
            ("x-forwarded-host", scene.host),
            ("x-forwarded-uri", scene.target),
            ("x-forwarded-for", scene.client.as_bytes()),
            ("x-request-id", scene.request_id),
        ] {
            let value = HeaderValue::from_bytes(value).map_err(|error| error.to_string())?;
            headers.insert(HeaderName::from_static(name), value);
        }
        self.client.ask(&self.url, request).await.map_err(|error| error.to_string())
    }

    fn known(&self, heard: &Heard) -> Known {
        let value = |name: &String| heard.headers.get_all(name.as_str()).into_iter();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let user =
            self.user_header.as_ref().and_then(|name| value(name).next()).map(text).unwrap_or_default();
        let copied = self.copy.iter().chain(&self.user_header);
        let mut request: Vec<(String, Vec<u8>)> = copied
            .flat_map(|name| value(name).map(|value| (name.clone(), value.as_bytes().to_vec())))
            .collect();
        request.dedup();
        Known { user, request, ..Known::default() }
    }
}

/// Whether who is asked gets to see a header: what is about the body or about a copy of the reply is not for it.
fn is_asked(name: &[u8]) -> bool {
    let known = Name::of(name);
    let is = |names: &[&str]| names.iter().any(|it| name.eq_ignore_ascii_case(it.as_bytes()));
    !known.is_hop_by_hop()
        && !matches!(known, Name::ContentLength | Name::Expect | Name::Host | Name::Trailer | Name::Via)
        && !is(&["content-encoding", "content-type", "range", "accept-encoding"])
        && !name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"if-"))
}

/// A redirect or a refusal, as the client gets it.
fn refusal(heard: &Heard) -> Answer {
    let goes = |name: &HeaderName| {
        let known = Name::of(name.as_str().as_bytes());
        !known.is_hop_by_hop() && !matches!(known, Name::ContentLength | Name::Trailer)
    };
    let headers = heard.headers.iter().filter(|(name, _)| goes(name));
    let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let body = if heard.body.len() > BODY_BYTES_MAX { bytes::Bytes::new() } else { heard.body.clone() };
    Answer { status: heard.status, headers, body, reason: "who is asked refuses" }
}

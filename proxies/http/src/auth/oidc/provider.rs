//! An OpenID provider: its document and its keys, kept fresh as key sets are, and its token endpoint.

use crate::auth::jwks::{Jwks, Keys, REFRESH};
use crate::auth::jwt::{PUBLIC, Refused, signed_claims};
use crate::auth::outbound::{Client, Heard, NoAnswer, Url};
use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use groove_common::app::StartError;
use http::{Request, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio::runtime::Handle;
use tracing::{debug, warn};

/// What a provider says of itself (OpenID Connect Discovery, 3); all else in it is not looked at.
#[derive(Debug, Deserialize)]
pub struct Document {
    issuer: String,
    /// Where people log in.
    pub authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    /// Where people log out.
    #[serde(default)]
    pub end_session_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

/// What the token endpoint gives. Not for a log.
#[derive(Deserialize)]
pub struct Tokens {
    /// Who somebody is.
    #[serde(default)]
    pub id_token: Option<String>,
    /// What the provider's other endpoints want to be shown.
    #[serde(default)]
    pub access_token: Option<String>,
    /// What gets more of these.
    #[serde(default)]
    pub refresh_token: Option<String>,
    /// How long the access token lasts, in seconds.
    #[serde(default)]
    pub expires_in: Option<u64>,
}

/// A provider.
#[derive(Debug)]
pub struct Provider {
    /// Its name, which is a URL.
    pub issuer: String,
    client: Arc<Client>,
    document: Arc<ArcSwapOption<Document>>,
    jwks: Arc<Jwks>,
}

impl Provider {
    /// Begins to ask the provider what there is to know of it.
    pub fn new(issuer: &str, client: Arc<Client>, runtime: &Handle) -> Result<Arc<Self>, StartError> {
        let url = Url::parse(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))?;
        let document = Arc::new(ArcSwapOption::empty());
        let (asks, keeps, name) = (Arc::clone(&client), Arc::clone(&document), issuer.to_owned());
        let jwks = Jwks::fetching(client.time_max(), REFRESH, runtime, move || {
            let (client, document, url, name) =
                (Arc::clone(&asks), Arc::clone(&keeps), url.clone(), name.clone());
            async move { discover(&client, &url, &name, &document).await }
        });
        Ok(Arc::new(Self { issuer: issuer.to_owned(), client, document, jwks }))
    }

    /// Its document; `None` while it cannot be reached and never was.
    pub async fn document(&self) -> Option<Arc<Document>> {
        if let Some(document) = self.document.load_full() {
            return Some(document);
        }
        // The first fetch is under way; its keys come behind the document.
        self.jwks.keys(|keys| !keys.is_empty()).await.ok()?;
        self.document.load_full()
    }

    /// The claims of a token that the provider has signed.
    pub async fn claims(&self, token: &str) -> Result<Map<String, Value>, Refused> {
        signed_claims(token.as_bytes(), &self.jwks, &PUBLIC).await
    }

    /// Asks the token endpoint.
    pub async fn tokens(
        &self,
        client_id: &str,
        secret: Option<&str>,
        form: &[(&str, &str)],
    ) -> Result<Tokens, Refused> {
        let document = self.document().await.ok_or(Refused::Unreachable)?;
        let heard = self.post(&document, client_id, secret, form).await.map_err(|error| {
            debug!(issuer = self.issuer, %error, "the token endpoint has no answer");
            Refused::Unreachable
        })?;
        match heard.status {
            200 => serde_json::from_slice(&heard.body)
                .map_err(|_| Refused::Wrong("the token endpoint's answer is none")),
            400..=499 => {
                // What it says is of a fixed list (RFC 6749, 5.2), and no secret.
                let said: Value = serde_json::from_slice(&heard.body).unwrap_or_default();
                let error = said.get("error").and_then(Value::as_str).unwrap_or_default();
                warn!(issuer = self.issuer, status = heard.status, error, "the token endpoint refuses");
                Err(Refused::Wrong("the token endpoint refuses"))
            }
            status => {
                debug!(issuer = self.issuer, status, "the token endpoint fails");
                Err(Refused::Unreachable)
            }
        }
    }

    /// What the provider says of somebody beside the id_token, where it says anything (OpenID Connect Core, 5.3).
    pub async fn user_info(&self, access_token: &str) -> Result<Map<String, Value>, Refused> {
        let document = self.document().await.ok_or(Refused::Unreachable)?;
        let Some(endpoint) = &document.userinfo_endpoint else { return Ok(Map::new()) };
        let asked = async {
            let url = Url::parse(endpoint).map_err(NoAnswer::Broken)?;
            let request = Request::get(&url.path)
                .header(header::ACCEPT, "application/json")
                .header(header::AUTHORIZATION, format!("Bearer {access_token}"))
                .body(Bytes::new())
                .map_err(|error| NoAnswer::Broken(error.to_string()))?;
            self.client.ask(&url, request).await
        };
        let heard = asked.await.map_err(|error| {
            debug!(issuer = self.issuer, %error, "the userinfo endpoint has no answer");
            Refused::Unreachable
        })?;
        match heard.status {
            200 => Ok(serde_json::from_slice(&heard.body).unwrap_or_default()),
            500..=599 => Err(Refused::Unreachable),
            _ => Ok(Map::new()),
        }
    }

    async fn post(
        &self,
        document: &Document,
        client_id: &str,
        secret: Option<&str>,
        form: &[(&str, &str)],
    ) -> Result<Heard, NoAnswer> {
        let url = Url::parse(&document.token_endpoint).map_err(NoAnswer::Broken)?;
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let methods = &document.token_endpoint_auth_methods_supported;
        let is_basic = methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
        let mut request = Request::post(&url.path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        match secret {
            Some(secret) if is_basic => {
                // RFC 6749, 2.3.1: both parts are encoded as in a form first.
                let coded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", coded(client_id), coded(secret));
                request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
            }
            Some(secret) => {
                body.append_pair("client_id", client_id).append_pair("client_secret", secret);
            }
            None => {
                body.append_pair("client_id", client_id);
            }
        }
        let request =
            request.body(Bytes::from(body.finish())).map_err(|error| NoAnswer::Broken(error.to_string()))?;
        self.client.ask(&url, request).await
    }
}

async fn discover(
    client: &Arc<Client>,
    url: &Url,
    issuer: &str,
    place: &ArcSwapOption<Document>,
) -> Result<Keys, String> {
    let get = async |url: &Url| {
        let heard = client.get(url).await.map_err(|error| error.to_string())?;
        if heard.status == 200 {
            Ok(heard.body)
        } else {
            Err(format!("{} answered {}", url.address, heard.status))
        }
    };
    let document: Document = serde_json::from_slice(&get(url).await?)
        .map_err(|error| format!("the provider's document: {error}"))?;
    // Discovery, 4.3: otherwise one provider could speak for another.
    if document.issuer.trim_end_matches('/') != issuer.trim_end_matches('/') {
        return Err(format!("the document is of {:?}, not of {issuer:?}", document.issuer));
    }
    let keys = Keys::read(&get(&Url::parse(&document.jwks_uri)?).await?)?;
    place.store(Some(Arc::new(document)));
    Ok(keys)
}

impl Document {
    /// The issuer as the provider writes it, which its tokens repeat to the letter.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

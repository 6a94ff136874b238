//! A login at an OpenID provider: authorization code flow with PKCE (OpenID Connect Core, RFC 7636), and a sealed cookie
//! that keeps it.
//!
//! ```text
//!  no cookie ──► Instead: 302 to the provider; a login cookie keeps state, nonce, verifier and where to return
//!  callback ───► Taken: state held against that cookie, code for tokens, id_token checked ─► session cookie, 302 back
//!  cookie ─────► Known while the token lasts; then it is refreshed, once for all requests that come with the same
//!  logout ─────► Taken: cookies cleared, 302 to where the provider ends its own session
//! ```
//!
//! Nothing of a login is kept here: any process with the same keys serves it, and a restart ends none.

pub mod provider;
pub mod rules;
pub mod seal;

use super::digest::{Digest, FilingKey, base64_url, random_text, same, sha256};
use super::identity::find_claim;
use super::jwt::Refused;
use super::{Answer, Denial, Known, Outcome, Providers, Shown};
use crate::config::auth as written;
use crate::scene::Scene;
use groove_common::app::StartError;
use groove_common::config::Secret;
use moka::future::Cache;
use provider::{Provider, Tokens};
use rules::{Allowed, check_id_token, is_navigation, return_to};
use seal::{Jar, Sealer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// How long a login lasts, if the configuration does not say.
const SESSION_AGE: Duration = Duration::from_secs(8 * 3600);
/// How long somebody may take to log in.
const LOGIN_AGE_S: u64 = 600;
/// Logins that one browser may have begun; then all are forgotten, as a head has bounds.
const LOGINS_MAX: usize = 5;
/// How long what a refresh gave serves those that come with the cookie from before it: a page asks for many things at once,
/// and a provider may take a refresh token that is used twice for a stolen one.
const REFRESHED_FOR: Duration = Duration::from_secs(30);
const REFRESHED_MAX: u64 = 10_000;
/// How long a token lasts whose provider does not say.
const TOKEN_AGE_S: u64 = 300;
/// Claims that are kept without being asked for.
const CLAIMS: [&str; 4] = ["email", "email_verified", "name", "preferred_username"];

/// The login of an app or a route.
#[derive(Debug)]
pub struct Oidc {
    provider: Arc<Provider>,
    client_id: String,
    client_secret: Option<Secret>,
    scope: String,
    callback: String,
    logout: String,
    external_url: Option<String>,
    cookie: String,
    sealer: Sealer,
    age_max_s: u64,
    allowed: Allowed,
    claims: Vec<String>,
    refreshed: Cache<Digest, Option<Session>>,
    filing: FilingKey,
}

/// A login, as its cookie has it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Session {
    /// The provider's name for the person.
    sub: String,
    claims: Map<String, Value>,
    /// When the token ends, in seconds since 1970.
    until_s: u64,
    /// When the login ends, whatever is refreshed.
    ends_s: u64,
    refresh: Option<String>,
}

/// A login that has begun, as its cookie has it.
#[derive(Serialize, Deserialize)]
struct Begun {
    state: String,
    nonce: String,
    verifier: String,
    to: String,
    until_s: u64,
}

/// Neither its tokens nor what it says of somebody is for a log.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("until_s", &self.until_s).finish_non_exhaustive()
    }
}

impl Oidc {
    /// Makes ready what is written. `shown` are the claims that headers show.
    pub fn new<'a>(
        app: &str,
        oidc: &'a written::Oidc,
        shown: impl Iterator<Item = &'a String>,
        providers: &mut Providers,
    ) -> Result<Self, StartError> {
        let mut claims: Vec<String> = CLAIMS.iter().map(|name| (*name).to_owned()).collect();
        claims.push(oidc.groups_claim.clone());
        claims.extend(oidc.claims.iter().chain(shown).cloned());
        let scope = ["openid"].into_iter().chain(oidc.scopes.iter().map(String::as_str));
        Ok(Self {
            provider: providers.issuer(oidc)?,
            client_id: oidc.client_id.clone(),
            client_secret: oidc.client_secret.clone(),
            scope: scope.collect::<Vec<_>>().join(" "),
            callback: oidc.callback.clone(),
            logout: oidc.logout.clone(),
            external_url: oidc.external_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
            cookie: oidc.cookie.name.clone(),
            // A login at one provider is none at another, even where the keys are the same.
            sealer: Sealer::new(&[app, &oidc.issuer, &oidc.client_id], &oidc.cookie.keys)?,
            age_max_s: oidc
                .cookie
                .max_age
                .map_or(SESSION_AGE, groove_common::config::Duration::get)
                .as_secs(),
            allowed: Allowed {
                emails: oidc.emails.clone(),
                groups: oidc.groups.clone(),
                groups_claim: oidc.groups_claim.clone(),
            },
            claims,
            refreshed: Cache::builder().max_capacity(REFRESHED_MAX).time_to_live(REFRESHED_FOR).build(),
            filing: FilingKey::new(),
        })
    }

    /// Holds a request against it.
    pub async fn look(&self, scene: &Scene<'_>) -> Outcome {
        let now_s = scene.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if scene.path() == self.callback.as_bytes() {
            return self.finish(scene, now_s).await;
        }
        if scene.path() == self.logout.as_bytes() {
            return self.log_out(scene).await;
        }
        let session =
            self.jar(scene).read(scene).and_then(|text| self.sealer.open::<Session>("session", &text));
        match session {
            Some(session) if session.ends_s > now_s && session.until_s > now_s => {
                self.known(scene, session, None)
            }
            Some(session) if session.ends_s > now_s && session.refresh.is_some() => {
                match self.refresh(&session, now_s).await {
                    Ok(Some(fresh)) => self.renewed(scene, fresh, now_s),
                    Ok(None) => self.begin(scene, now_s).await,
                    Err(()) => Denial::unreachable("the provider cannot be reached"),
                }
            }
            Some(_) | None => self.begin(scene, now_s).await,
        }
    }

    fn jar(&self, scene: &Scene<'_>) -> Jar {
        Jar::new(&self.cookie, self.scheme(scene))
    }

    fn scheme<'a>(&'a self, scene: &Scene<'a>) -> &'a str {
        match &self.external_url {
            Some(url) if url.starts_with("https:") => "https",
            Some(_) => "http",
            None => scene.scheme,
        }
    }

    /// Our own address, as people have it.
    fn base(&self, scene: &Scene<'_>) -> String {
        let host = String::from_utf8_lossy(scene.host);
        self.external_url.clone().unwrap_or_else(|| format!("{}://{host}", scene.scheme))
    }

    fn known(&self, scene: &Scene<'_>, session: Session, reply: Option<Vec<Vec<u8>>>) -> Outcome {
        if let Err(reason) = self.allowed.check(&session.claims) {
            return Denial::forbidden(reason);
        }
        let shown = self.jar(scene).names().map(Shown::OwnCookie).collect();
        let reply =
            reply.unwrap_or_default().into_iter().map(|line| ("Set-Cookie".to_owned(), line)).collect();
        let mut claims = session.claims;
        claims.insert("sub".to_owned(), Value::from(session.sub.clone()));
        Outcome::Known(Box::new(Known { user: session.sub, claims, shown, request: Vec::new(), reply }))
    }

    fn renewed(&self, scene: &Scene<'_>, session: Session, now_s: u64) -> Outcome {
        let sealed = self.sealer.seal("session", &session);
        let lines = sealed.and_then(|text| self.jar(scene).write(scene, &text, session.ends_s - now_s));
        self.known(scene, session, lines)
    }

    /// Sends somebody to the provider.
    async fn begin(&self, scene: &Scene<'_>, now_s: u64) -> Outcome {
        if !is_navigation(scene) {
            return Denial::absent(Some(format!("Login issuer=\"{}\"", self.provider.issuer)));
        }
        let Some(document) = self.provider.document().await else {
            return Denial::unreachable("the provider cannot be reached");
        };
        let begun = Begun {
            state: random_text(),
            nonce: random_text(),
            verifier: random_text(),
            to: return_to(scene.target),
            until_s: now_s + LOGIN_AGE_S,
        };
        let challenge = base64_url(&sha256(begun.verifier.as_bytes()));
        let back = format!("{}{}", self.base(scene), self.callback);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &back),
            ("scope", &self.scope),
            ("state", &begun.state),
            ("nonce", &begun.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let endpoint = &document.authorization_endpoint;
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        let location = format!("{endpoint}{joint}{}", query.finish());
        let jar = self.login_jar(scene, &begun.state);
        let sealed = self.sealer.seal("login", &begun);
        let Some(lines) = sealed.and_then(|text| jar.write(scene, &text, LOGIN_AGE_S)) else {
            return Denial::forbidden("the login cannot be kept");
        };
        let mut cookies = self.forgotten_logins(scene);
        cookies.extend(lines);
        Outcome::Instead(Box::new(redirect(&location, cookies, "a login is needed")))
    }

    /// Of several logins in several tabs each has its own cookie.
    fn login_jar(&self, scene: &Scene<'_>, state: &str) -> Jar {
        let short = state.get(..8).unwrap_or_default();
        Jar::new(&format!("{}_login_{short}", self.cookie), self.scheme(scene))
    }

    /// Takes logins away that were begun and never ended, once there are many.
    fn forgotten_logins(&self, scene: &Scene<'_>) -> Vec<Vec<u8>> {
        let prefix = Jar::new(&format!("{}_login_", self.cookie), self.scheme(scene))
            .names()
            .next()
            .unwrap_or_default();
        let begun: Vec<String> = scene
            .cookies()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(prefix.as_bytes()))
            .filter_map(|name| String::from_utf8(name.to_vec()).ok())
            .collect();
        if begun.len() < LOGINS_MAX {
            return Vec::new();
        }
        let bare = |name: &String| name.strip_prefix("__Host-").unwrap_or(name).to_owned();
        begun.iter().flat_map(|name| Jar::new(&bare(name), self.scheme(scene)).clear(scene)).collect()
    }

    /// Somebody comes back from the provider.
    async fn finish(&self, scene: &Scene<'_>, now_s: u64) -> Outcome {
        let state = scene.parameter("state").unwrap_or_default();
        let jar = self.login_jar(scene, &state);
        let begun = jar.read(scene).and_then(|text| self.sealer.open::<Begun>("login", &text));
        let Some(begun) =
            begun.filter(|begun| same(begun.state.as_bytes(), state.as_bytes()) && begun.until_s > now_s)
        else {
            return Denial::forbidden("no login was begun here, or too long ago");
        };
        // RFC 9207: another provider's answer is not to be taken to this one.
        let is_other = scene
            .parameter("iss")
            .is_some_and(|iss| iss.trim_end_matches('/') != self.provider.issuer.trim_end_matches('/'));
        let Some(code) = scene.parameter("code").filter(|_| !is_other) else {
            return Denial::forbidden("the provider refuses the login");
        };
        let back = format!("{}{}", self.base(scene), self.callback);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", back.as_str()),
            ("code_verifier", begun.verifier.as_str()),
        ];
        let session = match self.tokens(&form).await {
            Ok(tokens) => self.logged_in(tokens, &begun.nonce, now_s).await,
            Err(refused) => Err(refused),
        };
        let session = match session {
            Ok(session) => session,
            Err(Refused::Wrong(reason)) => return Denial::forbidden(reason),
            Err(Refused::Unreachable) => return Denial::unreachable("the provider cannot be reached"),
        };
        if let Err(reason) = self.allowed.check(&session.claims) {
            return Denial::forbidden(reason);
        }
        let sealed = self.sealer.seal("session", &session);
        let Some(mut cookies) = sealed.and_then(|text| self.jar(scene).write(scene, &text, self.age_max_s))
        else {
            return Denial::forbidden("the login is too long for a cookie: keep fewer claims");
        };
        cookies.extend(jar.clear(scene));
        Outcome::Taken(Box::new(redirect(&begun.to, cookies, "somebody logged in")))
    }

    async fn tokens(&self, form: &[(&str, &str)]) -> Result<Tokens, Refused> {
        self.provider.tokens(&self.client_id, self.client_secret.as_ref().map(Secret::expose), form).await
    }

    /// A login of what the token endpoint gave somebody who has just come back.
    async fn logged_in(&self, tokens: Tokens, nonce: &str, now_s: u64) -> Result<Session, Refused> {
        let Some(id_token) = &tokens.id_token else {
            return Err(Refused::Wrong("the provider gave no id_token"));
        };
        let told = self.told(id_token, Some(nonce), now_s).await?;
        self.session(told, tokens, now_s + self.age_max_s, now_s).await
    }

    /// The same login, longer.
    async fn prolonged(&self, before: &Session, mut tokens: Tokens, now_s: u64) -> Result<Session, Refused> {
        // RFC 6749, 6: a provider that gives no new one leaves the old one good.
        tokens.refresh_token = tokens.refresh_token.or_else(|| before.refresh.clone());
        let Some(id_token) = &tokens.id_token else {
            let until_s = now_s + tokens.expires_in.unwrap_or(TOKEN_AGE_S);
            return Ok(Session { until_s, refresh: tokens.refresh_token, ..before.clone() });
        };
        let told = self.told(id_token, None, now_s).await?;
        if told.get("sub").and_then(Value::as_str) != Some(&before.sub) {
            return Err(Refused::Wrong("the refreshed token is somebody else's"));
        }
        self.session(told, tokens, before.ends_s, now_s).await
    }

    /// What an id_token says, once it is known to be good.
    async fn told(
        &self,
        id_token: &str,
        nonce: Option<&str>,
        now_s: u64,
    ) -> Result<Map<String, Value>, Refused> {
        let document = self.provider.document().await.ok_or(Refused::Unreachable)?;
        let told = self.provider.claims(id_token).await?;
        check_id_token(&told, document.issuer(), &self.client_id, nonce, now_s).map_err(Refused::Wrong)?;
        Ok(told)
    }

    async fn session(
        &self,
        told: Map<String, Value>,
        tokens: Tokens,
        ends_s: u64,
        now_s: u64,
    ) -> Result<Session, Refused> {
        let sub = told.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut info = Map::new();
        // Many providers tell addresses and groups there alone.
        if let Some(token) = &tokens.access_token
            && self.claims.iter().any(|name| find_claim(&told, name).is_none())
        {
            info = self.provider.user_info(token).await?;
            if info.get("sub").and_then(Value::as_str) != Some(&sub) {
                info.clear();
            }
        }
        let mut claims = Map::new();
        for name in &self.claims {
            if let Some(value) = find_claim(&told, name).or_else(|| find_claim(&info, name)) {
                claims.insert(name.clone(), value.clone());
            }
        }
        let exp = told.get("exp").and_then(Value::as_u64);
        let until_s = exp.unwrap_or(now_s + tokens.expires_in.unwrap_or(TOKEN_AGE_S));
        Ok(Session { sub, claims, until_s, ends_s, refresh: tokens.refresh_token })
    }

    /// A login whose token has ended, prolonged: `None` if the provider does not, an error if it cannot be asked. Those who
    /// come with the same token at the same time share one answer.
    async fn refresh(&self, before: &Session, now_s: u64) -> Result<Option<Session>, ()> {
        let token = before.refresh.as_deref().unwrap_or_default();
        let filed = self.filing.file(&[token.as_bytes(), before.sub.as_bytes()]);
        let ask = async {
            let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
            let session = match self.tokens(&form).await {
                Ok(tokens) => self.prolonged(before, tokens, now_s).await,
                Err(refused) => Err(refused),
            };
            match session {
                Ok(session) => Ok(Some(session)),
                Err(Refused::Wrong(_)) => Ok(None),
                Err(Refused::Unreachable) => Err(()),
            }
        };
        self.refreshed.try_get_with(filed, ask).await.map_err(|_| ())
    }

    async fn log_out(&self, scene: &Scene<'_>) -> Outcome {
        // Another site is not to log people out.
        if scene.header("sec-fetch-site").is_some_and(|site| site.eq_ignore_ascii_case(b"cross-site")) {
            return Denial::forbidden("another site asks for the logout");
        }
        let cookies = self.jar(scene).clear(scene);
        let document = self.provider.document().await;
        let location = match document.as_ref().and_then(|document| document.end_session_endpoint.as_deref()) {
            Some(endpoint) => {
                let back = format!("{}/", self.base(scene));
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.extend_pairs([
                    ("client_id", self.client_id.as_str()),
                    ("post_logout_redirect_uri", &back),
                ]);
                let joint = if endpoint.contains('?') { '&' } else { '?' };
                format!("{endpoint}{joint}{}", query.finish())
            }
            None => "/".to_owned(),
        };
        Outcome::Taken(Box::new(redirect(&location, cookies, "somebody logged out")))
    }
}

fn redirect(location: &str, cookies: Vec<Vec<u8>>, reason: &'static str) -> Answer {
    let mut headers = vec![
        ("Location".to_owned(), location.as_bytes().to_vec()),
        ("Cache-Control".to_owned(), b"no-store".to_vec()),
    ];
    headers.extend(cookies.into_iter().map(|line| ("Set-Cookie".to_owned(), line)));
    Answer { status: 302, headers, body: bytes::Bytes::new(), reason }
}

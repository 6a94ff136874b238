//! Who may ask, as written.

use groove_common::config::{CertificateFile, ClientTls, Duration, InputFile, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who may ask, and how that is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Ways to be known, of which one has to do.
    pub any: Vec<Way>,
    /// Ways to be known, which all have to do.
    pub all: Vec<Way>,
    /// Nobody is asked: for a route of an app that asks.
    pub public: bool,
    /// Paths that need no identity: `/healthz`, `/public/*`. Who shows a good one is still known.
    pub allow_anonymous: Vec<String>,
    /// Headers for the app, and the claim that each shows.
    pub headers: BTreeMap<String, String>,
    /// Further headers that no client may send, beside `X-Auth-*` and those above.
    pub strip: Vec<String>,
    /// Pass on to the app what the client was known by (Authorization, a key's header); those in a query never are.
    pub forward_credentials: bool,
}

/// One way to be known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A name and a password (RFC 7617).
    Basic(Basic),
    /// A key in a header, the query or a cookie.
    ApiKey(ApiKey),
    /// A signed token (RFC 7519).
    Jwt(Jwt),
    /// Somebody else is asked.
    ForwardAuth(ForwardAuth),
    /// The request is signed with a shared key.
    Hmac(Hmac),
    /// The certificate that the client showed the listener.
    Mtls(Mtls),
    /// A login at an OpenID provider.
    Oidc(Oidc),
}

/// A name and a password.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Basic {
    /// A file as `htpasswd -B` makes it: bcrypt or argon2 hashes.
    pub file: Option<InputFile>,
    /// Names and their hashes.
    pub users: BTreeMap<String, Secret>,
    /// What a browser shows when it asks.
    pub realm: Option<String>,
    /// How long a password that was right is known without hashing it again.
    pub cache: Option<Duration>,
}

/// A key in a header, the query or a cookie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Where it is looked for.
    #[serde(default, rename = "in")]
    pub places: Places,
    /// The keys by name: the SHA-256 of each, in hexadecimal digits.
    #[schemars(length(min = 1))]
    pub keys: BTreeMap<String, String>,
}

/// Where a key or a token is looked for; the first that is there counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Places {
    /// A header. A token in `Authorization` follows `Bearer`.
    pub header: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
    /// A cookie.
    pub cookie: Option<String>,
}

/// A signed token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwt {
    /// Where it is looked for; `Authorization: Bearer` if left out.
    #[serde(rename = "in")]
    pub places: Places,
    /// Where the public keys are: `{url: ...}` or `{file: ...}`.
    pub jwks: Option<Jwks>,
    /// PEM files with public keys (RSA, P-256, P-384, Ed25519), beside or in place of `jwks`.
    pub public_keys: Vec<InputFile>,
    /// A shared secret, for the HS algorithms.
    pub secret: Option<Secret>,
    /// Algorithms that are taken. Left out, all that fit the keys but those with a shared secret; with a secret HS256.
    pub algorithms: Vec<Algorithm>,
    /// Who must have issued it.
    pub issuer: Option<String>,
    /// Whom it must be for: one of these.
    pub audience: Vec<String>,
    /// How far clocks may be apart.
    pub clock_skew: Option<Duration>,
    /// Claims it must have, and what they must be; a list is satisfied by one of its members, null by anything.
    pub require: BTreeMap<String, serde_json::Value>,
    /// Take tokens that never expire.
    pub allow_no_expiry: bool,
    /// The claim that names the user; `sub` if left out.
    pub user_claim: Option<String>,
}

/// Algorithms of signed tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "their names are those of RFC 7518 and 8037")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    #[serde(rename = "EdDSA")]
    EdDsa,
    HS256,
    HS384,
    HS512,
}

/// Where public keys are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwks {
    /// The URL of a key set (RFC 7517).
    pub url: Option<String>,
    /// A file with one.
    pub file: Option<InputFile>,
    /// How often it is fetched again.
    pub refresh: Option<Duration>,
    /// How long a fetch may take.
    pub timeout: Option<Duration>,
    /// The authorities to believe for `https`; the system's if left out.
    pub ca: Option<CertificateFile>,
}

/// Somebody else is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuth {
    /// Who: gets the request's head with X-Forwarded-Method, -Proto, -Host, -Uri and -For.
    pub url: String,
    /// How long an answer may take.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// TLS to it.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// Questions that may be under way at once.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65536))]
    pub max_in_flight: Option<usize>,
    /// Headers of its answer that the app gets; also never taken from a client.
    #[serde(default)]
    pub copy: Vec<String>,
    /// The header of its answer that names the user.
    #[serde(default)]
    pub user_header: Option<String>,
    /// Answers of 2xx that are remembered.
    #[serde(default)]
    pub cache: Option<ForwardCache>,
}

/// Answers that are remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardCache {
    /// What two requests must have in common: headers, and `:method`, `:path`, `:query`. The host is always among it.
    #[schemars(length(min = 1))]
    pub by: Vec<String>,
    /// How long.
    pub ttl: Duration,
    /// How many.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub entries: Option<u64>,
}

/// The request is signed with a shared key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    /// The keys by their ids.
    #[schemars(length(min = 1))]
    pub keys: BTreeMap<String, Secret>,
    /// How far a request's time may be from ours.
    #[serde(default)]
    pub clock_skew: Option<Duration>,
    /// Headers that have to be signed.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Bodies have to be signed too, and are read to their end before the app sees anything.
    #[serde(default)]
    pub body: Option<groove_common::config::Size>,
    /// Refuse a signature that was seen before.
    #[serde(default)]
    pub once: bool,
}

/// The certificate that the client showed the listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mtls {
    /// Common names, or whole subjects as `CN=a,O=b`.
    pub subjects: Vec<String>,
    /// Subject alternative names: DNS names, URIs; `*` at the end stands for anything.
    pub names: Vec<String>,
    /// SHA-256 of certificates, in hexadecimal digits.
    pub fingerprints: Vec<String>,
}

/// A login at an OpenID provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider; its document is at `/.well-known/openid-configuration` below it.
    pub issuer: String,
    /// Our name there.
    pub client_id: String,
    /// Our secret there; none for a public client.
    #[serde(default)]
    pub client_secret: Option<Secret>,
    /// What is asked for beside `openid`.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// The path that the provider sends people back to.
    #[serde(default = "default_callback")]
    pub callback: String,
    /// The path that ends a login.
    #[serde(default = "default_logout")]
    pub logout: String,
    /// Our own address, where the proxy does not see it: `https://shop.example.com`.
    #[serde(default)]
    pub external_url: Option<String>,
    /// The cookie that keeps the login.
    pub cookie: LoginCookie,
    /// Addresses that may log in: `a@example.com`, `*@example.com`; all if left out.
    #[serde(default)]
    pub emails: Vec<String>,
    /// Groups of which one has to be among the groups claim; all if left out.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The claim that lists groups.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// Claims that are kept in the cookie, beside those of `headers` that are not listed here.
    #[serde(default)]
    pub claims: Vec<String>,
    /// How long an answer of the provider may take.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// The authorities to believe for `https`; the system's if left out.
    #[serde(default)]
    pub ca: Option<CertificateFile>,
}

/// The cookie that keeps a login.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginCookie {
    /// Keys of at least 32 characters: the first encrypts, all decrypt.
    #[schemars(length(min = 1, max = 4))]
    pub keys: Vec<Secret>,
    /// Its name.
    #[serde(default = "default_cookie")]
    pub name: String,
    /// How long a login lasts at the most.
    #[serde(default)]
    pub max_age: Option<Duration>,
}

fn default_scopes() -> Vec<String> {
    vec!["email".to_owned(), "profile".to_owned()]
}

fn default_callback() -> String {
    "/oauth2/callback".to_owned()
}

fn default_logout() -> String {
    "/oauth2/logout".to_owned()
}

fn default_groups_claim() -> String {
    "groups".to_owned()
}

fn default_cookie() -> String {
    "groove_session".to_owned()
}

impl Auth {
    /// The ways there are, and whether all have to do.
    pub fn ways(&self) -> (&[Way], bool) {
        if self.all.is_empty() { (&self.any, false) } else { (&self.all, true) }
    }

    /// Whether a reload may bring something else although the configuration is the same.
    pub fn reads_files(&self) -> bool {
        self.any.iter().chain(&self.all).any(|way| match way {
            Way::Basic(basic) => basic.file.is_some(),
            Way::Jwt(jwt) => {
                !jwt.public_keys.is_empty() || jwt.jwks.as_ref().is_some_and(|jwks| jwks.file.is_some())
            }
            Way::ApiKey(_) | Way::ForwardAuth(_) | Way::Hmac(_) | Way::Mtls(_) | Way::Oidc(_) => false,
        })
    }

    /// Headers that no client may send.
    pub fn written(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers.keys().chain(&self.strip).cloned().collect();
        for way in self.any.iter().chain(&self.all) {
            if let Way::ForwardAuth(forward) = way {
                names.extend(forward.copy.iter().chain(&forward.user_header).cloned());
            }
        }
        names
    }
}

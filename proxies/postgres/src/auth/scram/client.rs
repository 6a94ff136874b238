//! The client's side.

use aws_lc_rs::constant_time;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{Detail, END_POINT, Iterations, Key, Keys, ScramError, mac, sha256, xor};

/// What a client says of channel binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// `n`: it knows of none here.
    None,
    /// `y`: it would have bound, but the server does not offer it. A server that did offer it finds the liar between.
    Unoffered,
    /// `p`: it binds to the certificate with this hash.
    EndPoint(Vec<u8>),
}

impl Binding {
    fn header(&self) -> String {
        match self {
            Binding::None => "n,,".to_owned(),
            Binding::Unoffered => "y,,".to_owned(),
            Binding::EndPoint(_) => format!("p={END_POINT},,"),
        }
    }

    /// What `c=` says.
    fn attribute(&self) -> String {
        let mut data = self.header().into_bytes();
        match self {
            Binding::EndPoint(hash) => data.extend_from_slice(hash),
            Binding::None | Binding::Unoffered => {}
        }
        BASE64.encode(data)
    }
}

/// The client's side.
pub struct Client {
    binding: Binding,
    nonce: String,
    first_bare: String,
    server_signature: Option<Key>,
}

impl Client {
    /// Starts an exchange; gives the first message. `nonce` is printable and without commas.
    pub fn start(nonce: &str, binding: Binding) -> (Client, String) {
        Client::start_as("", nonce, binding)
    }

    pub(super) fn start_as(user: &str, nonce: &str, binding: Binding) -> (Client, String) {
        let first_bare = format!("n={user},r={nonce}");
        let first = format!("{}{first_bare}", binding.header());
        (Client { binding, nonce: nonce.to_owned(), first_bare, server_signature: None }, first)
    }

    /// Answers the server's challenge; `keys` derives (or remembers) what the password gives. It has none where only
    /// another verifier's are known.
    pub fn respond(
        &mut self,
        challenge: &[u8],
        keys: impl FnOnce(&[u8], Iterations) -> Option<Keys>,
    ) -> Result<String, ScramError> {
        const MALFORMED: ScramError = ScramError::Malformed(Detail::Challenge);
        let challenge = std::str::from_utf8(challenge).map_err(|_| MALFORMED)?;
        let mut attributes = challenge.split(',');
        let mut attribute = |name| attributes.next().and_then(|a| a.strip_prefix(name)).ok_or(MALFORMED);
        let nonce = attribute("r=")?;
        let salt = BASE64.decode(attribute("s=")?).map_err(|_| MALFORMED)?;
        let iterations = attribute("i=")?.parse().ok().and_then(Iterations::new);
        let iterations = iterations.ok_or(MALFORMED)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let keys = keys(&salt, iterations).ok_or(ScramError::OtherVerifier)?;
        let without_proof = format!("c={},r={nonce}", self.binding.attribute());
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let signature = mac(&sha256(&keys.client), message.as_bytes());
        self.server_signature = Some(mac(&keys.server, message.as_bytes()));
        Ok(format!("{without_proof},p={}", BASE64.encode(xor(keys.client, signature))))
    }

    /// Checks the server's proof.
    pub fn verify(&self, last: &[u8]) -> Result<(), ScramError> {
        let given = last.strip_prefix(b"v=").and_then(|v| BASE64.decode(v).ok()).ok_or(ScramError::Server)?;
        let expected = self.server_signature.ok_or(ScramError::Server)?;
        constant_time::verify_slices_are_equal(&given, &expected).map_err(|_| ScramError::Server)
    }
}

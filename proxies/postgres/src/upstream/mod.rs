//! The servers' side: who is logged in where, and the pools of those connections.

mod ahead;
mod auth_query;
mod cancel;
mod connect;
mod dial;
mod directory;
mod gates;
mod heard;
mod inherit;
mod login;
mod members;
mod passthrough;
mod pool;
mod probe;
mod server;
mod shares;
mod split;
mod watched;
mod welcome;

pub use ahead::Ahead;
pub use cancel::CancelTarget;
pub use connect::connect;
pub use dial::{Dial, Target};
pub use directory::Directory;
pub use gates::Gate;
pub use heard::Heard;
pub use inherit::Proofs;
pub use login::{Credentials, Login};
pub use passthrough::Claim;
pub use pool::{Leased, UserPool, refused};
pub use server::Server;
pub use split::{Split, replicas_title};

use aws_lc_rs::rand;

/// Fills with randomness; without it nothing here may go on.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| std::io::Error::other("the system gives no randomness"))?;
    Ok(bytes)
}

/// A nonce for SCRAM: printable and without commas.
pub fn nonce() -> std::io::Result<String> {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    Ok(STANDARD_NO_PAD.encode(random::<18>()?))
}

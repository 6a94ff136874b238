//! The configuration: as written, checked, loaded, watched.
//!
//! A proxy describes its configuration once, as types: doc comments become the descriptions of its JSON Schema,
//! and that schema is what editors complete with, and what the file is checked against.
//!
//! ```text
//!              tree                check                de              semantics
//! YAML text ---------> spanned ------------> repaired --------> Document -----------> Loaded
//!           duplicates, tree    unknown keys,  tree    serde             combinations,
//!           aliases, <<         types, formats                           validate
//!               |                   |                   |                    |
//!               +-------------------+------- Problem ---+--------------------+----> Report
//! ```
//!
//! Every error is found at once, because none but a syntax error stops the way: what is wrong is replaced by a
//! harmless stand-in (`check.rs`) and the rest goes on. A [`Report`] shows each with file, line, column, the line
//! and a caret, and says what to write instead; what is secret is masked before anything is shown.
//!
//! Rules for the types of a [`Document`]:
//!
//! * derive `Serialize, Deserialize, JsonSchema`, with `deny_unknown_fields`, and `default` where a key may be left
//!   out;
//! * no `flatten` and no `untagged`: both lose the place of an error. A value that is a text or a mapping has a
//!   visitor of its own and says so in its schema, as [`Endpoint`] does;
//! * a text with a grammar has a `format` in the schema: one of `formats.rs`, or the document's own, which
//!   [`Document::format`] tests;
//! * a secret is a [`Secret`], a file is a [`CertificateFile`], [`KeyFile`] or [`InputFile`]: they are then masked,
//!   resolved from the folder of the configuration, tested and watched without another word.
//!
//! Keys at the top that begin with `x-` are not read: they are a place for anchors.

mod check;
mod de;
mod difference;
mod endpoints;
mod files;
mod folders;
mod formats;
mod load;
mod report;
mod secret;
mod sections;
mod semantics;
mod shape;
mod suggest;
mod tree;
mod values;
mod watch;
mod wording;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use difference::{Change, difference};
pub use endpoints::{Dns, Elasticache, Embedded, EmbeddedDisk, Endpoint, EndpointRole, Endpoints};
pub use files::{CertificateFile, InputFile, KeyFile};
pub(crate) use folders::Folders;
pub use load::{Loaded, check_entry, check_text, load, read, schema};
pub use report::{Finding, Issues, Report};
pub use secret::Secret;
pub use sections::{
    AccessLog, Admin, Breaker, CertificateAndKey, ClientAuth, ClientTls, Health, Listener, Log, LogFormat,
    Network, Probe, ProxyProtocol, ServerTls, Verify, default_drain,
};
pub use values::{Duration, Mode, Size};
pub use watch::{Attempt, Cause, Watch};

/// A proxy's whole configuration.
pub trait Document: DeserializeOwned + Serialize + JsonSchema + Send + Sync + 'static {
    /// What it has as every document has it.
    fn basics(&self) -> Basics<'_>;

    /// What the types cannot say: references, combinations, reachability.
    ///
    /// Listeners, admin and log are checked already; the proxy calls [`Endpoints::check`],
    /// [`Health::check`] and [`ClientTls::check`] for those it holds, and adds its own.
    fn validate(&self, issues: &mut Issues);

    /// What changed from `old` to this. A document of many parts compares them before it writes any of them out.
    fn changes(&self, old: &Self) -> Vec<Change> {
        difference(old, self)
    }

    /// Tests a text of a `format` that only this document has (`#[schemars(extend("format" = "host-pattern"))]`),
    /// so that each such text that is wrong is found, and not only the first. The error says what to write.
    fn format(format: &str, text: &str) -> Result<(), String> {
        let _ = (format, text);
        Ok(())
    }
}

/// What every document has, whichever proxy it is for.
#[derive(Debug, Clone, Copy)]
pub struct Basics<'a> {
    /// Where it listens.
    pub listeners: &'a [Listener],
    /// The admin server, if there is one.
    pub admin: Option<&'a Admin>,
    /// What is logged.
    pub log: &'a Log,
    /// How long a drain may take ([`default_drain`] if it is not said).
    pub drain: Duration,
    /// Worker threads; none is one a core.
    pub workers: Option<usize>,
    /// Where the next process asks for listeners and sessions; none hands nothing over.
    pub handover: Option<&'a std::path::Path>,
}

#[cfg(test)]
mod tests;

//! Where endpoints come from.

use futures_util::future::BoxFuture;

use crate::config;

use super::{dns, elasticache, file};

/// The endpoints a source knows of, as of now: always the whole set.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// All of them.
    pub endpoints: Vec<config::Endpoint>,
    /// Whether "none" is to be believed. An operator who writes an empty list means it; an
    /// empty answer from the network is more likely a fault, and never empties a cluster.
    pub may_be_empty: bool,
}

/// A stream of snapshots of where the servers are.
///
/// A source logs its own failures and keeps quiet until it has good news: a failure
/// is never an empty set.
pub trait Source: Send + 'static {
    /// What it is, for the log and the admin API: `static`, `file endpoints.yaml`, ...
    fn describe(&self) -> String;

    /// The set that is known without waiting, if there is one.
    fn initial(&mut self) -> Option<Found>;

    /// The next set that may differ from the last. Pends for ever when there will be none;
    /// must be cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Found>;
}

/// Why a source cannot even start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The endpoints are the proxy's own store: there is nothing to discover.
    #[error("an embedded store has no endpoints to discover")]
    Embedded,
    /// The system's resolver configuration cannot be read.
    #[error("cannot set up the DNS resolver: {0}")]
    Resolver(String),
    /// The certificates for asking a source over TLS cannot be read.
    #[error("cannot set up TLS towards the source: {0}")]
    Tls(String),
    /// The file's folder cannot be watched.
    #[error("cannot watch {path}: {reason}")]
    Watch {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
}

/// The source that a configuration asks for.
pub fn from_config(endpoints: &config::Endpoints) -> Result<Box<dyn Source>, SourceError> {
    match endpoints {
        config::Endpoints::Static(list) => Ok(Box::new(Static(list.clone()))),
        config::Endpoints::Dns(dns) => Ok(Box::new(dns::Dns::new(dns)?)),
        config::Endpoints::Elasticache(source) => Ok(Box::new(elasticache::Elasticache::new(source)?)),
        config::Endpoints::File(path) => Ok(Box::new(file::File::new(path.as_ref())?)),
        config::Endpoints::Embedded(_) => Err(SourceError::Embedded),
    }
}

/// A source that knows nothing by itself: the proxy tells the cluster, by
/// [`Cluster::set_endpoints`](super::Cluster::set_endpoints).
#[derive(Debug, Clone)]
pub struct Told(pub String);

impl Source for Told {
    fn describe(&self) -> String {
        self.0.clone()
    }

    fn initial(&mut self) -> Option<Found> {
        None
    }

    fn next(&mut self) -> BoxFuture<'_, Found> {
        Box::pin(std::future::pending())
    }
}

/// A list that stands in the configuration.
pub(super) struct Static(pub(super) Vec<config::Endpoint>);

impl Source for Static {
    fn describe(&self) -> String {
        "static".to_owned()
    }

    fn initial(&mut self) -> Option<Found> {
        Some(Found { endpoints: self.0.clone(), may_be_empty: true })
    }

    fn next(&mut self) -> BoxFuture<'_, Found> {
        Box::pin(std::future::pending())
    }
}

//! Whether a cluster's servers are agreed on with other sidecars, and what a configuration changes about that.

use std::sync::Arc;

use groove_common::app::{Context, StartError};
use groove_common::discovery::{Cluster, Source, Told};
use groove_common::store::{Files, SharedStore};
use tokio::runtime::Handle;
use tracing::warn;

use super::control::{Beginning, Control, Origin};
use super::driver::Means;
use super::metrics::ResizeMetrics;
use super::mover::PlaceOf;
use crate::config;
use crate::upstream::connection::Settings;

/// A cluster's part in its changes, as a configuration wants it. All that may fail has been done.
pub enum Part {
    /// It goes by its own list.
    Alone,
    /// It begins to share.
    Begin {
        /// Where.
        store: SharedStore,
        /// What its own list comes from.
        origin: Origin,
    },
    /// It goes on.
    Go {
        /// As it runs.
        control: Arc<Control>,
        /// What its own list comes from, if that is new.
        origin: Option<Origin>,
    },
}

impl Part {
    /// What `section` wants, if `before` is how it runs.
    ///
    /// # Errors
    ///
    /// When the folder or the source cannot be had.
    pub fn plan(
        section: &config::Cluster,
        before: Option<(&config::Cluster, &Arc<Control>)>,
    ) -> Result<Self, StartError> {
        let Some(state) = section.resize.as_ref().and_then(|resize| resize.state.as_ref()) else {
            return Ok(Self::Alone);
        };
        let folder = |section: &config::Cluster| section.resize.as_ref().and_then(|it| it.state.clone());
        if let Some((known, control)) = before.filter(|(known, _)| folder(known).as_ref() == Some(state)) {
            let is_new = known.endpoints != section.endpoints;
            let origin = is_new.then(|| Origin::new(&section.endpoints)).transpose()?;
            return Ok(Self::Go { control: Arc::clone(control), origin });
        }
        let store: SharedStore = Arc::new(Files::open(state)?);
        Ok(Self::Begin { store, origin: Origin::new(&section.endpoints)? })
    }

    /// Is the list agreed on with others, so that the cluster must be told it?
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Alone => false,
            Self::Begin { .. } | Self::Go { .. } => true,
        }
    }

    /// Is this the one that runs already?
    pub fn goes_on(&self, before: Option<&Arc<Control>>) -> bool {
        match self {
            Self::Alone => before.is_none(),
            Self::Begin { .. } => false,
            Self::Go { .. } => true,
        }
    }

    /// Does it.
    pub fn carry_out(
        self,
        name: &str,
        section: &config::Cluster,
        cluster: &Arc<Cluster>,
        settings: &Arc<Settings>,
        place_of: PlaceOf,
        cx: &Context,
    ) -> Option<Arc<Control>> {
        let Context { runtime, registry, .. } = cx;
        let (settings, metrics) = (Arc::clone(settings), ResizeMetrics::new(registry, name));
        let means = || Means::new(section, settings, place_of, metrics);
        match self {
            Self::Alone => None,
            Self::Go { control, origin } => {
                control.reconfigure(means(), origin);
                Some(control)
            }
            Self::Begin { store, origin } => {
                let (name, cluster, means) = (name.to_owned(), Arc::clone(cluster), means());
                Some(Control::start(Beginning { name, store, cluster, origin, means }, runtime))
            }
        }
    }
}

/// The source of a cluster that is told its servers.
pub fn told(section: &config::Cluster) -> Box<dyn Source> {
    let state = section.resize.as_ref().and_then(|resize| resize.state.as_ref());
    let place = state.map(|folder| folder.display().to_string()).unwrap_or_default();
    Box::new(Told(format!("agreed on in {place}")))
}

impl Control {
    /// Other routes: which keys are this cluster's.
    pub fn rehash(&self, section: &config::Cluster, settings: &Arc<Settings>, place_of: &PlaceOf) {
        let metrics = self.means().metrics.clone();
        self.reconfigure(Means::new(section, Arc::clone(settings), Arc::clone(place_of), metrics), None);
    }
}

/// Waits until those that have just begun know their servers: nobody is served before, or the first clients would
/// find none. On a thread of its own: this may be a thread of the runtime.
pub fn wait_until_joined<'a>(controls: impl Iterator<Item = (&'a str, &'a Arc<Control>)>, runtime: &Handle) {
    for (cluster, control) in controls {
        let wait = || runtime.block_on(control.joined_in_time());
        let joined = std::thread::scope(|scope| scope.spawn(wait).join()).unwrap_or(false);
        if !joined {
            warn!(
                cluster,
                "the committed list of servers is not known yet: clients find no server until it is"
            );
        }
    }
}

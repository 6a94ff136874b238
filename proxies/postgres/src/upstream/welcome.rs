//! What clients of a pool are told when they log in, learnt from the servers once and not at each login.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::session::settings::Settings;

/// Different sets of startup settings that are remembered.
const KNOWN_MAX: usize = 256;

/// Settings that a startup packet asks for.
pub(super) type Asked = Vec<(String, String)>;

/// The settings that a session begins with, by what its client asked for.
#[derive(Default)]
pub(super) struct Welcome(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// What a connection reports that asked for nothing.
    defaults: Option<Arc<Settings>>,
    by_asked: HashMap<Asked, Arc<Settings>>,
}

impl Welcome {
    /// Notes what a fresh connection reported.
    pub(super) fn learn(&self, fresh: &Arc<Settings>) {
        let mut known = self.0.lock();
        if known.defaults.as_ref() != Some(fresh) {
            // Another server, another version, another default: what was derived from the old is void.
            *known = Known { defaults: Some(Arc::clone(fresh)), by_asked: HashMap::new() };
        }
    }

    /// What a connection reports that asked for nothing.
    pub(super) fn defaults(&self) -> Option<Arc<Settings>> {
        self.0.lock().defaults.clone()
    }

    /// The settings of a session that asked for these, if they are known.
    pub(super) fn get(&self, asked: &Asked) -> Option<Arc<Settings>> {
        let known = self.0.lock();
        if asked.is_empty() { known.defaults.clone() } else { known.by_asked.get(asked).cloned() }
    }

    /// Remembers them.
    pub(super) fn put(&self, asked: Asked, settings: Arc<Settings>) {
        let mut known = self.0.lock();
        if known.by_asked.len() >= KNOWN_MAX {
            known.by_asked.clear();
        }
        known.by_asked.insert(asked, settings);
    }
}

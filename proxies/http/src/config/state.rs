//! What is kept of changes that came over the admin API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where changes of apps over the admin API are kept, so that they outlive a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// A file of the proxy's own; it is made if it is not there. Taken from the folder that the program runs in.
    pub file: PathBuf,
}

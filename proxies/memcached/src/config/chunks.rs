//! Values that are longer than an item of the servers may be.

use std::collections::BTreeMap;

use groove_common::config::{Endpoints, Issues, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cluster, Failover, LimitSection};

/// Values in parts: what is longer than `size` is stored as several items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chunks {
    /// The longest value that is stored as one item, and the longest part. With a key and what servers add to it,
    /// it has to fit their `-I`.
    pub size: Size,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { size: Size::kib(1000) }
    }
}

/// A part is no smaller than this.
const SIZE_MIN: Size = Size::kib(1);

/// Parts of the longest value.
const PARTS_MAX: u64 = 4096;

impl Chunks {
    pub(super) fn check(
        &self,
        name: &str,
        clusters: &BTreeMap<String, Cluster>,
        limits: &LimitSection,
        issues: &mut Issues,
    ) {
        let Some(own) = clusters.get(name) else { return };
        let path = ["clusters", name, "chunks"];
        let at = ["clusters", name, "chunks", "size"];
        if self.size < SIZE_MIN || self.size.0 >= limits.value.0.max(1) {
            let message = "values in parts are from 1KiB to `limits.value` long";
            issues.at_key(&path, message, Some("write `size: 1000KiB`, and a larger `limits: {value: …}`"));
        } else if limits.value.0.div_ceil(self.size.0) > PARTS_MAX {
            let help = "write a larger `size`, or a smaller `limits: {value: …}`";
            issues.at(&at, "the longest value would have more than 4096 parts", Some(help));
        }
        let stands_in =
            |other: &Cluster| matches!(&other.failover, Failover::Gutter(gutter) if gutter == name);
        let copies = |other: &Cluster| {
            other.replicas.as_ref().is_some_and(|replicas| replicas.clusters.iter().any(|copy| copy == name))
        };
        let is_behind =
            |other: &Cluster| other.overflow.as_ref().is_some_and(|overflow| overflow.cluster == name);
        let (message, help) = if matches!(own.endpoints, Endpoints::Embedded(_)) {
            (
                "the embedded store takes values as they are",
                "take `chunks` away, and write a larger `limits: {value: …}`",
            )
        } else if own.resize.is_some() {
            ("the parts of a value cannot be moved", "take `resize` or `chunks` away")
        } else if own.replicas.is_some() || clusters.values().any(copies) {
            ("a value has copies or parts, not both", "take `replicas` or `chunks` away")
        } else if own.overflow.is_some() || clusters.values().any(is_behind) {
            ("a value has tiers or parts, not both", "take `overflow` or `chunks` away")
        } else if own.failover != Failover::None || clusters.values().any(stands_in) {
            (
                "the parts of a value cannot fail over elsewhere",
                "write `failover: none`, or take `chunks` away",
            )
        } else {
            return;
        };
        issues.at_key(&path, message, Some(help));
    }
}

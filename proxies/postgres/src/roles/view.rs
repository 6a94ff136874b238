//! What everybody sees of the roles at one moment.

use groove_common::ids::EndpointId;

/// What a lease wants of its server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: any that is well.
    #[default]
    Any,
    /// It takes writes.
    Primary,
    /// It is read from.
    Replica {
        /// The primary will do where there is no replica.
        or_primary: bool,
    },
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not known yet.
    Unknown,
    /// It does not answer, or not yet.
    Lost,
    /// The one that takes writes.
    Primary,
    /// It follows, closely enough.
    Replica,
    /// It follows too far behind.
    Lagging,
    /// It takes writes, and must get none: another one is the primary.
    Fenced,
}

impl Standing {
    /// All of them.
    pub const ALL: [Standing; 6] = [
        Standing::Unknown,
        Standing::Lost,
        Standing::Primary,
        Standing::Replica,
        Standing::Lagging,
        Standing::Fenced,
    ];

    /// For status and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Standing::Unknown => "unknown",
            Standing::Lost => "lost",
            Standing::Primary => "primary",
            Standing::Replica => "replica",
            Standing::Lagging => "lagging",
            Standing::Fenced => "fenced",
        }
    }
}

/// Every server's standing. At most one is the primary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    /// In the order of the configuration.
    pub(super) standings: Vec<(EndpointId, Standing)>,
}

impl View {
    /// What this server is; unknown if it is none of them.
    pub(super) fn of(&self, id: EndpointId) -> Standing {
        let known = self.standings.iter().find(|(known, _)| *known == id);
        known.map_or(Standing::Unknown, |(_, standing)| *standing)
    }

    /// The one that takes writes.
    pub(super) fn primary(&self) -> Option<EndpointId> {
        self.standings.iter().find(|(_, standing)| *standing == Standing::Primary).map(|(id, _)| *id)
    }

    /// Whether a lease may be served there.
    pub(super) fn admits(&self, wish: Wish, id: EndpointId) -> bool {
        match (wish, self.of(id)) {
            (_, Standing::Fenced) => false,
            (Wish::Any, _)
            | (Wish::Primary, Standing::Primary)
            | (Wish::Replica { .. }, Standing::Replica) => true,
            (Wish::Replica { or_primary }, Standing::Primary) => or_primary && !self.may_have_replica(),
            (Wish::Primary, Standing::Unknown | Standing::Lost | Standing::Replica | Standing::Lagging)
            | (Wish::Replica { .. }, Standing::Unknown | Standing::Lost | Standing::Lagging) => false,
        }
    }

    /// Whether connections to this server are to be given up even where something is under way.
    pub(super) fn is_deposed(&self, wish: Wish, id: EndpointId) -> bool {
        let has_successor = || self.primary().is_some_and(|primary| primary != id);
        self.of(id) == Standing::Fenced || (wish == Wish::Primary && has_successor())
    }

    /// Whether one is there, or may be: nobody is in such a hurry that the first answers could not be waited for.
    fn may_have_replica(&self) -> bool {
        self.standings.iter().any(|(_, standing)| matches!(standing, Standing::Replica | Standing::Unknown))
    }
}

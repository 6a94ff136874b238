//! What a session has written last, as far as a replica has to have it.

/// What a session has written. `At` is a time of whoever keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote<At> {
    /// Before this time; where in the WAL is not known yet.
    Before(At),
    /// Up to this position of the WAL, in bytes since its beginning.
    Upto(u64),
}

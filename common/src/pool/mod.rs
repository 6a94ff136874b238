//! Exclusive connections behind a fair gate.

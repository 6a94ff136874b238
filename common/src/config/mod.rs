//! The configuration: as written, checked, loaded, watched.

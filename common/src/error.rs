//! Words shared by every error: which side failed, and whether to try again.

//! Which endpoint: pure functions over a snapshot; time and dice come in as arguments.

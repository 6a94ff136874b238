//! Where the servers are: sources, and the snapshot they and health make together.

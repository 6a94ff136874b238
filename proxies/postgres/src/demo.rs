//! The demo: a pool in front of a PostgreSQL server that is there already.

use groove_common::app::{DemoRow, StartError};

/// Arguments of the demo.
#[derive(clap::Args)]
pub struct Args {
    /// The PostgreSQL server to put the proxy in front of, HOST:PORT.
    #[arg(long)]
    server: Option<groove_common::ids::Address>,
    /// The role to log in as.
    #[arg(long, default_value = "postgres")]
    user: String,
    /// Its password, if the server asks for one.
    #[arg(long, env = "PGPASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// The database.
    #[arg(long, default_value = "postgres")]
    database: String,
}

/// Drives it.
pub(crate) async fn run(args: Args) -> Result<Vec<DemoRow>, StartError> {
    let _ = (&args.user, &args.password, &args.database);
    let Some(_server) = args.server else {
        return Err(
            "the demo needs a PostgreSQL server: groove-postgres demo --server 127.0.0.1:5432 --user NAME \
                    --database NAME, the password in PGPASSWORD"
                .into(),
        );
    };
    Ok(Vec::new())
}

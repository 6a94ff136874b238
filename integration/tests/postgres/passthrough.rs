//! Passwords that only the servers know.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::{Authority, Kind, Port, Postgres, Proxy};
use tokio_postgres::error::SqlState;

use super::{code, connect_as, run, text};

const PASSING: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: passthrough
databases: {shop: {endpoints: [$SERVER], pool: {size: 2, max_wait: 5s}}}
users:
  own: {password: mine, server_user: app, server_password: secret}
  alias: {server_user: app}
";

const REFUSED: SqlState = SqlState::INVALID_PASSWORD;
/// What a wrong guess has to cost at the least; the proxy takes a second.
const COST: Duration = Duration::from_millis(900);

fn passing() -> Result<(Postgres, Proxy)> {
    let server = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(PASSING).set("SERVER", server.address()).start()?;
    Ok((server, proxy))
}

/// As whom somebody is let in, or the code of the refusal.
async fn enters(proxy: &Proxy, user: &str, password: &str) -> Result<String, SqlState> {
    let login = format!("user={user} password={password} dbname=shop");
    match connect_as(proxy, &login).await {
        Ok(client) => text(&client, "SELECT current_user").await.map_err(|error| code::<()>(Err(error))),
        Err(error) => Err(code::<()>(Err(error))),
    }
}

fn pools(proxy: &Proxy) -> Result<usize> {
    Ok(proxy
        .status()?
        .get("pools")
        .and_then(|pools| pools.as_array())
        .context("no pools in the status")?
        .len())
}

#[test]
fn the_server_says_whose_password_is_right() -> Result<()> {
    run(async {
        let (server, proxy) = passing()?;
        let hash = server.sql("shop", "SELECT rolpassword FROM pg_authid WHERE rolname = 'legacy'")?;
        // One who does not exist, one whose hash is known, and one whom the server lets in whatever he says.
        let guesses =
            [("app", "wrong"), ("nobody", "x"), ("legacy", &*hash), ("own", "secret"), ("alias", "x")];
        let refused = guesses.map(|(user, password)| enters(&proxy, user, password));
        assert_eq!(futures_util::future::join_all(refused).await, [const { Err(REFUSED) }; 5]);
        let unable = SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
        assert_eq!(enters(&proxy, "plain", "any").await, Err(unable));
        assert_eq!(code(connect_as(&proxy, "user=app password=secret dbname=none").await), REFUSED);
        assert_eq!(pools(&proxy)?, 0, "who does not get in has no pool");
        for (user, password, role) in [
            ("app", "secret", "app"),
            ("legacy", "secret", "legacy"),
            ("alias", "secret", "app"),
            ("own", "mine", "app"),
        ] {
            assert_eq!(enters(&proxy, user, password).await, Ok(role.to_owned()));
        }
        assert_eq!(pools(&proxy)?, 4);
        // What PostgreSQL says of it is passed on.
        let told = connect_as(&proxy, "user=app password=wrong dbname=shop").await.err();
        let told =
            told.as_ref().and_then(|error| error.as_db_error()).map(|error| error.message().to_owned());
        assert_eq!(told.as_deref(), Some("password authentication failed for user \"app\""));
        Ok(())
    })
}

#[test]
fn what_was_proven_is_believed_until_another_password_is() -> Result<()> {
    run(async {
        let (server, proxy) = passing()?;
        let logins = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        for _ in 0..5 {
            assert_eq!(enters(&proxy, "app", "secret").await, Ok("app".to_owned()));
        }
        assert_eq!(server.sql("shop", logins)?, "1", "one pool, and no login beside it");
        server.sql("shop", "ALTER ROLE app PASSWORD 'changed'")?;
        assert_eq!(enters(&proxy, "app", "changed").await, Ok("app".to_owned()));
        assert_eq!(enters(&proxy, "app", "secret").await, Err(REFUSED));
        // The pool goes on with the new one: a second connection is made with it.
        let login = "user=app password=changed dbname=shop";
        let (one, two) = (connect_as(&proxy, login).await?, connect_as(&proxy, login).await?);
        one.batch_execute("BEGIN").await?;
        assert_eq!(text(&two, "SELECT current_user").await?, "app");
        Ok(())
    })
}

#[test]
fn guessing_takes_its_time_and_nobody_elses() -> Result<()> {
    run(async {
        let (server, proxy) = passing()?;
        assert_eq!(enters(&proxy, "app", "secret").await, Ok("app".to_owned()));
        let began = Instant::now();
        let guesses = futures_util::future::join_all((0..3).map(|_| enters(&proxy, "app", "wrong")));
        let others = async {
            assert_eq!(enters(&proxy, "app", "secret").await, Ok("app".to_owned()), "who is known");
            assert_eq!(
                enters(&proxy, "legacy", "secret").await,
                Ok("legacy".to_owned()),
                "and somebody else"
            );
            began.elapsed()
        };
        let (guesses, others) = tokio::join!(guesses, others);
        assert!(guesses.iter().all(|guess| *guess == Err(REFUSED)), "{guesses:?}");
        assert!(began.elapsed() >= 3 * COST, "three guesses in {:?}", began.elapsed());
        assert!(others < 3 * COST, "others waited {others:?} for those who guess");
        let counted = server.log().lines().iter().filter(|line| line.contains("FATAL")).count();
        assert_eq!(counted, 3, "one login of the server a guess");
        Ok(())
    })
}

#[test]
fn no_password_is_asked_for_where_others_could_read_it() -> Result<()> {
    run(async {
        let (server, folder, open) = (Postgres::start()?, tempfile::tempdir()?, Port::reserve()?);
        let issued = Authority::new(folder.path())?.issue("proxy", &["localhost"])?;
        let tls = "{address: $OPEN, tls: {certificate: $CERT, key: $KEY}}";
        let config = PASSING.replace("{address: $LISTEN}", &format!("{{address: $LISTEN}}, {tls}"));
        let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
        let builder = builder.set("CERT", issued.certificate.display()).set("KEY", issued.key.display());
        let proxy = builder.set("OPEN", format!("0.0.0.0:{}", open.number())).start()?;
        assert_eq!(enters(&proxy, "app", "secret").await, Ok("app".to_owned()));
        let target = |mode: &str| {
            format!(
                "host=127.0.0.1 port={} user=app password=secret dbname=shop sslmode={mode}",
                open.number()
            )
        };
        let plain = tokio_postgres::connect(&target("disable"), tokio_postgres::NoTls).await.map(|_| ());
        assert_eq!(code(plain), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        let mut psql = std::process::Command::new(harness::paths::program("psql")?);
        let output = harness::run(psql.args(["-XAtqc", "SELECT current_user"]).arg(target("require")))?;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "app");
        Ok(())
    })
}

//! Users that only the servers know.

use anyhow::Result;
use harness::{Kind, Port, Postgres, Proxy, ProxyBuilder, Scripted};
use tokio_postgres::error::SqlState;

use super::{code, connect_as, run, text};

const ASKING: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
databases: {shop: {endpoints: [$SERVER], pool: {size: 2, max_wait: 5s}}}
auth_query: {database: shop, user: asker, password: ask, ttl: $TTL}
";

const REFUSED: SqlState = SqlState::INVALID_PASSWORD;

/// A role that may read what passwords are stored, and nothing else.
fn asked(settings: &[(&str, &str)]) -> Result<Postgres> {
    let server = settings.iter().fold(Postgres::builder(), |server, (name, value)| server.set(name, value));
    let server = server.start()?;
    server.sql("shop", "CREATE ROLE asker LOGIN PASSWORD 'ask'; GRANT SELECT ON pg_authid TO asker")?;
    Ok(server)
}

fn asking(server: &Postgres, config: &str, ttl: &str) -> ProxyBuilder {
    Proxy::of(Kind::Postgres).config(config).set("SERVER", server.address()).set("TTL", ttl)
}

/// As whom somebody is let in, or the code of the refusal.
async fn enters(proxy: &Proxy, user: &str, password: &str) -> Result<String, SqlState> {
    let login = format!("user={user} password={password} dbname=shop");
    match connect_as(proxy, &login).await {
        Ok(client) => text(&client, "SELECT current_user").await.map_err(|error| code::<()>(Err(error))),
        Err(error) => Err(code::<()>(Err(error))),
    }
}

/// Tries until the outcome is this.
async fn until(proxy: &Proxy, user: &str, password: &str, outcome: Result<&str, SqlState>) -> Result<()> {
    let outcome = outcome.map(str::to_owned);
    while enters(proxy, user, password).await != outcome {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

#[test]
fn whoever_the_server_knows_is_let_in_and_nobody_else() -> Result<()> {
    run(async {
        let server = asked(&[])?;
        server.sql("shop", "CREATE ROLE past LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01'")?;
        server.sql("shop", "CREATE ROLE future LOGIN PASSWORD 'secret' VALID UNTIL '2999-01-01'")?;
        server.sql(
            "shop",
            "CREATE ROLE \"o'neil\" LOGIN PASSWORD 'secret'; CREATE ROLE group_of PASSWORD 'secret'",
        )?;
        let proxy = asking(&server, ASKING, "1h").start()?;
        // Neither a SCRAM verifier nor an md5 hash is a password: the server takes what the client proved.
        for user in ["app", "legacy", "future", "o\\'neil"] {
            assert_eq!(enters(&proxy, user, "secret").await, Ok(user.replace('\\', "")));
            assert_eq!(enters(&proxy, user, "wrong").await, Err(REFUSED), "{user}");
        }
        for user in ["past", "group_of", "plain", "nobody", "APP"] {
            assert_eq!(enters(&proxy, user, "secret").await, Err(REFUSED), "{user}");
        }
        Ok(())
    })
}

#[test]
fn who_is_configured_is_not_asked_for() -> Result<()> {
    run(async {
        let server = asked(&[])?;
        let config = format!("{ASKING}users: {{app: {{password: other, server_password: secret}}}}");
        let proxy = asking(&server, &config, "1h").start()?;
        assert_eq!(enters(&proxy, "app", "other").await, Ok("app".to_owned()));
        assert_eq!(enters(&proxy, "app", "secret").await, Err(REFUSED));
        assert_eq!(enters(&proxy, "legacy", "secret").await, Ok("legacy".to_owned()));
        Ok(())
    })
}

#[test]
fn a_failed_proof_asks_again_but_not_each_time() -> Result<()> {
    run(async {
        let server = asked(&[("log_statement", "all")])?;
        let proxy = asking(&server, ASKING, "1h").start()?;
        let questions = || server.log().lines().iter().filter(|line| line.contains("rolvaliduntil")).count();
        // Many at once are one question, and so are those who guess.
        let many = futures_util::future::join_all((0..20).map(|_| enters(&proxy, "app", "secret"))).await;
        assert!(many.iter().all(|entered| *entered == Ok("app".to_owned())), "{many:?}");
        assert_eq!(questions(), 1);
        let began = std::time::Instant::now();
        futures_util::future::join_all((0..50).map(|_| enters(&proxy, "app", "wrong"))).await;
        let seconds = usize::try_from(began.elapsed().as_secs())?;
        assert!(questions() <= 3 + seconds, "{} questions", questions());
        for role in ["app", "legacy"] {
            assert_eq!(enters(&proxy, role, "secret").await, Ok(role.to_owned()));
            let encryption = if role == "app" { "scram-sha-256" } else { "md5" };
            let change = "SET password_encryption = $E; ALTER ROLE $R PASSWORD 'changed'";
            server.sql("shop", &change.replace("$E", &format!("'{encryption}'")).replace("$R", role))?;
            until(&proxy, role, "changed", Ok(role)).await?;
            assert_eq!(enters(&proxy, role, "secret").await, Err(REFUSED));
        }
        // Nor is it remembered for long that somebody does not exist.
        assert_eq!(enters(&proxy, "late", "secret").await, Err(REFUSED));
        server.sql("shop", "CREATE ROLE late LOGIN PASSWORD 'secret'")?;
        until(&proxy, "late", "secret", Ok("late")).await
    })
}

#[test]
fn what_the_server_takes_back_ends_with_the_answers_time() -> Result<()> {
    run(async {
        let server = asked(&[])?;
        server.sql(
            "shop",
            "CREATE ROLE brief LOGIN PASSWORD 'secret'; CREATE ROLE gone LOGIN PASSWORD 'secret'",
        )?;
        let proxy = asking(&server, ASKING, "1s").start()?;
        for role in ["brief", "gone"] {
            assert_eq!(enters(&proxy, role, "secret").await, Ok(role.to_owned()));
        }
        server.sql("shop", "ALTER ROLE brief VALID UNTIL 'yesterday'; DROP ROLE gone")?;
        until(&proxy, "brief", "secret", Err(REFUSED)).await?;
        until(&proxy, "gone", "secret", Err(REFUSED)).await
    })
}

#[test]
fn no_search_path_leads_the_question_astray() -> Result<()> {
    run(async {
        let server = asked(&[])?;
        // A table, a function and an operator of the same names, before PostgreSQL's own for everybody, and for the one
        // who asks most of all.
        server.sql(
            "shop",
            "CREATE SCHEMA evil;
             CREATE TABLE evil.pg_authid AS SELECT rolname, 'evil'::text AS rolpassword, rolvaliduntil, rolcanlogin
               FROM pg_catalog.pg_authid;
             CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
             CREATE FUNCTION evil.never(timestamptz, timestamptz) RETURNS bool LANGUAGE sql AS $$ SELECT false $$;
             CREATE OPERATOR evil.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = evil.never);
             CREATE ROLE past LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01';
             GRANT USAGE ON SCHEMA evil TO PUBLIC; GRANT SELECT ON evil.pg_authid TO PUBLIC;
             ALTER DATABASE shop SET search_path = evil, pg_catalog;
             ALTER ROLE asker SET search_path = evil, pg_catalog",
        )?;
        let unqualified = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
                           FROM pg_authid WHERE rolname = $1 AND rolcanlogin";
        let config = ASKING.replace("ttl: $TTL", &format!("ttl: $TTL, query: '{unqualified}'"));
        // A `$1` of the file is the harness's, unless it is a value.
        let config = config.replace("$1", "$ONE");
        let proxy = asking(&server, &config, "1s").set("ONE", "$1").start()?;
        let hostile = |user: &str, password: &str| {
            format!("user={user} password={password} dbname=shop options='-c search_path=evil,pg_catalog'")
        };
        for _ in 0..3 {
            assert_eq!(code(connect_as(&proxy, &hostile("app", "evil")).await), REFUSED);
            assert_eq!(code(connect_as(&proxy, &hostile("past", "secret")).await), REFUSED);
            let client = connect_as(&proxy, &hostile("app", "secret")).await?;
            // The client has the path it asked for; it is the question that has not.
            assert_eq!(text(&client, "SHOW search_path").await?, "evil,pg_catalog");
            assert_eq!(text(&client, "SELECT now() = 'epoch'").await?, "t");
        }
        Ok(())
    })
}

#[test]
fn a_server_that_cannot_be_asked_makes_no_password_wrong() -> Result<()> {
    run(async {
        let server = asked(&[])?;
        let nobody = Port::reserve()?;
        let config = ASKING.replace("databases: {", "databases: {away: {endpoints: [$AWAY], connect: 1s}, ");
        let away = asking(&server, &config.replace("database: shop", "database: away"), "1s");
        let away = away.set("AWAY", nobody.address()).alive_is_enough().start()?;
        let unable = Err(SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
        assert_eq!(enters(&away, "app", "secret").await, unable);
        // The same for one who may not read, and one who is refused himself: it is not the client's password.
        let proxy = asking(&server, &ASKING.replace("password: ask", "password: wrong"), "1s").start()?;
        assert_eq!(enters(&proxy, "app", "secret").await, unable);
        server.sql("shop", "REVOKE SELECT ON pg_authid FROM asker")?;
        let proxy = asking(&server, ASKING, "1s").start()?;
        assert_eq!(enters(&proxy, "app", "secret").await, unable);
        let told = connect_as(&proxy, "user=app password=secret dbname=shop").await.err();
        let told =
            told.as_ref().and_then(|error| error.as_db_error()).map(|error| error.message().to_owned());
        assert_eq!(told.as_deref(), Some("could not ask the server who may log in"));
        // Nor for one that takes connections and never says a word.
        let mute = Scripted::start(|_, mut stream| {
            let _their_end = std::io::copy(&mut stream, &mut std::io::sink());
        })?;
        let away = asking(&server, &config.replace("database: shop", "database: away"), "1s");
        let away = away.set("AWAY", mute.address()).alive_is_enough().start()?;
        assert_eq!(enters(&away, "app", "secret").await, unable);
        // And once it answers, nothing of that is remembered.
        server.sql("shop", "GRANT SELECT ON pg_authid TO asker")?;
        assert_eq!(enters(&proxy, "app", "secret").await, Ok("app".to_owned()));
        Ok(())
    })
}

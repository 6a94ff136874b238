//! As whom a client's statements run: as the role it asked for, or not at all.

use anyhow::Result;
use harness::{Kind, Postgres, Proxy};
use tokio_postgres::error::SqlState;

use super::{CONFIG, code, connect, connect_as, proxy, run, text};

#[test]
fn a_role_that_is_refused_runs_nothing() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        server.sql("shop", "CREATE ROLE reader; CREATE ROLE \"jürgen\"; GRANT reader, \"jürgen\" TO app")?;
        server.sql("shop", "CREATE TABLE kept (n int); GRANT ALL ON kept TO app")?;
        let other = connect(&proxy, "shop").await?;
        for (role, extended) in [("reader", false), ("reader", true), ("jürgen", false)] {
            let login = format!("user=app password=secret dbname=shop options='-c role={role}'");
            let careful = connect_as(&proxy, &login).await?;
            for _ in 0..2 {
                assert_eq!(text(&careful, "SELECT current_user").await?, role);
                assert_eq!(text(&other, "SELECT current_user").await?, "app");
            }
            server.sql("shop", &format!("REVOKE \"{role}\" FROM app"))?;
            let insert = "INSERT INTO kept VALUES (1)";
            let refused = match extended {
                true => code(careful.execute(insert, &[]).await),
                false => code(careful.batch_execute(insert).await),
            };
            assert_eq!(refused, SqlState::INSUFFICIENT_PRIVILEGE, "the server's own word for it");
            assert_eq!(text(&other, "SELECT count(*) FROM kept").await?, "0", "{role}");
            server.sql("shop", &format!("GRANT \"{role}\" TO app"))?;
        }
        Ok(())
    })
}

#[test]
fn a_session_authorization_is_its_sessions_own() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let config =
            CONFIG.replace("users:\n", "users:\n  root: {password: secret, server_user: postgres}\n");
        let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
        let proxy = builder.set("SIZE", 2).set("WAIT", "30s").start()?;
        let login = "user=root password=secret dbname=shop";
        let options = "options='-c session_authorization=app -c log_min_messages=error'";
        let lowered = format!("{login} {options}");
        let (lowered, root) = tokio::join!(connect_as(&proxy, &lowered), connect_as(&proxy, login));
        let (lowered, root) = (lowered?, root?);
        let query = "SELECT session_user || ' ' || current_user || ' ' || current_setting('is_superuser') \
                     || ' ' || current_setting('log_min_messages')";
        for _ in 0..4 {
            // Both connections change hands.
            let (as_app, as_root) = tokio::join!(text(&lowered, query), text(&root, query));
            assert_eq!(as_app?, "app app off error");
            assert_eq!(as_root?, "postgres postgres on warning");
            lowered.batch_execute("BEGIN").await?;
            assert_eq!(text(&root, query).await?, "postgres postgres on warning");
            lowered.batch_execute("COMMIT").await?;
        }
        Ok(())
    })
}

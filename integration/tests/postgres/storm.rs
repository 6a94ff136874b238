//! A hundred clients that cancel at random, before, while and after their queries run.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use harness::Proxy;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::{TRUSTING, connect, roll};

const CLIENTS: u64 = 100;
/// How long, in seconds; `GROOVE_STORM=60` makes it a minute.
const LENGTH: u64 = 5;
/// Length of a query and moment of its cancel, in milliseconds.
const SPREAD: usize = 12;

/// What became of one client's queries.
#[derive(Default)]
struct Tally {
    answered: u64,
    cancelled: u64,
}

async fn client(proxy: &Proxy, number: u64, end: Instant) -> Result<Tally> {
    let client = connect(proxy, "shop").await?;
    let token = client.cancel_token();
    let mut dice = 0x9E37_79B9_7F4A_7C15 ^ (number + 1);
    let mut tally = Tally::default();
    for turn in 0_u64.. {
        if Instant::now() >= end {
            break;
        }
        let (length, at) = (roll(&mut dice, SPREAD), roll(&mut dice, SPREAD));
        let query = format!("SELECT '{number}/{turn}' FROM pg_sleep({length} * 0.001)");
        let cancels = roll(&mut dice, 2) == 0;
        let cancel = async {
            if cancels {
                sleep(Duration::from_millis(u64::try_from(at)?)).await;
                // As libpq does: the request has been acted on once the connection is closed.
                let mut stream = TcpStream::connect(proxy.address()).await?;
                token.cancel_query_raw(&mut stream, NoTls).await?;
                stream.read_to_end(&mut Vec::new()).await?;
            }
            anyhow::Ok(())
        };
        let (answer, sent) = tokio::join!(super::text(&client, &query), cancel);
        sent?;
        match answer {
            Ok(text) => {
                assert_eq!(text, format!("{number}/{turn}"), "another's answer");
                tally.answered += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
                assert!(cancels, "{query} was cancelled, and not by its client");
                tally.cancelled += 1;
            }
        }
    }
    Ok(tally)
}

#[test]
fn a_storm_of_cancels_hits_nobody_else() -> Result<()> {
    let length = std::env::var("GROOVE_STORM").ok().map_or(Ok(LENGTH), |seconds| seconds.parse())?;
    let server = harness::Postgres::start()?;
    let proxy =
        Proxy::of(harness::Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    let storm = async {
        let end = Instant::now() + Duration::from_secs(length);
        try_join_all((0..CLIENTS).map(|number| client(&proxy, number, end))).await
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tallies = runtime.block_on(storm)?;
    let (answered, cancelled) =
        tallies.iter().fold((0, 0), |sum, tally| (sum.0 + tally.answered, sum.1 + tally.cancelled));
    eprintln!("{CLIENTS} clients, {length} s: {answered} queries answered, {cancelled} cancelled");
    ensure!(answered > 0 && cancelled > 0, "the test tests nothing");
    Ok(())
}

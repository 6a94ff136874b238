//! Notifications by the thousand while everybody listens and leaves: what each client heard is held against a connection
//! of the server's own that heard all of it.
//!
//! A client knows of each of its times on a channel which notifications had certainly not been sent when its LISTEN came
//! back, and which certainly had been when it sent its UNLISTEN. It has to have heard all in between, once, in order, and
//! whatever else it heard at the edges has to join without a gap.
#![allow(clippy::indexing_slicing, reason = "in helpers of tests too, a panic is the report")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use super::super::roll;
use super::super::{proxy, run};
use super::{Ears, SHOP};

const CHANNELS: usize = 4;
const PUBLISHERS: usize = 3;
const LISTENERS: usize = 12;
const STEPS: usize = 120;

/// How many each publisher has begun to send, and sent, by channel.
#[derive(Default)]
struct Counts {
    begun: [[AtomicUsize; PUBLISHERS]; CHANNELS],
    sent: [[AtomicUsize; PUBLISHERS]; CHANNELS],
}

fn read(counts: &[AtomicUsize; PUBLISHERS]) -> [usize; PUBLISHERS] {
    [0, 1, 2].map(|publisher| counts[publisher].load(SeqCst))
}

/// One time of a client's on a channel.
struct Stay {
    channel: usize,
    heard: Vec<String>,
    /// What had been begun when it was surely there, and sent when it was surely still there.
    from: [usize; PUBLISHERS],
    to: [usize; PUBLISHERS],
}

async fn publish(ears: Ears, publisher: usize, counts: Arc<Counts>, stop: Arc<AtomicBool>) -> Result<()> {
    let mut dice = 77 + publisher as u64;
    while !stop.load(SeqCst) {
        let channel = roll(&mut dice, CHANNELS);
        let number = counts.begun[channel][publisher].fetch_add(1, SeqCst) + 1;
        ears.run(&format!("NOTIFY c{channel}, '{publisher}:{number}'")).await?;
        counts.sent[channel][publisher].store(number, SeqCst);
    }
    Ok(())
}

async fn churn(mut ears: Ears, number: usize, counts: Arc<Counts>) -> Result<Vec<Stay>> {
    let mut dice = 0x9E37_79B9 + number as u64;
    let mut open: [Option<Stay>; CHANNELS] = [const { None }; CHANNELS];
    let mut stays = Vec::new();
    for _ in 0..STEPS {
        let channel = roll(&mut dice, CHANNELS);
        match (roll(&mut dice, 8), open[channel].take()) {
            (0, stay) => {
                open[channel] = stay;
                ears.run(&format!("BEGIN; LISTEN c{channel}; UNLISTEN c{channel}; ROLLBACK")).await?;
            }
            // Once more while it listens.
            (1, Some(stay)) => {
                open[channel] = Some(stay);
                ears.run(&format!("LISTEN c{channel}")).await?;
            }
            (2, stay) => {
                open[channel] = stay;
                ears.run("BEGIN; SELECT 1; COMMIT").await?;
            }
            (_, None) => {
                let way = ["LISTEN c", "BEGIN; SELECT 1; LISTEN c"][roll(&mut dice, 2)];
                let end = if way.starts_with('B') { "; COMMIT" } else { "" };
                ears.run(&format!("{way}{channel}{end}")).await?;
                let from = read(&counts.begun[channel]);
                open[channel] = Some(Stay { channel, heard: Vec::new(), from, to: [0; PUBLISHERS] });
            }
            (_, Some(mut stay)) => {
                stay.to = read(&counts.sent[channel]);
                ears.run(&format!("UNLISTEN c{channel}")).await?;
                open[channel] = Some(stay);
                take_in(&mut ears, &mut open)?;
                stays.extend(open[channel].take());
            }
        }
        take_in(&mut ears, &mut open)?;
    }
    Ok(stays)
}

/// Sorts what is here by channels; nothing may be here of a channel that was left.
fn take_in(ears: &mut Ears, open: &mut [Option<Stay>; CHANNELS]) -> Result<()> {
    for (channel, payload) in ears.here() {
        let stay = open.iter_mut().flatten().find(|stay| format!("c{}", stay.channel) == channel);
        stay.with_context(|| format!("{payload} of {channel}, which was left"))?.heard.push(payload);
    }
    Ok(())
}

/// Whether the client heard what it had to.
fn check(stay: &Stay, all: &[String], places: &HashMap<&str, usize>) -> Result<()> {
    let first = stay.heard.first().map(|first| places[first.as_str()]);
    let heard = first.map_or(&[][..], |first| &all[first..first + stay.heard.len()]);
    ensure!(heard == stay.heard, "heard {:?} of {heard:?}", stay.heard);
    for publisher in 0..PUBLISHERS {
        for number in stay.from[publisher] + 1..=stay.to[publisher] {
            let payload = format!("{publisher}:{number}");
            ensure!(stay.heard.contains(&payload), "{payload} is missing in {:?}", stay.heard);
        }
    }
    Ok(())
}

#[test]
fn nobody_misses_or_hears_twice_in_a_storm() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(6)?;
        let direct: SocketAddr = server.address().to_string().parse()?;
        let mut reference = Ears::open(direct, SHOP).await?;
        for channel in 0..CHANNELS {
            reference.run(&format!("LISTEN c{channel}")).await?;
        }
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let mut publishers = Vec::new();
        for publisher in 0..PUBLISHERS {
            // One of them past the proxy.
            let address = if publisher == 0 { direct } else { proxy.address() };
            let ears = Ears::open(address, SHOP).await?;
            publishers.push(tokio::spawn(publish(ears, publisher, Arc::clone(&counts), Arc::clone(&stop))));
        }
        let mut clients = Vec::new();
        for number in 0..LISTENERS {
            // Some have a server of their own: what is asked for here is what PostgreSQL does.
            let address = if number % 4 == 0 { direct } else { proxy.address() };
            let ears = Ears::open(address, SHOP).await?;
            clients.push(tokio::spawn(churn(ears, number, Arc::clone(&counts))));
        }
        let stays: Vec<Vec<Stay>> = try_join_all(clients).await?.into_iter().collect::<Result<_>>()?;
        stop.store(true, SeqCst);
        try_join_all(publishers).await?.into_iter().collect::<Result<()>>()?;
        server.sql("shop", "NOTIFY c0, 'end'")?;
        let mut all = vec![Vec::new(); CHANNELS];
        for (channel, payload) in reference.until("end").await? {
            all[channel[1..].parse::<usize>()?].push(payload);
        }
        let places: Vec<HashMap<&str, usize>> = all
            .iter()
            .map(|all| all.iter().enumerate().map(|(place, payload)| (payload.as_str(), place)).collect())
            .collect();
        let mut heard = 0;
        for (number, stays) in stays.iter().enumerate() {
            for (at, stay) in stays.iter().enumerate() {
                let outcome = check(stay, &all[stay.channel], &places[stay.channel]);
                outcome.with_context(|| format!("client {number}, stay {at} on c{}", stay.channel))?;
                heard += stay.heard.len();
            }
        }
        ensure!(heard > 1000, "{heard} notifications: no storm");
        ensure!(super::gauge(&proxy, "groove_postgres_pinned")? == 0.0);
        Ok(())
    })
}

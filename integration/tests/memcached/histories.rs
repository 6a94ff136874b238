//! What many clients see through sidecars, checked operation by operation; `memcached-checker` runs it for longer.

use anyhow::{Context, Result};
use harness::checker::{Change, Plan, Protocol, What};

fn plan() -> Plan {
    Plan { operations: 60_000, steady_keys: 1000, protocols: vec![Protocol::Classic], ..Plan::default() }
}

#[test]
fn servers_that_die_lose_values_and_nothing_else() -> Result<()> {
    let outcome = Plan { change: Change::Never, ..plan() }.run()?;
    assert!(outcome.report.counts.is_empty(), "{outcome}");
    assert!(outcome.unknown > 0, "the server that was killed was not missed: {outcome}");
    Ok(())
}

#[test]
fn servers_that_join_by_a_resize_cost_nothing() -> Result<()> {
    let protocols = vec![Protocol::Classic, Protocol::Meta];
    let outcome = Plan { sizes: vec![5], kill: false, protocols, ..plan() }.run()?;
    assert!(outcome.is_clean(Change::Resize), "{outcome}");
    outcome.hits.least().context("too few retrievals to compare")?;
    assert_eq!(outcome.hits.broken().count(), 0, "{outcome}");
    Ok(())
}

/// The proof that the checker can fail: what happens where sidecars do not agree.
#[test]
fn sidecars_with_different_lists_are_caught() -> Result<()> {
    let outcome = Plan { change: Change::Split, sidecars: 2, kill: false, ..plan() }.run()?;
    for what in [What::StaleRead, What::LostDelete, What::Returned, What::WrongSwap, What::LostStep] {
        assert!(outcome.report.counts.contains_key(&what), "no {what}: {outcome}");
    }
    Ok(())
}

//! Writes that do not ask what was there before, and `add`.

use super::{Moving, Phase};
use crate::program::found::done;
use crate::program::steps::Stop;
use crate::program::{Node, Nodes, Outcome, Told};
use crate::wire::meta::{Mode, Status, Store, Wants};

impl<N: Nodes> Moving<'_, N> {
    pub(super) async fn set(&self, store: Store<'_>) -> Result<Outcome, Stop> {
        let (home, _) = self.home_and_other();
        match self.at.phase {
            Phase::B | Phase::G => self.store(home, store).await,
            // Two sidecars with different homes may write at once. The version is seen first, then the other
            // copy killed: whoever of the two stores second finds its version gone, and begins again.
            Phase::C | Phase::E => {
                let pin = self.steps.claim(home, Wants::NOTHING).await?.claimed()?;
                self.kill_other(home).await?;
                let told = self.steps.store_if(home, pin, store).await?.or_again()?;
                Ok(done(self.request, store.wants, home, &told))
            }
            // Nobody writes to old any more.
            Phase::F => {
                self.kill_other(home).await?;
                self.store(home, store).await
            }
        }
    }

    /// The order is old, new in every phase: the other way round, what is read at old between the two could be
    /// copied to new behind the second.
    pub(super) async fn delete(&self, wants: Wants) -> Result<Outcome, Stop> {
        let mut was_there = false;
        for (node, phases) in [(Node::Old, Phase::B..=Phase::F), (Node::New, Phase::C..=Phase::G)] {
            if phases.contains(&self.at.phase) {
                was_there |= self.steps.kill(node).await?;
            }
        }
        Ok(self.bare(wants, if was_there { Status::Done } else { Status::NotFound }))
    }

    pub(super) async fn add(&self, store: Store<'_>) -> Result<Outcome, Stop> {
        Ok(match self.add_to(store).await? {
            Some((node, told)) => done(self.request, store.wants, node, &told),
            None => self.bare(store.wants, Status::NotStored),
        })
    }

    /// Where it was added, and what the server told; none if the key is there already.
    pub(super) async fn add_to(&self, store: Store<'_>) -> Result<Option<(Node, Told)>, Stop> {
        let (home, other) = self.home_and_other();
        let reads_both = matches!(self.at.phase, Phase::C | Phase::E);
        let seen = match reads_both {
            true => self.steps.claim(home, Wants::NOTHING).await?,
            // No stubs where they would outlive the change.
            false => self.steps.look(home, Wants::NOTHING).await?,
        };
        if seen.is_value() || reads_both && self.steps.look(other, Wants::NOTHING).await?.is_value() {
            return Ok(None);
        }
        self.kill_other(home).await?;
        let told = match seen.pin() {
            Some(pin) => self.steps.store_if(home, pin, Store { mode: Mode::Set, ..store }).await?,
            // What came in between may be a stub, which only another look can tell.
            None => self.steps.store(home, Store { mode: Mode::Add, ..store }).await?,
        };
        Ok(Some((home, told.or_again()?)))
    }

    async fn store(&self, node: Node, store: Store<'_>) -> Result<Outcome, Stop> {
        let told = self.steps.store(node, store).await?.or_again()?;
        Ok(done(self.request, store.wants, node, &told))
    }
}

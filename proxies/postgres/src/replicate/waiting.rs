//! Waiting for locks: with an end, in turn, and given back whatever becomes of who holds them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::locks::{Asked, Owner, Table, Wants};

/// The locks of one group.
#[derive(Debug, Default)]
pub struct Locks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    woken: HashMap<Owner, oneshot::Sender<()>>,
    last: Owner,
}

/// Why they are not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Two transactions waited for each other.
    Deadlock,
    /// Whoever holds them takes too long.
    Late,
}

/// What one transaction holds; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    locks: Arc<Locks>,
    owner: Owner,
}

impl Locks {
    /// For a transaction that begins. It holds nothing yet.
    pub fn owner(self: &Arc<Locks>) -> Held {
        let mut state = self.state.lock();
        state.last += 1;
        Held { locks: Arc::clone(self), owner: state.last }
    }

    /// How many hold something, and how many wait.
    pub fn counts(&self) -> (usize, usize) {
        self.state.lock().table.counts()
    }
}

impl State {
    fn wake(&mut self, granted: Vec<Owner>) {
        for owner in granted {
            if let Some(woken) = self.woken.remove(&owner) {
                // One that has gone meanwhile gives back what it got.
                let _gone = woken.send(());
            }
        }
    }
}

impl Held {
    /// Takes more, once those who are before it have ended.
    pub async fn take(&self, wants: Wants, time_max: Duration) -> Result<(), Denied> {
        let woken = {
            let mut state = self.locks.state.lock();
            match state.table.ask(self.owner, wants) {
                Asked::Granted => return Ok(()),
                Asked::Deadlock => return Err(Denied::Deadlock),
                Asked::Waits => {}
            }
            let (wake, woken) = oneshot::channel();
            state.woken.insert(self.owner, wake);
            woken
        };
        let place = Place(self);
        let granted = matches!(timeout(time_max, woken).await, Ok(Ok(())));
        drop(place);
        if granted { Ok(()) } else { Err(Denied::Late) }
    }
}

/// A place in line, which is left when nobody waits there any more.
struct Place<'a>(&'a Held);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.locks.state.lock();
        // Who was granted is not in line any more, and keeps what it has.
        if state.woken.remove(&self.0.owner).is_some() {
            let granted = state.table.give_up(self.0.owner);
            state.wake(granted);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.locks.state.lock();
        state.woken.remove(&self.owner);
        let granted = state.table.release(self.owner);
        state.wake(granted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn who_gives_up_does_not_stand_in_the_way() {
        let locks = Arc::new(Locks::default());
        let (one, two, three) = (locks.owner(), locks.owner(), locks.owner());
        let reads = Wants { reads: [1].into(), ..Wants::default() };
        one.take(reads.clone(), LONG).await.unwrap();
        assert_eq!(two.take(Wants::everything(), SOON).await, Err(Denied::Late));
        assert_eq!(three.take(reads, LONG).await, Ok(()));
        drop((one, three));
        assert_eq!(two.take(Wants::everything(), LONG).await, Ok(()));
        drop(two);
        assert_eq!(locks.counts(), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let locks = Arc::new(Locks::default());
        let one = locks.owner();
        one.take(Wants::everything(), LONG).await.unwrap();
        let two = locks.owner();
        let waits = tokio::spawn(async move { two.take(Wants::everything(), LONG).await });
        while locks.counts() != (1, 1) {
            tokio::task::yield_now().await;
        }
        drop(one);
        assert_eq!(waits.await.unwrap(), Ok(()));
    }
}

//! The mailbox and the board by themselves, and sessions that change over from a connection of their own to the board's
//! while others send: what each hears is held against the server's queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use groove_common::testing::{Dice, simulate};

use super::*;

fn channel(name: &str) -> Channel {
    Channel::from(name.as_bytes())
}

fn taken(mailbox: &Mailbox) -> String {
    String::from_utf8(mailbox.take().unwrap().to_vec()).unwrap()
}

#[test]
fn a_mailbox_is_emptied_whole_and_ends_when_nobody_does() {
    let mailbox = Mailbox::default();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(mailbox.poll_take(false, &mut cx).is_pending());
    assert!(mailbox.push(b"a") && mailbox.push(b"b"));
    assert!(mailbox.poll_take(true, &mut cx).is_pending(), "no room for it");
    assert!(matches!(mailbox.poll_take(false, &mut cx), Poll::Ready(Ok(frames)) if &frames[..] == b"ab"));
    // One that is lost is read to its end, one that is full is not.
    assert!(mailbox.push(b"c"));
    mailbox.end(Ended::Lost);
    assert!(!mailbox.push(b"d"));
    assert_eq!(taken(&mailbox), "c");
    assert!(matches!(mailbox.poll_take(true, &mut cx), Poll::Ready(Err(Ended::Lost))));

    let mailbox = Mailbox::default();
    let frame = vec![0; MAILBOX_BYTES_MAX / 2];
    assert!(mailbox.push(&frame) && mailbox.push(&frame) && !mailbox.push(b"a"));
    assert!(matches!(mailbox.poll_take(true, &mut cx), Poll::Ready(Err(Ended::Full))));
}

#[test]
fn the_reader_of_a_mailbox_is_woken_for_what_comes_and_for_its_end() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let count = Arc::new(Count(Default::default()));
    let woken = || count.0.load(std::sync::atomic::Ordering::Relaxed);
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let mailbox = Mailbox::default();
    assert!(mailbox.poll_take(false, &mut cx).is_pending());
    mailbox.push(b"a");
    assert_eq!(woken(), 1);
    assert!(mailbox.poll_take(true, &mut cx).is_pending());
    mailbox.end(Ended::Full);
    assert_eq!(woken(), 2);
}

#[test]
fn the_connection_is_told_of_the_first_and_the_last_of_a_channel() {
    let mut board = Board::default();
    let (one, two) = (board.sit(Arc::default()), board.sit(Arc::default()));
    let (a, odd) = (channel("a"), channel("o\"d"));
    board.join(one, &[Arc::clone(&a), Arc::clone(&odd)]).unwrap();
    assert_eq!(&board.take_orders()[..], b"LISTEN \"a\";LISTEN \"o\"\"d\";");
    board.join(two, &[Arc::clone(&a)]).unwrap();
    assert_eq!(&board.take_orders()[..], b"");
    assert_eq!(board.channels(), 2);
    board.leave(one, &[Arc::clone(&a), channel("b")]);
    board.part(one);
    assert_eq!(&board.take_orders()[..], b"UNLISTEN \"o\"\"d\";");
    // Gone and back before it was told.
    board.leave(two, &[Arc::clone(&a)]);
    board.join(two, &[Arc::clone(&a)]).unwrap();
    assert_eq!(&board.take_orders()[..], b"");
    board.part(two);
    board.part(two);
    assert_eq!(&board.take_orders()[..], b"UNLISTEN \"a\";");
    assert!(board.is_empty() && board.channels() == 0);
}

#[test]
fn when_the_connection_ends_everybody_is_told_and_nobody_has_a_place() {
    let mut board = Board::default();
    let mailbox = Arc::<Mailbox>::default();
    let seat = board.sit(Arc::clone(&mailbox));
    let mark = board.join(seat, &[channel("a")]).unwrap();
    board.end(Ended::Replaced);
    assert_eq!(mailbox.take(), Err(Ended::Replaced));
    assert!(!board.has(seat) && !board.marked(mark) && board.join(seat, &[channel("a")]).is_none());
    assert_ne!(board.sit(Arc::default()), seat);
}

/// What is in the server's queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Said { channel: usize, number: u8 },
    Mark(u64),
}

/// Where a session is on its way to a channel.
enum Stage {
    Away,
    /// Its own connection listens from here on.
    Own {
        from: usize,
    },
    /// The board has its place, and has yet to tell the hub's connection.
    Joined {
        from: usize,
        mark: u64,
    },
    /// Its mark is in the queue.
    Marked {
        from: usize,
        at: usize,
        mark: u64,
    },
    /// The board hears for it.
    There {
        from: usize,
    },
}

/// A hub's connection that reads the queue in its own time, before which sessions come and go.
struct Simulation {
    dice: Dice,
    queue: Vec<Entry>,
    board: Board,
    /// Where the hub's connection is in the queue, and what it listens to.
    at: usize,
    listens: BTreeSet<Vec<u8>>,
    told: bool,
    sessions: Vec<Session>,
}

struct Session {
    seat: SeatId,
    mailbox: Arc<Mailbox>,
    stages: BTreeMap<usize, Stage>,
    /// On the channels where it is now.
    heard: Vec<u8>,
}

const CHANNELS: [&str; 3] = ["a", "b", "c"];

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut board = Board::default();
        let sessions = (0..4).map(|_| {
            let mailbox = Arc::<Mailbox>::default();
            let seat = board.sit(Arc::clone(&mailbox));
            Session { seat, mailbox, stages: BTreeMap::new(), heard: Vec::new() }
        });
        let sessions = sessions.collect();
        let (queue, listens) = (Vec::new(), BTreeSet::new());
        Simulation { dice: Dice::new(seed), queue, board, at: 0, listens, told: false, sessions }
    }

    /// The hub's connection carries out what it is told.
    fn tell(&mut self) {
        let orders = self.board.take_orders();
        for order in String::from_utf8(orders.to_vec()).unwrap().split_terminator(';') {
            let (command, name) = order.split_once(' ').unwrap();
            let name = name.trim_matches('"').as_bytes().to_vec();
            let is_news =
                if command == "LISTEN" { self.listens.insert(name) } else { self.listens.remove(&name) };
            assert!(is_news, "{order} again");
        }
        self.told = true;
    }

    /// The hub's connection reads on.
    fn hear(&mut self) {
        match self.queue.get(self.at) {
            Some(Entry::Said { channel, number }) if self.listens.contains(CHANNELS[*channel].as_bytes()) => {
                self.board.dispatch(CHANNELS[*channel].as_bytes(), &[*number]);
            }
            Some(Entry::Mark(mark)) => assert!(self.board.marked(*mark)),
            Some(Entry::Said { .. }) => {}
            None => return,
        }
        self.at += 1;
    }

    /// A session goes on with one of its channels.
    fn session(&mut self, session: usize, on: usize) {
        let name = [channel(CHANNELS[on])];
        let Session { seat, mailbox, stages, heard } = &mut self.sessions[session];
        let end = self.queue.len();
        let stage = stages.remove(&on).unwrap_or(Stage::Away);
        let next = match stage {
            Stage::Away => Stage::Own { from: end },
            Stage::Own { from } => {
                self.told = false;
                Stage::Joined { from, mark: self.board.join(*seat, &name).unwrap() }
            }
            Stage::Joined { from, mark } if self.told => {
                self.queue.push(Entry::Mark(mark));
                // Its own connection comes to it before it is asked anything else.
                heard.extend(self.queue[from..end].iter().filter_map(|entry| match entry {
                    Entry::Said { channel, number } if *channel == on => Some(*number),
                    Entry::Said { .. } | Entry::Mark(_) => None,
                }));
                Stage::Marked { from, at: end, mark }
            }
            Stage::Marked { from, at, .. } if self.at > at => Stage::There { from },
            Stage::Joined { from, mark } => Stage::Joined { from, mark },
            Stage::Marked { from, at, mark } => Stage::Marked { from, at, mark },
            Stage::There { from } => {
                while self.at < end {
                    self.hear();
                }
                let Session { seat, mailbox, stages, heard } = &mut self.sessions[session];
                heard.extend_from_slice(&mailbox.take().unwrap());
                self.board.leave(*seat, &name);
                let due = self.queue[from..end].iter().filter_map(|entry| match entry {
                    Entry::Said { channel, number } if *channel == on => Some(*number),
                    Entry::Said { .. } | Entry::Mark(_) => None,
                });
                let of_this = |number: &&u8| usize::from(**number) % CHANNELS.len() == on;
                assert_eq!(
                    heard.iter().filter(of_this).copied().collect::<Vec<_>>(),
                    due.collect::<Vec<_>>()
                );
                heard.retain(|number| !of_this(&number));
                stages.remove(&on);
                return;
            }
        };
        heard.extend_from_slice(&mailbox.take().unwrap());
        stages.insert(on, next);
    }

    fn step(&mut self) {
        match self.dice.below(8) {
            0..2 if self.queue.len() < 80 => {
                let channel = self.dice.below(CHANNELS.len());
                // It tells its channel.
                let number = u8::try_from(self.queue.len() * CHANNELS.len() + channel).unwrap();
                self.queue.push(Entry::Said { channel, number });
            }
            2..4 => self.hear(),
            4 => self.tell(),
            _ => {
                let (session, on) = (self.dice.below(self.sessions.len()), self.dice.below(CHANNELS.len()));
                self.session(session, on);
            }
        }
    }
}

#[test]
fn who_changes_over_to_the_board_hears_everything_once_and_in_order() {
    simulate(512, |dice| {
        let mut simulation = Simulation::new(dice.roll());
        (0..400).for_each(|_| simulation.step());
    });
}

//! Copies that say what the test wants them to say.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{pending, ready};

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::program::Link;
use crate::wire::meta::{Arith, Reply};

/// What each copy says, in turn. One that has nothing to say never answers.
#[derive(Default)]
struct Scripted {
    says: RefCell<HashMap<u8, Vec<Result<Status, Failure>>>>,
    asked: RefCell<Vec<String>>,
}

impl Scripted {
    fn new<const N: usize>(says: [(u8, &[Result<Status, Failure>]); N]) -> Self {
        let says = says.map(|(copy, says)| (copy, says.to_vec()));
        Self { says: RefCell::new(says.into()), asked: RefCell::default() }
    }

    fn run(&self, op: Op<'_>, first: u8, late: impl Future<Output = ()>) -> Result<(u8, Status), Failure> {
        let request = Request { key: b"k", is_coded: false, op };
        let copies = Copies { count: 3, first };
        let outcome = run(self, copies, &request, late).now_or_never().unwrap()?;
        let Some(Origin { node: Node::Replica(copy), .. }) = outcome.origin else { panic!() };
        Ok((copy, outcome.reply.status))
    }

    fn asked(&self) -> String {
        self.asked.borrow().join(" ")
    }
}

impl Nodes for Scripted {
    async fn ask(&self, node: Node, request: &Request<'_>, _: Option<Link>) -> Result<Told, Failure> {
        let Node::Replica(copy) = node else { panic!() };
        let what = match request.op {
            Op::Get(_) => "get",
            Op::Store(_) => "store",
            Op::Delete(_) => "delete",
            Op::Arith(_) => "arith",
            Op::Debug => "debug",
        };
        self.asked.borrow_mut().push(format!("{what}{copy}"));
        let said = {
            let mut says = self.says.borrow_mut();
            let says = says.entry(copy).or_default();
            if says.is_empty() { None } else { Some(says.remove(0)) }
        };
        let Some(said) = said else { return pending().await };
        Ok(Told { reply: Reply::new(said?, Bytes::new(), Bytes::new()), link: Link(copy.into()) })
    }
}

const HIT: Result<Status, Failure> = Ok(Status::Value);
const DONE: Result<Status, Failure> = Ok(Status::Done);
const MISS: Result<Status, Failure> = Ok(Status::Miss);
const NOT_FOUND: Result<Status, Failure> = Ok(Status::NotFound);
const LOST: Result<Status, Failure> = Err(Failure::Lost);
const DOWN: Result<Status, Failure> = Err(Failure::Down);

fn get() -> Op<'static> {
    Op::Get(Get { wants: Wants::ITEM, ..Get::default() })
}

fn set() -> Op<'static> {
    static VALUE: Bytes = Bytes::from_static(b"v");
    Op::Store(Store::new(Mode::Set, &VALUE))
}

#[test]
fn a_read_goes_on_until_a_copy_has_it() {
    let nodes = Scripted::new([(0, &[DOWN]), (1, &[MISS]), (2, &[HIT])]);
    assert_eq!(nodes.run(get(), 0, pending()), Ok((2, Status::Value)));
    assert_eq!(nodes.asked(), "get0 get1 get2");
    let nodes = Scripted::new([(1, &[HIT])]);
    assert_eq!(nodes.run(get(), 1, pending()), Ok((1, Status::Value)));
    let nodes = Scripted::new([(0, &[MISS]), (1, &[LOST]), (2, &[DOWN])]);
    assert_eq!(nodes.run(get(), 2, pending()).map(|(_, status)| status), Ok(Status::Miss));
    let nodes = Scripted::new([(0, &[LOST]), (1, &[DOWN]), (2, &[DOWN])]);
    assert_eq!(nodes.run(get(), 0, pending()), Err(Failure::Lost));
}

#[test]
fn a_late_read_asks_another_copy() {
    let nodes = Scripted::new([(1, &[HIT])]);
    assert_eq!(nodes.run(get(), 0, ready(())), Ok((1, Status::Value)));
    assert_eq!(nodes.asked(), "get0 get1");
    // The second is not there: the first is still waited for, by asking it again.
    let nodes = Scripted::new([(1, &[DOWN]), (2, &[HIT])]);
    let request = Request { key: b"k", is_coded: false, op: get() };
    let copies = Copies { count: 3, first: 0 };
    assert!(run(&nodes, copies, &request, ready(())).now_or_never().is_none());
    // Without a reason to hurry nobody else is asked.
    let nodes = Scripted::new([(1, &[HIT])]);
    assert!(run(&nodes, copies, &request, pending()).now_or_never().is_none());
    assert_eq!(nodes.asked(), "get0");
}

#[test]
fn a_write_goes_to_all_and_counts_when_all_that_are_there_have_it() {
    let nodes = Scripted::new([(0, &[DONE]), (1, &[DONE]), (2, &[DOWN])]);
    assert_eq!(nodes.run(set(), 1, pending()), Ok((0, Status::Done)));
    assert_eq!(nodes.asked(), "store0 store1 store2");
    let nodes = Scripted::new([(0, &[DONE]), (1, &[LOST]), (2, &[DONE])]);
    assert_eq!(nodes.run(set(), 0, pending()), Err(Failure::Lost));
    let nodes = Scripted::new([(0, &[DOWN]), (1, &[DONE]), (2, &[DONE])]);
    assert_eq!(nodes.run(set(), 0, pending()), Err(Failure::Down));
    // A copy without room for it must not keep the old value.
    let nodes = Scripted::new([(0, &[DONE]), (1, &[Ok(Status::Error), DONE]), (2, &[DONE])]);
    assert_eq!(nodes.run(set(), 0, pending()), Ok((0, Status::Done)));
    assert_eq!(nodes.asked(), "store0 store1 delete1 store2");
    let delete = Op::Delete(Delete::default());
    let nodes = Scripted::new([(0, &[NOT_FOUND]), (1, &[DONE]), (2, &[NOT_FOUND])]);
    assert_eq!(nodes.run(delete, 0, pending()), Ok((0, Status::NotFound)));
}

#[test]
fn the_main_copy_decides_and_the_others_forget() {
    let nodes = Scripted::new([(0, &[HIT]), (1, &[DONE]), (2, &[NOT_FOUND])]);
    assert_eq!(nodes.run(Op::Arith(Arith::up(1)), 1, pending()), Ok((0, Status::Value)));
    assert_eq!(nodes.asked(), "arith0 delete1 delete2");
    let nodes = Scripted::new([(0, &[HIT]), (1, &[LOST]), (2, &[DONE])]);
    assert_eq!(nodes.run(Op::Arith(Arith::up(1)), 1, pending()), Err(Failure::Lost));
    // What has changed nothing leaves them alone; CAS values are the main copy's.
    let nodes = Scripted::new([(0, &[NOT_FOUND, HIT])]);
    assert_eq!(nodes.run(Op::Arith(Arith::up(1)), 1, pending()), Ok((0, Status::NotFound)));
    let gets = Op::Get(Get { wants: Wants::ITEM.and(Wants::CAS), ..Get::default() });
    assert_eq!(nodes.run(gets, 1, pending()), Ok((0, Status::Value)));
    assert_eq!(nodes.asked(), "arith0 get0");
}

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Set for the children that the tests start.
const ROLE: &str = "GROOVE_STORE_TEST_ROLE";
const PLACE: &str = "GROOVE_STORE_TEST_PLACE";

fn open() -> (TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    let store = Files::open(folder.path()).unwrap();
    (folder, store)
}

async fn value(store: &Files, name: &str) -> Option<String> {
    let entry = store.get(name).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn names(store: &Files, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|(name, _)| name).collect()
}

/// Looks again at each change until it is as wanted.
async fn until(store: &Files, mut is_so: impl AsyncFnMut() -> bool) {
    let mut watch = store.watch("").await.unwrap();
    let wait = async {
        while !is_so().await {
            watch.changed().await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap();
}

#[tokio::test]
async fn a_put_is_only_done_if_what_was_expected_is_so() {
    let (_folder, store) = open();
    let put = async |text: &'static str, expect| store.put("a/b", Bytes::from(text), expect).await.unwrap();
    assert_eq!(value(&store, "a/b").await, None);
    assert_eq!(put("0", Expect::Revision(Revision(1))).await, Put::Conflict);
    let Put::Done(first) = put("1", Expect::Absent).await else { panic!() };
    assert_eq!(put("2", Expect::Absent).await, Put::Conflict);
    let Put::Done(second) = put("3", Expect::Revision(first)).await else { panic!() };
    assert!(second > first);
    assert_eq!(put("4", Expect::Revision(first)).await, Put::Conflict);
    assert_eq!(value(&store, "a/b").await.as_deref(), Some("3"));
    assert_eq!(store.remove("a/b", Expect::Revision(first)).await.unwrap(), Put::Conflict);
    assert!(matches!(store.remove("a/b", Expect::Revision(second)).await.unwrap(), Put::Done(_)));
    // A name that comes again is another one: its revision was never there.
    let Put::Done(again) = put("5", Expect::Absent).await else { panic!() };
    assert!(again.0 > second.0 + 1, "{again:?} {second:?}");
    assert!(matches!(put("6", Expect::Anything).await, Put::Done(_)));
}

#[tokio::test]
async fn names_and_values_have_bounds() {
    let (_folder, store) = open();
    for name in ["", "/", "a//b", "../a", "a/.b", "a+b", "a b", &"x".repeat(201)] {
        let put = store.put(name, Bytes::new(), Expect::Anything).await;
        assert!(matches!(put, Err(StoreError::Unfit(..))), "{name}: {put:?}");
        assert!(store.get(name).await.is_err() && store.present(name, Bytes::new()).await.is_err(), "{name}");
    }
    let put = |len| store.put("x", Bytes::from(vec![7; len]), Expect::Anything);
    assert!(put(VALUE_LEN_MAX).await.is_ok());
    assert!(put(VALUE_LEN_MAX + 1).await.is_err());
    assert_eq!(store.get("x").await.unwrap().unwrap().value.len(), VALUE_LEN_MAX);
}

#[tokio::test]
async fn lists_are_by_prefix_and_in_order() {
    let (_folder, store) = open();
    for name in ["b/2", "a", "b/1", "bc", "b/1/x"] {
        store.put(name, Bytes::from(name), Expect::Absent).await.unwrap();
    }
    assert_eq!(names(&store, "b/").await, ["b/1", "b/1/x", "b/2"]);
    assert_eq!(names(&store, "").await, ["a", "b/1", "b/1/x", "b/2", "bc"]);
}

#[tokio::test]
async fn a_presence_lasts_as_long_as_its_holder() {
    let (folder, store) = open();
    let other = Files::open(folder.path()).unwrap();
    let held = store.present("who/me", Bytes::from("1")).await.unwrap().unwrap();
    assert!(other.present("who/me", Bytes::from("2")).await.unwrap().is_none());
    // Although somebody holds the lock.
    let lock = std::fs::File::open(folder.path().join("lock")).unwrap();
    lock.lock().unwrap();
    held.update(Bytes::from("3")).await.unwrap();
    drop(lock);
    assert_eq!(value(&other, "who/me").await.as_deref(), Some("3"));
    assert!(timeout(Duration::ZERO, held.lost()).await.is_err());
    drop(held);
    assert_eq!(names(&other, "who/").await, [""; 0]);
    let held = other.present("who/me", Bytes::from("4")).await.unwrap();
    assert!(held.is_some());
    assert_eq!(value(&store, "who/me").await.as_deref(), Some("4"));
}

/// As the stores of one process are, and of two containers that share a folder and have the same process number.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_are_there_do_not_write_into_each_others_files() {
    let (folder, store) = open();
    let writers = (0..4).map(|writer| {
        let store = Files::open(folder.path()).unwrap();
        tokio::spawn(async move {
            let name = format!("who/{writer}");
            let held = store.present(&name, Bytes::new()).await.unwrap().unwrap();
            for round in 0..100 {
                // Those that are given up go on, but are not written over one that came after them.
                for _ in 0..3 {
                    _ = held.update(Bytes::from("given up")).now_or_never();
                }
                let text = format!("{writer} ").repeat(round);
                held.update(Bytes::from(text.clone())).await.unwrap();
                assert_eq!(value(&store, &name).await, Some(text));
            }
            held
        })
    });
    let writers: Vec<_> = writers.collect();
    while !writers.iter().all(|writer| writer.is_finished()) {
        names(&store, "who/").await;
    }
    for writer in writers {
        drop(writer.await.unwrap());
    }
}

#[tokio::test]
async fn a_watch_tells_of_what_others_change() {
    let (folder, store) = open();
    let other = Files::open(folder.path()).unwrap();
    let seen = until(&store, async || value(&store, "x").await.as_deref() == Some("2"));
    let change = async {
        for text in ["1", "2"] {
            tokio::task::yield_now().await;
            other.put("x", Bytes::from(text), Expect::Anything).await.unwrap();
        }
    };
    tokio::join!(seen, change);
    // Looking is no change.
    let mut watch = store.watch("").await.unwrap();
    _ = timeout(Duration::from_millis(300), watch.changed()).await;
    names(&store, "").await;
    assert!(timeout(Duration::from_millis(200), watch.changed()).await.is_err());
}

#[tokio::test]
async fn what_is_torn_is_told_and_never_taken_for_a_value() {
    let (folder, store) = open();
    store.put("x", Bytes::from("a value of some length"), Expect::Absent).await.unwrap();
    let path = folder.path().join("data/x");
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let got = store.get("x").await;
        assert!(matches!(got, Err(StoreError::Damaged { .. })), "{len}: {got:?}");
    }
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        // The revision has no checksum of its own; all else has.
        let got = store.get("x").await;
        let is_revision = at == "groove-store-1 ".len();
        assert!(matches!(got, Err(StoreError::Damaged { .. })) || is_revision, "{at}: {got:?}");
    }
    assert!(store.put("x", Bytes::new(), Expect::Revision(Revision(1))).await.is_err());
    // Who expects nothing mends it.
    store.put("x", Bytes::from("new"), Expect::Anything).await.unwrap();
    assert_eq!(value(&store, "x").await.as_deref(), Some("new"));
    // And what a writer left that ended in the middle is no name, and goes.
    let left = folder.path().join("data/.who+was");
    std::fs::write(&left, "groove-st").unwrap();
    assert_eq!(names(&store, "").await, ["x"]);
    let _held = store.present("y", Bytes::new()).await.unwrap();
    assert!(!left.exists());
}

/// This program again, as another process.
fn child(role: &str, place: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["store::tests::as_a_child", "--exact", "--nocapture"]);
    command.env(ROLE, role).env(PLACE, place).stdout(Stdio::null()).spawn().unwrap()
}

/// What a child does; nothing when the tests run.
#[tokio::test]
async fn as_a_child() {
    let (Ok(role), Ok(place)) = (std::env::var(ROLE), std::env::var(PLACE)) else { return };
    let store = Files::open(place).unwrap();
    match role.as_str() {
        "count" => {
            for _ in 0..COUNTS {
                count(&store).await;
            }
        }
        "write" => {
            for number in 0_u64.. {
                let text = format!("{number} ").repeat(2000);
                store.put("big", Bytes::from(text), Expect::Anything).await.unwrap();
            }
        }
        "present" => {
            let _held = store.present("who/child", Bytes::from("here")).await.unwrap().unwrap();
            pending_for_ever().await;
        }
        _ => panic!("{role}"),
    }
}

async fn pending_for_ever() {
    std::future::pending().await
}

const COUNTS: u64 = 40;

/// Adds one, however often somebody else is faster.
async fn count(store: &Files) {
    loop {
        let (number, expect) = match store.get("count").await.unwrap() {
            None => (0, Expect::Absent),
            Some(entry) => {
                let text = String::from_utf8(entry.value.to_vec()).unwrap();
                (text.parse::<u64>().unwrap(), Expect::Revision(entry.revision))
            }
        };
        let next = Bytes::from((number + 1).to_string());
        if let Put::Done(_) = store.put("count", next, expect).await.unwrap() {
            return;
        }
    }
}

#[tokio::test]
async fn of_several_processes_that_race_each_counts() {
    let (folder, store) = open();
    let mut children: Vec<_> = (0..3).map(|_| child("count", folder.path())).collect();
    for _ in 0..COUNTS {
        count(&store).await;
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(value(&store, "count").await, Some((4 * COUNTS).to_string()));
}

#[tokio::test]
async fn a_writer_killed_in_the_middle_leaves_the_old_value_or_the_new_one() {
    let (folder, store) = open();
    let (mut last, mut last_revision) = (0, Revision(0));
    for round in 0..8 {
        let mut writer = child("write", folder.path());
        let before = last_revision;
        until(&store, async || {
            store.get("big").await.unwrap().is_some_and(|entry| entry.revision.0 > before.0 + round)
        })
        .await;
        writer.kill().unwrap();
        writer.wait().unwrap();
        let entry = store.get("big").await.unwrap().unwrap();
        let text = String::from_utf8(entry.value.to_vec()).unwrap();
        let first: u64 = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(text, format!("{first} ").repeat(2000));
        assert!(entry.revision > last_revision, "round {round}");
        (last, last_revision) = (first, entry.revision);
        // Nor is the lock held by the dead.
        let put = store.put("small", Bytes::from(last.to_string()), Expect::Anything).await;
        assert!(matches!(put, Ok(Put::Done(_))), "{put:?}");
    }
    assert!(last > 0);
}

#[tokio::test]
async fn the_presence_of_a_killed_process_is_gone_and_of_a_stopped_one_is_not() {
    use rustix::process::{Pid, Signal, kill_process};
    let (folder, store) = open();
    let mut other = child("present", folder.path());
    let is_there = async || names(&store, "who/").await == ["who/child"];
    until(&store, is_there).await;
    // It is seen before the lock is let go, and whoever is stopped with the lock holds up everybody.
    store.put("after", Bytes::new(), Expect::Absent).await.unwrap();
    let pid = Pid::from_child(&other);
    kill_process(pid, Signal::STOP).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_there().await);
    assert!(store.present("who/child", Bytes::new()).await.unwrap().is_none());
    other.kill().unwrap();
    let begun = std::time::Instant::now();
    other.wait().unwrap();
    until(&store, async || !is_there().await).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "told by an event: {:?}", begun.elapsed());
    assert!(store.present("who/child", Bytes::new()).await.unwrap().is_some());
}

//! The threads that wait for the disk, so that no worker does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{info, warn};

use super::super::{Group, Inner};
use super::engine::{DiskError, Engine};
use super::{Disk, Errand, Job, Parked, Spill, changes};
use crate::store::item::Item;

/// After a failure the disk is tried again so often.
const RETRY: Duration = Duration::from_secs(30);

/// Writing memory down at the end may take so long.
const CLOSING_TIME: Duration = Duration::from_secs(20);

/// Starts the lanes of a store that has a disk tier.
pub(in crate::store) fn start_lanes(inner: &Arc<Inner>) -> Result<(), DiskError> {
    let Some(disk) = &inner.disk else { return Ok(()) };
    // No CAS value is given out before the end of its block has been written down.
    inner.keep_rules();
    for (number, jobs) in std::mem::take(&mut *disk.jobs.lock()).into_iter().enumerate() {
        let inner = Arc::clone(inner);
        let thread = thread::Builder::new()
            .name(format!("disk-{number}"))
            .spawn(move || run(number, &jobs, &inner))
            .map_err(DiskError::Thread)?;
        disk.threads.lock().push(thread);
    }
    Ok(())
}

/// Ends the lanes, and writes down what memory holds.
pub(in crate::store) fn close(inner: &Inner) {
    let Some(disk) = &inner.disk else { return };
    (0..disk.lanes.len()).for_each(|lane| disk.send(lane, Job::Stop));
    for thread in std::mem::take(&mut *disk.threads.lock()) {
        // A thread that panicked has said so.
        _ = thread.join();
    }
    let (began, now_ms, flushed_cas) =
        (Instant::now(), inner.rules.clock.now_ms(), inner.rules.flushed_cas());
    let (mut written, mut left) = (0_u64, 0_u64);
    for group in inner.groups() {
        let mut group = group.lock();
        let spills = std::mem::take(&mut group.cold.spills);
        let spilled = spills.iter().map(|(key, spill)| (key, &spill.item));
        let held = group.shelf.items_mut().map(|(key, item)| (key, &*item));
        for (key, item) in spilled.chain(held) {
            let is_written = item.on_disk && !item.is_newly_claimed;
            if is_written || !item.is_live(now_ms, flushed_cas) {
                continue;
            }
            let is_time = began.elapsed() < CLOSING_TIME;
            match is_time && disk.with(|engine| engine.write(key, item)).is_some() {
                true => written += 1,
                false => left += 1,
            }
        }
    }
    inner.keep_rules();
    if disk.with(Engine::finish).is_some() {
        info!(written, left, "memory is written down, the disk tier is closed");
    }
}

fn run(number: usize, jobs: &Receiver<Job>, inner: &Inner) {
    let Some(disk) = &inner.disk else { return };
    let mut tried = Instant::now();
    loop {
        match jobs.recv_timeout(RETRY) {
            Ok(Job::Serve { group, key, errand }) => serve(inner, disk, group, &key, errand),
            Ok(Job::Write { group, key }) => write(inner, disk, group, &key),
            Ok(Job::Keep) => inner.keep_rules(),
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => (),
        }
        if number == 0 && disk.is_failed() && tried.elapsed() >= RETRY {
            tried = Instant::now();
            reopen(inner, disk);
        }
    }
}

/// Fetches an item, then does all that has been parked for it.
fn serve(inner: &Inner, disk: &Disk, number: usize, key: &Bytes, errand: Errand) {
    let generation = disk.generation.load(Ordering::Relaxed);
    let fetched = disk.with(|engine| {
        let found = engine.fetch(key)?;
        let is_dead = found.as_ref().is_some_and(|item| !is_live(inner, item));
        if found.is_some() && (errand == Errand::Take || is_dead) {
            engine.remove(key)?;
        }
        Ok(found.filter(|_| !is_dead))
    });
    let fetched = fetched.flatten();
    let metrics = &disk.settings.metrics;
    let mut group = inner.group(number).lock();
    if group.shelf.peek(key).is_none() {
        group.take_back(key, disk);
    }
    let held = group.shelf.get_mut(key);
    match (held, fetched) {
        (Some(held), _) if errand == Errand::Take => held.on_disk = false,
        (Some(_), _) => (),
        (None, Some(mut item)) => {
            metrics.hits.inc();
            item.on_disk = errand == Errand::Fetch && generation == disk.generation.load(Ordering::Relaxed);
            group.shelf.put(key, item);
        }
        (None, None) => metrics.misses.inc(),
    }
    answer(inner, disk, number, &mut group, key);
    inner.make_room(number, &mut group, inner.rules.clock.now_ms());
}

/// Does what has been parked for a key, as far as it can be done with what the disk has told.
fn answer(inner: &Inner, disk: &Disk, number: usize, group: &mut Group, key: &Bytes) {
    let mut parked = group.cold.parked.remove(key).unwrap_or_default();
    while let Some(Parked { request, reply }) = parked.pop_front() {
        let is_copied = group.shelf.peek(key).is_some_and(|item| item.on_disk);
        if is_copied && changes(&request.request().op) && !disk.is_failed() {
            parked.push_front(Parked { request, reply });
            group.cold.parked.insert(key.clone(), parked);
            return disk.send(number, Job::Serve { group: number, key: key.clone(), errand: Errand::Take });
        }
        disk.parked.fetch_sub(1, Ordering::Relaxed);
        // A client that has gone needs no answer, but what it asked for is done.
        _ = reply.send(inner.turn(group, &request.request()));
    }
}

/// Writes what is on its way, unless it has been taken back.
fn write(inner: &Inner, disk: &Disk, number: usize, key: &Bytes) {
    let item = {
        let mut group = inner.group(number).lock();
        let Some(spill) = group.cold.spills.get_mut(key) else { return };
        spill.is_begun = true;
        spill.item.clone()
    };
    let metrics = &disk.settings.metrics;
    let written = disk.with(|engine| engine.write(key, &item));
    // Older items may have gone for one that found no room all the same.
    metrics.aged_out.add(written.as_ref().map_or(0, |written| written.aged_out));
    match written {
        Some(written) if written.is_kept => {
            metrics.written.inc();
            metrics.written_len.add(item.value.len() as u64);
            metrics.used_len.set(written.used_len.cast_signed());
        }
        Some(_) | None => metrics.lost.inc(),
    }
    let mut group = inner.group(number).lock();
    let is_same = |spill: &Spill| spill.is_begun && spill.item.cas == item.cas;
    if group.cold.spills.get(key).is_some_and(is_same) {
        group.cold.spills.remove(key);
        disk.backlog_len.fetch_sub(item.held_len(key.len()), Ordering::Relaxed);
    }
}

fn is_live(inner: &Inner, item: &Item) -> bool {
    item.is_live(inner.rules.clock.now_ms(), inner.rules.flushed_cas())
}

/// Begins anew on a disk that failed.
fn reopen(inner: &Inner, disk: &Disk) {
    let path = &disk.settings.path;
    Engine::erase(path);
    match Engine::open(path, disk.capacity_len.load(Ordering::Relaxed), disk.cache_len) {
        Ok((engine, _)) => {
            // Copies that items are thought to have are gone.
            disk.generation.fetch_add(1, Ordering::Relaxed);
            for group in inner.groups() {
                group.lock().shelf.items_mut().for_each(|(_, item)| item.on_disk = false);
            }
            *disk.engine.write() = Some(engine);
            disk.is_failed.store(false, Ordering::Relaxed);
            inner.keep_rules();
            info!(path = %path.display(), "the disk tier works again, and is empty");
        }
        Err(error) => warn!(path = %path.display(), %error, "the disk tier still does not work"),
    }
}

//! The durable, ordered log of what the group has committed: its decisions, and what a member that was away has missed.
//!
//! A transaction is committed when its record is on the disk, and not before. One thread writes; what comes while it
//! waits for the disk goes with the next write.

mod format;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use format::{Commit, Effect, Entry, Header, PAYLOAD_MAX, Record};

use crate::upstream::random;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process has it.
    #[error("another process holds the log")]
    Held,
    /// The disk says no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It cannot be read.
    #[error("{0}")]
    Damaged(#[from] format::Damage),
    /// A write has failed before: nobody knows what is on the disk.
    #[error("the log could not be written, and has to be read anew: restart")]
    Failed,
    /// More than a record may have.
    #[error("the transaction is larger than a record of the log may be")]
    TooLarge,
}

/// The log of one group, held by this process.
pub struct Log {
    folder: PathBuf,
    /// Of this log and of no other.
    pub id: u64,
    state: Mutex<State>,
    jobs: mpsc::SyncSender<Job>,
    _lock: File,
}

struct State {
    file: Arc<File>,
    base: u64,
    is_founded: bool,
    epoch: u64,
    commits: Vec<Place>,
    by_number: HashMap<u64, usize>,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    number: u64,
    at: u64,
    length: u32,
}

struct Job {
    record: Record,
    done: oneshot::Sender<Result<(), LogError>>,
}

/// Records that wait for the disk.
const QUEUE_MAX: usize = 4096;

impl Log {
    /// Opens the log in a folder, or begins one. Nobody else has it meanwhile.
    pub fn open(folder: &Path) -> Result<Arc<Log>, LogError> {
        std::fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(LogError::Held),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
        }
        let path = folder.join("log");
        if !path.exists() {
            let id = u64::from_be_bytes(random::<8>()?) >> 1;
            begin(folder, Header { id, base: 0 }, &[])?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let (header, found, end) = format::read(&std::fs::read(&path)?)?;
        // What a crash has left behind the last whole record.
        file.set_len(end)?;
        file.sync_all()?;
        let mut state = State {
            file: Arc::new(file),
            base: header.base,
            is_founded: false,
            epoch: 0,
            commits: Vec::new(),
            by_number: HashMap::new(),
            end,
        };
        found.into_iter().for_each(|found| state.note(&found.record, found.at, found.length));
        let (jobs, queue) = mpsc::sync_channel(QUEUE_MAX);
        let log = Arc::new(Log {
            folder: folder.to_owned(),
            id: header.id,
            state: Mutex::new(state),
            jobs,
            _lock: lock,
        });
        let writer = Arc::downgrade(&log);
        std::thread::Builder::new().name("replication log".to_owned()).spawn(move || {
            let mut has_failed = false;
            while let Ok(first) = queue.recv() {
                let batch: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
                let Some(log) = writer.upgrade() else { return };
                has_failed = has_failed || !log.write(batch);
            }
        })?;
        Ok(log)
    }

    /// Appends a record. When this is done it is on the disk, or nobody knows and nothing more is written.
    pub async fn append(&self, record: Record) -> Result<(), LogError> {
        let (done, written) = oneshot::channel();
        // The queue is longer than there can be sessions in a commit; a full one is an error, not a blocked thread.
        self.jobs.try_send(Job { record, done }).map_err(|_| LogError::Failed)?;
        written.await.map_err(|_| LogError::Failed)?
    }

    /// Whether a transaction is committed.
    pub fn has(&self, number: u64) -> bool {
        self.state.lock().by_number.contains_key(&number)
    }

    /// How many transactions are in the file.
    pub fn len(&self) -> usize {
        self.state.lock().commits.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file's length in bytes.
    pub fn bytes(&self) -> u64 {
        self.state.lock().end
    }

    /// Whether the members have been found equal once.
    pub fn is_founded(&self) -> bool {
        self.state.lock().is_founded
    }

    /// The last process that led, by number.
    pub fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Transactions of lower numbers are not in the file any more.
    pub fn base(&self) -> u64 {
        self.state.lock().base
    }

    /// The number of a transaction by its place in the file.
    pub fn number_at(&self, index: usize) -> Option<u64> {
        self.state.lock().commits.get(index).map(|place| place.number)
    }

    /// A transaction by its place in the file.
    pub fn commit_at(&self, index: usize) -> Result<Option<Commit>, LogError> {
        let (file, place) = {
            let state = self.state.lock();
            let Some(place) = state.commits.get(index) else { return Ok(None) };
            (Arc::clone(&state.file), *place)
        };
        let mut payload = vec![0; place.length as usize];
        file.read_exact_at(&mut payload, place.at)?;
        match postcard::from_bytes(&payload) {
            Ok(Record::Commit(commit)) => Ok(Some(commit)),
            Ok(Record::Founded | Record::Epoch(_)) | Err(_) => {
                Err(format::Damage::Record { at: place.at }.into())
            }
        }
    }

    /// Begins a file without the transactions there are: every member that is to go on has them. Nobody may append
    /// meanwhile.
    pub fn begin_anew(&self, base: u64) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let records = [Record::Founded, Record::Epoch(state.epoch)];
        begin(&self.folder, Header { id: self.id, base }, &records)?;
        let path = self.folder.join("log");
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let end = file.metadata()?.len();
        state.file = Arc::new(file);
        (state.base, state.end) = (base, end);
        state.commits.clear();
        state.by_number.clear();
        Ok(())
    }

    /// Writes a batch; false if it may be on the disk or not.
    fn write(&self, batch: Vec<Job>) -> bool {
        let (file, start) = {
            let state = self.state.lock();
            (Arc::clone(&state.file), state.end)
        };
        let (mut bytes, mut written, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for job in batch {
            match postcard::to_stdvec(&job.record) {
                Ok(payload) if payload.len() <= PAYLOAD_MAX => {
                    format::put_record(&mut bytes, &payload, start);
                    let at = start + (bytes.len() - payload.len()) as u64;
                    written.push((job, at, u32::try_from(payload.len()).unwrap_or(u32::MAX)));
                }
                Ok(_) | Err(_) => refused.push(job),
            }
        }
        for job in refused {
            let _gone = job.done.send(Err(LogError::TooLarge));
        }
        let synced = file.write_all_at(&bytes, start).and_then(|()| file.sync_data());
        if let Err(error) = &synced {
            tracing::error!(%error, "the replication log cannot be written");
        } else {
            let mut state = self.state.lock();
            state.end = start + bytes.len() as u64;
            written.iter().for_each(|(job, at, length)| state.note(&job.record, *at, *length));
        }
        for (job, ..) in written {
            let _gone = job.done.send(if synced.is_ok() { Ok(()) } else { Err(LogError::Failed) });
        }
        synced.is_ok()
    }
}

impl State {
    fn note(&mut self, record: &Record, at: u64, length: u32) {
        match record {
            Record::Founded => self.is_founded = true,
            Record::Epoch(epoch) => self.epoch = self.epoch.max(*epoch),
            Record::Commit(commit) => {
                self.by_number.insert(commit.number, self.commits.len());
                self.commits.push(Place { number: commit.number, at, length });
            }
        }
    }
}

/// Writes a new file beside the one there is, and puts it in its place when it is whole.
fn begin(folder: &Path, header: Header, records: &[Record]) -> Result<(), LogError> {
    let mut bytes = format::put_header(header);
    for record in records {
        let payload = postcard::to_stdvec(record).map_err(io::Error::other)?;
        format::put_record(&mut bytes, &payload, format::HEADER as u64);
    }
    let unfinished = folder.join("log.new");
    let mut file = File::create(&unfinished)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, folder.join("log"))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(number: u64) -> Record {
        Record::Commit(Commit { number, ..Commit::default() })
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path()).unwrap();
        assert!(matches!(Log::open(folder.path()), Err(LogError::Held)));
        log.append(Record::Founded).await.unwrap();
        log.append(Record::Epoch(3)).await.unwrap();
        let appended = (0..50).map(|number| log.append(commit(number)));
        futures_util::future::try_join_all(appended).await.unwrap();
        let id = log.id;
        drop(log);
        // The thread that writes may hold it for an instant longer.
        let log = loop {
            match Log::open(folder.path()) {
                Err(LogError::Held) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        assert_eq!((log.id, log.len(), log.epoch(), log.is_founded()), (id, 50, 3, true));
        assert!((0..50).all(|number| log.has(number)) && !log.has(50));
        assert_eq!(log.commit_at(7).unwrap().unwrap().number, log.number_at(7).unwrap());
        log.begin_anew(50).unwrap();
        assert_eq!((log.len(), log.base(), log.is_founded()), (0, 50, true));
        log.append(commit(60)).await.unwrap();
        assert_eq!(log.commit_at(0).unwrap().unwrap().number, 60);
    }
}

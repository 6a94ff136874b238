//! The state file: what was changed over the admin API, one line of JSON a change. A change is written at the end, many
//! together, and the file is written anew when most of it is outdated, so that a change costs its own size.

use super::standing::Standing;
use groove_common::app::StartError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

/// Changes that may wait to be written; whoever brings one more waits.
const WAITING_MAX: usize = 1024;
/// A file of so many bytes more than twice what it had when it was last written anew is written anew.
const SLACK_BYTES: u64 = 1 << 20;

/// One change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    /// The app's name.
    pub(super) app: String,
    /// The text it was set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) set: Option<String>,
    /// It was unset.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unset: bool,
    /// What is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) standing: Option<Standing>,
}

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The texts of the apps.
    pub(super) apps: BTreeMap<String, String>,
    /// What is said of apps.
    pub(super) standings: BTreeMap<String, Standing>,
}

impl Kept {
    fn take(&mut self, note: Note) {
        let Note { app, set, unset, standing } = note;
        if unset {
            self.apps.remove(&app);
        }
        match standing {
            Some(standing) if standing.is_usual() => drop(self.standings.remove(&app)),
            Some(standing) => drop(self.standings.insert(app.clone(), standing)),
            None => {}
        }
        if let Some(text) = set {
            self.apps.insert(app, text);
        }
    }

    fn read(path: &Path) -> Result<Self, StartError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        };
        let mut kept = Self::default();
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if !line.ends_with(b"\n") {
                // The machine stopped while it was written: nobody was told that it is kept.
                warn!(file = %path.display(), "the last change was not written to its end and is left out");
                break;
            }
            let note = serde_json::from_slice(line);
            kept.take(note.map_err(|error| format!("{}:{}: {error}", path.display(), index + 1))?);
        }
        Ok(kept)
    }

    fn lines(self) -> io::Result<Vec<u8>> {
        let (mut all, plain) = (Vec::new(), |app| Note { app, set: None, unset: false, standing: None });
        let apps = self.apps.into_iter().map(|(app, text)| Note { set: Some(text), ..plain(app) });
        let standings =
            self.standings.into_iter().map(|(app, standing)| Note { standing: Some(standing), ..plain(app) });
        for note in apps.chain(standings) {
            serde_json::to_writer(&mut all, &note)?;
            all.push(b'\n');
        }
        Ok(all)
    }
}

/// Somebody waits for a change to be on disk.
type Waiting = oneshot::Sender<Result<(), String>>;

/// Where changes are handed in.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    notes: mpsc::Sender<(Vec<u8>, Waiting)>,
}

/// A place in the line of changes. Taken before a change is made, so that their order is that of the file.
#[derive(Debug)]
pub(super) struct Place(mpsc::OwnedPermit<(Vec<u8>, Waiting)>);

impl Place {
    /// Hands a change in. What is given back resolves when it is on disk.
    pub(super) fn put(self, note: &Note) -> oneshot::Receiver<Result<(), String>> {
        let (kept, waiting) = oneshot::channel();
        match serde_json::to_vec(note) {
            Ok(mut line) => {
                line.push(b'\n');
                drop(self.0.send((line, kept)));
            }
            Err(error) => kept.send(Err(error.to_string())).unwrap_or_default(),
        }
        waiting
    }
}

impl Keeper {
    /// Reads the file, writes it anew, and goes on writing to it.
    pub(super) fn start(path: &Path, runtime: &Handle) -> Result<(Self, Kept), StartError> {
        let kept = Kept::read(path)?;
        let cannot = |error: io::Error| format!("cannot write {}: {error}", path.display());
        let journal = Journal::anew(path.to_owned()).map_err(cannot)?;
        let (notes, waiting) = mpsc::channel(WAITING_MAX);
        runtime.spawn(keep(journal, waiting));
        Ok((Self { notes }, kept))
    }

    /// Waits for a place in the line.
    pub(super) async fn place(&self) -> Result<Place, String> {
        self.notes
            .clone()
            .reserve_owned()
            .await
            .map(Place)
            .map_err(|_| "nobody writes the state file".to_owned())
    }
}

/// Writes what is there, all of it with one look at the disk, for as long as anybody may bring more.
async fn keep(mut journal: Journal, mut waiting: mpsc::Receiver<(Vec<u8>, Waiting)>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, WAITING_MAX).await > 0 {
        let (lines, kept): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let bytes = lines.concat();
        let written = tokio::task::spawn_blocking(move || {
            let result = journal.write(&bytes).map_err(|error| error.to_string());
            (journal, result)
        });
        let Ok((back, result)) = written.await else {
            return error!("the state file is not written any more");
        };
        journal = back;
        if let Err(error) = &result {
            error!(file = %journal.path.display(), error, "changes of apps are not kept");
        }
        for kept in kept {
            // Whoever asked may have gone.
            kept.send(result.clone()).unwrap_or_default();
        }
    }
}

/// The open file.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Journal {
    /// Writes what a file says into a new one, which then takes its place: a reader finds the one or the other.
    fn anew(path: PathBuf) -> io::Result<Self> {
        let lines = Kept::read(&path).map_err(io::Error::other)?.lines()?;
        let beside = path.with_added_extension("new");
        let open = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside);
        let mut file = open?;
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        let bytes = lines.len() as u64;
        Ok(Self { path, file, bytes, bytes_max: bytes * 2 + SLACK_BYTES })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(lines).and_then(|()| self.file.sync_data()) {
            // Half a line must not stand before the next.
            self.file.set_len(self.bytes)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::End(0))?;
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        if self.bytes > self.bytes_max {
            *self = Self::anew(self.path.clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(app: &str, text: &str) -> Note {
        Note { app: app.to_owned(), set: Some(text.to_owned()), unset: false, standing: None }
    }

    async fn put(keeper: &Keeper, note: &Note) {
        keeper.place().await.expect("a place").put(note).await.expect("an answer").expect("kept");
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_again_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let (keeper, kept) = Keeper::start(&path, &Handle::current()).expect("a keeper");
        assert!(kept.apps.is_empty());
        put(&keeper, &set("a", "1")).await;
        put(&keeper, &set("b", "2")).await;
        put(&keeper, &set("a", "3")).await;
        put(&keeper, &Note { unset: true, set: None, ..set("b", "") }).await;
        let standing = Some(Standing { maintenance: true, ..Standing::default() });
        put(&keeper, &Note { set: None, standing: standing.clone(), ..set("c", "") }).await;
        drop(keeper);
        let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
        file.write_all(br#"{"app":"d","set":"#).expect("half a line");
        let (_keeper, kept) = Keeper::start(&path, &Handle::current()).expect("a keeper");
        assert_eq!(kept.apps, BTreeMap::from([("a".to_owned(), "3".to_owned())]));
        assert_eq!(kept.standings.get("c").cloned(), standing);
        let lines = fs::read_to_string(&path).expect("the file");
        assert_eq!(lines.lines().count(), 2, "written anew: {lines}");
    }

    #[tokio::test]
    async fn a_line_that_is_none_is_told_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        fs::write(&path, "{\"app\":\"a\",\"set\":\"1\"}\nnonsense\n{\"app\":\"b\",\"set\":\"1\"}\n")
            .expect("a file");
        let error = Keeper::start(&path, &Handle::current()).expect_err("nonsense").to_string();
        assert!(error.contains(":2:"), "{error}");
    }

    #[tokio::test]
    async fn the_file_does_not_grow_with_the_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let (keeper, _) = Keeper::start(&path, &Handle::current()).expect("a keeper");
        let text = "x".repeat(64 << 10);
        for _ in 0..64 {
            put(&keeper, &set("a", &text)).await;
        }
        let bytes = fs::metadata(&path).expect("the file").len();
        assert!(bytes <= SLACK_BYTES + (3 << 16), "{bytes}");
    }
}

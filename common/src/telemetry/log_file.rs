//! A log that another program reads: lines at the end of a file, in whatever form that program knows.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use tracing_subscriber::fmt::MakeWriter;

use super::lines::Lines;
use super::metric::Counter;

/// A file that lines are added to by a thread of its own, so that nobody waits for a disk. What the thread has no room for
/// is lost and counted, and the file says so.
#[derive(Debug)]
pub struct LogFile {
    lines: Lines,
}

impl LogFile {
    /// Opens the file, or makes it. `notice` is the line that tells of lost ones, which `lost` counts.
    ///
    /// # Errors
    /// Whatever the system has against it.
    pub fn open(path: &Path, notice: fn(u64) -> String, lost: Counter) -> io::Result<Self> {
        // Several processes may write, as in a hand-over: each line goes to the end with one call.
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let lines = Lines::start(file, notice)?;
        lines.count(lost);
        Ok(Self { lines })
    }

    /// Adds a line, which brings its own end.
    pub fn put(&self, line: &str) {
        // It is kept in memory here; what fails later is the thread's affair.
        self.lines.make_writer().write_all(line.as_bytes()).unwrap_or_default();
    }
}

impl Drop for LogFile {
    /// What was put is written, if that does not take long.
    fn drop(&mut self) {
        self.lines.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registry;

    #[test]
    fn lines_are_added_to_what_is_there_and_written_by_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let lost = Registry::new(0).counter("groove_test", "", &[]);
        for line in ["one\n", "two\n"] {
            LogFile::open(&path, |lost| format!("{lost} lost\n"), lost.clone()).unwrap().put(line);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert!(LogFile::open(folder.path(), |_| String::new(), lost).is_err(), "a folder is no file");
    }
}

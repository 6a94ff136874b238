//! `import-pgbouncer`: a PgBouncer configuration as one of ours.
//!
//! ```text
//!  pgbouncer.ini     ini         source          convert               loader
//!  and includes ----------> entries ------> Source ------> YAML text ----------> printed
//!  userlist.txt      pairs, userlist, table    listeners, databases, users
//!        |                  |                   |                |
//!        +------------------+---- Problems -----+----------------+----> all at once
//! ```
//!
//! Whoever moves has one question: what is different? So the text answers for every setting there was. It is written
//! as text because no serializer writes comments, and ours masks secrets; then it is read back by the loader that
//! `check` uses, so that what is printed holds.

mod convert;
mod databases;
mod ini;
mod listeners;
mod pairs;
mod problems;
mod source;
mod table;
mod userlist;
mod users;
mod yaml;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use groove_common::app::StartError;
use groove_common::config::check_text;

use crate::config::Config;
use problems::Problems;

/// Print a configuration that does what this pgbouncer.ini does
#[derive(Debug, Clone, clap::Args)]
pub struct ImportPgbouncer {
    /// The pgbouncer.ini; what it includes, and its auth_file, are read as well
    file: PathBuf,
}

impl ImportPgbouncer {
    /// Prints the configuration, or fails with every error.
    pub fn run(&self) -> Result<(), StartError> {
        let imported = import(&self.file)?;
        match io::stdout().write_all(imported.text.as_bytes()) {
            // `import-pgbouncer … | head`: the reader has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            done => done?,
        }
        if imported.to_look_at > 0 {
            let note = format!("to look at: {}; the comment at the top lists them", imported.to_look_at);
            // The comment says it too.
            writeln!(io::stderr(), "{note}").unwrap_or_default();
        }
        Ok(())
    }
}

/// A configuration that holds.
#[derive(Debug)]
struct Imported {
    text: String,
    to_look_at: usize,
}

fn import(path: &Path) -> Result<Imported, String> {
    let mut problems = Problems::default();
    let entries = ini::read(path, &mut problems);
    let source = source::understand(entries, &mut problems);
    // What is missing because it was wrong would be reported twice.
    if !problems.is_empty() {
        return Err(problems.to_string());
    }
    let name = path.display().to_string();
    problems.name(&name);
    let (text, notes) = convert::convert(&source, &name, &mut problems);
    if !problems.is_empty() {
        return Err(problems.to_string());
    }
    match check_text::<Config>("the imported configuration", &text) {
        Ok(_) => Ok(Imported { text, to_look_at: notes.to_look_at() }),
        Err(report) => Err(format!(
            "{report}\nThe configuration above would not do. Unless a file it names is at fault, this is a bug of \
             import-pgbouncer."
        )),
    }
}

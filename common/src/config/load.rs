//! From a file to a checked document.

use std::path::{Path, PathBuf};

use super::{Document, Issues, Report};

/// A configuration that holds.
#[derive(Debug, Clone)]
pub struct Loaded<D> {
    /// What it says.
    pub document: D,
    /// Every file it depends on: itself, secrets, certificates.
    pub files: Vec<PathBuf>,
    /// The text of the file.
    pub text: String,
}

/// Reads and checks a file.
pub fn load<D: Document>(path: &Path) -> Result<Loaded<D>, Report> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Report::plain(format!("{}: {e}", path.display())))?;
    let document = check_text(&path.display().to_string(), &text)?;
    Ok(Loaded { document, files: vec![path.to_owned()], text })
}

/// Checks a text as if it were the file `name`.
pub fn check_text<D: Document>(name: &str, text: &str) -> Result<D, Report> {
    let document: D =
        serde_yaml::from_str(text).map_err(|error| Report::plain(format!("{name}: {error}")))?;
    let mut issues = Issues::default();
    super::semantics::of_document(&document, &mut issues);
    document.validate(&mut issues);
    if issues.is_empty() { Ok(document) } else { Err(Report::of(&issues)) }
}

/// The JSON Schema of a document, for editors.
pub fn schema<D: Document>() -> serde_json::Value {
    schemars::schema_for!(D).to_value()
}

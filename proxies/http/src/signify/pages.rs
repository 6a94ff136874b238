//! Which page is shown for which failure.

use super::code::Code;
use super::template::Page;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For what a page stands: the narrower wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `H12`, or `maintenance` for H80.
    Code(Code),
    /// `404`.
    Status(u16),
    /// `5xx`.
    Class(u16),
}

impl Key {
    /// Reads a key of `pages`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "maintenance" {
            return Some(Self::Code(Code::H80));
        }
        if let Some(code) = Code::parse(text) {
            return Some(Self::Code(code));
        }
        if let Some(class) = text.strip_suffix("xx") {
            return class.parse().ok().filter(|class| matches!(class, 4..=5)).map(Self::Class);
        }
        text.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status)
    }

    fn fits(self, code: Code, status: u16) -> bool {
        match self {
            Self::Code(own) => own == code,
            Self::Status(own) => own == status,
            Self::Class(own) => own == status / 100,
        }
    }

    fn width(self) -> u8 {
        match self {
            Self::Code(_) => 0,
            Self::Status(_) => 1,
            Self::Class(_) => 2,
        }
    }
}

/// The pages of an app, or those that stand for all apps.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// The narrowest first.
    list: Vec<(Key, Arc<Page>)>,
}

impl Pages {
    /// The narrowest page for a failure.
    pub fn find(&self, code: Code, status: u16) -> Option<&Page> {
        self.list.iter().find(|(key, _)| key.fits(code, status)).map(|(_, page)| &**page)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Pages as they are read, each file once however many apps name it.
#[derive(Debug, Default)]
pub struct Library {
    read: HashMap<PathBuf, Arc<Page>>,
}

impl Library {
    /// One page.
    pub fn page(&mut self, path: &Path) -> Result<Arc<Page>, String> {
        if let Some(page) = self.read.get(path) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(Page::read(path)?);
        self.read.insert(path.to_owned(), Arc::clone(&page));
        Ok(page)
    }

    /// The pages of one `pages`.
    pub fn pages<P: AsRef<Path>>(&mut self, files: &BTreeMap<String, P>) -> Result<Pages, String> {
        let mut list = Vec::with_capacity(files.len());
        for (text, path) in files {
            let key = Key::parse(text).ok_or_else(|| format!("`{text}` names no failure"))?;
            list.push((key, self.page(path.as_ref())?));
        }
        list.sort_by_key(|(key, _)| key.width());
        Ok(Pages { list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signify::Context;

    #[test]
    fn the_narrowest_page_is_shown() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = |name: &str| {
            let path = folder.path().join(format!("{name}.txt"));
            std::fs::write(&path, name).expect("a file");
            (name.to_owned(), path)
        };
        let mut library = Library::default();
        let pages = library.pages(&["5xx", "503", "maintenance", "H12"].map(file).into()).expect("pages");
        let shown = |code, status| pages.find(code, status).map(|page| page.render(&Context::default()));
        assert_eq!(shown(Code::H80, 503).as_deref(), Some("maintenance"));
        assert_eq!(shown(Code::H14, 503).as_deref(), Some("503"));
        assert_eq!(shown(Code::H12, 504).as_deref(), Some("H12"));
        assert_eq!(shown(Code::H13, 502).as_deref(), Some("5xx"));
        assert_eq!(shown(Code::H30, 404), None);
    }

    #[test]
    fn keys_are_codes_statuses_and_classes() {
        for text in ["", "200", "399", "600", "3xx", "xx", "H16", "h12", "4040", "maintenances"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
        assert_eq!(Key::parse("4xx"), Some(Key::Class(4)));
        assert_eq!(Key::parse("404"), Some(Key::Status(404)));
    }
}

//! Names in clients' certificates, and who may log in by which: what a map of PostgreSQL's `pg_ident.conf` says for
//! `cert`, user by user.

/// What a certificate has to be called for a user to log in by it.
///
/// `shop.internal` or `spiffe://prod/shop` is a subject alternative name, `CN=shop` the subject's common name: an
/// authority that checks one kind does not always check the other, so neither stands for both. One `*` stands for
/// anything, nothing included. Letters are compared as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateName {
    is_common: bool,
    start: String,
    /// What follows the `*`, if there is one.
    end: Option<String>,
}

/// What cannot be a certificate's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It fits nothing that has a name.
    #[error("an empty name")]
    Empty,
    /// More than one `*`.
    #[error("more than one `*`")]
    Wildcards,
}

impl CertificateName {
    /// Reads a name as it is configured.
    pub fn read(text: &str) -> Result<CertificateName, NameError> {
        let (is_common, name) = match text.strip_prefix("CN=") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let (start, end) = match name.split_once('*') {
            Some((_, end)) if end.contains('*') => return Err(NameError::Wildcards),
            Some((start, end)) => (start, Some(end.to_owned())),
            None if name.is_empty() => return Err(NameError::Empty),
            None => (name, None),
        };
        Ok(CertificateName { is_common, start: start.to_owned(), end })
    }

    /// Whether it is one of a certificate's names.
    pub fn is_among(&self, alternative: &[String], common: Option<&str>) -> bool {
        if self.is_common {
            common.is_some_and(|name| self.fits(name))
        } else {
            alternative.iter().any(|name| self.fits(name))
        }
    }

    fn fits(&self, name: &str) -> bool {
        match (name.strip_prefix(self.start.as_str()), &self.end) {
            (Some(rest), Some(end)) => rest.ends_with(end.as_str()),
            (Some(rest), None) => rest.is_empty(),
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_whole_and_by_kind() {
        let alternative = ["shop.internal".to_owned(), "spiffe://prod/shop".to_owned()];
        let fits = |text: &str| CertificateName::read(text).unwrap().is_among(&alternative, Some("app"));
        for name in
            ["shop.internal", "spiffe://prod/shop", "CN=app", "*.internal", "spiffe://prod/*", "CN=*", "s*p"]
        {
            assert!(fits(name), "{name}");
        }
        for name in [
            "shop",
            "internal",
            "app",
            "CN=shop.internal",
            "CN=ap",
            "CN=App",
            "*.internal.",
            "shop.internal*l",
        ] {
            assert!(!fits(name), "{name}");
        }
        // What stands for anything may not stand for the same letters twice.
        assert!(!CertificateName::read("CN=ap*pp").unwrap().is_among(&[], Some("app")));
        assert!(!CertificateName::read("CN=*").unwrap().is_among(&alternative, None));
        assert_eq!(CertificateName::read("*.*"), Err(NameError::Wildcards));
        assert_eq!(CertificateName::read("CN="), Err(NameError::Empty));
    }
}

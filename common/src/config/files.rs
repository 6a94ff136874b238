//! Paths of files that the configuration depends on.
//!
//! A type for each, so that the schema tells [`super::check`] what is at a place: it takes relative
//! paths from the folder of the configuration, tests that the file is what it should be, and gives it to
//! [`super::watch`]. No proxy has to remember any of it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! file {
    ($(#[$doc:meta])* $type:ident, $format:literal, $description:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub PathBuf);

        impl std::ops::Deref for $type {
            type Target = Path;

            fn deref(&self) -> &Path {
                &self.0
            }
        }

        impl AsRef<Path> for $type {
            fn as_ref(&self) -> &Path {
                &self.0
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "description": $description })
            }
        }
    };
}

file!(
    /// A PEM file with at least one certificate.
    CertificateFile,
    "certificate-file",
    "A PEM file with one certificate or a chain."
);
file!(
    /// A PEM file with a private key.
    KeyFile,
    "key-file",
    "A PEM file with a private key."
);
file!(
    /// Any file that must be readable.
    InputFile,
    "input-file",
    "A file that exists."
);

/// Reads a file that the configuration names; the error is for whoever wrote the name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::ErrorKind as E;
    std::fs::read(path).map_err(|error| {
        let name = path.display();
        let kind = error.kind();
        if kind == E::NotFound {
            format!("there is no file {name}")
        } else if kind == E::PermissionDenied {
            format!("{name} may not be read by this user")
        } else if kind == E::IsADirectory {
            format!("{name} is a folder")
        } else {
            format!("cannot read {name}: {error}")
        }
    })
}

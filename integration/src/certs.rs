//! Certificates for tests: an authority of one's own, and what it signs, as PEM files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A certificate authority that lives in a folder: `ca.pem`, and `NAME.pem` with `NAME.key` for each issue.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key on disk.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The PEM certificate.
    pub certificate: PathBuf,
    /// The PEM key, readable by its owner only.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority and writes `ca.pem` into `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Groove test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(folder.join("ca.pem"), issuer.pem())?;
        Ok(Self { folder: folder.to_path_buf(), issuer })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate for `names` (host names or addresses; the first is the common name) and writes
    /// it as `file.pem` and `file.key`. Issuing under the same file again replaces it: a rotation.
    ///
    /// # Errors
    /// When a name is not one, or the folder cannot be written.
    pub fn issue(&self, file: &str, names: &[&str]) -> Result<Issued> {
        use std::os::unix::fs::PermissionsExt;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or(file));
        let certificate = params.signed_by(&key, &self.issuer)?;
        let issued = Issued {
            certificate: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}.key")),
        };
        std::fs::write(&issued.certificate, certificate.pem())?;
        std::fs::write(&issued.key, key.serialize_pem())?;
        std::fs::set_permissions(&issued.key, std::fs::Permissions::from_mode(0o600))?;
        Ok(issued)
    }
}

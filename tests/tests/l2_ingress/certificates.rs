//! A certificate for each name, signed by itself.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    pub fn create(directory: PathBuf, names: &[&str]) -> Result<Self> {
        let certificates = Self { directory };
        fs::create_dir_all(certificates.for_haproxy())?;
        for name in names {
            let made = rcgen::generate_simple_self_signed([(*name).to_owned()])
                .with_context(|| format!("a certificate for {name}"))?;
            let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
            fs::write(certificates.certificate(name), &certificate)?;
            fs::write(certificates.key(name), &key)?;
            let both = certificates.for_haproxy().join(format!("{name}.pem"));
            fs::write(both, certificate + &key)?;
        }
        Ok(certificates)
    }

    pub fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.crt"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    /// A directory of files, each with a certificate and its key.
    pub fn for_haproxy(&self) -> PathBuf {
        self.directory.join("both")
    }
}

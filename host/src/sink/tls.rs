//! How a sink speaks TLS: whom it believes, and who it says it is.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::Fault;

/// TLS beyond what the address says. Left out, the system's certificate authorities are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file with the certificate authorities to believe instead of the system's. Naming one demands TLS.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate to show the server; together with `key_file`.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with that certificate's private key.
    pub key_file: Option<PathBuf>,
}

impl Tls {
    /// Whether anything is said, which demands TLS.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// The same with relative paths starting at `folder`.
    #[must_use]
    pub fn within(&self, folder: &Path) -> Self {
        let absolute = |file: &Option<PathBuf>| file.as_ref().map(|file| folder.join(file));
        Self {
            ca_file: absolute(&self.ca_file),
            certificate_file: absolute(&self.certificate_file),
            key_file: absolute(&self.key_file),
        }
    }

    /// The certificate's and its key's files, which go together. `place` is where the sink stands in the configuration.
    ///
    /// # Errors
    /// When there is one without the other.
    pub fn identity(&self, place: &str) -> Result<Option<(&Path, &Path)>, Fault> {
        match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Fault::config(format!("`{place}.tls.key_file` is missing"))
                .hint("a certificate is of no use without its key")),
            (None, Some(_)) => Err(Fault::config(format!("`{place}.tls.certificate_file` is missing"))
                .hint("a key is of no use without its certificate")),
        }
    }

    /// Reads one of the files. `place` is where the sink stands in the configuration, `option` the file's name there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(place: &str, option: &str, file: &Path) -> Result<Vec<u8>, Fault> {
        std::fs::read(file).map_err(|error| {
            Fault::config(format!("`{place}.tls.{option}` names `{}`, which cannot be read", file.display()))
                .because(error)
        })
    }
}

/// Makes *ring* the process's cryptography, for the libraries that ask for the process's choice. Harmless when repeated.
pub(crate) fn provide() {
    // Refused only when somebody chose before, and then there is a choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

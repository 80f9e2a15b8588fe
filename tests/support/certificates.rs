//! A certificate for the servers here, and the authority behind it, made with OpenSSL once in a process.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::child::{output, own_dir, run_dir};

/// Ten years.
const DAYS: &str = "3650";
const OPTIONS: &str = "[req]
prompt = no
distinguished_name = name
[name]
CN = Tidegate tests
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, IP:::1, DNS:localhost
authorityKeyIdentifier = keyid
";

/// Files in PEM.
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// The process's own, valid for `127.0.0.1`, `::1` and `localhost`.
    ///
    /// # Panics
    /// When `openssl` is missing or fails.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Certificates> = OnceLock::new();
        SHARED.get_or_init(|| {
            let dir = own_dir(&run_dir(), "certificates");
            fs::write(dir.join("options.cnf"), OPTIONS).unwrap();
            let new_key = "req -config options.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
            openssl(&dir, &format!("{new_key} -x509 -extensions authority -days {DAYS} -keyout ca.key -out ca.pem"));
            openssl(&dir, &format!("{new_key} -subj /CN=localhost -keyout server.key -out server.csr"));
            let signed = "-CA ca.pem -CAkey ca.key -CAcreateserial -extfile options.cnf -extensions server";
            openssl(&dir, &format!("x509 -req -in server.csr {signed} -days {DAYS} -out server.pem"));
            Self { dir }
        })
    }

    /// The authority's certificate, which clients trust.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The servers' certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    /// The servers' private key.
    pub fn key(&self) -> PathBuf {
        self.dir.join("server.key")
    }
}

fn openssl(dir: &Path, arguments: &str) {
    output(Command::new("openssl").current_dir(dir).args(arguments.split_whitespace()));
}

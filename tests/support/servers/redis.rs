//! A Redis server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use super::super::certificates::Certificates;
use super::super::child::{REMEDY, Server, free_port};

const DATABASES: u8 = 64;

/// A server that keeps nothing on disk: a restart loses everything, unless it was started with `--appendonly yes`.
pub struct Redis {
    server: Server,
    port: u16,
    tls_port: u16,
    next: AtomicU8,
    options: Vec<String>,
}

common!(Redis, "-TERM");

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When Redis is missing, naming the command to run, and when it does not come up.
    pub fn start() -> Self {
        Self::configured(&[])
    }

    /// The same with options of its own, as on the command line of `redis-server`.
    pub fn configured(options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let (server, next) = (Server::new("redis"), AtomicU8::new(0));
        let mut redis = Self { server, port: free_port(), tls_port: free_port(), next, options };
        redis.restart();
        redis
    }

    /// Starts the server again on its ports, empty unless it has a file, and waits until it answers.
    pub fn restart(&mut self) {
        let certificates = Certificates::shared();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--tls-port", &self.tls_port.to_string(), "--tls-auth-clients", "no", "--tls-cert-file"])
            .arg(certificates.certificate())
            .arg("--tls-key-file")
            .arg(certificates.key())
            .arg("--tls-ca-cert-file")
            .arg(certificates.authority())
            .args(["--databases", &DATABASES.to_string(), "--maxclients", "200", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.server.dir())
            .args(&self.options);
        let port = self.port;
        self.server
            .start(&command, || cli(port).arg("PING").output().is_ok_and(|output| output.stdout.starts_with(b"PONG")));
    }

    /// The port with TLS, on 127.0.0.1.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The server's folder.
    pub fn dir(&self) -> &Path {
        self.server.dir()
    }

    /// Where clients of a database connect.
    pub fn url(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// The same with TLS.
    pub fn tls_url(&self, database: u8) -> String {
        format!("rediss://127.0.0.1:{}/{database}", self.tls_port)
    }

    /// The authority behind the server's certificate.
    pub fn ca_file(&self) -> PathBuf {
        Certificates::shared().authority()
    }

    /// A database that no other test has.
    ///
    /// # Panics
    /// When all are taken.
    pub fn database(&self) -> u8 {
        let database = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(database < DATABASES, "all {DATABASES} databases are taken");
        database
    }

    /// What `redis-cli` prints, without the last line break; `-n NUMBER` first chooses a database. An error reply is text too.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = cli(self.port).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("`redis-cli` cannot be started ({error}): {REMEDY}"));
        let text = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
        assert!(output.status.success(), "`redis-cli` failed: {text} {}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

fn cli(port: u16) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    command
}

//! A server of MongoDB's protocol: not MongoDB's own, which package registries lack.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::certificates::Certificates;
use super::super::child::{REMEDY, Server, free_port, listens, target_dir};
use super::unique;

/// A server that has written to its file what it acknowledges. It knows no sessions or transactions, accepts validators
/// without enforcing them, and counts wrongly when an unordered insert meets duplicates.
pub struct Mongo {
    server: Server,
    port: u16,
    tls_port: u16,
}

common!(Mongo, "-TERM");

impl Mongo {
    /// Starts a server without data and waits until it listens.
    ///
    /// # Panics
    /// When Java or the server's files are missing, naming the command to run, and when it does not come up.
    pub fn start() -> Self {
        let mut mongo = Self { server: Server::new("mongo"), port: free_port(), tls_port: free_port() };
        mongo.restart();
        mongo
    }

    /// Starts the server again on its data and port, and waits until it listens.
    pub fn restart(&mut self) {
        let files = target_dir().join("services/mongo");
        assert!(files.join("classes").is_dir(), "the Mongo server's files are not in {}: {REMEDY}", files.display());
        let mut java = Command::new("java");
        java.args([
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Djava.net.preferIPv4Stack=true",
            "-cp",
        ])
        .arg(format!("{}/classes:{0}/libs/*", files.display()))
        .args(["MongoMain", &self.port.to_string()])
        .arg(self.server.dir().join("data.h2"))
        .arg(self.tls_port.to_string())
        .args([Certificates::shared().certificate(), Certificates::shared().key()]);
        let (port, tls_port) = (self.port, self.tls_port);
        self.server.start(&java, || listens(port) && listens(tls_port));
    }

    /// Its folder, where a file `answer` with a code makes it refuse every write.
    pub fn dir(&self) -> &Path {
        self.server.dir()
    }

    /// Starts the server, which was ended, with its data on another port, and waits until it listens.
    pub fn relocate(&mut self) {
        self.port = free_port();
        self.restart();
    }

    /// Where clients connect.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/", self.port)
    }

    /// Where clients connect that speak TLS.
    pub fn tls_uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?tls=true", self.tls_port)
    }

    /// The authority behind the server's certificate.
    pub fn ca_file(&self) -> PathBuf {
        Certificates::shared().authority()
    }

    /// The name of a database that no other test of this process has; it is made by its first document.
    pub fn database(&self, stem: &str) -> String {
        unique(stem)
    }
}

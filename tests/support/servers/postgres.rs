//! A PostgreSQL cluster.

mod standby;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::certificates::Certificates;
use super::super::child::{REMEDY, Server, free_port, output, run_dir};
use super::unique;

/// Who serves when the tests run as root, which PostgreSQL refuses.
const USER: &str = "postgres";
/// How long the processes of a killed cluster may hold its memory.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(10);
/// Commits are written, so that a killed server has what it acknowledged, but not synced.
const SETTINGS: &str = "listen_addresses = '127.0.0.1, ::1'
max_connections = 50
shared_buffers = 64MB
fsync = off
password_encryption = 'scram-sha-256'
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
";
const ACCESS: &str = "host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
local all all scram-sha-256
";

/// A cluster of its own, with a superuser `postgres` (no password) and a user `tidegate` (password `secret`), with and
/// without TLS.
pub struct Postgres {
    server: Server,
    port: u16,
}

// Without waiting for clients to leave.
common!(Postgres, "-INT");

impl Postgres {
    /// Makes a cluster and waits until it answers.
    ///
    /// # Panics
    /// When PostgreSQL is missing, naming the command to run, and when it does not come up.
    pub fn start() -> Self {
        let port = free_port();
        let server = own_server("postgres");
        give_away(&server);
        let data = server.dir().join("data");
        output(
            as_user(binary("initdb"))
                .current_dir(server.dir())
                .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
                .arg(&data),
        );
        let settings = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        let sockets = format!("unix_socket_directories = '{}'", server.dir().display());
        fs::write(data.join("postgresql.conf"), format!("{settings}\nport = {port}\n{sockets}\n{SETTINGS}")).unwrap();
        fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
        let certificates = Certificates::shared();
        fs::copy(certificates.certificate(), data.join("server.pem")).unwrap();
        fs::copy(certificates.key(), data.join("server.key")).unwrap();
        give_away(&server);
        let mut postgres = Self { server, port };
        postgres.restart();
        postgres.psql("postgres", "CREATE ROLE tidegate LOGIN PASSWORD 'secret'");
        postgres
    }

    /// Starts the cluster again on its data and port, and waits until it answers.
    pub fn restart(&mut self) {
        let mut command = as_user(binary("postgres"));
        command.arg("-D").arg(self.server.dir().join("data"));
        let port = self.port.to_string();
        let answers = || {
            let mut ask = Command::new(binary("pg_isready"));
            ask.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().is_ok_and(|status| status.success())
        };
        let started = Instant::now();
        while let Err(ended) = self.server.try_start(&command, answers) {
            let log = self.server.log_end();
            let leftover = log.contains("is still in use") && started.elapsed() < LEFTOVER_PATIENCE;
            assert!(leftover, "PostgreSQL did not come up ({ended}); {REMEDY} if it is missing:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Where `tidegate` connects.
    pub fn dsn(&self, database: &str) -> String {
        format!("postgresql://tidegate:secret@127.0.0.1:{}/{database}", self.port)
    }

    /// Where the superuser connects.
    pub fn admin_dsn(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The folder of the cluster's Unix socket.
    pub fn sockets(&self) -> &Path {
        self.server.dir()
    }

    /// The authority behind the cluster's certificate.
    pub fn ca_file(&self) -> PathBuf {
        Certificates::shared().authority()
    }

    /// Creates a database that belongs to `tidegate` and returns its name.
    pub fn database(&self, stem: &str) -> String {
        let name = unique(stem);
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\" OWNER tidegate"));
        name
    }

    /// What the statements print, run by the superuser: a line for each row, `|` between columns, no line break at the end.
    ///
    /// # Panics
    /// With what `psql` says when a statement fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let conninfo = format!("host=127.0.0.1 port={} user=postgres dbname='{database}' sslmode=disable", self.port);
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &conninfo, "-c", sql]);
        output(&mut psql).trim_end_matches('\n').to_owned()
    }
}

/// A server's folder, which the serving user can reach wherever the project lies.
pub(super) fn own_server(name: &'static str) -> Server {
    let place = if is_root() { std::env::temp_dir().join("tidegate-tests") } else { run_dir() };
    Server::under(&place, name)
}

/// Makes the folder and all in it the serving user's.
pub(super) fn give_away(server: &Server) {
    if is_root() {
        output(Command::new("chown").args(["-R", &format!("{USER}:")]).arg(server.dir()));
    }
}

/// A command that runs as somebody whom PostgreSQL accepts.
pub(super) fn as_user(program: OsString) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        command.args([&user, &group, "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env("LC_ALL", "C");
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One of PostgreSQL's programs: Debian keeps those of each version apart and few of them on the path.
fn binary(name: &str) -> OsString {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let file = version.path().join("bin").join(name);
        file.exists().then_some((number, file))
    });
    if let Some((_, file)) = found.max() {
        return file.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = std::env::split_paths(&path).any(|dir| dir.join(name).exists());
    assert!(known, "PostgreSQL's `{name}` is missing: {REMEDY}");
    name.into()
}

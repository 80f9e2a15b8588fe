//! PgBouncer, a connection pooler, in front of a PostgreSQL cluster.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::super::child::{Server, free_port, listens};
use super::Postgres;
use super::postgres::{as_user, give_away, own_server};

/// How long a client keeps a session of the server.
#[derive(Clone, Copy)]
pub enum PoolMode {
    /// Until it leaves.
    Session,
    /// Until its transaction ends.
    Transaction,
    /// Until its statement ends; there are no transactions.
    Statement,
}

/// A pooler for all databases of a cluster, for its user `tidegate`. It passes on no parameter of a session that it does not
/// follow itself, as Debian's does by default.
pub struct PgBouncer {
    server: Server,
    port: u16,
}

common!(PgBouncer, "-INT");

impl PgBouncer {
    /// Starts a pooler that keeps at most `sessions` sessions of the server for each database, and waits until it listens.
    /// `more` are lines of its configuration.
    ///
    /// # Panics
    /// When PgBouncer is missing, naming the command to run, and when it does not come up.
    pub fn start(postgres: &Postgres, mode: PoolMode, sessions: u32, more: &str) -> Self {
        let port = free_port();
        let server = own_server("pgbouncer");
        let mode = match mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
            PoolMode::Statement => "statement",
        };
        let settings = format!(
            "[databases]
* = host=127.0.0.1 port={}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users.txt
pool_mode = {mode}
default_pool_size = {sessions}
max_client_conn = 200
server_login_retry = 1
{more}
",
            postgres.port()
        );
        fs::write(server.dir().join("pgbouncer.ini"), settings).unwrap();
        fs::write(server.dir().join("users.txt"), "\"tidegate\" \"secret\"\n").unwrap();
        give_away(&server);
        let mut pooler = Self { server, port };
        pooler.restart();
        pooler
    }

    /// Starts the pooler again on its port, and waits until it listens.
    pub fn restart(&mut self) {
        let mut command = as_user(program());
        command.arg("pgbouncer.ini");
        let port = self.port;
        self.server.start(&command, || listens(port));
    }

    /// Where `tidegate` connects.
    pub fn dsn(&self, database: &str) -> String {
        format!("postgresql://tidegate:secret@127.0.0.1:{}/{database}", self.port)
    }
}

/// Debian keeps it where only root's path leads.
fn program() -> OsString {
    let debians = Path::new("/usr/sbin/pgbouncer");
    if debians.exists() { debians.into() } else { "pgbouncer".into() }
}

//! A second server that has what the first one has, and takes over.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::super::child::{free_port, output};
use super::{Postgres, as_user, binary, give_away, own_server};

/// How long the two may take to be in step.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

impl Postgres {
    /// Starts a synchronous hot standby: from then on a commit is acknowledged when both have it.
    ///
    /// # Panics
    /// When it does not come up or does not catch up.
    pub fn standby(&self) -> Self {
        let access = self.server.dir().join("data/pg_hba.conf");
        let known = fs::read_to_string(&access).unwrap();
        fs::write(&access, known + "host replication postgres 127.0.0.1/32 trust\n").unwrap();
        self.psql("postgres", "SELECT pg_reload_conf()");
        let (server, port) = (own_server("standby"), free_port());
        give_away(&server);
        let data = server.dir().join("data");
        let mut copy: Command = as_user(binary("pg_basebackup"));
        copy.current_dir(server.dir());
        copy.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-c", "fast", "-R", "--no-sync"]);
        output(copy.arg("-D").arg(&data));
        let settings = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        fs::write(data.join("postgresql.conf"), format!("{settings}\nport = {port}\n")).unwrap();
        let mut standby = Self { server, port };
        standby.restart();
        self.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.psql("postgres", "SELECT pg_reload_conf()");
        self.until("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", "1");
        standby
    }

    /// Makes the standby the primary once it has everything. This server has to take no writes any more.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn hand_over_to(&self, standby: &Self) {
        self.until("SELECT count(*) FROM pg_stat_activity WHERE usename = 'tidegate' AND backend_xid IS NOT NULL", "0");
        let end = self.psql("postgres", "SELECT pg_current_wal_flush_lsn()");
        standby.until(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"), "t");
        standby.psql("postgres", "SELECT pg_promote()");
        standby.until("SELECT pg_is_in_recovery()", "f");
    }

    fn until(&self, sql: &str, answer: &str) {
        let started = Instant::now();
        while self.psql("postgres", sql) != answer {
            assert!(started.elapsed() < PATIENCE, "not {answer} in {PATIENCE:?}: {sql}");
            std::thread::sleep(LOOK);
        }
    }
}

//! Two tables: a row for each record, and the newest row of every key with a guard.

use serde_json::{Value, json};

use super::Destination;
use crate::outages::matrix::Outage;
use crate::outages::process::Process;
use crate::outages::rows::Written;
use crate::support::proxy::{Cut, Proxy};
use crate::support::servers::Postgres;

const TABLES: &str = "SET ROLE tidegate;
CREATE TABLE rows (id bigint PRIMARY KEY, k text, place bigserial);
CREATE TABLE latest (k text PRIMARY KEY, id bigint, written_at bigint)";
const FULL: &str = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON rows FOR EACH ROW EXECUTE FUNCTION full_disk();
CREATE TRIGGER full_disk BEFORE INSERT ON latest FOR EACH ROW EXECUTE FUNCTION full_disk()";
const ROOM: &str = "DROP TRIGGER full_disk ON rows; DROP TRIGGER full_disk ON latest";
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tidegate'";

pub struct Tables {
    server: Postgres,
    standby: Option<Postgres>,
    is_promoted: bool,
    database: String,
    proxy: Proxy,
}

impl Tables {
    pub fn start(outage: Outage) -> Self {
        let server = Postgres::start();
        let database = server.database("outages");
        server.psql(&database, TABLES);
        let standby = (outage == Outage::FailedOver).then(|| server.standby());
        let proxy = Proxy::before(server.port());
        Self { server, standby, is_promoted: false, database, proxy }
    }

    fn present(&self) -> &Postgres {
        self.standby.as_ref().filter(|_| self.is_promoted).unwrap_or(&self.server)
    }

    fn admin(&self, sql: &str) {
        self.server.psql("postgres", sql);
    }

    fn read_only(&self, is: &str) {
        self.admin(&format!("ALTER SYSTEM SET default_transaction_read_only = {is}"));
        self.admin("SELECT pg_reload_conf()");
    }
}

impl Destination for Tables {
    fn sinks(&self) -> Value {
        let dsn = format!("postgresql://tidegate:secret@{}/{}", self.proxy.address(), self.database);
        json!({ "postgres": {
            "rows": { "dsn": dsn, "table": "rows", "key": ["id"] },
            "latest": { "dsn": dsn, "table": "latest", "key": ["k"], "upsert": { "guard": "written_at" } },
        } })
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn begin(&mut self, outage: Outage, _: &Process) {
        match outage {
            Outage::Killed => {
                self.server.kill();
                // As when its machine is gone as well.
                self.proxy.cut(Cut::Reset);
            }
            Outage::ReadOnly => self.read_only("on"),
            Outage::OutOfSpace => drop(self.server.psql(&self.database, FULL)),
            Outage::LoginRevoked => {
                self.admin("ALTER ROLE tidegate NOLOGIN");
                self.admin(END_SESSIONS);
            }
            Outage::FailedOver => {
                self.read_only("on");
                let standby = self.standby.as_ref().unwrap();
                self.server.hand_over_to(standby);
                self.proxy.redirect(standby.port());
                self.is_promoted = true;
            }
            other => panic!("{other:?} is the proxy's"),
        }
    }

    fn end(&mut self, outage: Outage, _: &Process) {
        match outage {
            Outage::Killed => self.server.restart(),
            Outage::ReadOnly => self.read_only("off"),
            Outage::OutOfSpace => drop(self.server.psql(&self.database, ROOM)),
            Outage::LoginRevoked => self.admin("ALTER ROLE tidegate LOGIN"),
            _ => {}
        }
    }

    fn is_taken_over(&self) -> bool {
        let sessions = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'tidegate'";
        self.present().psql("postgres", sessions) == "t"
    }

    fn written(&self) -> Vec<Written> {
        let rows = self.present().psql(&self.database, "SELECT id FROM rows ORDER BY place");
        let latest = self.present().psql(&self.database, "SELECT k, id FROM latest");
        let latest = latest.lines().filter_map(|row| row.split_once('|'));
        vec![
            Written::Rows(rows.lines().map(|id| id.parse().unwrap()).collect()),
            Written::Newest(latest.map(|(key, id)| (key.to_owned(), id.parse().unwrap())).collect()),
        ]
    }
}

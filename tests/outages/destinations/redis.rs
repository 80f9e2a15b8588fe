//! Keys of a server that writes what it acknowledges to a file.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Destination;
use crate::outages::matrix::Outage;
use crate::outages::process::Process;
use crate::outages::rows::Written;
use crate::support::proxy::{Cut, Proxy};
use crate::support::servers::Redis;

const USER: [&str; 7] = ["--user", "tidegate", "on", ">secret", "~*", "&*", "+@all"];
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Keys {
    server: Redis,
    replica: Option<Redis>,
    has_failed_over: bool,
    proxy: Proxy,
}

impl Keys {
    pub fn start(outage: Outage) -> Self {
        let start = || Redis::configured(&[&["--appendonly", "yes"][..], &USER[..]].concat());
        let server = start();
        let replica = (outage == Outage::FailedOver).then(|| {
            let replica = start();
            replica.cli(&["REPLICAOF", "127.0.0.1", &server.port().to_string()]);
            until(&replica, &["INFO", "replication"], "master_link_status:up");
            replica
        });
        let proxy = Proxy::before(server.port());
        Self { server, replica, has_failed_over: false, proxy }
    }

    fn present(&self) -> &Redis {
        self.replica.as_ref().filter(|_| self.has_failed_over).unwrap_or(&self.server)
    }
}

fn until(redis: &Redis, question: &[&str], answer: &str) {
    let started = Instant::now();
    while !redis.cli(question).contains(answer) {
        assert!(started.elapsed() < PATIENCE, "{question:?}: {}", redis.cli(question));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command that has to succeed: `redis-cli` takes an error for an answer.
fn command(redis: &Redis, words: &[&str]) {
    let answer = redis.cli(words);
    assert!(answer == "OK" || answer.parse::<i64>().is_ok(), "{words:?}: {answer}");
}

impl Destination for Keys {
    fn sinks(&self) -> Value {
        json!({ "redis": { "cache": { "url": format!("redis://tidegate:secret@{}/0", self.proxy.address()) } } })
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn begin(&mut self, outage: Outage, _: &Process) {
        let run = |words: &[&str]| command(&self.server, words);
        match outage {
            Outage::Killed => {
                self.server.kill();
                self.proxy.cut(Cut::Reset);
            }
            Outage::ReadOnly => run(&["REPLICAOF", "127.0.0.1", "1"]),
            Outage::OutOfSpace => run(&["CONFIG", "SET", "maxmemory", "1"]),
            Outage::LoginRevoked => {
                run(&["ACL", "SETUSER", "tidegate", "off"]);
                run(&["CLIENT", "KILL", "USER", "tidegate"]);
            }
            Outage::FailedOver => {
                let port = self.replica.as_ref().unwrap().port();
                run(&["FAILOVER", "TO", "127.0.0.1", &port.to_string()]);
                until(&self.server, &["INFO", "replication"], "role:slave");
                until(self.replica.as_ref().unwrap(), &["INFO", "replication"], "role:master");
                self.proxy.redirect(port);
                self.has_failed_over = true;
            }
            other => panic!("{other:?} is the proxy's"),
        }
    }

    fn end(&mut self, outage: Outage, _: &Process) {
        match outage {
            Outage::Killed => self.server.restart(),
            Outage::ReadOnly => command(&self.server, &["REPLICAOF", "NO", "ONE"]),
            Outage::OutOfSpace => command(&self.server, &["CONFIG", "SET", "maxmemory", "0"]),
            Outage::LoginRevoked => command(&self.server, &["ACL", "SETUSER", "tidegate", "on"]),
            _ => {}
        }
    }

    fn is_taken_over(&self) -> bool {
        self.present().cli(&["CLIENT", "LIST"]).contains("user=tidegate")
    }

    fn written(&self) -> Vec<Written> {
        let redis = self.present();
        let keys = redis.cli(&["--raw", "KEYS", "*"]);
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        if keys.is_empty() {
            return vec![Written::Newest(std::collections::BTreeMap::new())];
        }
        let values = redis.cli(&[&["--raw", "MGET"][..], &keys].concat());
        let id = |value: &str| serde_json::from_str::<Value>(value).unwrap()["id"].as_i64().unwrap();
        vec![Written::Newest(keys.iter().map(|key| (*key).to_owned()).zip(values.lines().map(id)).collect())]
    }
}

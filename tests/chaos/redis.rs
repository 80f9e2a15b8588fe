//! Two Redis servers, of which one is the master and the other its replica, behind one name.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::stamps::{Arrival, Life, key};
use super::support::proxy::Proxy;
use super::support::servers::Redis;
use super::world::KEYS;

/// How long the two may take to change their roles.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// How many wrong keys are told.
const TOLD: usize = 10;

pub struct Pair {
    servers: [Redis; 2],
    master: usize,
    proxy: Proxy,
    failovers: usize,
}

impl Pair {
    /// Starts both and waits until the replica follows.
    pub fn start() -> Self {
        let servers = [Redis::start(), Redis::start()];
        servers[1].cli(&["REPLICAOF", "127.0.0.1", &servers[0].port().to_string()]);
        let pair = Self { proxy: Proxy::before(servers[0].port()), servers, master: 0, failovers: 0 };
        pair.until(1, "master_link_status:up");
        pair
    }

    /// Where the name leads to the master.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.proxy.address())
    }

    /// The replica becomes the master once it has everything, and new connections lead there. Present ones stay with the old
    /// master, which refuses writes.
    ///
    /// # Panics
    /// When the two do not change their roles in time.
    pub fn fail_over(&mut self) {
        let next = 1 - self.master;
        self.until(next, "master_link_status:up");
        let port = self.servers[next].port();
        let answer = self.servers[self.master].cli(&["FAILOVER", "TO", "127.0.0.1", &port.to_string()]);
        assert_eq!(answer, "OK");
        self.until(self.master, "role:slave");
        self.until(next, "role:master");
        self.proxy.redirect(port);
        self.master = next;
        self.failovers += 1;
    }

    fn until(&self, server: usize, answer: &str) {
        let started = Instant::now();
        while !self.servers[server].cli(&["INFO", "replication"]).contains(answer) {
            assert!(started.elapsed() < PATIENCE, "server {server} is not {answer} in {PATIENCE:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// Of the records below these offsets the newest of every key, or a newer one, has to stand there. Only a process that
    /// was stopped past its session timeout may have written an older one over it.
    ///
    /// # Errors
    /// The keys of which that is not so.
    pub fn judge(&self, below: &[u32], stopped: &BTreeSet<Life>) -> Result<String, String> {
        let (mut keys, mut zombies, mut wrong) = (0, 0, Vec::new());
        for (p, &end) in (0u16..).zip(below) {
            let newest: Vec<u32> = (end.saturating_sub(KEYS)..end).collect();
            if newest.is_empty() {
                continue;
            }
            let names: Vec<String> = newest.iter().map(|n| key(p, *n, KEYS)).collect();
            let words: Vec<&str> = ["--raw", "MGET"].into_iter().chain(names.iter().map(String::as_str)).collect();
            let values = self.servers[self.master].cli(&words);
            for ((n, name), value) in newest.iter().zip(&names).zip(values.split('\n').chain(std::iter::repeat(""))) {
                keys += 1;
                match Arrival::parse(value.as_bytes(), KEYS) {
                    Ok(found) if found.p == p && found.n >= *n => {}
                    Ok(found) if found.p == p && stopped.contains(&found.instance.life) => zombies += 1,
                    Ok(found) => wrong.push(format!("`{name}` has {found}, and {n} is newer")),
                    Err(why) => wrong.push(format!("`{name}` has nothing of {n}: {why}")),
                }
            }
        }
        let told =
            format!("redis: {keys} keys, {zombies} older values of stopped processes, {} failovers", self.failovers);
        if wrong.is_empty() { Ok(told) } else { Err(format!("{told}, {} wrong: {}", wrong.len(), shown(&wrong))) }
    }
}

fn shown(wrong: &[String]) -> String {
    wrong[..wrong.len().min(TOLD)].join("; ")
}

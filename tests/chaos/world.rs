//! Everything that one run consists of, shared by the threads that drive it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;

use super::arrivals::{Arrivals, committed};
use super::hosts::Host;
use super::plan::{Course, Size};
use super::redis::Pair;
use super::stamps::Life;
use super::support::cluster::Cluster;
use super::support::proxy::Proxy;
use super::support::servers::{PgBouncer, Postgres};

/// Partitions of the source.
pub const PARTITIONS: usize = 12;
/// Partitions of the topic of results.
pub const RESULTS_PARTITIONS: i32 = 6;
/// Keys of each partition. More than a window has records: of rows with the same key in one call PostgreSQL is given the last
/// alone, and the audit has to see every one.
pub const KEYS: u32 = 1_000;
pub const WINDOW_RECORDS: u32 = 500;
pub const SOURCE: &str = "numbers";
pub const RESULTS: &str = "results";
/// Where dead letters would be.
pub const DEAD_LETTERS: &str = "numbers_dlq";
pub const GROUP: &str = "chaos";

/// Why a part ends that is not needed any more.
pub const STOPPED: &str = "stopped";
const NAP: Duration = Duration::from_millis(50);

/// Faults of brokers and database that a host's start may have met.
struct Troubles {
    active: usize,
    ended: Option<Instant>,
}

pub struct World {
    pub size: Size,
    pub dir: PathBuf,
    pub cluster: Cluster,
    pub postgres: RwLock<Postgres>,
    /// In front of PostgreSQL, behind the proxy.
    pub pooler: Mutex<PgBouncer>,
    pub redis: Mutex<Pair>,
    pub database: String,
    pub proxy: Proxy,
    pub hosts: Vec<Mutex<Host>>,
    pub arrivals: Mutex<Arrivals>,
    pub onlooker: BaseConsumer,
    /// Lives that were stopped past their session timeout.
    pub stopped: Mutex<BTreeSet<Life>>,
    /// One broker is down at a time.
    pub brokers_turn: Mutex<()>,
    /// Records given to the producer, and committed by the group.
    pub written: AtomicU64,
    pub committed: AtomicU64,
    /// Steps that have begun.
    pub begun: AtomicUsize,
    pub started: Instant,
    troubles: Mutex<Troubles>,
    journal: Mutex<Vec<String>>,
    failure: Mutex<Option<String>>,
    over: AtomicBool,
}

/// What a run is made of.
pub struct Parts {
    pub size: Size,
    pub dir: PathBuf,
    pub cluster: Cluster,
    pub postgres: Postgres,
    pub pooler: PgBouncer,
    pub redis: Pair,
    pub database: String,
    pub proxy: Proxy,
    pub hosts: Vec<Host>,
    pub arrivals: Arrivals,
    pub onlooker: BaseConsumer,
    pub started: Instant,
}

impl World {
    pub fn new(parts: Parts) -> Self {
        let Parts { size, dir, cluster, postgres, pooler, redis, database, proxy, hosts, arrivals, onlooker, started } =
            parts;
        Self {
            size,
            dir,
            cluster,
            postgres: RwLock::new(postgres),
            pooler: Mutex::new(pooler),
            redis: Mutex::new(redis),
            database,
            proxy,
            hosts: hosts.into_iter().map(Mutex::new).collect(),
            arrivals: Mutex::new(arrivals),
            onlooker,
            stopped: Mutex::default(),
            brokers_turn: Mutex::default(),
            written: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            begun: AtomicUsize::new(0),
            started,
            troubles: Mutex::new(Troubles { active: 0, ended: None }),
            journal: Mutex::default(),
            failure: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Writes down what happens, with the time since the start.
    pub fn note(&self, what: impl AsRef<str>) {
        let line = format!("{:7.2} {}", self.started.elapsed().as_secs_f64(), what.as_ref());
        if self.size.live {
            println!("{line}");
        }
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub fn journal(&self) -> String {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Runs a part of the run; its failure is everybody's.
    pub fn part<T>(&self, name: &str, part: impl FnOnce() -> Result<T, String>) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(part)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(text.unwrap_or_else(|| "panicked".into()))
        });
        match outcome {
            Ok(value) => Some(value),
            Err(failure) => {
                // What fails because of an earlier failure, or because the run is at its end, is not told.
                let first = !self.over.swap(true, Ordering::SeqCst);
                let mut told = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                if told.is_none() && (first || failure != STOPPED) {
                    self.note(format!("{name} FAILED"));
                    *told = Some(format!("{name}: {failure}"));
                }
                None
            }
        }
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the run is at its end, or has failed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Sleeps, unless the run ends.
    ///
    /// # Errors
    /// When it does.
    pub fn sleep(&self, time: Duration) -> Result<(), String> {
        let started = Instant::now();
        while started.elapsed() < time {
            if self.is_over() {
                return Err(STOPPED.into());
            }
            std::thread::sleep(NAP.min(time.saturating_sub(started.elapsed())));
        }
        Ok(())
    }

    /// Sleeps until something holds or the time is up.
    ///
    /// # Errors
    /// When the run ends meanwhile. `false` is the time.
    pub fn wait(&self, until: Duration, mut holds: impl FnMut() -> bool) -> Result<bool, String> {
        while !holds() {
            if self.started.elapsed() > until {
                return Ok(false);
            }
            self.sleep(NAP)?;
        }
        Ok(true)
    }

    /// How many records may have been written by now: those of the steps that have begun.
    pub fn allowed(&self) -> u64 {
        self.share(self.begun.load(Ordering::Relaxed) as f64 + 1.0)
    }

    /// The records that belong to so many steps.
    pub fn share(&self, steps: f64) -> u64 {
        (self.size.records as f64 * steps / (self.size.steps as f64 + 1.0)).ceil() as u64
    }

    /// Brokers or database are not as they should be while this runs.
    pub fn trouble<T>(&self, fault: impl FnOnce() -> T) -> T {
        self.troubles.lock().unwrap().active += 1;
        let done = fault();
        let mut troubles = self.troubles.lock().unwrap();
        troubles.active -= 1;
        troubles.ended = Some(Instant::now());
        done
    }

    /// Whether there was trouble since then.
    pub fn was_trouble_since(&self, since: Instant) -> bool {
        let troubles = self.troubles.lock().unwrap();
        troubles.active > 0 || troubles.ended.is_some_and(|ended| ended > since)
    }

    /// What is committed has to have arrived: the offsets are asked for first.
    ///
    /// # Errors
    /// What is committed and has not arrived.
    pub fn check(&self) -> Result<Vec<u32>, String> {
        let mut arrivals = self.arrivals.lock().unwrap();
        let committed = committed(&self.onlooker, SOURCE, PARTITIONS)?;
        arrivals.check(&committed, &self.postgres.read().unwrap(), &self.database)?;
        if self.size.course == Course::Faults {
            let stopped = self.stopped.lock().unwrap().clone();
            self.redis.lock().unwrap().judge(&committed, &stopped)?;
        }
        Ok(committed)
    }
}

//! One sink in one outage, from the first record to the verdict.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::help::{Onlooker, broker, contents, unique};
use crate::outages::destinations::Destination;
use crate::outages::matrix::{Expected, Kind, Outage, expected};
use crate::outages::process::Process;
use crate::outages::rows::{PARTITIONS, key, value};
use crate::support::proxy::Cut;

/// Records of each partition before the outage and around its beginning.
const BEFORE: i64 = 40;
const DURING: i64 = 200;
/// The latter come in so many portions, and the outage begins behind the third.
const PORTIONS: i64 = 10;
const PACE: Duration = Duration::from_millis(100);
const BEGINS_BEHIND: i64 = 3;
/// How long anything may take that has to happen; the longest is a back-off of a minute and a call of half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);
/// Longer than a call may take by default (`executor.delivery_timeout_seconds`).
const LONGER_THAN_A_CALL: Duration = Duration::from_secs(32);
/// How long an outage lasts once it was noticed.
const GOES_ON: Duration = Duration::from_secs(2);
/// A connection that was idle for so long is reset when it is used again.
const IDLE: Duration = Duration::from_millis(300);
/// What 100 times slower than on this machine is.
const SLOW_ANSWER: Duration = Duration::from_millis(100);
const SLOW_BYTES_PER_SECOND: u64 = 100_000;

/// What a cell has shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    pub rows: i64,
    pub repeated: usize,
    pub took: Duration,
}

/// A cell that runs.
struct Cell {
    outage: Outage,
    destination: Box<dyn Destination>,
    process: Process,
    source: String,
    onlooker: Onlooker,
    producer: ThreadedProducer<DefaultProducerContext>,
    /// Records of each partition.
    fed: i64,
}

/// Runs a cell.
///
/// # Errors
/// What is not as it should be.
pub fn run(kind: Kind, outage: Outage) -> Result<Verdict, String> {
    let started = Instant::now();
    let (source, group) = (unique(kind.name()), unique("outages"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(broker().create_topic(&source, PARTITIONS, &[]));
    let destination = crate::outages::destinations::start(kind, outage, &source, &runtime);
    let process = Process::start(&source, &group, &destination.sinks(), &destination.around());
    let onlooker = Onlooker::new(&group);
    let producer = ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().unwrap();
    let mut cell = Cell { outage, destination, process, source, onlooker, producer, fed: 0 };
    let judged = cell.play().and_then(|()| cell.judge(expected(kind, outage)));
    match judged {
        Ok(verdict) => Ok(Verdict { took: started.elapsed(), ..verdict }),
        Err(why) => Err(format!("{why}\n{}", cell.process.tail())),
    }
}

impl Cell {
    fn play(&mut self) -> Result<(), String> {
        self.feed(BEFORE);
        self.until("the first records are committed", |cell| cell.is_all_committed())?;
        for portion in 0..PORTIONS {
            self.feed(DURING / PORTIONS);
            if portion + 1 == BEGINS_BEHIND {
                self.begin();
            }
            std::thread::sleep(if self.outage == Outage::ResetOnReuse { IDLE * 2 } else { PACE });
        }
        let begun = Instant::now();
        self.until("the outage is noticed", |cell| cell.is_noticed(begun) || cell.is_all_committed())?;
        if !self.is_noticed(begun) {
            let letters = contents(&format!("{}_dlq", self.source)).len();
            return Err(format!("everything is committed and nobody noticed the outage: {letters} dead letters"));
        }
        std::thread::sleep(GOES_ON);
        self.finish()?;
        self.until("everything is committed", Self::is_all_committed)
    }

    /// Writes so many records to each partition.
    fn feed(&mut self, count: i64) {
        for n in self.fed..self.fed + count {
            for partition in 0..PARTITIONS {
                let (key, value) = (key(partition, n), value(partition, n).to_string());
                let record = BaseRecord::to(&self.source).partition(partition).key(&key).payload(&value);
                self.producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        self.producer.flush(PATIENCE).unwrap();
        self.fed += count;
    }

    fn begin(&mut self) {
        match (self.outage, self.destination.proxy()) {
            (Outage::Stalled, Some(proxy)) => proxy.stall(),
            (Outage::HalfOpen, Some(proxy)) => proxy.half_open(),
            (Outage::ResetOnReuse, Some(proxy)) => proxy.reset_on_reuse(IDLE),
            (Outage::Slow, Some(proxy)) => {
                proxy.delay(SLOW_ANSWER);
                proxy.throttle(SLOW_BYTES_PER_SECOND);
            }
            (Outage::Refused, Some(proxy)) => {
                proxy.refuse();
                proxy.cut(Cut::Reset);
            }
            _ => self.destination.begin(self.outage, &self.process),
        }
    }

    /// Without this a cell would show nothing.
    fn is_noticed(&self, begun: Instant) -> bool {
        let counts = self.destination.proxy().map(crate::support::proxy::Proxy::counts).unwrap_or_default();
        match self.outage {
            Outage::Stalled => counts.held > 0 && begun.elapsed() > LONGER_THAN_A_CALL,
            Outage::HalfOpen => counts.half_open > 0 && counts.swallowed > 0,
            Outage::ResetOnReuse => counts.cut > 0,
            Outage::Slow => counts.delayed > 0,
            Outage::FailedOver => self.destination.is_taken_over(),
            _ => self.process.waits(),
        }
    }

    /// Ends the outage, when nothing was committed early.
    fn finish(&mut self) -> Result<(), String> {
        if self.outage == Outage::Killed {
            // The server is looked at before it gets anything more.
            if let Some(proxy) = self.destination.proxy() {
                proxy.refuse();
            }
            let committed = self.committed();
            self.destination.end(self.outage, &self.process);
            self.nothing_is_early(&committed)?;
        } else {
            let committed = self.committed();
            self.nothing_is_early(&committed)?;
            self.destination.end(self.outage, &self.process);
        }
        if let Some(proxy) = self.destination.proxy() {
            proxy.forward();
        }
        Ok(())
    }

    fn committed(&self) -> Vec<i64> {
        (0..PARTITIONS).map(|partition| self.onlooker.committed(&self.source, partition).unwrap_or(0)).collect()
    }

    fn is_all_committed(&mut self) -> bool {
        self.committed().iter().all(|committed| *committed == self.fed)
    }

    fn nothing_is_early(&self, committed: &[i64]) -> Result<(), String> {
        for written in self.destination.written() {
            let missing = written.missing(committed);
            if !missing.is_empty() {
                return Err(format!("committed at {committed:?} and not there: {missing:?}"));
            }
        }
        Ok(())
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) -> Result<(), String> {
        let started = Instant::now();
        while !holds(self) {
            if self.process.has_ended() {
                return Err(format!("{what}: the process has ended"));
            }
            if started.elapsed() > PATIENCE {
                let counts = self.destination.proxy().map(crate::support::proxy::Proxy::counts);
                return Err(format!("{what}: not in {PATIENCE:?}; committed {:?}, {counts:?}", self.committed()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn judge(&mut self, expected: Expected) -> Result<Verdict, String> {
        let ends: Vec<i64> = (0..PARTITIONS).map(|_| self.fed).collect();
        let mut verdict = Verdict { rows: self.fed * i64::from(PARTITIONS), ..Verdict::default() };
        for written in self.destination.written() {
            let (missing, wrong) = (written.missing(&ends), written.out_of_order(&ends));
            if !missing.is_empty() || !wrong.is_empty() {
                return Err(format!("lost {missing:?}, out of order {wrong:?}"));
            }
            verdict.repeated += written.repeated();
        }
        if verdict.repeated > 0 && matches!(expected, Expected::Once(_)) {
            return Err(format!("{} rows stand there again", verdict.repeated));
        }
        let letters = contents(&format!("{}_dlq", self.source));
        if let Some((_, _, letter)) = letters.first() {
            return Err(format!("{} dead letters: {:?}", letters.len(), letter.headers));
        }
        self.process.end(PATIENCE)?;
        Ok(verdict)
    }
}

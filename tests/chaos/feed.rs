//! What is written to the source while everything else happens.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::stamps::key;
use super::world::{KEYS, PARTITIONS, SOURCE, STOPPED, World};

/// Records that may be on their way through the hosts: so many that they never run dry, so few that the end is near.
const BACKLOG: u64 = 25_000;
const TURN: Duration = Duration::from_millis(20);
/// Ebb and flood change after so many turns, and are this many times as strong as what would do.
const TIDE: u32 = 50;
const STRENGTHS: [f64; 5] = [0.2, 0.5, 1.0, 2.0, 4.0];
/// How long the brokers may take for the last records.
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);

/// Notes what did not arrive, which must not happen: nothing is given up.
#[derive(Default)]
struct Reports(Mutex<Vec<KafkaError>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().push(error.clone());
        }
    }
}

/// Writes the records, each with the next number of its partition.
struct Feed {
    producer: ThreadedProducer<Reports>,
    next: Vec<u32>,
    written: u64,
    random: Rng,
}

impl Feed {
    fn new(world: &World, random: Rng) -> Self {
        let producer = world
            .cluster
            .client()
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "5")
            .create_with_context(Reports::default())
            .unwrap();
        Self { producer, next: vec![0; PARTITIONS], written: 0, random }
    }

    fn write(&mut self) {
        let partition = self.random.usize(..PARTITIONS);
        let (p, n) = (u16::try_from(partition).unwrap(), self.next[partition]);
        self.next[partition] += 1;
        self.written += 1;
        let key = key(p, n, KEYS);
        let value = format!(r#"{{"p":{p},"n":{n},"k":"{key}"}}"#);
        let mut record: BaseRecord<'_, str, str> =
            BaseRecord::to(SOURCE).partition(i32::from(p)).key(key.as_str()).payload(value.as_str());
        while let Err((error, refused)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "the feed cannot go on");
            std::thread::sleep(TURN);
            record = refused;
        }
    }

    /// Answers where each partition ends.
    fn finish(self) -> Result<Vec<u32>, String> {
        self.producer.flush(FLUSH_PATIENCE).map_err(|error| format!("the feed is not acknowledged: {error}"))?;
        match self.producer.context().0.lock().unwrap().first() {
            Some(error) => Err(format!("a record of the feed was not taken: {error}")),
            None => Ok(self.next),
        }
    }
}

/// Writes numbered records until there are as many as wished for, spread over the plan. Answers where each partition ends.
///
/// # Errors
/// When a record cannot be written.
pub fn feed(world: &World, random: Rng) -> Result<Vec<u32>, String> {
    let mut feed = Feed::new(world, random);
    let mut allowance = 0.0f64;
    let per_turn = world.size.records as f64 / world.size.feeding.as_secs_f64() * TURN.as_secs_f64();
    let mut strength = 1.0;
    for turn in 0.. {
        if feed.written == world.size.records {
            break;
        }
        if turn % TIDE == 0 {
            strength = *feed.random.choice(&STRENGTHS).unwrap_or(&1.0);
        }
        if world.is_over() {
            return Err(STOPPED.into());
        }
        std::thread::sleep(TURN);
        // What was not used in one turn is not made up for in the next ones.
        allowance = f64::min(allowance + strength * per_turn, 2.0 * strength * per_turn);
        let committed = world.committed.load(Ordering::Relaxed);
        let most = world.allowed().min(committed + BACKLOG).min(world.size.records);
        while allowance >= 1.0 && feed.written < most {
            allowance -= 1.0;
            feed.write();
        }
        world.written.store(feed.written, Ordering::Relaxed);
    }
    feed.finish()
}

/// The same at one rate, whatever the hosts do. What could not be written in time is made up for.
///
/// # Errors
/// When a record cannot be written.
pub fn feed_steadily(world: &World, random: Rng) -> Result<Vec<u32>, String> {
    let mut feed = Feed::new(world, random);
    let rate = world.size.records as f64 / world.size.feeding.as_secs_f64();
    let started = Instant::now();
    while feed.written < world.size.records {
        world.sleep(TURN)?;
        let due = ((started.elapsed().as_secs_f64() * rate) as u64).min(world.size.records);
        while feed.written < due {
            feed.write();
        }
        world.written.store(feed.written, Ordering::Relaxed);
    }
    feed.finish()
}

//! Kafka to JSON lines: Tidegate without a plugin and through `plugins/search`, beside a bare consumer that writes a file.
//!
//! All three read the same topic of a real broker on this machine, one after the other, in several rounds. What counts is the
//! ratio inside one round, from the first record to the last; joining the group is left out. `TIDEGATE_BENCH_RECORDS` asks for
//! another number of records, `TIDEGATE_BENCH_ROUNDS` for another number of rounds.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a measurement")]

#[path = "../tests/support"]
mod support {
    pub mod broker;
    pub mod certificates;
    pub mod child;
    pub mod proxy;
}

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message};
use serde_json::json;

const PARTITIONS: u64 = 4;
const RECORDS: u64 = 2_000_000;
const ROUNDS: u64 = 3;
const TOPIC: &str = "requests";
const TICK: Duration = Duration::from_millis(2);
/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often a process's memory is looked at.
const SAMPLES: u64 = 10;

struct Bench {
    brokers: String,
    records: u64,
    dir: tempfile::TempDir,
    next: u64,
}

/// What one way through the topic took.
struct Run {
    rate: f64,
    /// Resident mebibytes after each tenth of the records.
    memory: Vec<u64>,
}

#[tokio::main]
async fn main() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let records = number("TIDEGATE_BENCH_RECORDS", RECORDS) / PARTITIONS * PARTITIONS;
    let mut broker = support::broker::Broker::start();
    broker.create_topic(TOPIC, i32::try_from(PARTITIONS).unwrap(), &[]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench { brokers: broker.bootstrap(), records, dir, next: 0 };
    bench.write();
    println!("{records} records of {} bytes on {PARTITIONS} partitions", request(0).len());
    let (mut plain, mut search) = (Vec::new(), Vec::new());
    for round in 1..=number("TIDEGATE_BENCH_ROUNDS", ROUNDS) {
        let bare = bench.bare();
        let without = bench.tidegate(None);
        let through = bench.tidegate(Some(&guest("search.wasm")));
        plain.push(without.rate / bare.rate);
        search.push(through.rate / bare.rate);
        println!(
            "round {round}: bare {:.0} records/s, without a plugin {:.0} ({:.2} of bare), through search {:.0} ({:.2} of bare)",
            bare.rate,
            without.rate,
            without.rate / bare.rate,
            through.rate,
            through.rate / bare.rate,
        );
        println!("  resident MiB by tenths: without {:?}, through search {:?}", without.memory, through.memory);
    }
    println!("median ratios: without a plugin {:.2}, through search {:.2}", median(&mut plain), median(&mut search));
    broker.stop();
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn guest(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests").join(name);
    path.canonicalize().unwrap_or_else(|_| panic!("`{name}` is not built: run `make setup`"))
}

/// A search request; all have the same length, and so have all results.
fn request(number: u64) -> String {
    format!(
        r#"{{"request_id":"r-{number:010}","pattern":"timeout","text":"GET /health 200\nread timeout after 3000 ms\nretrying, attempt 2\norder accepted"}}"#
    )
}

fn result(number: u64) -> String {
    format!(
        r#"{{"request_id":"r-{number:010}","pattern":"timeout","match_count":1,"matches":["read timeout after 3000 ms"]}}"#
    )
}

impl Bench {
    fn write(&self) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("linger.ms", "20")
            .set("queue.buffering.max.messages", "1000000")
            .create()
            .unwrap();
        for number in 0..self.records {
            let (key, value) = (number.to_be_bytes(), request(number));
            let partition = i32::try_from(number % PARTITIONS).unwrap();
            let mut record = BaseRecord::to(TOPIC).partition(partition).key(&key[..]).payload(&value);
            while let Err((error, back)) = producer.send(record) {
                assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(PATIENCE).unwrap();
    }

    fn fresh(&mut self) -> (String, PathBuf) {
        self.next += 1;
        let folder = self.dir.path().join(self.next.to_string());
        fs::create_dir(&folder).unwrap();
        (format!("bench-{}", self.next), folder)
    }

    /// What many write by hand: poll, write, commit now and then.
    fn bare(&mut self) -> Run {
        let (group, folder) = self.fresh();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.min.messages", "1000000")
            .create()
            .unwrap();
        consumer.subscribe(&[TOPIC]).unwrap();
        let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join("rows.jsonl")).unwrap());
        let (mut started, mut committed) = (None, Instant::now());
        for _ in 0..self.records {
            let record = loop {
                match consumer.poll(PATIENCE) {
                    Some(Ok(record)) => break record,
                    Some(Err(error)) => panic!("{error}"),
                    None => {}
                }
            };
            started.get_or_insert_with(Instant::now);
            file.write_all(record.payload().unwrap()).unwrap();
            file.write_all(b"\n").unwrap();
            if committed.elapsed() > Duration::from_secs(5) {
                committed = Instant::now();
                file.flush().unwrap();
                consumer.commit_consumer_state(CommitMode::Async).unwrap();
            }
        }
        file.flush().unwrap();
        let run = self.ended(started.unwrap(), Vec::new(), &folder);
        fs::remove_dir_all(&folder).unwrap();
        run
    }

    /// The binary, with and without a plugin, into one file.
    fn tidegate(&mut self, search: Option<&Path>) -> Run {
        let (group, folder) = self.fresh();
        let mut document = json!({
            "kafka": { "brokers": self.brokers, "source_topic": TOPIC, "group": group },
            "sinks": { "filesystem": { "log": { "base_path": folder, "path": "rows.jsonl" } } },
        });
        let mut line = request(0).len();
        if let Some(component) = search {
            let options = json!({ "sinks": ["filesystem"], "very_high_match": 0, "file_path": "rows.jsonl" });
            document["collect"] = json!({ "component": component, "options": options });
            line = result(0).len();
        }
        let config = folder.join("tidegate.yaml");
        fs::write(&config, document.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("run")
            .arg(&config)
            .env("RUST_LOG", "error")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let whole = self.records * (line as u64 + 1);
        let (mut started, mut memory) = (None, Vec::new());
        loop {
            let length = fs::metadata(folder.join("rows.jsonl")).map_or(0, |file| file.len());
            if length > 0 {
                started.get_or_insert_with(Instant::now);
            }
            if length * SAMPLES >= whole * (memory.len() as u64 + 1) {
                memory.push(resident(&child));
            }
            assert!(length <= whole, "more was written than there is");
            if length == whole {
                break;
            }
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(TICK);
        }
        let run = self.ended(started.unwrap(), memory, &folder);
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(child.wait().unwrap().success());
        fs::remove_dir_all(&folder).unwrap();
        run
    }

    fn ended(&self, started: Instant, memory: Vec<u64>, folder: &Path) -> Run {
        let took = started.elapsed().as_secs_f64();
        // Written pages of one way must not be paid for by the next.
        File::open(folder.join("rows.jsonl")).unwrap().sync_all().unwrap();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        let rate = self.records as f64 / took;
        Run { rate, memory }
    }
}

fn resident(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

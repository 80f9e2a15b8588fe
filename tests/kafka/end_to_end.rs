//! The binary itself, from topic to sinks through plugins: killed at any moment, ended in order, and given bad records.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::help::{Onlooker, PATIENCE, Row, broker, contents, produce, topic, unique};

const PARTITIONS: i32 = 4;
/// Records of each partition, 200,000 in all, and lives that are cut short.
const PER_PARTITION: u64 = 50_000;
const KILLS: u32 = 10;
/// The longest that a life may take until what is waited for has happened. A debug build on a busy machine is slow.
const LIFE: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_millis(20);

/// A pipeline's configuration, the folders that it writes, and the processes that run it one after the other.
struct Pipeline {
    dir: TempDir,
    source: String,
    results: String,
    onlooker: Onlooker,
}

/// One process.
struct Life {
    child: Child,
    log: PathBuf,
}

/// The collector's component, and its options where it has some.
struct Collector {
    component: &'static str,
    options: Value,
}

const fn plain(component: &'static str) -> Collector {
    Collector { component, options: Value::Null }
}

fn search() -> Collector {
    Collector {
        component: "search.wasm",
        options: json!({ "sinks": ["kafka", "filesystem", "plugin/csv"], "very_high_match": 0 }),
    }
}

fn guest(component: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/guests").join(component);
    assert!(path.exists(), "`{}` is not built: run `make setup`", path.display());
    path
}

impl Pipeline {
    /// Topic, files and CSV behind one collector.
    async fn new(collector: Option<Collector>) -> Self {
        Self::with(collector, |_| json!({})).await
    }

    /// The same with parts of the configuration replaced, which may name the pipeline's folder.
    async fn with(collector: Option<Collector>, parts: impl FnOnce(&Path) -> Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["files", "csv"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let source = unique("requests");
        broker().create_topic(&source, PARTITIONS, &[("max.message.bytes", "12000000")]).await;
        let results = topic("results", PARTITIONS).await;
        let group = unique("end-to-end");
        let mut document = json!({
            "kafka": {
                "brokers": broker().bootstrap(),
                "source_topic": source,
                "group": group,
                // A killed member is missed soon, so that the next life gets its partitions soon.
                "properties": { "session.timeout.ms": "1500", "heartbeat.interval.ms": "300" },
            },
            "checkpoint": { "interval_seconds": 0.2 },
            "sinks": {
                "kafka": { "results": { "topic": results } },
                "filesystem": { "log": { "base_path": dir.path().join("files") } },
                "plugin": { "csv": {
                    "component": guest("csv.wasm"),
                    "options": { "path": "/out/{topic}-{partition}.csv", "columns": ["partition", "offset", "key"] },
                    "grants": {
                        "directories": [{ "host": dir.path().join("csv"), "guest": "/out", "access": "write" }],
                    },
                } },
            },
        });
        if let Some(Collector { component, options }) = collector {
            document["collect"] = json!({ "component": guest(component) });
            if !options.is_null() {
                document["collect"]["options"] = options;
            }
        }
        document.as_object_mut().unwrap().extend(parts(dir.path()).as_object().unwrap().clone());
        fs::write(dir.path().join("tidegate.yaml"), document.to_string()).unwrap();
        Self { dir, source, results, onlooker: Onlooker::new(&group) }
    }

    fn start(&self) -> Life {
        let log = self.dir.path().join(unique("log"));
        let err = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("run")
            .arg(self.dir.path().join("tidegate.yaml"))
            .stderr(err)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Life { child, log }
    }

    /// Records in the topic of results, more than once if they were written more than once.
    fn results_written(&self) -> i64 {
        (0..PARTITIONS).map(|partition| self.onlooker.end(&self.results, partition)).sum()
    }

    fn is_committed_to_its_end(&self) -> bool {
        let end = |partition| self.onlooker.end(&self.source, partition);
        let committed = |partition| self.onlooker.committed(&self.source, partition).unwrap_or(0);
        (0..PARTITIONS).all(|partition| committed(partition) == end(partition))
    }

    /// Runs it until everything is committed, and ends it in order.
    fn run_to_its_end(&self) {
        let mut life = self.start();
        life.wait("everything is committed", || self.is_committed_to_its_end());
        life.ends_in_order();
    }

    /// Lines of the JSONL file, in order. A kill may cut one off, which the next life ends before it goes on.
    fn lines(&self, most_cut: u32) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("files/high-match-results.jsonl")).unwrap_or_default();
        let whole: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let cut = text.lines().count() - whole.len();
        assert!(cut <= most_cut as usize, "{cut} lines are cut off");
        whole
    }

    /// The fields of every CSV row, per file and in order.
    fn rows(&self) -> BTreeMap<PathBuf, Vec<Vec<String>>> {
        let files = fs::read_dir(self.dir.path().join("csv")).unwrap().map(|entry| entry.unwrap().path());
        files
            .map(|path| {
                let text = fs::read_to_string(&path).unwrap();
                let rows = text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect();
                (path, rows)
            })
            .collect()
    }
}

impl Life {
    fn wait(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended by itself ({ended:?}) before {what}:\n{}", self.log_end());
            assert!(started.elapsed() < LIFE, "{what}: not in {LIFE:?}:\n{}", self.log_end());
            std::thread::sleep(TICK);
        }
    }

    /// SIGKILL: nothing is told.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM: as an operator ends it (S54).
    fn terminate(mut self) -> ExitStatus {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end:\n{}", self.log_end());
            std::thread::sleep(TICK);
        }
    }

    fn ends_in_order(self) {
        let log = self.log.clone();
        assert_eq!(self.terminate().code(), Some(0), "S58:\n{}", tail(&log));
        let last = tail(&log).lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("stopped  by SIGTERM: "), "{last}");
    }

    fn log_end(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the process was given a partition.
fn serves(life: &Life) -> impl Fn() -> bool + use<> {
    let log = life.log.clone();
    move || fs::read_to_string(&log).is_ok_and(|text| text.contains(": assigned partition="))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A search request whose id says where it was written: `2-17` is the 18th of partition 2.
fn request(partition: i32, number: u64) -> Row {
    let text = format!("connected\nread timeout {number}");
    let request = json!({ "request_id": format!("{partition}-{number}"), "pattern": "timeout", "text": text });
    Row { key: Some(format!("k{partition}-{}", number % 97).into_bytes()), ..Row::value(request.to_string()) }
}

fn produce_requests(topic: &str, numbers: Range<u64>) {
    for partition in 0..PARTITIONS {
        produce(topic, partition, numbers.clone().map(|number| request(partition, number)));
    }
}

/// Where a request came from.
fn origin(id: &str) -> (i32, u64) {
    let (partition, number) = id.split_once('-').unwrap();
    (partition.parse().unwrap(), number.parse().unwrap())
}

/// Every request is there, and within each lane (a file, a partition of a topic) those of one partition come first in the
/// order in which they were written. Answers how many stand there more than once.
fn arrived<'a>(sink: &str, per_partition: u64, lanes: impl IntoIterator<Item = Vec<&'a str>>) -> usize {
    let mut seen: HashSet<(i32, u64)> = HashSet::new();
    let mut entries = 0;
    for lane in lanes {
        let mut newest: HashMap<i32, u64> = HashMap::new();
        for id in lane {
            let (partition, number) = origin(id);
            entries += 1;
            if seen.insert((partition, number)) {
                let before = newest.insert(partition, number);
                assert!(before.is_none_or(|before| before < number), "{sink}: {id} came after {before:?}");
            }
        }
    }
    let lost: Vec<String> = (0..PARTITIONS)
        .flat_map(|partition| (0..per_partition).map(move |number| (partition, number)))
        .filter(|place| !seen.contains(place))
        .map(|(partition, number)| format!("{partition}-{number}"))
        .take(20)
        .collect();
    assert!(lost.is_empty(), "{sink}: lost {lost:?}, perhaps more");
    entries - seen.len()
}

fn id(value: &Value) -> &str {
    value["request_id"].as_str().unwrap()
}

/// All three sinks have everything, in order. Answers the repetitions of each.
fn check_sinks(pipeline: &Pipeline, per_partition: u64, kills: u32) -> [usize; 3] {
    let lines = pipeline.lines(kills);
    let in_files = arrived("files", per_partition, [lines.iter().map(id).collect()]);
    [check_topic(pipeline, per_partition), in_files, check_csv(pipeline, per_partition)]
}

fn check_topic(pipeline: &Pipeline, per_partition: u64) -> usize {
    let mut topic: BTreeMap<i32, Vec<Value>> = BTreeMap::new();
    for (partition, _, row) in contents(&pipeline.results) {
        topic.entry(partition).or_default().push(serde_json::from_slice(&row.value.unwrap()).unwrap());
    }
    arrived("topic", per_partition, topic.values().map(|lane| lane.iter().map(id).collect()))
}

/// The rows tell the place in the source, not what the collector made of it.
fn check_csv(pipeline: &Pipeline, per_partition: u64) -> usize {
    let rows = pipeline.rows();
    let places = |file: &Vec<Vec<String>>| file.iter().map(|row| format!("{}-{}", row[0], row[1])).collect();
    let lanes: Vec<Vec<String>> = rows.values().map(places).collect();
    arrived("csv", per_partition, lanes.iter().map(|lane| lane.iter().map(String::as_str).collect()))
}

/// S1, S11, S40, S54: whatever moment the process is killed at, every record ends up in every sink at least once and in
/// order, and the group's offsets at the log's end.
async fn survives(collector: Collector) {
    let seed =
        std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let name = collector.component;
    println!("{name}: TIDEGATE_SEED={seed} draws the same moments again");
    let pipeline = Pipeline::new(Some(collector)).await;
    produce_requests(&pipeline.source, 0..PER_PARTITION);
    let all = i64::try_from(PER_PARTITION).unwrap() * i64::from(PARTITIONS);
    for _ in 0..KILLS {
        // Anywhere between the start and so much later that all lives together hardly get to the end.
        let wanted = pipeline.results_written() + random.i64(0..all / i64::from(KILLS));
        let mut life = pipeline.start();
        if random.u8(..5) > 0 {
            life.wait("records are written", || {
                pipeline.results_written() > wanted || pipeline.is_committed_to_its_end()
            });
        }
        std::thread::sleep(Duration::from_millis(random.u64(0..300)));
        life.kill();
    }
    let left = !pipeline.is_committed_to_its_end();
    pipeline.run_to_its_end();
    let repeated = check_sinks(&pipeline, PER_PARTITION, KILLS);
    println!(
        "{name}: killed {KILLS} times (work left after the last: {left}), repeated in topic, files, csv: {repeated:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_two_hundred_thousand_records_survive_ten_kills_of_a_rust_collector() {
    survives(search()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_two_hundred_thousand_records_survive_ten_kills_of_a_python_collector() {
    survives(plain("python-collector.wasm")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_two_hundred_thousand_records_survive_ten_kills_of_a_javascript_collector() {
    survives(plain("javascript-collector.wasm")).await;
}

/// S45–S50: while records flow, members join, leave in order and are killed; partitions change hands, nothing is lost and
/// order is kept across the hand-over.
#[tokio::test(flavor = "multi_thread")]
async fn s45_members_come_and_go() {
    const PORTIONS: u64 = 20;
    const PORTION: u64 = 1_000;
    let collector = Collector { options: json!({ "sinks": ["kafka", "plugin/csv"] }), ..search() };
    let pipeline = Pipeline::new(Some(collector)).await;
    let source = pipeline.source.clone();
    let feed = std::thread::spawn(move || {
        for portion in 0..PORTIONS {
            produce_requests(&source, portion * PORTION..(portion + 1) * PORTION);
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let share = i64::try_from(PORTIONS * PORTION).unwrap() * i64::from(PARTITIONS) / 8;
    let mut first = pipeline.start();
    first.wait("the first member writes", || pipeline.results_written() > share);
    let mut second = pipeline.start();
    let second_serves = serves(&second);
    second.wait("a second member serves", || second_serves() && pipeline.results_written() > 2 * share);
    first.ends_in_order();
    let mut third = pipeline.start();
    let third_serves = serves(&third);
    third.wait("a third member serves", || third_serves() && pipeline.results_written() > 4 * share);
    second.kill();
    feed.join().unwrap();
    third.wait("everything is committed", || pipeline.is_committed_to_its_end());
    third.ends_in_order();
    check_topic(&pipeline, PORTIONS * PORTION);
    check_csv(&pipeline, PORTIONS * PORTION);
}

/// S54, S55: SIGTERM in the middle commits all that was delivered, so that the next life repeats nothing.
#[tokio::test(flavor = "multi_thread")]
async fn s54_an_end_in_order_repeats_nothing() {
    let pipeline = Pipeline::with(Some(search()), |_| json!({ "checkpoint": { "interval_seconds": 60 } })).await;
    produce_requests(&pipeline.source, 0..5_000);
    let mut life = pipeline.start();
    life.wait("records are written", || pipeline.results_written() > 1_000);
    life.ends_in_order();
    let mut life = pipeline.start();
    life.wait("everything is written", || pipeline.results_written() >= 20_000);
    life.ends_in_order();
    assert!(pipeline.is_committed_to_its_end());
    assert_eq!(check_sinks(&pipeline, 5_000, 0), [0, 0, 0]);
}

/// S58, S124: a topic that is not there ends the start with its name, the remedy and the code for it.
#[tokio::test(flavor = "multi_thread")]
async fn s124_a_missing_topic_is_told_at_start() {
    let pipeline = Pipeline::new(None).await;
    let config = pipeline.dir.path().join("tidegate.yaml");
    let sound = fs::read_to_string(&config).unwrap();
    for (topic, place) in [(&pipeline.source, "kafka.source_topic"), (&pipeline.results, "`kafka/results`")] {
        let absent = format!("{topic}-absent");
        fs::write(&config, sound.replace(&format!("\"{topic}\""), &format!("\"{absent}\""))).unwrap();
        let mut life = pipeline.start();
        assert_eq!(life.ended().code(), Some(2), "{}", life.log_end());
        let told = life.log_end();
        assert!(told.contains(&format!("`{absent}`")) && told.contains(place) && told.contains("hint: "), "{told}");
        fs::remove_file(&life.log).unwrap();
    }
}

/// S63, S64, S89, S90: what is no request is dead-lettered with its seven fields; its neighbours arrive; a key that is no
/// text changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn s89_bad_records_are_dead_lettered_and_their_neighbours_arrive() {
    let pipeline = Pipeline::new(Some(search())).await;
    let mut rows: Vec<Row> = (0..10).map(|number| request(0, number)).collect();
    rows[2] = Row { key: Some(b"tombstone".into()), ..Row::default() };
    rows[4].key = Some(vec![0xff, 0xfe]);
    rows[6] = Row { key: Some(vec![0xff]), ..Row::value([0xc3, 0x28]) };
    rows[8] = Row { headers: vec![("trace".into(), None)], ..Row::value("not JSON") };
    produce(&pipeline.source, 0, rows.clone());
    pipeline.run_to_its_end();
    let lines = pipeline.lines(0);
    assert_eq!(lines.iter().map(id).collect::<Vec<_>>(), ["0-0", "0-1", "0-3", "0-4", "0-5", "0-7", "0-9"]);
    let letters = contents(&format!("{}_dlq", pipeline.source));
    let keys: Vec<_> = letters.iter().map(|(_, _, letter)| letter.key.clone()).collect();
    assert_eq!(keys, [rows[2].key.clone(), rows[6].key.clone(), rows[8].key.clone()]);
    for (_, _, letter) in letters {
        let letter: Value = serde_json::from_slice(&letter.value.unwrap()).unwrap();
        let mut fields: Vec<&String> = letter.as_object().unwrap().keys().collect();
        fields.sort();
        let seven = ["attempt_count", "error", "original_payloads", "partition", "sink_name", "sink_type", "timestamp"];
        assert_eq!(fields, seven);
        assert_eq!((&letter["sink_type"], &letter["sink_name"]), (&json!("collect"), &json!("search")));
    }
}

/// S66, S88: without a collector each record's value goes to every sink. Bytes that are no text, a tombstone and ten
/// megabytes arrive where they can be taken, and are dead-lettered where not.
#[tokio::test(flavor = "multi_thread")]
async fn s88_any_record_passes_or_is_dead_lettered() {
    let pipeline = Pipeline::new(None).await;
    // Noise, because what compresses well would pass the topic's limit.
    let mut random = fastrand::Rng::with_seed(1);
    let ten_megabytes =
        format!("\"{}\"", std::iter::repeat_with(|| random.alphanumeric()).take(10_000_000).collect::<String>());
    let rows = [
        Row { key: Some(b"k".into()), ..Row::value("{\"n\": 1}") },
        Row { key: Some(b"k".into()), ..Row::default() },
        Row { key: Some(vec![0xff]), ..Row::value([0xc3, 0x28]) },
        Row { key: Some(b"k".into()), ..Row::value(ten_megabytes.clone()) },
        Row { key: Some(b"k".into()), ..Row::value("{\"n\": 2}") },
    ];
    produce(&pipeline.source, 1, rows.clone());
    pipeline.run_to_its_end();

    let file = pipeline.dir.path().join("files").join(format!("{}-1.jsonl", pipeline.source));
    assert!(fs::read_to_string(file).unwrap() == format!("{{\"n\": 1}}\n{ten_megabytes}\n{{\"n\": 2}}\n"));
    let csv: Vec<String> = pipeline.rows().into_values().flatten().map(|row| row[1].clone()).collect();
    assert_eq!(csv, ["0", "1", "2", "3", "4"]);
    // The topic takes a megabyte a record, and everything else as it came.
    let mut written: Vec<_> = contents(&pipeline.results).into_iter().map(|(_, _, row)| row.value).collect();
    written.sort();
    let mut expected: Vec<_> = [0, 1, 2, 4].iter().map(|row| rows[*row].value.clone()).collect();
    expected.sort();
    assert!(written == expected, "{} records in the topic", written.len());
    let mut dead: Vec<String> = contents(&format!("{}_dlq", pipeline.source))
        .into_iter()
        .map(|(_, _, letter)| {
            let of = |name: &str| letter.headers.iter().find(|(found, _)| found == name).unwrap().1.clone().unwrap();
            let text = |name| String::from_utf8(of(name)).unwrap();
            format!("{} {}", text("tidegate-source-offset"), text("tidegate-sink"))
        })
        .collect();
    dead.sort();
    assert_eq!(dead, ["1 filesystem/log", "2 filesystem/log", "3 kafka/results"]);
}

/// One plugin sink that writes down what it is asked to, and misbehaves as the records' values say.
fn faulty_sink(dir: &Path, options: Value) -> Value {
    let mut all = json!({ "log": "/out/log" });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    json!({ "plugin": { "faulty": {
        "component": guest("faulty-sink.wasm"),
        "options": all,
        "grants": { "directories": [{ "host": dir.join("csv"), "guest": "/out", "access": "write" }] },
    } } })
}

/// The values that the faulty sink wrote, in order.
fn written(pipeline: &Pipeline) -> Vec<String> {
    let log = fs::read_to_string(pipeline.dir.path().join("csv/log")).unwrap();
    let wrote = log.lines().filter_map(|line| line.strip_prefix("wrote "));
    wrote.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

/// S63: the one record on which the collector traps goes to the dead letter queue; those around it arrive, in order.
#[tokio::test(flavor = "multi_thread")]
async fn s63_a_collector_traps_on_one_record() {
    let collector = Collector { component: "faulty-collector.wasm", options: json!({ "sinks": ["plugin"] }) };
    let pipeline = Pipeline::with(Some(collector), |dir| json!({ "sinks": faulty_sink(dir, json!({})) })).await;
    produce(&pipeline.source, 0, ["a", "b", "poison", "c", "d"].map(Row::value));
    pipeline.run_to_its_end();
    assert_eq!(written(&pipeline), ["a", "b", "c", "d"]);
    let letters = contents(&format!("{}_dlq", pipeline.source));
    assert_eq!(letters.len(), 1);
    let letter: Value = serde_json::from_slice(letters[0].2.value.as_deref().unwrap()).unwrap();
    assert!(letter["error"].as_str().unwrap().contains("poison in collect"), "{letter}");
}

/// S27, S28, S130: a buffering sink that traps or never returns in a flush loses its instance and its buffer, and nothing
/// else: everything comes again to a fresh one.
#[tokio::test(flavor = "multi_thread")]
async fn s27_a_sink_loses_its_buffer_and_nothing_is_lost() {
    for act in ["poison", "spin", "sleep"] {
        let pipeline = Pipeline::with(None, |dir| {
            let mut sinks = faulty_sink(dir, json!({ "once": "/out/once" }));
            sinks["plugin"]["faulty"]["limits"] = json!({ "call_timeout_seconds": 1 });
            json!({ "sinks": sinks })
        })
        .await;
        produce(&pipeline.source, 0, ["a", "b", act, "c", "d"].map(Row::value));
        pipeline.run_to_its_end();
        let written = written(&pipeline);
        let mut first: Vec<&str> = Vec::new();
        for value in &written {
            if !first.contains(&value.as_str()) {
                first.push(value);
            }
        }
        assert_eq!(first, ["a", "b", act, "c", "d"], "{act}: {written:?}");
        assert!(contents(&format!("{}_dlq", pipeline.source)).is_empty(), "{act}");
    }
}

//! `dlq list`, `show` and `replay` with the binary: a cause is removed, and what failed arrives byte for byte (S96).

use std::fs;

use serde_json::{Value, json};

use crate::binary::{Scene, Told};
use crate::help::*;

/// One partition whose records' times are known.
pub async fn source(rows: impl IntoIterator<Item = Row>) -> String {
    let topic = topic("orders", 1).await;
    produce(
        &topic,
        0,
        rows.into_iter().zip(1_700_000_000_000..).map(|(row, time)| Row { timestamp: Some(time), ..row }),
    );
    topic
}

/// The file sink cannot write: a folder stands where its file should.
fn blocked(scene: &Scene, topic: &str) {
    fs::create_dir(scene.files().join(format!("{topic}-0.jsonl"))).unwrap();
}

fn unblocked(scene: &Scene, topic: &str) {
    fs::remove_dir(scene.files().join(format!("{topic}-0.jsonl"))).unwrap();
}

/// What was said, with what differs from run to run left out.
fn said(told: &Told, topic: &str, scene: &Scene) -> String {
    let mut text = format!("exit: {}\n--- stdout\n{}--- stderr\n{}", told.code.unwrap(), told.out, told.err);
    text = text.replace(topic, "orders").replace(&scene.group, "out");
    text.replace(&*scene.dir.path().to_string_lossy(), "[folder]")
}

macro_rules! assert_said {
    ($told:expr, $topic:expr, $scene:expr, @$expected:literal) => {
        insta::with_settings!({ filters => vec![
            (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z", "[time]"),
            (r"(?m)(\S) {2,}", "$1  "),
        ] }, {
            insta::assert_snapshot!(said(&$told, $topic, $scene), @$expected)
        })
    };
}

pub fn letters(topic: &str) -> Vec<Row> {
    contents(&format!("{topic}_dlq")).into_iter().map(|(_, _, row)| row).collect()
}

pub fn fact(row: &Row, name: &str) -> String {
    let found = row.headers.iter().find(|(found, _)| found == name).and_then(|(_, value)| value.clone());
    String::from_utf8(found.unwrap_or_default()).unwrap()
}

/// The counts of a closing line.
fn replayed(told: &Told) -> &str {
    told.err.lines().find(|line| line.starts_with("replayed ")).unwrap_or(&told.err)
}

const TO_COPY: &str = "copy";

/// Everything to a topic that takes small records only.
async fn small_copy(stem: &str) -> (String, Value) {
    let copy = unique(stem);
    broker().create_topic(&copy, 1, &[("max.message.bytes", "300"), ("retention.ms", "-1")]).await;
    let sinks = json!({ "sinks": { "kafka": { TO_COPY: { "topic": copy } } } });
    (copy, sinks)
}

async fn grow(topic: &str) {
    alter(topic, &[("max.message.bytes", "1000000"), ("retention.ms", "-1")]).await;
}

/// S96: what a file sink refused is listed and shown; once the cause is gone it arrives byte for byte and in order, in the
/// file that its own record goes to, and a second replay finds nothing left.
#[tokio::test(flavor = "multi_thread")]
async fn s96_what_failed_arrives_once_the_cause_is_gone() {
    let topic = source([
        Row { key: Some(b"k".to_vec()), ..Row::value("{\"n\": 1.0, \"n\": 1e2}") },
        Row { key: Some(vec![0xff]), headers: vec![("h".into(), Some(vec![0xfe]))], ..Row::value("\"é\"") },
        Row::value("{\"b\":2,\"a\":[ ]}"),
    ])
    .await;
    let scene = Scene::new(
        &topic,
        json!({ "sinks": { "filesystem": { "log": { "base_path": "files", "on_error": "dlq" } } } }),
    );
    blocked(&scene, &topic);
    let told = scene.done(&["run", "--until-end"]);
    assert!(told.err.contains("done     3 records committed, 3 dead letters"), "{}", told.err);

    assert_said!(scene.done(&["dlq", "list"]), &topic, &scene, @r#"
    exit: 0
    --- stdout
    record  sink  failed at  attempts  replays  error
    orders[0]@0  filesystem/log  [time]  1  0  `orders-0.jsonl` is a directory, not a file
    orders[0]@1  filesystem/log  [time]  1  0  `orders-0.jsonl` is a directory, not a file
    orders[0]@2  filesystem/log  [time]  1  0  `orders-0.jsonl` is a directory, not a file
    --- stderr
    3 letters, 0 unreadable, 3 records in orders_dlq
    "#);
    assert_said!(scene.done(&["dlq", "show", &format!("{topic}[0]@1")]), &topic, &scene, @r#"
    exit: 0
    --- stdout
    letter  orders_dlq[0]@1
    record  orders[0]@1
    key  base64 /w==
    written  [time]
    sink  filesystem/log
    error  `orders-0.jsonl` is a directory, not a file
    kind  unavailable
    attempts 1
    replays  0
    failed  [time]
    payload  {
               "sink": "log",
               "path": "orders-0.jsonl",
               "key_b64": "/w==",
               "headers": [
                 {
                   "name": "h",
                   "value_b64": "/g=="
                 }
               ],
               "data": "é"
             }
    --- stderr
    "#);
    let listed: Value = serde_json::from_str(&scene.done(&["dlq", "list", "--limit", "1", "--json"]).out).unwrap();
    assert_eq!((listed["letters"].as_array().unwrap().len(), &listed["matching"]), (1, &json!(3)));
    let shown: Value =
        serde_json::from_str(&scene.done(&["dlq", "show", &format!("{topic}[0]@0"), "--json"]).out).unwrap();
    assert_eq!(shown[0]["record"], json!(format!("{topic}[0]@0")));
    let absent = scene.run(&["dlq", "show", &format!("{topic}[0]@77")]);
    assert_eq!(absent.code, Some(2));
    assert!(absent.err.contains("hint: "), "{}", absent.err);

    unblocked(&scene, &topic);
    assert_said!(scene.done(&["dlq", "replay", "--dry-run"]), &topic, &scene, @r#"
    exit: 0
    --- stdout
    would replay 3 letters of orders_dlq under group orders_dlq-replay, 0 passed over
    --- stderr
    "#);
    assert_said!(scene.done(&["dlq", "replay"]), &topic, &scene, @r#"
    exit: 0
    --- stdout
    --- stderr
    replaying orders_dlq under group orders_dlq-replay
    replayed 3 letters: 3 delivered, 0 dead-lettered again, 0 passed over
    "#);
    let file = scene.file(format!("{topic}-0.jsonl"));
    assert_eq!(String::from_utf8(file).unwrap(), "{\"n\": 1.0, \"n\": 1e2}\n\"é\"\n{\"b\":2,\"a\":[ ]}\n");
    let told = scene.done(&["dlq", "replay"]);
    assert_eq!(replayed(&told), "replayed 0 letters: 0 delivered, 0 dead-lettered again, 0 passed over");
    let told = scene.done(&["dlq", "replay", "--error", "is a directory"]);
    assert_eq!(replayed(&told), "replayed 0 letters: 0 delivered, 0 dead-lettered again, 3 passed over");
    assert!(told.err.contains("passed   over: 3 replayed by a replay of all"), "{}", told.err);
    assert_eq!(committed(&topic, 0, &scene.group), Some(3), "the configured group is where it was");
}

/// S92, S96: what is refused again becomes a new letter of the same record with one replay more and the first failure's time; at
/// the bound it is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn s96_what_fails_again_is_counted_and_left_alone_in_the_end() {
    let value: String = (0..200).map(|n: u32| n.wrapping_mul(2_654_435_761).to_string()).collect();
    let topic = source([Row { key: Some(vec![0xff, 0]), ..Row::value(value) }]).await;
    let (_, sinks) = small_copy("small").await;
    let scene = Scene::new(&topic, sinks);
    scene.done(&["run", "--until-end"]);
    for replay in 1..=2 {
        let told = scene.run(&["dlq", "replay", "--max-replays", "2"]);
        assert_eq!(told.code, Some(1), "{}", told.err);
        assert_eq!(replayed(&told), "replayed 1 letter: 0 delivered, 1 dead-lettered again, 0 passed over");
        let letters = letters(&topic);
        assert_eq!(letters.len(), 1 + replay);
        let (first, last) = (&letters[0], &letters[replay]);
        assert_eq!(fact(last, "tidegate-replays"), replay.to_string());
        for same in [
            "tidegate-source-topic",
            "tidegate-source-offset",
            "tidegate-source-timestamp",
            "tidegate-sink",
            "tidegate-first-failed-at",
        ] {
            assert_eq!(fact(last, same), fact(first, same), "{same}");
        }
        assert_eq!(last.key, first.key);
        let value = |row: &Row| -> Value { serde_json::from_slice(row.value.as_deref().unwrap()).unwrap() };
        assert_eq!(value(last)["original_payloads"], value(first)["original_payloads"]);
    }
    let told = scene.done(&["dlq", "replay", "--max-replays", "2"]);
    assert_eq!(replayed(&told), "replayed 0 letters: 0 delivered, 0 dead-lettered again, 1 passed over");
    assert!(told.err.contains("1 replayed 2 times already"), "{}", told.err);
}

/// The source under another group.
fn under(topic: &str, group: &str) -> Value {
    json!({ "kafka": { "brokers": broker().bootstrap(), "source_topic": topic, "group": group } })
}

/// K11: a replay goes on where the last one ended, also after the pipeline's group was renamed; another group is one that was
/// asked for.
#[tokio::test(flavor = "multi_thread")]
async fn s96_a_renamed_group_replays_nothing_twice() {
    let topic = source([Row::value("1"), Row::value("2")]).await;
    let log = json!({ "sinks": { "filesystem": { "log": { "base_path": "files", "on_error": "dlq" } } } });
    let mut scene = Scene::new(&topic, log);
    blocked(&scene, &topic);
    scene.done(&["run", "--until-end"]);
    unblocked(&scene, &topic);
    let told = scene.done(&["dlq", "replay"]);
    assert_eq!(replayed(&told), "replayed 2 letters: 2 delivered, 0 dead-lettered again, 0 passed over");
    scene.change(under(&topic, &unique("renamed")));
    for arguments in [&["dlq", "replay"][..], &["dlq", "replay", "--sink", "filesystem/log"]] {
        let told = scene.done(arguments);
        assert!(replayed(&told).starts_with("replayed 0 letters: 0 delivered"), "{}", told.err);
    }
    let file = || scene.file(format!("{topic}-0.jsonl"));
    assert_eq!(file(), b"1\n2\n");
    let own = unique("own");
    let told = scene.done(&["dlq", "replay", "--group", &own]);
    assert_eq!(replayed(&told), "replayed 2 letters: 2 delivered, 0 dead-lettered again, 0 passed over");
    assert_eq!(file(), b"1\n2\n1\n2\n");
    assert_eq!(committed(&format!("{topic}_dlq"), 0, &own), Some(2));
}

/// K11, S72: a dry run says what would fail. A sink that is gone or renamed and a destination that cannot be reached stop the
/// replay before anything is sent: no replay is counted, and once that is mended everything is delivered, once.
#[tokio::test(flavor = "multi_thread")]
async fn s96_a_mistake_in_the_configuration_uses_up_no_replay() {
    let topic = source([Row::value("1"), Row::value("2")]).await;
    let sinks = |sinks: Value| json!({ "sinks": sinks });
    let log = || json!({ "log": { "base_path": "files", "path": "rows.jsonl", "on_error": "dlq" } });
    let mut scene = Scene::new(&topic, sinks(json!({ "filesystem": log() })));
    let file = scene.files().join("rows.jsonl");
    fs::create_dir(&file).unwrap();
    scene.done(&["run", "--until-end"]);
    fs::remove_dir(&file).unwrap();
    let dlq = format!("{topic}_dlq");
    let omitted = letters(&topic).remove(0);
    let headers = [omitted.headers, vec![("tidegate-payload-omitted".into(), Some(b"size".to_vec()))]].concat();
    produce(&dlq, 0, [Row::value("foreign"), Row { headers, ..omitted }]);

    scene.change(sinks(json!({ "filesystem": { "renamed": { "base_path": "files" } } })));
    assert_said!(scene.run(&["dlq", "replay", "--dry-run"]), &topic, &scene, @r#"
    exit: 2
    --- stdout
    would replay 0 letters of orders_dlq under group orders_dlq-replay, 2 passed over
    passed  over: 1 without their payload, 1 unreadable
    --- stderr
    [time]  WARN tidegate::pipeline::replay::tally: passed over: no dead letter of Tidegate's letter="orders_dlq[0]@2" why="it has no header `tidegate-source-topic`"
    [time]  WARN tidegate::pipeline::replay::tally: passed over: its payload was too large to be kept letter="orders_dlq[0]@3"
    error: dead letters of `orders_dlq` are for sinks that are not configured: 2
      Caused by: `filesystem/log` (2)

    hint: configure the sinks under these names, or replay the letters of one sink with `--sink`; these letters were not sent, and no replay of theirs was counted
    "#);
    let told = scene.run(&["dlq", "replay"]);
    assert_eq!(told.code, Some(2), "{}", told.err);
    assert!(told.err.contains("`filesystem/log` (2)") && told.err.contains("hint: "), "{}", told.err);
    let nowhere = json!({ "gone": { "dsn": "postgresql://tidegate@127.0.0.1:1/none?sslmode=disable", "table": "t" } });
    scene.change(sinks(json!({ "filesystem": log(), "postgres": nowhere })));
    let told = scene.run(&["dlq", "replay"]);
    assert_eq!(told.code, Some(3), "{}", told.err);
    assert_eq!(letters(&topic).len(), 4, "a letter was written");

    scene.change(sinks(json!({ "filesystem": log() })));
    fs::create_dir(&file).unwrap();
    let told = scene.run(&["dlq", "replay"]);
    assert_eq!(told.code, Some(1), "{}", told.err);
    let again = letters(&topic);
    assert_eq!(again[4..].iter().map(|letter| fact(letter, "tidegate-replays")).collect::<Vec<_>>(), ["0", "0"]);
    fs::remove_dir(&file).unwrap();
    let told = scene.done(&["dlq", "replay"]);
    assert_eq!(replayed(&told), "replayed 2 letters: 2 delivered, 0 dead-lettered again, 0 passed over");
    assert_eq!(scene.file("rows.jsonl"), b"1\n2\n");
}

/// K11: of two pipelines with one dead letter topic neither goes past the other's letters: each replays its own sinks'.
#[tokio::test(flavor = "multi_thread")]
async fn s96_two_pipelines_share_a_dead_letter_topic() {
    let topic = source([Row::value("1")]).await;
    let scene = |name: &str| {
        let sink = json!({ "base_path": "files", "path": "rows.jsonl", "on_error": "dlq" });
        Scene::new(&topic, json!({ "sinks": { "filesystem": { name: sink } } }))
    };
    let scenes = ["one", "two"].map(|name| (name, scene(name)));
    for (_, scene) in &scenes {
        fs::create_dir(scene.files().join("rows.jsonl")).unwrap();
        scene.done(&["run", "--until-end"]);
        fs::remove_dir(scene.files().join("rows.jsonl")).unwrap();
    }
    for (name, scene) in &scenes {
        let told = scene.run(&["dlq", "replay"]);
        assert_eq!(told.code, Some(2), "{}", told.err);
        let told = scene.done(&["dlq", "replay", "--sink", &format!("filesystem/{name}")]);
        assert_eq!(replayed(&told), "replayed 1 letter: 1 delivered, 0 dead-lettered again, 1 passed over");
        assert_eq!(scene.file("rows.jsonl"), b"1\n");
    }
}

/// S92, S96: whatever bytes a record has, in either format it comes back with its key, headers and time.
#[tokio::test(flavor = "multi_thread")]
async fn s96_records_come_back_byte_for_byte_in_either_format() {
    for format in ["json", "raw"] {
        // Larger than the topic takes, each in its own way.
        let long =
            |byte: u8| (0..600u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3] | byte).collect::<Vec<u8>>();
        let rows = [
            Row {
                key: Some(vec![0xff, 0x00]),
                headers: vec![("h".into(), None), ("h".into(), Some(vec![0xfe]))],
                ..Row::value(long(0x80))
            },
            Row { key: None, ..Row::value(format!(" {{\"text\": \"{}\"}} ", "é".repeat(200) + &hex(&long(0)))) },
            Row {
                key: Some(vec![]),
                ..Row::value(format!(
                    "[{}]",
                    hex(&long(0)).bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(",")
                ))
            },
            Row { key: Some(long(0x80)), value: None, ..Row::default() },
        ];
        let topic = source(rows.clone()).await;
        let (copy, mut parts) = small_copy("copy").await;
        parts["dlq"] = json!({ "format": format });
        let scene = Scene::new(&topic, parts);
        let told = scene.done(&["run", "--until-end"]);
        assert!(told.err.contains("4 dead letters"), "{format}: {}", told.err);
        if format == "raw" {
            assert_eq!(
                letters(&topic).iter().map(|row| row.value.clone()).collect::<Vec<_>>(),
                rows.clone().map(|row| row.value)
            );
        }
        grow(&copy).await;
        let told = scene.done(&["dlq", "replay"]);
        assert_eq!(
            replayed(&told),
            "replayed 4 letters: 4 delivered, 0 dead-lettered again, 0 passed over",
            "{format}"
        );
        let arrived: Vec<Row> = contents(&copy).into_iter().map(|(_, _, row)| row).collect();
        let expected: Vec<Row> =
            rows.into_iter().zip(1_700_000_000_000..).map(|(row, time)| Row { timestamp: Some(time), ..row }).collect();
        assert!(arrived == expected, "{format}: {arrived:?}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// S96: a filter replays its sink's letters alone and leaves the others to a later replay; what others wrote there is
/// passed over with a warning and stays listed.
#[tokio::test(flavor = "multi_thread")]
async fn s96_a_filter_leaves_the_rest_to_later() {
    let topic = source([Row::value("{\"n\":1}"), Row::value("{\"n\":2}")]).await;
    let both = |on_error: &str| {
        json!({ "sinks": { "filesystem": {
        "log": { "base_path": "files", "on_error": on_error },
        "more": { "base_path": "files", "path": "more.jsonl", "on_error": on_error },
    } } })
    };
    let scene = Scene::new(&topic, both("dlq"));
    blocked(&scene, &topic);
    fs::create_dir(scene.files().join("more.jsonl")).unwrap();
    scene.done(&["run", "--until-end"]);
    let dlq = format!("{topic}_dlq");
    produce(&dlq, 0, [Row::value("{\"foreign\": true}"), Row::default()]);
    unblocked(&scene, &topic);
    fs::remove_dir(scene.files().join("more.jsonl")).unwrap();

    let told = scene.done(&["dlq", "replay", "--sink", "filesystem/more"]);
    assert_eq!(replayed(&told), "replayed 2 letters: 2 delivered, 0 dead-lettered again, 4 passed over");
    assert!(told.err.contains("WARN") && told.err.contains("no dead letter of Tidegate's"), "{}", told.err);
    assert_eq!(scene.file("more.jsonl"), b"{\"n\":1}\n{\"n\":2}\n");
    assert_eq!(scene.file(format!("{topic}-0.jsonl")), b"");
    let told = scene.done(&["dlq", "replay", "--sink", "filesystem/log", "--until", "2100-01-01T00:00:00Z"]);
    assert_eq!(replayed(&told), "replayed 2 letters: 2 delivered, 0 dead-lettered again, 4 passed over");
    assert_eq!(scene.file(format!("{topic}-0.jsonl")), b"{\"n\":1}\n{\"n\":2}\n");
    let list = scene.done(&["dlq", "list"]);
    assert_eq!(list.out.matches("unreadable").count(), 2, "{}", list.out);
    assert_eq!(scene.done(&["dlq", "list", "--error", "no such text"]).out, "");
    let own = scene.done(&["dlq", "show", &format!("{dlq}[0]@4")]);
    assert!(own.out.contains("foreign") && own.out.contains("unread"), "{}", own.out);
}

/// S64, S96: records that a collector refused are given to it again, and what it then makes of them arrives.
#[tokio::test(flavor = "multi_thread")]
async fn s96_a_collector_is_asked_again() {
    let topic = source([Row::value("a"), Row::value("poison"), Row::value("b")]).await;
    let component =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/guests/faulty-collector.wasm");
    let collector = json!({ "component": component, "options": { "sinks": ["kafka"] } });
    let copy = topic_for_copies().await;
    let sinks = json!({ "kafka": { TO_COPY: { "topic": copy } } });
    let mut scene = Scene::new(&topic, json!({ "collect": collector, "sinks": sinks }));
    scene.done(&["run", "--until-end"]);
    assert_eq!(fact(&letters(&topic)[0], "tidegate-sink"), "collect/faulty-collector");
    // Still the same collector: it fails again.
    let told = scene.run(&["dlq", "replay"]);
    assert_eq!(replayed(&told), "replayed 1 letter: 0 delivered, 1 dead-lettered again, 0 passed over", "{}", told.err);
    assert_eq!(fact(&letters(&topic)[1], "tidegate-sink"), "collect/faulty-collector");
    scene.change(json!({ "collect": null }));
    let told = scene.done(&["dlq", "replay"]);
    assert_eq!(replayed(&told), "replayed 1 letter: 1 delivered, 0 dead-lettered again, 0 passed over", "{}", told.err);
    let last = contents(&copy).pop().unwrap().2;
    assert_eq!((last.value.as_deref(), last.timestamp), (Some(&b"poison"[..]), Some(1_700_000_000_001)));
}

async fn topic_for_copies() -> String {
    topic("copy", 1).await
}

/// S58, S96: nothing was ever dead-lettered, a filter that is none.
#[tokio::test(flavor = "multi_thread")]
async fn s58_no_letters_and_no_sense() {
    let topic = source([]).await;
    let scene = Scene::new(&topic, json!({}));
    for command in ["list", "replay"] {
        let told = scene.run(&["dlq", command]);
        assert_eq!(told.code, Some(2), "{}", told.err);
        assert!(told.err.contains("does not exist") && told.err.contains("no letter was ever written"), "{}", told.err);
    }
    assert_eq!(scene.run(&["dlq", "list", "--sink", "postgres"]).code, Some(2));
    assert_eq!(scene.run(&["dlq", "show", "orders"]).code, Some(2));
    scene.done(&["run", "--until-end"]);
    let told = scene.done(&["dlq", "list"]);
    assert_eq!(
        (told.out.as_str(), told.err.as_str()),
        ("", &*format!("0 letters, 0 unreadable, 0 records in {topic}_dlq\n"))
    );
}

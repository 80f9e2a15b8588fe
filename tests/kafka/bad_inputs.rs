//! Records of extreme size and shape, each beside good ones, through every kind of room on default options.

use std::fs;

use serde_json::{Value, json};

use crate::binary::{Process, Scene};
use crate::dlq::{fact, letters};
use crate::help::*;

const MEGABYTE: usize = 1_000_000;

/// A topic that takes records of this size.
async fn roomy(stem: &str, bytes: usize) -> String {
    let name = unique(stem);
    let bytes = (bytes + MEGABYTE).to_string();
    broker().create_topic(&name, 1, &[("max.message.bytes", &bytes), ("retention.ms", "-1")]).await;
    name
}

/// The source's records to a topic, to a file and to the CSV plugin, on default options.
fn scene(topic: &str, results: &str) -> Scene {
    let mut scene = Scene::new(topic, json!({}));
    let rows = scene.dir.path().join("rows");
    fs::create_dir(&rows).unwrap();
    let component = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/guests/csv.wasm");
    let csv = json!({
        "component": component,
        "options": { "path": "/rows/rows.csv", "columns": ["offset", "key", "value"] },
        "grants": { "directories": [{ "host": rows, "guest": "/rows", "access": "write" }] },
    });
    let sinks = json!({
        "kafka": { "results": { "topic": results } },
        "filesystem": { "log": { "base_path": "files", "path": "rows.jsonl" } },
        "plugin": { "csv": csv },
    });
    let kafka = json!({ "brokers": broker().bootstrap(), "source_topic": topic, "group": scene.group });
    scene.change(json!({ "kafka": kafka, "checkpoint": {}, "sinks": sinks }));
    scene
}

/// The offsets in the plugin's file.
fn offsets(scene: &Scene) -> Vec<String> {
    let text = fs::read_to_string(scene.dir.path().join("rows/rows.csv")).unwrap();
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
}

/// Text that no compression makes much smaller.
fn noise(bytes: usize) -> String {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'A' + (state >> 24) as u8 % 26)
    };
    (0..bytes).map(|_| next()).collect()
}

fn number(n: usize) -> Row {
    Row { key: Some(n.to_string().into_bytes()), ..Row::value(n.to_string()) }
}

/// S15, S94a: a key of 600 kB and 100,000 headers go through with everything around them.
#[tokio::test(flavor = "multi_thread")]
async fn s94a_a_huge_key_and_a_hundred_thousand_headers_pass_as_they_are() {
    let (topic, results) = (roomy("extreme", 8 * MEGABYTE).await, roomy("results", 8 * MEGABYTE).await);
    let headers = (0..100_000).map(|n| (format!("h{n}"), Some(format!("{n}").into_bytes()))).collect();
    let rows = [
        number(0),
        Row { key: Some(vec![b'k'; 600_000]), ..number(1) },
        number(2),
        Row { headers, ..number(3) },
        number(4),
    ];
    produce(&topic, 0, rows.clone());
    let scene = scene(&topic, &results);
    let told = scene.done(&["run", "--until-end"]);
    assert!(told.err.contains("0 dead letters, 1 of 1 partitions committed"), "{}", told.err);
    let found = contents(&results).into_iter().map(|(_, _, row)| Row { timestamp: None, ..row });
    assert!(found.eq(rows), "the topic has other records");
    assert_eq!(scene.file("rows.jsonl"), b"0\n1\n2\n3\n4\n");
    assert_eq!(offsets(&scene), ["0", "1", "2", "3", "4"]);
}

/// S15, S63, S94a: a record of 60 MB arrives where it fits, is dead-lettered in part where it does not, and costs no neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn s63_a_record_of_sixty_megabytes_costs_no_neighbour() {
    let size = 60 * MEGABYTE;
    let (topic, results) = (roomy("sixty", size).await, topic("results", 1).await);
    let large = format!("\"{}\"", noise(size));
    produce(&topic, 0, [number(0), Row { key: None, ..Row::value(large) }, number(2)]);
    let scene = scene(&topic, &results);
    let told = scene.done(&["run", "--until-end"]);
    let lines: Vec<usize> = scene.file("rows.jsonl").split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    assert_eq!(lines, [1, size + 2, 1, 0], "{}", told.err);
    let values = contents(&results).into_iter().map(|(_, _, row)| row.value.unwrap());
    assert_eq!(values.collect::<Vec<_>>(), [b"0", b"2"], "{}", told.err);
    assert_eq!(offsets(&scene), ["0", "2"], "{}", told.err);
    let mut dead: Vec<String> = letters(&topic).iter().map(|row| fact(row, "tidegate-sink")).collect();
    dead.sort();
    assert_eq!(dead, ["kafka/results", "plugin/csv"], "{}", told.err);
    for letter in letters(&topic) {
        assert_eq!(fact(&letter, "tidegate-source-offset"), "1");
        assert_eq!(fact(&letter, "tidegate-payload-omitted"), "size");
    }
    let listed: Value = serde_json::from_str(&scene.done(&["dlq", "list", "--json"]).out).unwrap();
    assert_eq!(listed["letters"].as_array().unwrap().len(), 2);
}

/// S58: what the library says of a record that is larger than it receives stands in the log, with the property to raise.
#[tokio::test(flavor = "multi_thread")]
async fn s58_a_record_larger_than_the_client_receives_is_named() {
    let topic = roomy("unreceived", 8 * MEGABYTE).await;
    produce(&topic, 0, [number(0), Row::value(noise(3 * MEGABYTE)), number(2)]);
    let mut scene = Scene::new(&topic, json!({}));
    // The defaults are 50 and 100 MB, more than the suite's broker takes in one request.
    let properties = json!({
        "fetch.max.bytes": "1000000",
        "fetch.message.max.bytes": "1000000",
        "receive.message.max.bytes": "1000512",
    });
    let brokers = broker().bootstrap();
    let kafka = json!({ "brokers": brokers, "source_topic": topic, "group": scene.group, "properties": properties });
    scene.change(json!({ "kafka": kafka }));
    let mut process = Process::start(&scene, &["run", "--until-end"]);
    assert_eq!(process.ended(), Some(1), "{}", process.told());
    assert_eq!(scene.file(format!("{topic}-0.jsonl")), b"0\n");
    let told = process.told();
    assert!(told.contains("error: ") && told.contains("hint: ") && told.contains("`kafka.properties`"), "{told}");
}

//! Dead letters that their topic finds too large, and a topic that would not keep them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::binary::Scene;
use crate::dlq::{fact, letters, source};
use crate::help::*;

/// S94a: records whose keys or headers are larger than the dead letter topic takes end no run: each has a letter that says
/// where it stands and what was left out, whatever the format and whatever is to be done about letters that fail.
#[tokio::test(flavor = "multi_thread")]
async fn s94a_no_record_ends_the_host_by_its_size() {
    const HEADERS: usize = 100_000;
    let noise = |seed: u32, bytes: u32| -> Vec<u8> {
        (0..bytes).map(|n| (n ^ seed).wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()[2]).collect()
    };
    let bad = |key: Vec<u8>| Row { key: Some(key), ..Row::value("no JSON") };
    let many = (0..HEADERS).map(|n| (format!("h{n}"), Some(noise(n as u32, 4)))).collect();
    let rows = [
        bad(noise(1, 600_000)),
        Row::value("{}"),
        bad(noise(2, 60_000)),
        bad(noise(3, 60_000)),
        bad(noise(4, 60_000)),
        Row { headers: many, ..bad(noise(5, 10)) },
    ];
    for (format, on_send_failure) in [("json", "stall"), ("raw", "drop")] {
        let topic = unique("large");
        broker().create_topic(&topic, 1, &[("max.message.bytes", "8000000"), ("retention.ms", "-1")]).await;
        produce(&topic, 0, rows.clone());
        let dead = format!("{topic}_dlq");
        broker().create_topic(&dead, 1, &[("max.message.bytes", "100000"), ("retention.ms", "-1")]).await;
        let parts = json!({ "dlq": { "format": format, "on_send_failure": on_send_failure } });
        let scene = Scene::new(&topic, parts);
        let told = scene.done(&["run", "--until-end"]);
        assert!(told.err.contains("done     6 records committed, 5 dead letters"), "{format}: {}", told.err);
        let letters = letters(&topic);
        let offsets: BTreeSet<String> = letters.iter().map(|row| fact(row, "tidegate-source-offset")).collect();
        assert_eq!((letters.len(), offsets), (5, ["0", "2", "3", "4", "5"].map(str::to_owned).into()), "{format}");
        let of = |offset: &str| letters.iter().find(|row| fact(row, "tidegate-source-offset") == offset).unwrap();
        // A key that fits is whole, one that does not is cut; headers are there where the value does not have them.
        assert_eq!(
            (fact(of("0"), "tidegate-key-omitted"), fact(of("2"), "tidegate-key-omitted")),
            ("size".into(), "".into())
        );
        assert!(
            of("0")
                .key
                .as_ref()
                .is_some_and(|key| key.len() > 10_000 && rows[0].key.as_ref().unwrap().starts_with(key))
        );
        assert_eq!(of("2").key, rows[2].key);
        let omitted = if format == "raw" { "size" } else { "" };
        assert_eq!(fact(of("5"), "tidegate-headers-omitted"), omitted);

        let list = scene.done(&["dlq", "list"]);
        assert_eq!(list.out.matches("[without payload").count(), 5, "{}", list.out);
        let shown = scene.done(&["dlq", "show", &format!("{topic}[0]@0")]);
        assert!(shown.out.contains("payload, key: the letter was larger than its topic takes"), "{}", shown.out);
        let listed: Value = serde_json::from_str(&scene.done(&["dlq", "list", "--limit", "1", "--json"]).out).unwrap();
        assert_eq!(listed["letters"][0]["omitted"][0], json!("payload"));
        let told = scene.done(&["dlq", "replay"]);
        assert!(told.err.contains("passed   over: 5 without their payload"), "{}", told.err);
    }
}

/// S94a: a dead letter topic that is compacted deletes letters and takes none without a key, which is said before anything
/// is read.
#[tokio::test(flavor = "multi_thread")]
async fn s94a_a_compacted_dead_letter_topic_is_refused_at_start() {
    let topic = source([Row::value("no JSON")]).await;
    let dead = format!("{topic}_dlq");
    broker().create_topic(&dead, 1, &[("cleanup.policy", "compact")]).await;
    let scene = Scene::new(&topic, json!({}));
    for arguments in [&["check", "--connect"][..], &["run", "--until-end"]] {
        let told = scene.run(arguments);
        let said = format!("{}{}", told.out, told.err);
        assert_eq!(told.code, Some(2), "{said}");
        assert!(said.contains("is compacted") && said.contains("cleanup.policy=delete"), "{said}");
    }
    alter(&dead, &[("cleanup.policy", "delete"), ("retention.ms", "-1")]).await;
    scene.done(&["run", "--until-end"]);
    assert_eq!(letters(&topic).len(), 1);
}

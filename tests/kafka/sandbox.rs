//! Plugins that misbehave inside the binary, on a real broker: whose records suffer, and whose do not.

use std::path::Path;

use serde_json::{Value, json};

use super::binary::Scene;
use super::help::{Row, committed, contents, produce, topic};

pub fn guest(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/guests/{name}.wasm"));
    assert!(path.exists(), "`{}` is missing: run `make setup`", path.display());
    path.canonicalize().unwrap().display().to_string()
}

/// A collector that does what the records' values say, with an instance for each of four partitions.
fn collector(options: Value, limits: Value) -> Value {
    let mut options = options;
    options["sinks"] = json!(["filesystem"]);
    let mut all = json!({ "instances": 4, "call_timeout_seconds": 0.5, "memory_mebibytes": 16 });
    all.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    let grants = json!({ "directories": [{ "host": "granted", "guest": "/out", "access": "write" }] });
    json!({ "component": guest("faulty-collector"), "options": options, "limits": all, "grants": grants })
}

fn scene(source: &str, parts: Value) -> Scene {
    let scene = Scene::new(source, parts);
    std::fs::create_dir(scene.dir.path().join("granted")).unwrap();
    scene
}

/// The values that arrived, of the records whose values begin with `start`, in order.
fn arrived(scene: &Scene, start: &str) -> Vec<String> {
    let text = String::from_utf8(scene.file("faulty.jsonl")).unwrap();
    let values =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].as_str().unwrap().to_owned());
    values.filter(|value| value.starts_with(start)).collect()
}

/// S129, S130, S63: a loop, a hoard, a recursion and a flood each cost their own record, which is found and dead-lettered with the
/// reason; every other record of all partitions arrives once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn s130_an_attack_costs_its_own_record_alone() {
    let source = topic("attacks", 4).await;
    let attacks = [
        ("spin", "was still running in `collect`"),
        ("hog", "wanted more memory than its 16 MiB"),
        ("recurse", "trapped in `collect`"),
        ("many", "wanted to yield more than its 50 payloads"),
    ];
    for (partition, (attack, _)) in (0..).zip(attacks) {
        let values =
            (0..40).map(|n| if n == 17 { Row::value(attack) } else { Row::value(format!("p{partition}-{n}")) });
        produce(&source, partition, values);
    }
    let scene = scene(&source, json!({ "collect": collector(json!({}), json!({ "payloads_per_call": 50 })) }));
    let told = scene.done(&["run", "--until-end"]);
    for partition in 0..4 {
        let wanted: Vec<String> = (0..40).filter(|n| *n != 17).map(|n| format!("p{partition}-{n}")).collect();
        assert_eq!(arrived(&scene, &format!("p{partition}-")), wanted, "{}", told.err);
        assert_eq!(committed(&source, partition, &scene.group), Some(40));
    }
    let letters = contents(&format!("{source}_dlq"));
    assert_eq!(letters.len(), attacks.len());
    for (_, words) in attacks {
        let tells = |row: &Row| String::from_utf8_lossy(row.value.as_deref().unwrap()).contains(words);
        assert_eq!(letters.iter().filter(|(_, _, row)| tells(row)).count(), 1, "{words}");
    }
}

/// S41, S58: a plugin that only ever fails on a partition ends the host with code 1, after as many tries as it was told; what the other
/// partition had is committed, and nothing is lost or passed over.
#[tokio::test(flavor = "multi_thread")]
async fn s41_a_plugin_that_only_fails_ends_the_host() {
    let source = topic("hopeless", 2).await;
    produce(&source, 0, (0..20).map(|n| Row::value(format!("p0-{n}"))));
    produce(&source, 1, (0..20).map(|_| Row::value("poison")));
    let parts = json!({
        "collect": collector(json!({}), json!({})),
        "checkpoint": { "interval_seconds": 1 },
        "abort": { "max_consecutive": 2 },
    });
    let scene = scene(&source, parts);
    let told = scene.run(&["run"]);
    assert_eq!(told.code, Some(1), "{}", told.err);
    assert!(told.err.contains("trapped in `collect`"), "{}", told.err);
    assert_eq!(arrived(&scene, "p0-").len(), 20);
    assert_eq!(committed(&source, 0, &scene.group), Some(20));
    assert_eq!(committed(&source, 1, &scene.group), None);
}

/// S28, S63: who waits for something outside has met a slow destination: the partition goes back, and no record is blamed.
#[tokio::test(flavor = "multi_thread")]
async fn s28_a_slow_answer_blames_no_record() {
    let source = topic("slow", 1).await;
    produce(&source, 0, ["a", "sleep", "b"].map(Row::value));
    let scene = scene(&source, json!({ "collect": collector(json!({ "once": "/out/once" }), json!({})) }));
    scene.done(&["run", "--until-end"]);
    assert_eq!(arrived(&scene, ""), ["a", "sleep", "b"]);
    assert_eq!(contents(&format!("{source}_dlq")).len(), 0);
    assert_eq!(committed(&source, 0, &scene.group), Some(3));
}

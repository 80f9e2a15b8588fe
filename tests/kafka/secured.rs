//! TLS and SASL on the way to Kafka: the properties reach the source, the sinks and the dead letter queue.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::certificates::Certificates;

const PASSWORD: &str = "s3cret-w0rd";

fn tidegate(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).arg(file).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn tls_and_sasl_are_passed_through() {
    let broker = Broker::secured("app", PASSWORD);
    broker.create_topic("orders", 2, &[]).await;
    broker.create_topic("copies", 2, &[]).await;
    super::help::produce_on(&broker.bootstrap(), "orders", 1, [super::help::Row::value("not json")]);
    super::help::produce_on(&broker.bootstrap(), "orders", 0, [super::help::Row::value("{}")]);
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let configured = |name: &str, more: Value| {
        let mut properties = json!({
            "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "app",
            "sasl.password": "${file:password}", "ssl.ca.location": Certificates::shared().authority(),
        });
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let document = json!({
            "kafka": {
                "brokers": broker.secure_bootstrap(), "source_topic": "orders", "group": "copier", "properties": properties,
            },
            "sinks": {
                "kafka": { "copies": { "topic": "copies" } },
                "filesystem": { "log": { "base_path": folder.path() } },
            },
        });
        let file = folder.path().join(name);
        fs::write(&file, document.to_string()).unwrap();
        file
    };

    let sound = configured("sound.yaml", json!({}));
    let checked = tidegate(&["check", "--connect"], &sound);
    assert!(checked.status.success(), "{}", text(&checked));
    let ran = tidegate(&["run", "--until-end"], &sound);
    assert!(ran.status.success(), "{}", text(&ran));
    assert_eq!(fs::read_to_string(folder.path().join("orders-0.jsonl")).unwrap(), "{}\n");
    let ends = |topic: &str| -> i64 {
        (0..2).map(|partition| super::help::end_on(&broker.bootstrap(), topic, partition)).sum()
    };
    assert_eq!(ends("copies"), 2);

    let wrong = configured("wrong.yaml", json!({ "sasl.password": "guess" }));
    let stranger = configured("stranger.yaml", json!({ "ssl.ca.location": "/etc/ssl/certs/ca-certificates.crt" }));
    for file in [wrong, stranger] {
        let refused = tidegate(&["check", "--connect"], &file);
        assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
        assert!(!text(&refused).contains(PASSWORD) && !text(&refused).contains("guess"), "{}", text(&refused));
    }
}

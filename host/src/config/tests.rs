#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::pipeline::options::OnError;

mod findings;
mod forms;

const SOUND: &str = "kafka: { source_topic: t, group: g }\nsinks: { filesystem: { log: { base_path: /tmp } } }\n";

fn faults_with(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let environment: Environment = variables.iter().copied().collect();
    match parse(text, "t.yaml", &environment) {
        Ok(_) => Vec::new(),
        Err(faults) => faults
            .iter()
            .map(|fault| match &fault.hint {
                Some(hint) => format!("{fault} | {hint}"),
                None => fault.to_string(),
            })
            .collect(),
    }
}

fn sound(text: &str) -> Config {
    let variables = [("WEBHOOK_TOKEN", "s3cret"), ("DATABASE_URL", "postgresql://u:s3cret@db/app")];
    parse(text, "t.yaml", &variables.into_iter().collect()).unwrap()
}

fn faults(text: &str) -> Vec<String> {
    faults_with(text, &[])
}

/// What `text` instead of the sound configuration's `kafka` and `sinks` blocks is told.
fn codes(text: &str) -> Vec<String> {
    faults(text).iter().map(|fault| fault.split(['[', ']']).nth(1).unwrap_or("none").to_owned()).collect()
}

#[test]
fn s122_defaults() {
    let config = parse(SOUND, "t.yaml", &Environment::default()).unwrap();
    assert_eq!(config.kafka.brokers.joined(), "localhost:9092");
    assert_eq!(config.kafka.topics(), ["t"]);
    assert_eq!(config.checkpoint, CheckpointOptions::default());
    assert_eq!(config.sinks.names().collect::<Vec<_>>(), [(SinkKind::Filesystem, "log")]);
}

/// The YAML of our design.
#[test]
fn the_settled_configuration_is_valid() {
    let text = r#"
kafka:
  brokers: [localhost:9092, "localhost:9093"]
  source_topic: search-requests
  group: search-out
  properties: { session.timeout.ms: 45000, enable.ssl.certificate.verification: false }
checkpoint: { interval_seconds: 5, every_records: 0 }
window:     { max_records: 1024, max_bytes: 16777216 }
executor:   { max_retries: 3 }
collect:
  component: plugins/search.wasm
  sha256: ""
  options: {}
  limits: { memory_mebibytes: 64, call_timeout_seconds: 10 }
  grants: {}
sinks:
  kafka:
    results:
      topic: "search-results"
  postgres:   { main: { dsn: "${DATABASE_URL}" } }
  mongo:      { archive: { uri: "mongodb://localhost:27017", database: app } }
  http:       { webhook: { url: "https://hooks.example.com/notify", method: POST, timeout_seconds: 10,
                           headers: { Authorization: "Bearer ${WEBHOOK_TOKEN}" } } }
  redis:      { cache: { url: "redis://localhost:6379/0", key_prefix: "app:" } }
  filesystem: { log: { base_path: /var/lib/tidegate } }
  plugin:     { csv: { component: plugins/csv.wasm, options: { path: /out/rows.csv, nested: [1, { a: null }] },
                       grants: { directories: [{ host: /var/lib/tidegate/csv, guest: /out, access: write }] } } }
dlq:
  topic: ""
  brokers: ""
"#;
    let config = sound(text);
    assert_eq!(config.kafka.brokers.joined(), "localhost:9092,localhost:9093");
    assert_eq!(config.kafka.properties["session.timeout.ms"], "45000");
    assert_eq!(config.kafka.properties["enable.ssl.certificate.verification"], "false");
    assert_eq!(config.sinks.plugin["csv"].options.options["nested"], serde_json::json!([1, { "a": null }]));
    assert_eq!(config.sinks.plugin["csv"].options.grants.directories[0].access, plugin::Access::Write);
}

/// The configuration snippets of the page that the sinks do justice to, as they stand there.
#[test]
fn the_pages_snippets_load_unchanged() {
    let head = "kafka: { source_topic: search-requests, group: g }\n";
    let sinks = r#"
sinks:
  kafka:
    results:
      topic: "search-results"
  postgres:
    main:
      dsn: "postgresql://user:pass@db:5432/app"
  http:
    webhook:
      url: "https://hooks.example.com/notify"
"#;
    let config = sound(&format!("{head}{sinks}"));
    assert_eq!(config.sinks.names().count(), 3);
    assert_eq!(config.sinks.http["webhook"].options.method, "POST");
    let http = r#"
sinks:
  http:
    webhook:
      url: "https://hooks.example.com/notify"
      method: "POST"
      timeout_seconds: 10
      headers:
        Authorization: "Bearer ${WEBHOOK_TOKEN}"
"#;
    let config = sound(&format!("{head}{http}"));
    let options = &config.sinks.http["webhook"].options;
    assert_eq!((options.timeout_seconds, options.headers["Authorization"].as_str()), (10.0, "Bearer s3cret"));
    let dlq = r#"
dlq:
  topic: "" # empty = auto-derived from source topic
  brokers: "" # empty = inherits from kafka.brokers
"#;
    let config = sound(&format!("{SOUND}{dlq}"));
    assert_eq!(config.dlq, DlqOptions::default());
    let config = sound(&format!("{head}sinks: {{ redis: {{ cache: {{}} }} }}\n"));
    let redis = &config.sinks.redis["cache"].options;
    assert_eq!((redis.url.as_str(), redis.key_prefix.as_str()), ("redis://localhost:6379/0", ""));
}

#[test]
fn s122_unknown_keys_are_all_named_with_the_nearest() {
    let text = "kafka: { source_topic: t, grup: g }\nsinks:\n  filesystem:\n    log:\n      base_pth: /tmp\n  kafak: {}\nzzz: 1\n";
    assert_eq!(
        faults(text),
        [
            "`kafka.grup` is not an option (t.yaml:1:27) | did you mean `group`?",
            "`sinks.filesystem.log.base_pth` is not an option (t.yaml:5:7) | did you mean `base_path`?",
        ]
    );
    assert_eq!(
        faults(&format!("{SOUND}zzz: 1\nadmin: {{ address: x }}\n")),
        [
            "`zzz` is not an option (t.yaml:3:1) | there are `kafka`, `checkpoint`, `window`, `memory`, `executor`, `abort`, `collect`, `sinks` and `dlq`",
            "`admin` is not an option (t.yaml:4:1) | there are `kafka`, `checkpoint`, `window`, `memory`, `executor`, `abort`, `collect`, `sinks` and `dlq`",
        ]
    );
    // An unknown key inside a list cannot be stepped over; it is still named once.
    let listed = "collect: { component: c, grants: { directories: [{ host: /a, guests: /b }] } }\n";
    assert_eq!(
        faults(listed),
        ["`collect.grants.directories[0].guests` is not an option (t.yaml:1:62) | did you mean `guest`?"]
    );
}

#[test]
fn every_sink_has_the_common_options_among_its_own() {
    let config = sound(
        "kafka: { source_topics: [a, b], group: g }\nsinks:\n  postgres: { main: { dsn: \"postgresql://u:s3cret@db/app\", on_error: retry } }\n  \
         filesystem: { log: { topics: [a], base_path: /tmp }, rest: { base_path: /tmp } }\n",
    );
    assert_eq!(config.sinks.postgres["main"].delivery.on_error, Some(OnError::Retry));
    assert_eq!(config.sinks.postgres["main"].options.max_connections, 10);
    assert_eq!(config.sinks.filesystem["log"].delivery.topics, ["a"]);
    let names: Vec<_> = config.sinks.names().map(|(kind, name)| format!("{kind}/{name}")).collect();
    assert_eq!(names, ["postgres/main", "filesystem/log", "filesystem/rest"]);
    assert_eq!(
        faults("sinks:\n  redis: { cache: { on_eror: dlq, key_prefx: a, topics: x } }\n"),
        [
            "`sinks.redis.cache.on_eror` is not an option (t.yaml:2:21) | did you mean `on_error`?",
            "`sinks.redis.cache.key_prefx` is not an option (t.yaml:2:35) | did you mean `key_prefix`?",
        ]
    );
    assert_eq!(
        faults("sinks: { redis: { cache: { on_error: drop } } }\n"),
        ["`sinks.redis.cache.on_error` must be `dlq`, `retry`, `skip` or `abort` (t.yaml:1:28)"]
    );
}

#[test]
fn sinks_that_cannot_be_meant() {
    let head = "kafka: { source_topics: [a, b], group: g }\n";
    let of = |sinks: &str| faults(&format!("{head}sinks: {sinks}\n"));
    assert_eq!(
        of(
            "{ filesystem: { log: { base_path: /tmp, on_tombstone: delete } }, postgres: { main: { dsn: x, on_tombstone: delete } } }"
        ),
        [
            "`sinks.postgres.main` cannot delete by key (t.yaml:2:102) [C016] | name the columns or fields of the `key`",
            "`sinks.filesystem.log` cannot delete by key (t.yaml:2:48) [C016] | it has no keys; use `skip`",
        ]
    );
    assert_eq!(
        of("{ redis: { cache: { topics: [a, c] } } }"),
        [
            "`sinks.redis.cache.topics` names `c`, which is not read (t.yaml:2:28) [C017] | the source topics are `a` and `b`",
            "no sink takes the records of `b`, so they would be passed over (t.yaml:2:1) [C017] | name it in the `topics` of a sink, or do not read it",
        ]
    );
    assert_eq!(
        of(
            "{ redis: { cache: { ttl_seconds: 0 } }, http: { hook: { url: x, concurrency: 0, timeout_seconds: 0.5 } } }"
        )
        .len(),
        3
    );
}

#[test]
fn wrong_types_missing_keys_and_words() {
    let sinks = "sinks: { filesystem: { log: { base_path: /tmp } } }\n";
    for (text, expected) in [
        (
            "window:\n  max_records: many\n",
            "`window.max_records` must be a whole number, 0 or more, found a string (t.yaml:2:3) | `window.max_records`: Most records of one window",
        ),
        (
            "window: 5\n",
            "`window` must be a mapping, found a number (t.yaml:1:1) | `window`: How many records of a partition are taken in hand together",
        ),
        (
            "kafka: { brokers: 9 }\n",
            "`kafka.brokers` has a value of the wrong type (t.yaml:1:10) | `kafka.brokers`: `host:port`, or a list of them",
        ),
        (
            "kafka: { source_topics: [a, [b]] }\n",
            "`kafka.source_topics[1]` must be a string, found a list (t.yaml:1:29)",
        ),
        (
            "executor: { max_retries: -1 }\n",
            "`executor.max_retries` must be a whole number from 0 to 4294967295, found a number outside of that (t.yaml:1:13) | `executor.max_retries`: How often a delivery is tried again after its first call",
        ),
        (
            "sinks:\n  kafka:\n    out:\n",
            "`sinks.kafka.out.topic` is missing (t.yaml:3:5) | `sinks.kafka.out.topic`: The topic",
        ),
        (
            "collect: { component: c.wasm, grants: { http: ['https://api.example.com/v1'] } }\n",
            "`collect.grants.http[0]` must be a scheme, a host and perhaps a port, and nothing else, such as `https://api.example.com:443`, found a string (t.yaml:1:48)",
        ),
        (
            "collect: { component: c.wasm, grants: { http_addresses: [10.1.2.3/24] } }\n",
            "`collect.grants.http_addresses[0]` must be an address or a network, such as `192.168.0.7` or `10.1.2.0/24`, with no bit set behind its prefix, found a string (t.yaml:1:58)",
        ),
        ("dlq: { format: jsn }\n", "`dlq.format` must be `json` or `raw` (t.yaml:1:8) | did you mean `json`?"),
        (
            "collect: {}\n",
            "`collect.component` is missing (t.yaml:1:1) | `collect.component`: The component's file; a relative path starts at the configuration file's folder",
        ),
    ] {
        let text = if text.starts_with("sinks") { text.to_owned() } else { format!("{text}{sinks}") };
        assert_eq!(faults(&text), [expected]);
    }
}

#[test]
fn s120_an_override_is_blamed_by_its_variable() {
    assert_eq!(
        faults_with(SOUND, &[("TIDEGATE__KAFKA__GRUOP", "s3cret"), ("TIDEGATE__WINDOW__MAX_BYTES", "s3cret")]),
        ["`kafka.gruop` is not an option (environment variable `TIDEGATE__KAFKA__GRUOP`) | did you mean `group`?"]
    );
    assert_eq!(
        faults_with(SOUND, &[("TIDEGATE__WINDOW__MAX_BYTES", "s3cret")]),
        [
            "`window.max_bytes` must be a whole number, 0 or more, or a size such as `64MiB` or `1GiB`, found a string (environment variable `TIDEGATE__WINDOW__MAX_BYTES`) | `window.max_bytes`: Most bytes of keys, values and headers of one window; a single larger record still makes a window of its own"
        ]
    );
}

#[test]
fn s73_all_findings_at_once() {
    assert_eq!(codes("kafka: {}\n"), ["C001", "C002", "C004"]);
    assert_eq!(
        faults("kafka:\n  brokers: b:1\n"),
        [
            "there is no sink, so nothing would be delivered (t.yaml) [C001] | add one, for example `sinks: { filesystem: { log: { base_path: /var/lib/tidegate } } }`",
            "`kafka.source_topic` is missing (t.yaml:1:1) [C002] | name the topic to consume, or several in `kafka.source_topics`",
            "`kafka.group` is missing (t.yaml:1:1) [C004] | name the consumer group under which offsets are committed",
        ]
    );
}

/// S85, S121: whatever is wrong around a secret, it is not in the message.
#[test]
fn s85_no_error_holds_a_secret() {
    let secret = "s3cret";
    for text in [
        "kafka: { source_topic: t, properties: { sasl.password: \"s3cret${UNSET}\" } }\n".to_owned(),
        "kafka: { properties: { sasl.password: [s3cret] } }\n".to_owned(),
        "kafka: { properties: { sasl.pasword: s3cret } , x: s3cret }\n".to_owned(),
        "kafka: { properties: s3cret }\n".to_owned(),
        "kafka: { source_topic: \"s3cret s3cret\" }\n".to_owned(),
        "window: { max_records: s3cret }\n".to_owned(),
        "dlq: { format: s3cret }\n".to_owned(),
        "dlq: s3cret\n".to_owned(),
        "collect: { component: c, sha256: s3cret }\n".to_owned(),
        "kafka: \"s3cret\n".to_owned(),
        "kafka: { a: s3cret ]\n".to_owned(),
        "kafka: { brokers: { a: s3cret } }\n".to_owned(),
        "kafka: ${S}\n".to_owned(),
        "window: { max_records: ${S}, max_bytes: ${S} }\n".to_owned(),
        "sinks: { filesystem: { log: ${S} } }\n".to_owned(),
    ] {
        let told = faults_with(&text, &[("S", secret), ("TIDEGATE__EXECUTOR__MAX_RETRIES", secret)]);
        assert!(!told.is_empty(), "{text}");
        assert!(!told.join("\n").contains(secret), "{told:?}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let told = |path: &Path| load(path, &Environment::default()).unwrap_err()[0].message.clone();
    let missing = folder.path().join("none.yaml");
    assert_eq!(told(&missing), format!("`{}` does not exist", missing.display()));
    assert_eq!(told(folder.path()), format!("`{}` is a directory", folder.path().display()));
    let latin = folder.path().join("latin.yaml");
    std::fs::write(&latin, b"kafka:\n  group: caf\xe9\n").unwrap();
    assert_eq!(told(&latin), format!("`{}` is not UTF-8 from line 2 on", latin.display()));
    let sound = folder.path().join("sound.yaml");
    std::fs::write(&sound, SOUND).unwrap();
    assert_eq!(load(&sound, &Environment::default()).unwrap().folder, folder.path());
}

/// S121: a value that came from a variable is shown as it was written.
#[test]
fn s121_a_fault_shows_the_reference_and_not_the_value() {
    let text = "kafka: { source_topics: [t, \"${A}\", \"${A}\"], group: g }\ndlq: { topic: \"${A}\" }\nsinks: {}\n";
    let faults = faults_with(text, &[("A", "s3cret")]).join("\n");
    assert!(faults.contains("names `${A}` twice") && faults.contains("would go to `${A}`"), "{faults}");
    assert!(!faults.contains("s3cret"), "{faults}");
}

//! Every finding of a check, with its code.

use super::*;

fn with(kafka: &str, rest: &str) -> String {
    let sinks = if rest.contains("sinks:") { "" } else { "sinks: { filesystem: { log: { base_path: /tmp } } }\n" };
    format!("kafka: {{ group: g, {kafka} }}\n{sinks}{rest}\n")
}

#[test]
fn every_finding_has_its_code() {
    let one = "source_topic: t";
    let plugin = |rest: &str| with(one, &format!("collect: {{ component: c.wasm, {rest} }}"));
    let many: String = (0..64).map(|n| format!("s{n}: {{ base_path: /tmp }}, ")).collect();
    for (code, text) in [
        ("C003", with("source_topic: t, source_topics: [u]", "")),
        ("C005", with("source_topic: ^t", "")),
        ("C005", with("source_topics: [t, t]", "")),
        ("C005", with(one, "sinks: { kafka: { out: { topic: 'a b' } } }")),
        ("C005", with(one, "dlq: { topic: a/b }")),
        ("C006", with(one, "dlq: { topic: t }")),
        ("C006", with("source_topics: [t, t_dlq]", "")),
        ("C007", with(one, "sinks: { kafka: { out: { topic: t } } }")),
        (
            "C007",
            with(
                "source_topic: t, brokers: ['a:1', 'b:1']",
                "sinks: { kafka: { out: { topic: t, brokers: 'c:1, B:1' } } }",
            ),
        ),
        ("C008", with(one, "checkpoint: { interval_seconds: -1 }")),
        ("C008", with(one, "checkpoint: { interval_seconds: .nan }")),
        ("C008", with(one, "executor: { delivery_timeout_seconds: 0 }")),
        ("C008", with(one, "executor: { drain_timeout_seconds: .inf }")),
        ("C008", with(one, "window: { max_records: 0 }")),
        ("C008", with(one, "window: { max_bytes: 0 }")),
        ("C008", with(one, "checkpoint: { max_bytes: 0 }")),
        ("C008", with("source_topic: t, revoke_budget_seconds: 0", "")),
        ("C008", with("source_topic: t, properties: { max.poll.interval.ms: soon }", "")),
        ("C008", plugin("limits: { memory_mebibytes: 0 }")),
        ("C008", plugin("limits: { instances: 65 }")),
        ("C008", plugin("limits: { call_timeout_seconds: 0 }")),
        ("C008", plugin("limits: { setup_timeout_seconds: .nan }")),
        ("C008", plugin("limits: { handles: 0 }")),
        ("C009", with("source_topic: t, revoke_budget_seconds: 60.5", "")),
        ("C009", with("source_topic: t, properties: { max.poll.interval.ms: 49999 }", "")),
        ("C010", with(one, &format!("sinks: {{ filesystem: {{ {many} }} }}"))),
        ("C011", with("source_topic: t, properties: { enable.auto.commit: true }", "")),
        ("C011", with("source_topic: t, properties: { partition.assignment.strategy: range }", "")),
        ("C011", with(one, "sinks: { kafka: { out: { topic: o, properties: { acks: 0 } } } }")),
        ("C012", plugin("grants: { directories: [{ host: /a, guest: /x }, { host: /b, guest: /x/ }] }")),
        ("C013", with(one, "sinks: { filesystem: { 'a b': { base_path: /tmp } } }")),
        ("C014", plugin("sha256: abc")),
        ("C015", with(one, "sinks: { filesystem: { log: { base_path: '' } } }")),
        ("C015", with(one, "collect: { component: '' }")),
        ("C018", plugin("grants: { postgres: [main] }")),
        ("C019", with(one, "sinks: { plugin: { csv: { component: c.wasm, grants: { allowed_sinks: [] } } } }")),
        (
            "C019",
            with(
                one,
                "sinks: { filesystem: { log: { base_path: /tmp } } }\ncollect: { component: c.wasm, grants: { allowed_sinks: [kafka/nobody] } }",
            ),
        ),
        ("C020", plugin("grants: { http_addresses: [10.1.2.0/24] }")),
    ] {
        assert_eq!(codes(&text), [code], "{text}{:?}", faults(&text));
    }
}

#[test]
fn what_is_sound_is_let_pass() {
    for text in [
        with("source_topics: [a, b]", "dlq: { topic: letters }"),
        with("source_topic: t, brokers: a:1", "sinks: { kafka: { out: { topic: t, brokers: 'c:1' } } }"),
        with("source_topic: t, brokers: a:1", "dlq: { topic: t, brokers: 'c:1' }"),
        with("source_topic: t, revoke_budget_seconds: 60", "checkpoint: { interval_seconds: 0 }"),
        with(
            "source_topic: t, properties: { max.poll.interval.ms: 50000, auto.offset.reset: latest }",
            "dlq:\ncollect:",
        ),
    ] {
        assert_eq!(faults(&text), [""; 0], "{text}");
    }
}

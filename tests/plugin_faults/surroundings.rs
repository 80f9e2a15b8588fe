//! Guests that look around: variables, arguments, the network, and another plugin.

use serde_json::json;
use tidegate::model::Fault;
use tidegate::sink::Sink;

use crate::prowler::{self, told};
use crate::stage::{Stage, guest, stopped};
use crate::wat::Wat;

attacks! {
    variables_that_were_not_granted = variables(),
    a_variable_granted_to_another = another_variable(),
    a_connection_to_this_machine = dial("tcp-connect", "a TCP socket"),
    a_server_on_this_machine = dial("tcp-bind", "a TCP socket"),
    a_packet_to_this_machine = dial("udp-send", "a UDP socket"),
    a_port_for_packets = dial("udp-bind", "a UDP socket"),
    a_name_looked_up = dial("lookup", "the address of `localhost`"),
    sockets_made_in_a_row = sockets(),
    the_network_by_way_of_the_standard_library = standard_library(),
    a_statement_that_was_not_granted = statement(),
    one_component_under_two_names = twins(),
    a_plugin_retired_a_hundred_times_in_a_row = retired(),
    a_plugin_that_never_gets_ready = never_ready(),
    the_end_of_the_process = exit(),
    a_crowd_of_instances_that_all_loop = crowd(),
}

async fn variables(stage: &Stage) {
    let look = [json!({ "do": "look" })];
    let sink = prowler::start(stage, json!({})).await;
    assert_eq!(told(stage, &sink, &look).await, ["ok variables []; arguments []; directory None"]);
    let sink = prowler::start(stage, json!({ "grants": { "environment": ["PATH"] } })).await;
    let seen = told(stage, &sink, &look).await;
    assert!(seen[0].starts_with("ok variables [(\"PATH\", ") && !seen[0].contains("CARGO"), "{seen:?}");
    stage.is_silent();
}

/// Two instances in one process, of which one was granted a variable.
async fn another_variable(stage: &Stage) {
    let look = [json!({ "do": "look" })];
    let granted = prowler::start(stage, json!({ "grants": { "environment": ["PATH"] } })).await;
    let other = prowler::start(stage, json!({})).await;
    assert!(told(stage, &granted, &look).await[0].contains("PATH"));
    assert_eq!(told(stage, &other, &look).await, ["ok variables []; arguments []; directory None"]);
    let fault = stage.sink(&guest("prowler"), json!({ "grants": { "environment": ["HOME=x"] } })).await.err().unwrap();
    assert!(fault.message.contains("names `HOME=x`, which is not set"), "{fault}");
    stage.is_silent();
}

async fn dial(stage: &Stage, way: &str, what: &str) {
    let sink = prowler::start(stage, json!({})).await;
    let outcome = told(stage, &sink, &[json!({ "do": "dial", "way": way })]).await;
    assert!(["no access-denied", "no permanent-resolver-failure"].contains(&outcome[0].as_str()), "{outcome:?}");
    let label = stage.label();
    let refusal = format!("WARN plugin: `{label}` was refused: {what}: no plugin gets sockets plugin=\"{label}\"");
    assert_eq!(stage.log(), [refusal]);
    assert_eq!(told(stage, &sink, &[json!({ "do": "count" })]).await, ["ok 1"], "the same instance goes on");
}

async fn sockets(stage: &Stage) {
    let sink = prowler::start(stage, json!({})).await;
    let hoard = json!({ "do": "hoard", "what": "sockets", "most": 1000 });
    for _ in 0..100 {
        assert_eq!(told(stage, &sink, std::slice::from_ref(&hoard)).await, ["no access-denied after 0"]);
    }
    assert!((1..=30).contains(&stage.log().len()), "refusals are bounded, too");
}

/// The line that asks for a grant has to say that there is none.
async fn standard_library(stage: &Stage) {
    let sink = stage.sink(&guest("faulty-sink"), json!({ "options": { "direct": true } })).await.unwrap();
    let fault = stopped(sink.deliver(&stage.records(&["dial"])).await);
    for way in ["tcp", "udp", "listen", "name"] {
        assert!(fault.causes[0].contains(&format!("{way} Err(")), "{fault}");
    }
    assert!(!fault.causes[0].contains("ConnectionRefused"), "the machine was asked: {fault}");
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
}

async fn statement(stage: &Stage) {
    let options = json!({ "options": { "sink": "ma\nin", "load": false } });
    let collector = stage.collector(&guest("lookups"), options).await.unwrap();
    use tidegate::collect::{Collect, Collected};
    let step = json!({ "statement": "SELECT 1", "parameters": [] }).to_string();
    let Ok(Collected::Payloads { failed, .. }) = collector.collect(&stage.records(&[&step])).await else { panic!() };
    let refusal = format!(
        "no statement on `ma\\nin`: no grant covers it; `{}.grants.postgres` would have to name the sink",
        stage.place()
    );
    assert_eq!(failed[0].reason, format!("denied: {refusal}"));
    let label = stage.label();
    assert_eq!(stage.log(), [format!("WARN plugin: `{label}` was refused: {refusal} plugin=\"{label}\"")]);
    assert!(collector.collect(&stage.records(&[r#"{"id":7}"#])).await.is_ok());
}

/// The same file twice in the configuration: two memories, two directories, nothing in common.
async fn twins(stage: &Stage) {
    let (one, other) = (stage.made("one"), stage.made("other"));
    for folder in [&one, &other] {
        std::fs::write(folder.join("file"), folder.display().to_string()).unwrap();
    }
    let grants =
        |folder| json!({ "grants": { "directories": [{ "host": folder, "guest": "/out", "access": "write" }] } });
    let first = prowler::start(stage, grants(&one)).await;
    let second = prowler::start(stage, grants(&other)).await;
    let remember = |text: &str| json!({ "do": "remember", "text": text });
    let read = json!({ "do": "read", "root": "/out", "path": "file" });
    assert_eq!(told(stage, &first, &[remember("mine")]).await, ["ok "]);
    assert_eq!(told(stage, &second, &[remember("yours")]).await, ["ok "], "nothing of the other's memory");
    assert_eq!(told(stage, &first, &[remember("")]).await, ["ok mine"]);
    assert_eq!(told(stage, &first, std::slice::from_ref(&read)).await, [format!("ok {}", one.display())]);
    assert_eq!(told(stage, &second, &[read]).await, [format!("ok {}", other.display())]);
    // One of them dies, and the other still knows what it knew.
    let hoard = json!({ "do": "hoard", "what": "clocks", "most": 100_000 });
    stopped(first.deliver(&prowler::steps(stage, &[hoard])).await);
    assert_eq!(told(stage, &first, &[remember("new")]).await, ["ok "], "a fresh instance knows nothing");
    assert_eq!(told(stage, &second, &[remember("")]).await, ["ok yours"]);
    stage.is_silent();
}

/// Each replacement waits, so that a plugin which dies at once does not take the machine.
async fn retired(stage: &Stage) {
    let guest = Wat::sink().on("deliver", "unreachable").build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    let start = std::time::Instant::now();
    for _ in 0..100 {
        let fault = stopped(sink.deliver(&stage.records(&["!"])).await);
        stage.said(&fault, "`{}` trapped in `deliver`", "");
    }
    assert!(start.elapsed().as_millis() >= 99 * 5, "no wait between two instances");
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    for _ in 0..2 {
        stopped(sink.deliver(&stage.records(&["!"])).await);
        assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    }
    stage.is_silent();
}

/// Here the wait grows: no row can be found by asking again.
async fn never_ready(stage: &Stage) {
    let guest = Wat::sink().on("connect", "unreachable").build();
    let sink = stage.sink(&stage.component(&guest), json!({ "options": { "armed": true } })).await.unwrap();
    let start = std::time::Instant::now();
    for _ in 0..8 {
        let fault = crate::stage::not_started(sink.connect().await);
        stage.said(&fault, "`{}` trapped in `connect`", "");
    }
    assert!(start.elapsed().as_millis() >= 10 + 20 + 40 + 80 + 160 + 320 + 640, "no back-off");
    stage.is_silent();
}

async fn exit(stage: &Stage) {
    let guest = Wat::sink()
        .import("wasi:cli/exit@0.2.0", "exit", "exit", "(param i32)")
        .on("deliver", "(call $exit (i32.const 0))");
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    stage.said(&fault, "`{}` trapped in `deliver`", "");
    assert!(fault.causes[0].contains("Exited with i32 exit status 0"), "{fault}");
    stage.is_silent();
}

/// As many loops as the plugin may have instances, at once.
async fn crowd(stage: &Stage) {
    let guest = Wat::sink().on("deliver", "(loop $again (br $again))").build();
    let sink = stage.sink(&stage.component(&guest), json!({ "limits": { "instances": 16 } })).await.unwrap();
    let calls = (0..16).map(|partition| {
        let mut batch = tidegate::model::Batch::new(stage.source(partition));
        batch.push(0, -1, None, Some(b"!"));
        let (batch, sink) = (std::sync::Arc::new(batch), &sink);
        async move { stopped(sink.deliver(&batch).await) }
    });
    let faults: Vec<Fault> = futures_util::future::join_all(calls).await;
    assert!(faults.iter().all(|fault| fault.message.contains("was still running in `deliver`")), "{faults:?}");
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

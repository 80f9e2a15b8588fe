//! Guests that flood the log, or put words into it that look like another's.

use std::time::Duration;

use serde_json::json;
use tidegate::model::{CallError, FailureKind};
use tidegate::plugin::PluginSink;
use tidegate::sink::Sink;

use crate::machine::peak_mebibytes;
use crate::stage::Stage;
use crate::wat::{Wat, bytes, words};

attacks! {
    a_flood_of_lines = flood("(call $write (call $out) (i32.const 8192) (i32.const 6) (i32.const 4096))", "INFO"),
    a_flood_of_complaints = flood("(call $write (call $error) (i32.const 8192) (i32.const 6) (i32.const 4096))", "WARN"),
    a_flood_of_log_lines = flood("(call $log (i32.const 4) (i32.const 8192) (i32.const 5))", "ERROR"),
    a_flood_of_counters = flood("(call $count (i32.const 8192) (i32.const 5) (i64.const 1))", "DEBUG"),
    a_flood_of_gauges = flood("(call $gauge (i32.const 8192) (i32.const 5) (f64.const nan))", "DEBUG"),
    a_flood_of_bytes = flood_of_bytes(),
    a_flood_by_instances_that_die_in_a_row = flood_of_instances(),
    a_flood_that_is_not_to_be_heard = muted(),
    a_line_of_a_gibibyte = endless_line(),
    a_line_forged_on_standard_output = forged("(call $write (call $out) (i32.const 8192) (i32.const LENGTH) (i32.const 4096))"),
    a_line_forged_in_the_log = forged("(call $log (i32.const 2) (i32.const 8192) (i32.const LENGTH))"),
    a_line_forged_in_the_name_of_a_counter = forged("(call $count (i32.const 8192) (i32.const LENGTH) (i64.const 1))"),
    a_terminal_taken_over = terminal(),
    words_that_run_backwards = backwards(),
    output_that_is_not_utf8 = not_utf8(),
    words_forged_in_a_reason = reason(),
}

/// Where the words stand.
const WORDS: u32 = 8192;

/// A guest that can say things in every way there is.
fn speaker(said: &[u8], body: &str) -> Wat {
    let text = "(param i32 i32 i32)";
    Wat::sink()
        .import("tidegate:plugin/log@0.1.0", "log", "log", text)
        .import("tidegate:plugin/metrics@0.1.0", "count", "count", "(param i32 i32 i64)")
        .import("tidegate:plugin/metrics@0.1.0", "gauge", "gauge", "(param i32 i32 f64)")
        .import("wasi:cli/stdout@0.2.0", "get-stdout", "out", "(result i32)")
        .import("wasi:cli/stderr@0.2.0", "get-stderr", "error", "(result i32)")
        .import(STREAMS, "[method]output-stream.blocking-write-and-flush", "write", "(param i32 i32 i32 i32)")
        .import(STREAMS, "[method]output-stream.check-write", "may", "(param i32 i32)")
        .import(STREAMS, "[method]output-stream.write", "put", "(param i32 i32 i32 i32)")
        .import(STREAMS, "[resource-drop]output-stream", "forget", "(param i32)")
        .with(format!(r#"(data (i32.const {WORDS}) "{}")"#, bytes(said)))
        .on("deliver", body.replace("LENGTH", &said.len().to_string()))
}

const STREAMS: &str = "wasi:io/streams@0.2.0";

async fn started(stage: &Stage, guest: &Wat, limits: serde_json::Value) -> PluginSink {
    stage.sink(&stage.component(&guest.build()), json!({ "limits": limits })).await.unwrap()
}

async fn spoke(stage: &Stage, sink: &PluginSink) {
    assert_eq!(sink.deliver(&stage.records(&["!"])).await, Ok(vec![]));
}

/// How the line ends that the host writes for this plugin, whatever the plugin says.
fn signed(stage: &Stage, line: &str) -> bool {
    line.ends_with(&format!(" plugin=\"{}\"", stage.label()))
}

async fn flood(stage: &Stage, one: &str, level: &str) {
    // Streams are handed out again and again here, so that there must be room for their handles.
    let again = "(br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3000)))";
    let guest = speaker(b"flood\n", &format!("(loop $more {one} {again})"));
    let limits = json!({ "output_lines_per_second": 5, "handles": 65_536, "call_timeout_seconds": 5.0 });
    let sink = started(stage, &guest, limits).await;
    spoke(stage, &sink).await;
    let before = stage.log();
    assert!((1..=20).contains(&before.len()), "{} lines", before.len());
    assert!(before[0].starts_with(&format!("{level} plugin: ")) && before[0].contains("flood"), "{before:?}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    spoke(stage, &sink).await;
    let log = stage.log();
    assert!((before.len() + 2..=before.len() + 20).contains(&log.len()), "{} lines", log.len());
    let left_out =
        |line: &String| line.starts_with("WARN plugin: ") && line.contains(" lines left out: more than 5 lines or ");
    assert!(log.iter().any(left_out), "{log:?}");
    assert!(log.iter().all(|line| signed(stage, line)), "{log:?}");
}

async fn flood_of_bytes(stage: &Stage) {
    let guest = speaker(
        &[b'x'; 3000],
        "(loop $more (call $log (i32.const 2) (i32.const 8192) (i32.const LENGTH))
           (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))",
    );
    let sink = started(stage, &guest, json!({ "output_bytes_per_second": 10_000 })).await;
    let before = stage.log().len();
    spoke(stage, &sink).await;
    let lines = stage.log().len() - before;
    // Three lines and a word on what was left out, in each second that the flood takes.
    assert!((1..=20).contains(&lines), "{lines} lines");
}

/// Two hundred instances, each of which says something and dies: together they say no more than one may.
async fn flood_of_instances(stage: &Stage) {
    let says = "(call $log (i32.const 4) (i32.const 8192) (i32.const LENGTH)) unreachable";
    let sink = started(stage, &speaker(b"last words", says), json!({ "output_lines_per_second": 2 })).await;
    let start = std::time::Instant::now();
    for _ in 0..200 {
        crate::stage::stopped(sink.deliver(&stage.records(&["!"])).await);
    }
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 2;
    let log = stage.log();
    // Two lines in each second that began meanwhile, and a word on what was left out.
    assert!(!log.is_empty() && log.len() <= 3 * seconds, "{} lines in {seconds} s", log.len());
    assert!(log.iter().all(|line| signed(stage, line)), "{log:?}");
}

/// No line at all is what was asked for; a refusal is the host's own word, and is heard.
async fn muted(stage: &Stage) {
    let guest = speaker(b"flood", "(call $log (i32.const 4) (i32.const 8192) (i32.const LENGTH))").import(
        "tidegate:plugin/postgres@0.1.0",
        "query",
        "query",
        "(param i32 i32 i32 i32 i32 i32 i32)",
    );
    let asks = "(call $log (i32.const 4) (i32.const 8192) (i32.const 5))
                (call $query (i32.const 8192) (i32.const 5) (i32.const 8192) (i32.const 5) (i32.const 8192) (i32.const 5) (i32.const 4096))";
    let sink = started(stage, &guest.on("deliver", asks), json!({ "output_lines_per_second": 0 })).await;
    spoke(stage, &sink).await;
    let label = stage.label();
    let wanted = format!(
        "WARN plugin: `{label}` was refused: no statement on `flood`: no grant covers it; `{}.grants.postgres` would have to name \
         the sink plugin=\"plugin/a_flood_that_is_not_to_be_heard\"",
        stage.place()
    );
    assert_eq!(stage.log(), [wanted]);
}

/// 1 GiB without the end of a line: the host keeps a line's worth.
async fn endless_line(stage: &Stage) {
    let guest = speaker(
        b"x",
        "(memory.fill (i32.const 65536) (i32.const 120) (i32.const 65536))
         (local.set $j (call $out))
         (loop $more
           (call $may (local.get $j) (i32.const 4096))
           (call $put (local.get $j) (i32.const 65536) (i32.const 65536) (i32.const 4096))
           (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 16384))))
         (call $write (local.get $j) (i32.const 8193) (i32.const 1) (i32.const 4096))",
    )
    .with(r#"(data (i32.const 8193) "\n")"#);
    let before = peak_mebibytes();
    let sink = started(stage, &guest, json!({ "call_timeout_seconds": 60.0 })).await;
    spoke(stage, &sink).await;
    let grown = peak_mebibytes() - before;
    assert!(grown < 512, "{grown} MiB");
    let log = stage.log();
    assert!(log.len() == 1 && log[0].len() < 5000 && log[0].contains("xxx… plugin="), "{} lines", log.len());
}

/// Another plugin's line, and one of the host's own: both stay inside this plugin's line.
async fn forged(stage: &Stage, body: &str) {
    let said = "fine plugin=\"csv\"\n2026-11-22T00:00:00.000000Z ERROR tidegate: `plugin/csv` is gone\r\n2026-11-22T00:00:00.000000Z  INFO \
                plugin: all rows lost plugin=\"csv\"\n";
    let sink = started(stage, &speaker(said.as_bytes(), body), json!({})).await;
    spoke(stage, &sink).await;
    let log = stage.log();
    assert!(!log.is_empty() && log.iter().all(|line| signed(stage, line)), "{log:?}");
    assert!(
        log.iter().all(|line| [" INFO plugin: ", " DEBUG plugin: "]
            .iter()
            .any(|start| format!(" {line}").starts_with(start))),
        "{log:?}"
    );
    assert!(log.iter().any(|line| line.contains("is gone")), "what it said is there: {log:?}");
}

async fn terminal(stage: &Stage) {
    let said = "\x1b[2J\x1b[31mred\x07\u{9b}0m\u{85}\0end";
    let guest = speaker(said.as_bytes(), "(call $log (i32.const 3) (i32.const 8192) (i32.const LENGTH))");
    let sink = started(stage, &guest, json!({})).await;
    spoke(stage, &sink).await;
    let wanted =
        "WARN plugin: \\u{1b}[2J\\u{1b}[31mred\\u{7}\\u{9b}0m\\u{85}\\u{0}end plugin=\"plugin/a_terminal_taken_over\""
            .to_owned();
    assert_eq!(stage.log(), [wanted]);
}

/// Characters that turn the direction of what follows them, or that some readers take for the end of a line.
async fn backwards(stage: &Stage) {
    let said = "a\u{202e}b\u{2066}c\u{2069}d\u{200f}e\u{2028}f\u{2029}g\u{61c}h\u{feff}i";
    let guest = speaker(said.as_bytes(), "(call $log (i32.const 2) (i32.const 8192) (i32.const LENGTH))");
    let sink = started(stage, &guest, json!({})).await;
    spoke(stage, &sink).await;
    let escaped = "a\\u{202e}b\\u{2066}c\\u{2069}d\\u{200f}e\\u{2028}f\\u{2029}g\\u{61c}h\\u{feff}i";
    assert_eq!(stage.log(), [format!("INFO plugin: {escaped} plugin=\"plugin/words_that_run_backwards\"")]);
}

async fn not_utf8(stage: &Stage) {
    let said = b"one \xff\xfe\xc0\x80 two\n";
    let body = "(call $write (call $out) (i32.const 8192) (i32.const LENGTH) (i32.const 4096))";
    let sink = started(stage, &speaker(said, body), json!({})).await;
    spoke(stage, &sink).await;
    let wanted =
        "INFO plugin: one \u{fffd}\u{fffd}\u{fffd}\u{fffd} two plugin=\"plugin/output_that_is_not_utf8\"".to_owned();
    assert_eq!(stage.log(), [wanted]);
    // In the log's own interface a text must be one: the call ends.
    let guest = speaker(said, "(call $log (i32.const 2) (i32.const 8192) (i32.const LENGTH))");
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    assert!(fault.to_string().contains("invalid utf-8"), "{fault}");
}

/// Reasons end up in the log and in dead letters.
async fn reason(stage: &Stage) {
    let said = b"no\nERROR tidegate: \x1b[31mall is lost";
    let length = u32::try_from(said.len()).unwrap();
    let guest = Wat::sink()
        .with(format!(r#"(data (i32.const {WORDS}) "{}")"#, bytes(said)))
        .with(words(4096, &[0, 0, 4352, 1]))
        .with(words(4352, &[0, 1, WORDS, length]))
        .on("deliver", "(return (i32.const 4096))")
        .build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    let failed = sink.deliver(&stage.records(&["!"])).await.unwrap();
    let found: Vec<_> = failed.iter().map(|failure| (failure.kind, failure.reason.as_str())).collect();
    assert_eq!(found, [(FailureKind::Reject, "no\\nERROR tidegate: \\u{1b}[31mall is lost")]);
    // The same in a fault of the whole call.
    let guest = Wat::sink()
        .with(format!(r#"(data (i32.const {WORDS}) "{}")"#, bytes(said)))
        .with(words(4096, &[1, 0, 1, 0, WORDS, length]))
        .on("deliver", "(return (i32.const 4096))")
        .build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    let Err(CallError::Unavailable(fault)) = sink.deliver(&stage.records(&["!"])).await else { panic!("no fault") };
    assert_eq!(fault.causes, ["no\\nERROR tidegate: \\u{1b}[31mall is lost"]);
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

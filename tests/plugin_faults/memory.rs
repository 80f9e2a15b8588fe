//! Guests that want more memory, more tables or a deeper stack than there is for them.

use serde_json::{Value, json};
use tidegate::model::{Fault, Owner};

use crate::machine::peak_mebibytes;
use crate::stage::Stage;
use crate::wat::Wat;

attacks! {
    memory_grown_page_by_page = grown("(loop $more (drop (memory.grow (i32.const 1))) (br $more))"),
    memory_grown_at_once = grown("(drop (memory.grow (i32.const 60000)))"),
    memory_grown_where_the_host_asks_for_it = realloc(),
    memory_that_is_too_large_from_the_start = born(Wat::sink().memory("1000")),
    memories_that_are_too_many = born(Wat::sink().with("(memory 100)".repeat(3))),
    memory_of_64_bits = wide(),
    a_table_grown_without_end = table(Wat::sink().with("(table $t 1 funcref)").on("deliver", GROW_TABLE)),
    tables_that_are_too_many = tables(),
    a_segment_beside_the_memory = segment(),
    recursion_without_end = recursion(),
    recursion_where_the_host_asks_for_memory = nested_realloc(),
    randomness_by_the_tebibyte = randomness(),
}

/// In MiB.
const LIMIT: u64 = 16;
/// The process must not grow by more while one guest wants all it can get, in MiB; other attacks run meanwhile.
const PEAK: u64 = 1024;
const GROW_TABLE: &str = "(loop $more (drop (table.grow $t (ref.null func) (i32.const 100))) (br $more))";

fn limited() -> Value {
    json!({ "limits": { "memory_mebibytes": LIMIT, "table_elements": 1000 } })
}

#[track_caller]
fn too_much_memory(stage: &Stage, fault: &Fault, hook: &str) {
    let message = format!("`{{}}` wanted more memory than its 16 MiB in `{hook}`, and was stopped");
    stage.said(fault, &message, "if that is legitimate, raise `<place>.limits.memory_mebibytes`");
    stage.is_silent();
}

async fn grown(stage: &Stage, body: &str) {
    let fault = stage.stopped_in_deliver(&Wat::sink().on("deliver", body), limited()).await;
    too_much_memory(stage, &fault, "deliver");
}

/// The host hands over an argument, and the guest takes 16 MiB to put it into.
async fn realloc(stage: &Stage) {
    let guest = Wat::sink().on("realloc", "(loop $more (drop (memory.grow (i32.const 16))) (br $more))").build();
    let sink = stage.sink(&stage.component(&guest), limited()).await.unwrap();
    let large = "x".repeat(100_000);
    too_much_memory(stage, &crate::stage::stopped(deliver(&sink, stage, &large).await), "deliver");
    assert_eq!(deliver(&sink, stage, "fine").await, Ok(vec![]));
}

async fn deliver(sink: &tidegate::plugin::PluginSink, stage: &Stage, value: &str) -> tidegate::model::Answer {
    use tidegate::sink::Sink;
    sink.deliver(&stage.records(&[value])).await
}

async fn born(stage: &Stage, guest: Wat) {
    let fault = stage.sink(&stage.component(&guest.build()), limited()).await.err().unwrap();
    assert_eq!(fault.owner, Owner::Plugin);
    too_much_memory(stage, &fault, "instantiation");
}

/// A second memory with addresses of 64 bits, which may be asked to grow by more than there is.
async fn wide(stage: &Stage) {
    let guest = Wat::sink()
        .with("(memory $wide i64 1)")
        .on("deliver", "(drop (memory.grow $wide (i64.const 0x100000000000))) (loop $more (drop (memory.grow $wide (i64.const 1))) (br $more))");
    let fault = stage.stopped_in_deliver(&guest, limited()).await;
    too_much_memory(stage, &fault, "deliver");
}

#[track_caller]
fn too_many_elements(stage: &Stage, fault: &Fault, hook: &str) {
    let message = format!("`{{}}` wanted more than its 1000 table elements in `{hook}`, and was stopped");
    stage.said(fault, &message, "if that is legitimate, raise `<place>.limits.table_elements`");
    stage.is_silent();
}

async fn table(stage: &Stage, guest: Wat) {
    let fault = stage.stopped_in_deliver(&guest, limited()).await;
    too_many_elements(stage, &fault, "deliver");
}

async fn tables(stage: &Stage) {
    let guest = Wat::sink().with("(table 300 funcref)".repeat(4));
    let fault = stage.sink(&stage.component(&guest.build()), limited()).await.err().unwrap();
    too_many_elements(stage, &fault, "instantiation");
}

async fn segment(stage: &Stage) {
    let guest = Wat::sink().with(r#"(data (i32.const 0x7fffffff) "beside")"#);
    let fault = stage.sink(&stage.component(&guest.build()), limited()).await.err().unwrap();
    assert_eq!(fault.owner, Owner::Plugin);
    stage.said(&fault, "`{}` trapped in `instantiation`", "");
    assert!(fault.causes[0].contains("out of bounds memory access"), "{fault}");
    stage.is_silent();
}

async fn recursion(stage: &Stage) {
    let guest = Wat::sink().with("(func $deeper (call $deeper) (call $deeper))").on("deliver", "(call $deeper)");
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    stage.said(&fault, "`{}` trapped in `deliver`", "");
    assert!(fault.causes[0].contains("call stack exhausted"), "{fault}");
    stage.is_silent();
}

/// The host puts its answer into memory that the guest finds for it; there the guest asks the host again, and so on.
async fn nested_realloc(stage: &Stage) {
    let ask = "(call $random (i64.const 100000) (i32.const 4096))";
    let guest = Wat::sink()
        .import("wasi:random/random@0.2.0", "get-random-bytes", "random", "(param i64 i32)")
        .on("realloc", ask)
        .on("deliver", ask);
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    stage.said(&fault, "`{}` trapped in `deliver`", "");
    assert!(fault.causes[0].contains("cannot leave component instance"), "{fault}");
    stage.is_silent();
}

async fn randomness(stage: &Stage) {
    let guest = Wat::sink()
        .import("wasi:random/random@0.2.0", "get-random-bytes", "random", "(param i64 i32)")
        .on("deliver", "(call $random (i64.const 0x10000000000) (i32.const 4096))");
    let before = peak_mebibytes();
    let fault = stage.stopped_in_deliver(&guest, limited()).await;
    stage.said(&fault, "`{}` trapped in `deliver`", "");
    assert!(peak_mebibytes() - before < PEAK);
    stage.is_silent();
}

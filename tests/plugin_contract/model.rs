//! The buffering sink that takes every freedom of the contract, as a component, and the model that it is made of.

use tidegate::model::{CallError, Failure, Owner};
use tidegate::sink::Sink;

use super::*;

#[allow(dead_code, reason = "it is the guest's")]
#[path = "../guests/rust/model-sink/src/model.rs"]
mod native;

/// A row's value.
fn asks(id: i64, words: Value) -> String {
    let mut value = json!({ "id": id });
    value.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
    value.to_string()
}

struct Scene {
    folder: Folder,
    sink: PluginSink,
}

impl Scene {
    async fn new(options: Value, limits: Value) -> Self {
        let folder = Folder::new();
        let mut all = json!({ "path": "/out/arrivals" });
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let more = json!({ "options": all, "limits": limits, "grants": folder.grants("write") });
        let options = configured(&guest("model-sink"), more);
        let artifact = loaded("sinks.plugin.model", &options).await.unwrap();
        let sink = PluginSink::start(artifact, "model", &options, &Queries::new()).await.unwrap();
        sink.connect().await.unwrap();
        Self { folder, sink }
    }

    /// Adds rows from offset `first` on to partition 0.
    async fn add(&self, first: i64, values: &[String]) -> tidegate::model::Answer {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        self.sink.add(&records(0, first, &values)).await
    }

    /// The ids of the rows that are durable, in the order in which they became so.
    fn arrived(&self) -> Vec<i64> {
        let lines = self.folder.lines("arrivals");
        let id = |line: &String| serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap();
        lines.iter().map(id).collect()
    }
}

fn fine(id: i64) -> String {
    asks(id, json!({}))
}

fn indices(answer: tidegate::model::Answer) -> Vec<u32> {
    answer.unwrap().iter().map(|failure| failure.index).collect()
}

/// S27: rows that an accepted call refused have an index in the flush's answer.
#[tokio::test]
async fn s27_refused_rows_count_in_the_indices_of_a_flush() {
    let scene = Scene::new(json!({}), json!({})).await;
    let refused = [fine(0), asks(1, json!({ "add": "refuse_reject" })), asks(2, json!({ "add": "refuse_retry" }))];
    let answer = scene.add(0, &refused).await;
    assert_eq!(answer, Ok(vec![Failure::reject(1, "row 1 asks for it"), Failure::retry(2, "row 2 asks for it")]));
    let flushed = [asks(3, json!({ "flush": "reject" })), fine(4), asks(5, json!({ "flush": "retry" }))];
    assert_eq!(indices(scene.add(3, &flushed).await), [0; 0]);
    let answer = scene.sink.flush(&orders(0)).await;
    assert_eq!(answer, Ok(vec![Failure::reject(3, "row 3 asks for it"), Failure::retry(5, "row 5 asks for it")]));
    assert_eq!(scene.arrived(), [0, 4]);
}

/// S27: a call that ended with a fault has no index, whether it is repeated or not.
#[tokio::test]
async fn s27_a_call_that_faulted_counts_nothing() {
    let scene = Scene::new(json!({}), json!({})).await;
    assert_eq!(indices(scene.add(0, &[fine(0)]).await), [0; 0]);
    let rejected = scene.add(1, &[fine(1), asks(2, json!({ "add": "reject_call" }))]).await;
    assert!(matches!(&rejected, Err(CallError::Reject(fault)) if fault.owner == Owner::Destination), "{rejected:?}");
    let unavailable = [asks(3, json!({ "add": "unavailable" }))];
    let answer = scene.add(3, &unavailable).await;
    assert!(matches!(&answer, Err(CallError::Unavailable(_))), "{answer:?}");
    let full = scene.add(4, &[asks(4, json!({ "add": "backpressure_when_held" }))]).await;
    assert!(matches!(full, Err(CallError::Backpressure(_))), "{full:?}");
    assert_eq!(indices(scene.add(3, &unavailable).await), [0; 0], "asked again, it is there");
    assert_eq!(indices(scene.add(5, &[asks(5, json!({ "flush": "reject" }))]).await), [0; 0]);
    assert_eq!(indices(scene.sink.flush(&orders(0)).await), [2], "rows 0, 3 and 5 were accepted");
    assert_eq!(scene.arrived(), [0, 3]);
}

/// S27a: what a guest forgets on a fault, a discard makes it forget as well, so that the host has to give it again
/// either way.
#[tokio::test]
async fn s27a_a_guest_may_forget_everything_on_a_fault() {
    for options in [json!({}), json!({ "forget_on_fault": true })] {
        for word in ["reject_call", "reject_call_forget", "unavailable"] {
            let scene = Scene::new(options.clone(), json!({})).await;
            assert_eq!(indices(scene.add(0, &[fine(0)]).await), [0; 0]);
            assert!(scene.add(1, &[asks(1, json!({ "add": word }))]).await.is_err());
            scene.sink.discard(&orders(0)).await;
            assert_eq!(indices(scene.add(0, &[fine(0)]).await), [0; 0]);
            assert_eq!(indices(scene.add(2, &[asks(2, json!({ "flush": "reject" }))]).await), [0; 0]);
            assert_eq!(indices(scene.sink.flush(&orders(0)).await), [1], "{word}");
            assert_eq!(scene.arrived(), [0], "{word}");
        }
    }
}

/// S27b: backpressure leaves standing what was added before.
#[tokio::test]
async fn s27b_a_full_buffer_is_there_to_be_flushed() {
    let scene = Scene::new(json!({ "full_at": 2, "forget_on_fault": true }), json!({})).await;
    assert_eq!(indices(scene.add(0, &[fine(0), fine(1)]).await), [0; 0]);
    assert!(matches!(scene.add(2, &[fine(2)]).await, Err(CallError::Backpressure(_))));
    assert_eq!(indices(scene.sink.flush(&orders(0)).await), [0; 0]);
    assert_eq!(indices(scene.add(2, &[fine(2)]).await), [0; 0]);
    assert_eq!(indices(scene.sink.flush(&orders(0)).await), [0; 0]);
    assert_eq!(scene.arrived(), [0, 1, 2]);
}

/// S15a: ends by limits are told from traps, in add and in flush, and say that the buffer is gone.
#[tokio::test]
async fn s15a_ends_of_a_buffering_guest_are_typed() {
    let limits = json!({ "call_timeout_seconds": 0.3, "memory_mebibytes": 8 });
    let scene = Scene::new(json!({ "hoard_bytes_per_row": 1 << 20 }), limits).await;
    for field in ["add", "flush"] {
        for (word, met_limit) in [("trap", false), ("spin", true)] {
            let added = scene.add(0, &[fine(0), asks(1, json!({ field: word }))]).await;
            let ended = if field == "add" { added } else { scene.sink.flush(&orders(0)).await };
            let typed = match &ended {
                Err(CallError::Trap(fault)) => (false, fault.owner),
                Err(CallError::LimitExceeded(fault)) => (true, fault.owner),
                other => panic!("{other:?}"),
            };
            assert_eq!(typed, (met_limit, Owner::Plugin), "{field} {word}");
            assert!(matches!(scene.sink.flush(&orders(0)).await, Err(CallError::BufferLost(_))));
            scene.sink.discard(&orders(0)).await;
        }
    }
    let many: Vec<String> = (0..10).map(fine).collect();
    assert!(matches!(scene.add(0, &many).await, Err(CallError::LimitExceeded(_))), "10 MiB of 8");
    scene.sink.discard(&orders(0)).await;
    assert_eq!(indices(scene.add(0, &many[..2]).await), [0; 0], "fewer rows fit");
    assert_eq!(indices(scene.sink.flush(&orders(0)).await), [0; 0]);
    assert_eq!(scene.arrived(), [0, 1]);
}

/// The same as a direct sink, with rows that take their time.
#[tokio::test]
async fn s15a_a_slow_row_counts_towards_its_call() {
    let slow = json!({ "direct": true, "milliseconds_per_row": 100 });
    let scene = Scene::new(slow, json!({ "call_timeout_seconds": 1.0 })).await;
    let all: Vec<String> = (0..20).map(fine).collect();
    let values: Vec<&str> = all.iter().map(String::as_str).collect();
    let answer = scene.sink.deliver(&records(0, 0, &values)).await;
    assert!(matches!(answer, Err(CallError::LimitExceeded(_))), "{answer:?}");
    assert_eq!(scene.sink.deliver(&records(0, 0, &values[..1])).await, Ok(vec![]));
    let part =
        scene.sink.deliver(&records(0, 1, &[&asks(11, json!({ "flush": "retry", "times": 1 })), &fine(12)])).await;
    assert_eq!(indices(part), [0]);
    assert_eq!(scene.arrived(), [0, 12]);
}

/// What became durable natively; time does not pass.
#[derive(Default)]
struct Arrived(Vec<String>);

impl native::World for Arrived {
    fn write(&mut self, arrivals: &[native::Arrival]) -> Result<(), String> {
        self.0.extend(arrivals.iter().map(native::Arrival::line));
        Ok(())
    }

    fn work(&mut self, _: u64, _: bool) {}
}

/// An answer in the form in which the component's and the model's can be compared.
#[derive(Debug, PartialEq)]
enum Told {
    Failed(Vec<(u32, bool)>),
    Fault(&'static str),
    Gone,
}

fn told_by_component(answer: tidegate::model::Answer) -> Told {
    match answer {
        Ok(failed) => Told::Failed(
            failed.iter().map(|one| (one.index, one.kind == tidegate::model::FailureKind::Retry)).collect(),
        ),
        Err(CallError::Backpressure(_)) => Told::Fault("backpressure"),
        Err(CallError::Unavailable(_)) => Told::Fault("unavailable"),
        Err(CallError::Reject(_)) => Told::Fault("reject"),
        Err(CallError::Trap(_)) => Told::Gone,
        Err(other) => panic!("{other:?}"),
    }
}

fn told_by_model(answer: native::Answer) -> Told {
    match answer {
        Ok(failed) => Told::Failed(failed.iter().map(|one| (one.index, one.retry)).collect()),
        Err(native::End::Backpressure(_)) => Told::Fault("backpressure"),
        Err(native::End::Unavailable(_)) => Told::Fault("unavailable"),
        Err(native::End::Reject(_)) => Told::Fault("reject"),
        Err(native::End::Trap(_)) => Told::Gone,
        Err(native::End::Spin) => panic!("not asked for here"),
    }
}

/// S27: what is shown with the model natively holds for the component: the same calls in the same order are answered
/// the same.
#[tokio::test]
async fn s27_the_component_is_the_model() {
    let adds =
        ["refuse_reject", "refuse_retry", "reject_call", "reject_call_forget", "trap", "unavailable", "backpressure"];
    let flushes = ["reject", "retry", "reject_call", "trap", "unavailable", "backpressure"];
    for seed in 0..12_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |most: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % most
        };
        let (forget_on_fault, write_before_fault, full_at) = (below(2) == 0, below(2) == 0, below(2) * 6);
        let options = json!({
            "forget_on_fault": forget_on_fault, "write_before_fault": write_before_fault, "full_at": full_at,
        });
        let scene = Scene::new(options.clone(), json!({})).await;
        let fresh = || native::Model::new(native::Options::parse(&options.to_string()).unwrap());
        let (mut model, mut world, mut offset) = (fresh(), Arrived::default(), 0);
        for step in 0..60 {
            let partition = i32::try_from(below(2)).unwrap();
            let source = ("orders".to_owned(), partition);
            let (component, natively) = match below(5) {
                0 => {
                    scene.sink.discard(&orders(partition)).await;
                    model.discard(&source);
                    continue;
                }
                1 => (scene.sink.flush(&orders(partition)).await, model.flush(&source, &mut world)),
                _ => {
                    let values: Vec<String> = (0..=below(3))
                        .map(|_| match below(8) {
                            0 => asks(i64::try_from(below(5)).unwrap(), json!({ "add": adds[below(adds.len())] })),
                            1 => asks(
                                i64::try_from(below(5)).unwrap(),
                                json!({ "flush": flushes[below(flushes.len())] }),
                            ),
                            _ => fine(offset),
                        })
                        .collect();
                    let batch = records(partition, offset, &values.iter().map(String::as_str).collect::<Vec<_>>());
                    let rows: Vec<native::Row> = (offset..)
                        .zip(&values)
                        .map(|(offset, value)| native::Row { offset, ordinal: 0, value: Some(value.clone().into()) })
                        .collect();
                    offset += 10;
                    (scene.sink.add(&batch).await, model.add(&source, &rows))
                }
            };
            let (component, natively) = (told_by_component(component), told_by_model(natively));
            assert_eq!(component, natively, "seed {seed}, step {step}");
            if natively == Told::Gone {
                model = fresh();
                scene.sink.discard(&orders(0)).await;
                scene.sink.discard(&orders(1)).await;
            }
        }
        assert_eq!(scene.folder.lines("arrivals"), world.0, "seed {seed}");
    }
}

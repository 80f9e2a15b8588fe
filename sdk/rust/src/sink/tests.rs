use std::cell::RefCell;
use std::time::Duration;

use super::*;

thread_local! {
    /// Every batch that was written: partition and offsets. And what the next writes answer.
    static WRITTEN: RefCell<Vec<(i32, Vec<i64>)>> = const { RefCell::new(Vec::new()) };
    static ANSWERS: RefCell<Vec<Result<Vec<Failure>, Fault>>> = const { RefCell::new(Vec::new()) };
}

struct Recorder;

impl BatchingSink for Recorder {
    fn new(context: &Context) -> Result<Self, String> {
        if context.options == "{}" { Ok(Self) } else { Err("no option is known".into()) }
    }

    fn describe(&self) -> Description {
        Description { idempotent: true, max_rows: 10, max_bytes: 0 }
    }

    fn connect(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault> {
        let offsets = batch.iter().map(|record| record.offset).collect();
        WRITTEN.with_borrow_mut(|written| written.push((batch.partition(), offsets)));
        ANSWERS.with_borrow_mut(Vec::pop).unwrap_or(Ok(Vec::new()))
    }
}

struct Component;

thread_local! {
    static INSTANCE: RefCell<Option<Batching<Recorder>>> = const { RefCell::new(None) };
}

impl SinkInstance for Component {
    type Sink = Batching<Recorder>;

    fn with<R>(call: impl FnOnce(&mut Option<Self::Sink>) -> R) -> R {
        INSTANCE.with_borrow_mut(call)
    }
}

use sink::Guest as _;

fn context(options: &str) -> Context {
    Context { name: "csv".into(), slot: 0, slots: 1, options: options.into() }
}

fn batch(partition: i32, offsets: &[i64]) -> types::Batch {
    let none = || types::Column { bytes: Vec::new(), lengths: vec![-1; offsets.len()] };
    types::Batch {
        topic: "orders".into(),
        partition,
        offsets: offsets.to_vec(),
        ordinals: Vec::new(),
        timestamps: vec![-1; offsets.len()],
        keys: none(),
        values: none(),
        header_counts: Vec::new(),
        header_names: types::Column { bytes: Vec::new(), lengths: Vec::new() },
        header_values: types::Column { bytes: Vec::new(), lengths: Vec::new() },
    }
}

fn source(partition: i32) -> types::TopicPartition {
    types::TopicPartition { topic: "orders".into(), partition }
}

fn written() -> Vec<(i32, Vec<i64>)> {
    WRITTEN.with_borrow_mut(std::mem::take)
}

fn set_up() {
    assert!(matches!(
        Component::setup(context("{}")),
        Ok(sink::Description { style: sink::Style::Buffering, idempotent: true, max_rows: 10, max_bytes: 0 })
    ));
    assert!(Component::connect().is_ok());
}

#[test]
fn nothing_is_taken_before_setup_succeeded() {
    assert!(matches!(Component::setup(context("[]")), Err(reason) if reason == "no option is known"));
    assert!(matches!(Component::add(batch(0, &[1])), Err(Fault::Fatal(_))));
    assert!(Component::close().is_ok());
}

#[test]
fn s23_each_topic_partition_has_its_batch_and_a_flush_writes_it_once() {
    set_up();
    assert!(Component::add(batch(0, &[1, 2])).is_ok());
    assert!(Component::add(batch(1, &[7])).is_ok());
    assert!(Component::add(batch(0, &[3])).is_ok());
    assert!(Component::flush(source(0)).is_ok());
    assert_eq!(written(), [(0, vec![1, 2, 3])]);
    assert!(Component::flush(source(0)).is_ok());
    assert!(Component::flush(source(2)).is_ok());
    assert!(Component::add(batch(2, &[])).is_ok());
    assert!(Component::flush(source(2)).is_ok());
    assert!(written().is_empty(), "an empty batch is never written");
    assert!(Component::flush(source(1)).is_ok());
    assert_eq!(written(), [(1, vec![7])]);
}

#[test]
fn s23_a_batch_is_gone_after_its_write_whatever_that_returned() {
    for answer in [
        Err(Fault::wait(Duration::from_secs(1))),
        Err(Fault::unavailable("down")),
        Ok(vec![Failure::retry(1, "later")]),
    ] {
        set_up();
        ANSWERS.with_borrow_mut(|answers| answers.push(answer));
        assert!(Component::add(batch(0, &[1, 2])).is_ok());
        let answer = Component::flush(source(0));
        assert!(!matches!(&answer, Ok(failures) if failures.is_empty()), "{answer:?}");
        assert_eq!(written().len(), 1);
        assert!(matches!(Component::flush(source(0)), Ok(failures) if failures.is_empty()));
        assert!(written().is_empty());
    }
}

#[test]
fn s26_discard_forgets_one_topic_partition_and_may_be_repeated() {
    set_up();
    assert!(Component::add(batch(0, &[1])).is_ok());
    assert!(Component::add(batch(1, &[2])).is_ok());
    Component::discard(source(0));
    Component::discard(source(0));
    assert!(Component::flush(source(0)).is_ok());
    assert!(Component::flush(source(1)).is_ok());
    assert_eq!(written(), [(1, vec![2])]);
}

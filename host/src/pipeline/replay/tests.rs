#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Mutex;

use super::super::dlq::Extent;
use super::super::dlq::{DeadLetters, Letter, kafka, payload_json};
use super::super::options::DlqFormat;
use super::*;
use crate::model::{Answer, Fault};
use crate::sink::{Description, Sink};

/// A sink whose rows go to a place named after their topic.
struct Anywhere;

#[async_trait]
impl Sink for Anywhere {
    fn description(&self) -> Description {
        Description::direct(false)
    }

    fn target(&self, source: &TopicPartition) -> Option<String> {
        Some(format!("{source}.jsonl"))
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, _batch: &Arc<Batch>) -> Answer {
        Ok(Vec::new())
    }
}

/// Writes down what it is asked, refuses values that say so, and has a window hook.
#[derive(Default)]
struct Witness {
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Collect for Witness {
    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError> {
        self.asked.lock().unwrap().push(format!("{} {:?}", batch.source, batch.offsets));
        let (mut payloads, mut failed) = (Vec::new(), Vec::new());
        for (row, record) in (0u32..).zip(batch.rows()) {
            match record.value {
                Some(b"bad") => failed.push(Failure::reject(row, "bad")),
                Some(b"later") => failed.push(Failure::retry(row, "later")),
                value => {
                    let one = Payload { index: row, value: value.map(<[u8]>::to_vec), ..Payload::default() };
                    payloads.push((SinkKind::Filesystem, vec![Payload { sink: "log".into(), ..one.clone() }]));
                    payloads.push((SinkKind::Kafka, vec![one]));
                }
            }
        }
        Ok(Collected::Payloads { payloads, failed })
    }

    fn has_window_hook(&self) -> bool {
        true
    }

    async fn window_complete(&self, window: &Window) -> Result<Option<Collected>, CallError> {
        let Window { source, first, last, records } = window;
        self.asked.lock().unwrap().push(format!("window {source} {first}..={last} {records}"));
        Ok(None)
    }
}

fn record(source: &str, offset: i64, value: &[u8]) -> Letter {
    let mut batch = Batch::new(TopicPartition::new(source, 1));
    batch.push(offset, 1_600_000_000_000 + offset, Some(b"k"), Some(value));
    batch.push_headers([(&b"trace"[..], Some(&b"\xff"[..]))]);
    Letter { sink_name: "witness".into(), failed_at: 1_700_000_000_000, ..Letter::of_record(&batch, 0) }
}

fn of_sink(kind: SinkKind, sink: &str, letter: Letter) -> Letter {
    let mut row = Batch::new(letter.source.clone());
    row.push(letter.offset, letter.timestamp, letter.key.as_deref(), letter.value.as_deref());
    let payloads = vec![payload_json(kind, sink, None, &row, 0)];
    Letter { sink_type: kind.name().into(), sink_name: sink.into(), payloads, ..letter }
}

fn posted(letters: &[(Letter, DlqFormat)]) -> Arc<Batch> {
    let mut batch = Batch::new(TopicPartition::new("orders_dlq", 0));
    for (offset, (letter, format)) in (100..).zip(letters) {
        let mut one = Batch::new(batch.source.clone());
        kafka::push(&mut one, letter, *format, Extent::Whole, false);
        one.offsets[0] = offset;
        batch.push_row(&one, 0);
    }
    Arc::new(batch)
}

fn sinks() -> Vec<NamedSink> {
    let mut sinks: Vec<NamedSink> =
        [(SinkKind::Filesystem, "log"), (SinkKind::Filesystem, "other"), (SinkKind::Kafka, "out")]
            .map(|(kind, name)| NamedSink::new(kind, name, Arc::new(Anywhere)))
            .into();
    sinks[1].delivery.topics = vec!["elsewhere".into()];
    sinks
}

fn replay(inner: Arc<dyn Collect>) -> (Replay, Arc<Tally>) {
    let tally = Arc::new(Tally::default());
    let choice = Choice { max_replays: 3, ..Choice::default() };
    (Replay::new(inner, sinks(), choice, tally.clone()), tally)
}

/// `kind/sink row value target timestamp`, as yielded.
async fn yielded(replay: &Replay, batch: &Arc<Batch>) -> (Vec<String>, Vec<Failure>) {
    let Ok(Collected::Payloads { payloads, failed }) = replay.collect(batch).await else { panic!("no payloads") };
    let payloads = flat(payloads).into_iter().map(|(kind, payload)| {
        let value = String::from_utf8(payload.value.unwrap_or_default()).unwrap();
        let (target, time) =
            (payload.target.unwrap_or_default(), payload.timestamp.unwrap_or_default() - 1_600_000_000_000);
        format!("{kind}/{} {} {value} {target} {time}", payload.sink, payload.index)
    });
    (payloads.collect(), failed)
}

/// S96: a payload goes to its sink alone, a record is given to the collector by its own coordinates, with what its sink
/// would have made of them; runs end where the partition changes or offsets do not go up.
#[tokio::test]
async fn s96_letters_become_what_they_keep() {
    let letters = [
        (of_sink(SinkKind::Filesystem, "other", record("orders", 7, b"{}")), DlqFormat::Json),
        (record("orders", 8, b"1"), DlqFormat::Json),
        (record("orders", 9, b"2"), DlqFormat::Raw),
        (record("orders", 4, b"3"), DlqFormat::Json),
        (record("clicks", 5, b"4"), DlqFormat::Json),
        (of_sink(SinkKind::Kafka, "out", record("clicks", 6, b"5")), DlqFormat::Raw),
    ];
    let witness = Arc::new(Witness::default());
    let (replay, tally) = replay(witness.clone());
    let (payloads, failed) = yielded(&replay, &posted(&letters)).await;
    assert_eq!(failed, []);
    assert_eq!(
        payloads,
        [
            "filesystem/other 0 {} orders[1].jsonl 7",
            "filesystem/log 1 1 orders[1].jsonl 8",
            "filesystem/log 2 2 orders[1].jsonl 9",
            "filesystem/log 3 3 orders[1].jsonl 4",
            "filesystem/log 4 4 clicks[1].jsonl 5",
            "kafka/ 1 1 orders[1].jsonl 8",
            "kafka/ 2 2 orders[1].jsonl 9",
            "kafka/ 3 3 orders[1].jsonl 4",
            "kafka/ 4 4 clicks[1].jsonl 5",
            "kafka/ 5 5 clicks[1].jsonl 6",
        ]
    );
    assert_eq!(
        *witness.asked.lock().unwrap(),
        [
            "orders[1] [8, 9]",
            "window orders[1] 8..=9 2",
            "orders[1] [4]",
            "window orders[1] 4..=4 1",
            "clicks[1] [5]",
            "window clicks[1] 5..=5 1",
            "clicks[1] [6]",
        ]
    );
    assert_eq!(tally.totals().taken, 6);
}

/// S96: without a collector a record goes, with key and headers, to the sinks that take its own topic.
#[tokio::test]
async fn s96_without_a_collector_every_sink_gets_the_record() {
    let (replay, _) = replay(Arc::new(crate::collect::Passthrough));
    let letters = posted(&[(record("orders", 7, b"x"), DlqFormat::Json)]);
    let (payloads, _) = yielded(&replay, &letters).await;
    assert_eq!(payloads, ["filesystem/log 0 x orders[1].jsonl 7", "kafka/out 0 x orders[1].jsonl 7"]);
    let Ok(Collected::Payloads { payloads, .. }) = replay.collect(&letters).await else { panic!("no payloads") };
    let payload = &payloads[0].1[0];
    assert_eq!(
        (payload.key.as_deref(), &payload.headers[0]),
        (Some(&b"k"[..]), &(b"trace".to_vec(), Some(vec![0xff])))
    );
}

/// S63, S96: what the collector answers about a record is about its letter; from one to retry on nothing else is asked.
#[tokio::test]
async fn s96_answers_are_about_the_letters() {
    let witness = Arc::new(Witness::default());
    let (replay, _) = replay(witness.clone());
    let letters = [("orders", b"a".as_slice()), ("orders", b"bad"), ("clicks", b"later"), ("orders", b"b")];
    let letters: Vec<_> =
        (0..).zip(letters).map(|(n, (topic, value))| (record(topic, n, value), DlqFormat::Json)).collect();
    let (payloads, failed) = yielded(&replay, &posted(&letters)).await;
    assert_eq!(failed, [Failure::reject(1, "bad"), Failure::retry(2, "later")]);
    assert_eq!(payloads.len(), 2);
    assert_eq!(witness.asked.lock().unwrap().len(), 3, "no window of what is asked again, nothing behind it");
}

/// S96: letters that were replayed too often, are not meant or cannot be read stay where they are, each counted once.
#[tokio::test]
async fn s96_what_is_passed_over_is_counted_once() {
    let mut letters = Batch::clone(&posted(&[
        (Letter { replays: 3, ..record("orders", 1, b"1") }, DlqFormat::Json),
        (Letter { replays: 2, ..record("orders", 2, b"2") }, DlqFormat::Json),
    ]));
    letters.push(102, -1, None, Some(b"foreign"));
    let (replay, tally) = replay(Arc::new(crate::collect::Passthrough));
    let letters = Arc::new(letters);
    for _ in 0..3 {
        assert_eq!(yielded(&replay, &letters).await.0.len(), 2);
    }
    assert_eq!(tally.totals(), Totals { taken: 1, too_often: 1, unreadable: 1, ..Totals::default() });
}

/// S96: filters look at the sink, the error and the time.
#[test]
fn s96_filters() {
    let letter =
        Letter { error: "no column `a`".into(), ..of_sink(SinkKind::Postgres, "main", record("orders", 1, b"1")) };
    let opened = open(&posted(&[(letter, DlqFormat::Json)]), 0).unwrap();
    let sink = |sink: &str| Filter { sink: Some(sink.into()), ..Filter::default() };
    let error = |error: &str| Filter { error: Some(error.into()), ..Filter::default() };
    let time = |since, until| Filter { since, until, ..Filter::default() };
    for (filter, takes) in [
        (sink("postgres/main"), true),
        (sink("postgres/mai"), false),
        (sink("kafka/main"), false),
        (error("column"), true),
        (error("Column"), false),
        (time(Some(1_700_000_000_000), None), true),
        (time(Some(1_700_000_000_001), None), false),
        (time(None, Some(1_700_000_000_000)), false),
        (time(None, Some(1_700_000_000_001)), true),
    ] {
        assert_eq!(filter.takes(&opened), takes, "{filter:?}");
    }
}

/// Keeps the letters that it is given.
#[derive(Default)]
struct Kept(Mutex<Vec<Letter>>);

#[async_trait]
impl DeadLetters for Kept {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        self.0.lock().unwrap().extend_from_slice(letters);
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self) {}
}

/// S92, S96: what fails again is a letter about the first record, with the first failure's time and one replay more; the
/// record or payload that it keeps is the one that the next replay needs.
#[tokio::test]
async fn s92_what_fails_again_is_still_about_its_record() {
    let first = record("orders", 7, b"\xff");
    let letters = [
        (first.clone(), DlqFormat::Json),
        (of_sink(SinkKind::Kafka, "out", first.clone()), DlqFormat::Json),
        (of_sink(SinkKind::Kafka, "out", first.clone()), DlqFormat::Raw),
    ];
    let posted = posted(&letters);
    let (kept, tally) = (Arc::new(Kept::default()), Arc::new(Tally::default()));
    let again = Again::new(kept.clone(), tally.clone());
    for row in 0..3 {
        let failed = Letter {
            error: "again".into(),
            failed_at: 1_800_000_000_000,
            attempt_count: 4,
            ..Letter::of_record(&posted, row)
        };
        let to_sink = Letter {
            sink_type: "filesystem".into(),
            sink_name: "log".into(),
            payloads: vec![r#"{"sink":"log","path":"p","data":1}"#.into()],
            ..failed.clone()
        };
        again.send(&[failed, to_sink]).await.unwrap();
    }
    assert_eq!(tally.totals().again, 3);
    let kept = kept.0.lock().unwrap();
    for letter in kept.iter() {
        assert_eq!((letter.source.at(letter.offset).as_str(), letter.replays), ("orders[1]@7", 1));
        assert_eq!((letter.first_failed_at, letter.failed_at), (Some(1_700_000_000_000), 1_800_000_000_000));
        assert_eq!((letter.timestamp, letter.attempt_count, letter.error.as_str()), (1_600_000_000_007, 4, "again"));
        // The next replay reads it as well, in whichever format it is written.
        for format in [DlqFormat::Json, DlqFormat::Raw] {
            let next = open(&super::tests::posted(&[(letter.clone(), format)]), 0).unwrap();
            match next.content {
                Content::Record => assert_eq!(next.letter.value, first.value),
                Content::Payloads(..) => assert_eq!(next.letter.payloads, letter.payloads),
                Content::Omitted => panic!("nothing was left out"),
            }
            assert_eq!(next.letter.replays, 1);
        }
    }
    let sinks: Vec<String> = kept.iter().map(|letter| format!("{}/{}", letter.sink_type, letter.sink_name)).collect();
    assert_eq!(sinks, ["collect/", "filesystem/log", "kafka/out", "filesystem/log", "kafka/out", "filesystem/log"]);
    assert_eq!(kept[2].payloads, letters[1].0.payloads);
}

/// S96: what a replay of all letters has taken up is not taken up again by one of some; what it had left alone is.
#[test]
fn s96_what_was_replayed_with_all_is_not_replayed_with_some() {
    let often = Letter { replays: 3, ..record("orders", 2, b"2") };
    let letters = posted(&[
        (record("orders", 1, b"1"), DlqFormat::Json),
        (often, DlqFormat::Json),
        (record("orders", 3, b"3"), DlqFormat::Json),
    ]);
    let handled = Handled { below: [(letters.source.clone(), 102)].into(), max_replays: 3 };
    let choice = Choice { max_replays: 10, handled, ..Choice::default() };
    let routes = Routes::default();
    let taken = (0..3).map(|row| matches!(choice.verdict(&routes, &letters, row), Verdict::Take(_)));
    let taken: Vec<bool> = taken.collect();
    assert_eq!(taken, [false, true, true]);
}

/// K11, S72, S96: a letter whose sink is gone stops the replay, in either format, and is neither failed nor passed over; one for
/// a sink that has stopped taking its topic still goes there.
#[tokio::test]
async fn s72_a_sink_that_is_gone_stops_the_replay() {
    let (replay, tally) = replay(Arc::new(crate::collect::Passthrough));
    let gone = of_sink(SinkKind::Kafka, "gone", record("orders", 7, b"1"));
    for format in [DlqFormat::Raw, DlqFormat::Json] {
        let batch = posted(&[(record("orders", 6, b"0"), DlqFormat::Json), (gone.clone(), format)]);
        for refused in [replay.collect(&batch).await.err(), replay.probe(&batch).await.err()] {
            let Some(CallError::Fatal(fault)) = refused else { panic!("{refused:?}") };
            assert!(
                fault.to_string().ends_with("not configured: 1: `kafka/gone` (1)") && fault.hint.is_some(),
                "{fault}"
            );
        }
    }
    assert_eq!(tally.totals().passed(), 0);
    let other = of_sink(SinkKind::Filesystem, "other", record("orders", 8, b"1"));
    let (payloads, _) = yielded(&replay, &posted(&[(other, DlqFormat::Raw)])).await;
    assert_eq!(payloads, ["filesystem/other 0 1 orders[1].jsonl 8"]);
}

/// K11: what an unavailable destination did not take, or a collector has for a sink that is not configured, has used up no replay.
#[tokio::test]
async fn s96_an_unavailable_destination_or_a_missing_sink_uses_up_no_replay() {
    let posted = posted(&[(Letter { replays: 1, ..record("orders", 7, b"1") }, DlqFormat::Json)]);
    let kept = Arc::new(Kept::default());
    let again = Again::new(kept.clone(), Arc::default());
    for kind in [FailureKind::Unavailable, FailureKind::Retry, FailureKind::Reject] {
        again.send(&[Letter { kind, ..Letter::of_record(&posted, 0) }]).await.unwrap();
    }
    let replays: Vec<u32> = kept.0.lock().unwrap().iter().map(|letter| letter.replays).collect();
    assert_eq!(replays, [1, 2, 2]);
    for sink in ["gone", ""] {
        let refused = replay(Arc::new(crate::collect::Passthrough))
            .0
            .routes
            .resolve(SinkKind::Filesystem, sink)
            .unwrap_err()
            .to_string();
        again.send(&[Letter { error: refused, ..Letter::of_record(&posted, 0) }]).await.unwrap();
        assert_eq!(kept.0.lock().unwrap().pop().map(|letter| letter.replays), Some(1), "{sink}");
    }
}

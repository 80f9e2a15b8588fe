//! A dead letter as somebody wrote it: read, sent through again, and written again without loss.
//!
//! The input is read as a message of HTTP is: lines of `name: value` (without `: ` the value is null), an empty line, and the
//! record's value. Without the empty line there is no value. A line named [`KEY`] gives the record's key.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tidegate::collect::{Collect as _, Collected, Passthrough};
use tidegate::model::{Batch, CallError, Failure, Payload, SinkKind, TopicPartition};
use tidegate::pipeline::NamedSink;
use tidegate::pipeline::dlq::kafka::KafkaDlq;
use tidegate::pipeline::dlq::payload::parse_payload;
use tidegate::pipeline::dlq::{Content, DeadLetters as _, Letter, Opened, open, payload_json};
use tidegate::pipeline::options::DlqFormat;
use tidegate::pipeline::replay::{Again, Choice, Filter, Replay, Tally};
use tidegate::pipeline::route::Routes;
use tidegate::sink::{Description, Sink};

use super::runtime::wait_for;

/// The line of the record's key.
const KEY: &[u8] = b"key";
/// The one sink of each kind.
const SINK: &str = "results";
/// How often a letter is replayed.
const REPLAYS: u32 = 5;

/// S90, S92, S96: garbage is refused in words; what is a letter is sent through again, and when that fails, the further
/// letter keeps what this one kept.
pub fn run(data: &[u8]) {
    let batch = Arc::new(record(data));
    let opened = match open(&batch, 0) {
        Ok(opened) => opened,
        Err(why) => return assert!(!why.is_empty()),
    };
    let _any = Filter { sink: Some("kafka/results".into()), since: Some(0), ..Filter::default() }.takes(&opened);
    let sinks: Vec<NamedSink> =
        SinkKind::ALL.iter().map(|kind| NamedSink::new(*kind, SINK, Arc::new(Paper::default()))).collect();
    let routes = Routes::new(sinks.iter().map(|sink| (sink.kind, sink.name.as_str())));
    let choice = Choice { max_replays: REPLAYS, ..Choice::default() };
    let replay = Replay::new(Arc::new(Passthrough), sinks, choice, Arc::new(Tally::default()));
    let collected = match wait_for(replay.collect(&batch)) {
        Ok(collected) => collected,
        // S72: a letter for a sink that is gone stops the replay, and stays where it is.
        Err(error) if error.to_string().contains("sinks that are not configured") => return,
        Err(error) => panic!("{error}"),
    };
    let Collected::Payloads { payloads, failed } = collected else { panic!("a replay never passes letters through") };
    assert!(failed.iter().all(|failure| failure.index == 0), "{failed:?}");
    let left = opened.content == Content::Omitted || opened.letter.replays >= REPLAYS;
    assert!(!left || (payloads.is_empty() && failed.is_empty()), "{opened:?}");
    let routed = routes.route(&batch, payloads).unwrap_or_else(|fault| panic!("{fault}"));
    for group in &routed.groups {
        for row in 0..group.batch.len() {
            let kind = SinkKind::ALL[group.sink];
            round_trip(kind, &group.batch, row);
            if !left {
                payload_again(kind, &batch, &payload_json(kind, SINK, None, &group.batch, row), &opened);
            }
        }
    }
    if opened.content == Content::Record && !left {
        record_again(&batch, &opened);
    }
}

/// The record that the input is.
fn record(data: &[u8]) -> Batch {
    let (mut key, mut headers, mut rest, mut value) = (None, Vec::new(), data, None);
    while !rest.is_empty() {
        let (line, after) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &[][..]),
        };
        rest = after;
        if line.is_empty() {
            value = Some(rest);
            break;
        }
        let colon = line.windows(2).position(|pair| pair == b": ");
        match colon.map(|at| (&line[..at], &line[at + 2..])) {
            Some((KEY, text)) => key = Some(text),
            Some((name, text)) => headers.push((name, Some(text))),
            None => headers.push((line, None)),
        }
    }
    let mut batch = Batch::new(TopicPartition::new("orders_dlq", 0));
    batch.push(7, 1_700_000_000_000, key, value);
    batch.push_headers(headers);
    batch
}

/// What the queue is given when the letter fails again.
fn again(letter: Letter, format: DlqFormat) -> Opened {
    let paper = Arc::new(Paper::default());
    let queue = Arc::new(KafkaDlq::new(Arc::clone(&paper) as Arc<dyn Sink>, "orders_dlq", format));
    let queue = Again::new(queue, Arc::new(Tally::default()));
    wait_for(queue.send(&[letter])).unwrap_or_else(|fault| panic!("{fault}"));
    let batch = paper.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let batch = batch.unwrap_or_else(|| panic!("nothing was written"));
    open(&batch, 0).unwrap_or_else(|why| panic!("{why}: {batch:?}"))
}

/// A payload that its sink does not take.
fn payload_again(kind: SinkKind, batch: &Batch, payload: &str, before: &Opened) {
    let failed = Letter {
        sink_type: kind.name().into(),
        sink_name: SINK.into(),
        error: "no".into(),
        failed_at: 1_800_000_000_000,
        payloads: vec![payload.to_owned()],
        ..Letter::of_record(batch, 0)
    };
    let after = again(failed, DlqFormat::Json);
    let kept = parse_payload(kind, payload).unwrap_or_else(|why| panic!("{why}: {payload}"));
    assert_eq!(after.content, Content::Payloads(kind, vec![kept]), "{payload}");
    same_record(before, &after);
}

/// A record that the collector does not take.
fn record_again(batch: &Batch, before: &Opened) {
    let failed = Letter { error: "no".into(), failed_at: 1_800_000_000_000, ..Letter::of_record(batch, 0) };
    for format in [DlqFormat::Json, DlqFormat::Raw] {
        let after = again(failed.clone(), format);
        assert_eq!(after.content, Content::Record);
        assert_eq!(after.letter.value, before.letter.value, "{before:?}");
        assert_eq!(after.letter.headers, before.letter.headers);
        same_record(before, &after);
    }
}

fn same_record(before: &Opened, after: &Opened) {
    let (before, after) = (&before.letter, &after.letter);
    assert_eq!((&after.source, after.offset, after.timestamp), (&before.source, before.offset, before.timestamp));
    assert_eq!(after.key, before.key);
    assert_eq!(after.replays, before.replays + 1);
    assert_eq!(after.first_failed_at, Some(before.first_failed_at.unwrap_or(before.failed_at)));
}

/// S90: byte for byte.
pub fn round_trip(kind: SinkKind, batch: &Batch, row: usize) {
    let text = payload_json(kind, SINK, None, batch, row);
    let read = parse_payload(kind, &text).unwrap_or_else(|why| panic!("{why}: {text}"));
    let Payload { key, value, target, ttl, headers, .. } = read;
    let record = batch.row(row);
    assert_eq!((key.as_deref(), value.as_deref()), (record.key, record.value), "{text}");
    assert_eq!((target.as_deref(), ttl), (record.target, record.ttl), "{text}");
    let kept: Vec<_> = headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())).collect();
    assert_eq!(kept, batch.headers(row).collect::<Vec<_>>(), "{text}");
}

/// A sink that keeps the last batch it was given.
#[derive(Default)]
struct Paper(Mutex<Option<Batch>>);

#[async_trait]
impl Sink for Paper {
    fn description(&self) -> Description {
        Description::direct(true)
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Result<Vec<Failure>, CallError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Batch::clone(batch));
        Ok(Vec::new())
    }
}

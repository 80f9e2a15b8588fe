//! The cases. Each takes a destination of its own, fresh and empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate::model::{Answer, Batch, FailureKind, TopicPartition};
use tidegate::sink::{Sink, Style};

/// The longest that anything may take; far more than it ever does.
const PATIENCE: Duration = Duration::from_secs(90);
/// What addresses that cannot be reached are spiked with, and no fault may show (S85).
pub const SECRET: &str = "s3cret-w0rd";

/// Somewhere that rows go to, and a look into it.
#[async_trait]
pub trait Destination: Send + Sync {
    /// A sink for it, not yet connected.
    async fn sink(&self) -> Arc<dyn Sink>;
    /// A sink whose destination is not there; `None` where connecting must not touch anything (HTTP).
    async fn nowhere(&self) -> Option<Arc<dyn Sink>>;
    /// Where inside it rows go, if they have to say so.
    fn target(&self) -> Option<&'static str> {
        None
    }
    /// Makes the batch's last row one that is refused for good; `false` where any row is taken.
    fn spoil(&self, row: &mut Row) -> bool {
        row.value = Some("[no object".into());
        true
    }
    /// The documents that it has, in its order where it has one.
    async fn read(&self) -> Vec<Value>;
    /// Whether it keeps one document per key.
    fn is_keyed(&self) -> bool {
        false
    }
    /// Whether it has an order at all.
    fn is_ordered(&self) -> bool {
        true
    }
    /// Moves it to a server of its own, which may be taken away, where it shares one.
    async fn alone(&mut self) {}
    /// Takes it away, as when a server is killed.
    async fn take_away(&mut self);
    /// Brings it back with what it had.
    async fn bring_back(&mut self);
}

/// One row to be.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: String,
    pub value: Option<String>,
    /// A header's name, as bytes.
    pub header: Option<Vec<u8>>,
}

fn row(id: i64, key: &str, text: &str) -> Row {
    let value = json!({ "k": key, "id": id, "text": text }).to_string();
    Row { key: key.into(), value: Some(value), header: None }
}

fn distinct(id: i64) -> Row {
    row(id, &format!("key-{id}"), "some text")
}

fn orders(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

fn batch(destination: &dyn Destination, partition: i32, first: i64, rows: &[Row]) -> Arc<Batch> {
    let mut batch = Batch::new(orders(partition));
    for (offset, row) in (first..).zip(rows) {
        batch.push(offset, 1_700_000_000_000, Some(row.key.as_bytes()), row.value.as_deref().map(str::as_bytes));
        if let Some(name) = &row.header {
            batch.push_headers([(name.as_slice(), None)]);
        }
        if let Some(target) = destination.target() {
            batch.targets.push(Some(target.as_bytes()));
        }
    }
    Arc::new(batch)
}

/// Gives rows to a sink the way it wants them.
async fn give(sink: &dyn Sink, batch: &Arc<Batch>) -> Answer {
    let given = async {
        match sink.description().style {
            Style::Direct => sink.deliver(batch).await,
            Style::Buffering => {
                let mut failures = sink.add(batch).await?;
                failures.extend(sink.flush(&batch.source).await?);
                Ok(failures)
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, given).await.expect("no answer came");
    if let (Ok(_), Err(error)) = (&answer, sink.sync(&batch.source).await) {
        return Err(error);
    }
    answer
}

async fn connected(destination: &dyn Destination) -> Arc<dyn Sink> {
    let sink = destination.sink().await;
    tokio::time::timeout(PATIENCE, sink.connect()).await.expect("no connection came").unwrap();
    sink
}

fn ids(documents: &[Value]) -> Vec<i64> {
    documents.iter().map(|document| document["id"].as_i64().unwrap()).collect()
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

/// S123, S124, S85: what is not there is noticed at once, in words that help and hold no secret.
pub async fn s124_connecting_proves_the_destination(destination: impl Destination) {
    let sink = connected(&destination).await;
    assert_eq!(destination.read().await, Vec::<Value>::new(), "connecting leaves nothing behind");
    drop(sink);
    let Some(nowhere) = destination.nowhere().await else { return };
    // What `run` gives every sink.
    let limit = Duration::from_secs(15);
    let error = tokio::time::timeout(limit, nowhere.connect()).await.expect("no answer came").unwrap_err();
    let fault = error.into_fault();
    assert!(fault.message.contains('`') || !fault.causes.is_empty(), "{fault}");
    assert!(!format!("{fault:?}").contains(SECRET), "{fault:?}");
}

pub async fn s78_a_sink_that_is_not_connected_writes_nothing(destination: impl Destination) {
    let sink = destination.sink().await;
    if destination.nowhere().await.is_none() {
        // Nothing is to be connected there.
        return;
    }
    let rows = batch(&destination, 0, 0, &[distinct(0)]);
    match give(sink.as_ref(), &rows).await {
        Err(_) => assert_eq!(destination.read().await, Vec::<Value>::new()),
        // A guest has no state of its own that says whether it is connected; then what it says has to be true.
        Ok(failures) => assert_eq!(ids(&destination.read().await).len(), 1 - failures.len()),
    }
}

pub async fn s74_every_row_arrives(destination: impl Destination) {
    let sink = connected(&destination).await;
    let rows: Vec<Row> = (0..100).map(distinct).collect();
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 0, &rows[..60])).await, Ok(vec![]));
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 60, &rows[60..])).await, Ok(vec![]));
    let documents = destination.read().await;
    assert_eq!(sorted(ids(&documents)), (0..100).collect::<Vec<_>>());
    assert!(documents.iter().all(|document| document["text"] == "some text"));
}

pub async fn s76_a_bad_row_takes_no_neighbour_with_it(destination: impl Destination) {
    let sink = connected(&destination).await;
    let mut rows: Vec<Row> = (0..30).map(distinct).collect();
    let bad: Vec<usize> = [0, 13, 14, 29].into_iter().filter(|bad| destination.spoil(&mut rows[*bad])).collect();
    let mut failures = match give(sink.as_ref(), &batch(&destination, 0, 0, &rows)).await {
        Ok(failures) => failures,
        Err(error) => panic!("the call failed as a whole: {error}"),
    };
    failures.sort_by_key(|failure| failure.index);
    let refused: Vec<usize> = failures.iter().map(|failure| failure.index as usize).collect();
    assert_eq!(refused, bad);
    for failure in &failures {
        assert_eq!(failure.kind, FailureKind::Reject, "{failure:?}");
        assert!(!failure.reason.is_empty());
    }
    let good: Vec<i64> = (0..30).filter(|id| !bad.contains(&usize::try_from(*id).unwrap())).collect();
    assert_eq!(sorted(ids(&destination.read().await)), good);
    // Nothing of it hurts the next call.
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 30, &[distinct(30)])).await, Ok(vec![]));
    assert_eq!(destination.read().await.len(), good.len() + 1);
}

pub async fn an_empty_call_is_no_call(destination: impl Destination) {
    let sink = connected(&destination).await;
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 0, &[])).await, Ok(vec![]));
    assert_eq!(destination.read().await, Vec::<Value>::new());
}

pub async fn text_arrives_as_it_is(destination: impl Destination) {
    let sink = connected(&destination).await;
    let large = "0123456789abcdef".repeat(1 << 15);
    let texts =
        ["", "é ß 漢字 🦀", "quote \" apostrophe ' back\\slash /", "a\tb\u{7f}\u{2028}", "$1 %s {} ${X} ; --", &large];
    let rows: Vec<Row> = (0..).zip(texts).map(|(id, text)| row(id, &format!("key-{id}"), text)).collect();
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 0, &rows)).await, Ok(vec![]));
    let found: BTreeMap<i64, Value> =
        destination.read().await.into_iter().map(|document| (document["id"].as_i64().unwrap(), document)).collect();
    assert_eq!(found.len(), texts.len());
    for (id, text) in (0..).zip(texts) {
        assert_eq!(found[&id]["text"].as_str().unwrap(), text);
    }
}

/// S76a: what has one row per key ends with the newest; what keeps all has them in order.
pub async fn s76a_rows_of_a_key_keep_their_order(destination: impl Destination) {
    let sink = connected(&destination).await;
    let rows: Vec<Row> = (0..60).map(|id| row(id, &format!("key-{}", id % 3), "x")).collect();
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 0, &rows[..45])).await, Ok(vec![]));
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 45, &rows[45..])).await, Ok(vec![]));
    let documents = destination.read().await;
    if destination.is_keyed() {
        assert_eq!(sorted(ids(&documents)), [57, 58, 59]);
        return;
    }
    assert_eq!(documents.len(), 60);
    if !destination.is_ordered() {
        return;
    }
    for key in 0..3 {
        let of_key: Vec<Value> =
            documents.iter().filter(|document| document["k"] == format!("key-{key}")).cloned().collect();
        assert!(ids(&of_key).is_sorted(), "{:?}", ids(&of_key));
    }
}

/// Writing the same rows twice, in order, leaves an idempotent sink's destination as writing them once; the others'
/// has them twice, which is what their pages say.
pub async fn an_idempotent_sink_is_one(destination: impl Destination) {
    let sink = connected(&destination).await;
    let rows: Vec<Row> = (0..20).map(distinct).collect();
    let rows = batch(&destination, 0, 0, &rows);
    assert_eq!(give(sink.as_ref(), &rows).await, Ok(vec![]));
    let once = destination.read().await.len();
    assert_eq!(give(sink.as_ref(), &rows).await, Ok(vec![]));
    let twice = destination.read().await.len();
    assert_eq!(once, 20);
    assert_eq!(twice, if sink.description().idempotent { 20 } else { 40 });
}

/// S5: calls for several partitions run at the same time and answer for their own rows.
pub async fn s5_partitions_do_not_mix(destination: impl Destination) {
    let sink = connected(&destination).await;
    let calls = (0..4).map(|partition| {
        let first = i64::from(partition) * 50;
        let mut rows: Vec<Row> = (first..first + 50).map(distinct).collect();
        let spoilt = partition == 2 && destination.spoil(&mut rows[7]);
        let rows = batch(&destination, partition, 0, &rows);
        let sink = sink.clone();
        async move { (partition, spoilt, give(sink.as_ref(), &rows).await.unwrap()) }
    });
    let mut expected: Vec<i64> = (0..200).collect();
    for (partition, spoilt, failures) in futures_util::future::join_all(calls).await {
        let refused: Vec<u32> = failures.iter().map(|failure| failure.index).collect();
        assert_eq!(refused, if spoilt { vec![7] } else { vec![] }, "partition {partition}: {failures:?}");
        if spoilt {
            expected.retain(|id| *id != 107);
        }
    }
    assert_eq!(sorted(ids(&destination.read().await)), expected);
}

/// S28: a call that is given up may have written anything, and the next one works.
pub async fn s28_a_call_given_up_leaves_a_sound_sink(destination: impl Destination) {
    let sink = connected(&destination).await;
    let rows: Vec<Row> = (0..40).map(distinct).collect();
    let rows = batch(&destination, 0, 0, &rows);
    for micros in [0, 50, 200, 500, 1_000, 2_000, 5_000, 10_000] {
        let _ = tokio::time::timeout(Duration::from_micros(micros), give(sink.as_ref(), &rows)).await;
        sink.discard(&rows.source).await;
    }
    assert_eq!(give(sink.as_ref(), &rows).await, Ok(vec![]));
    let mut found = sorted(ids(&destination.read().await));
    found.dedup();
    assert_eq!(found, (0..40).collect::<Vec<_>>());
}

/// S41: while the destination is away nothing counts as written, and when it is back the same sink goes on.
pub async fn s41_a_destination_that_was_away_gets_everything(mut destination: impl Destination) {
    destination.alone().await;
    let sink = connected(&destination).await;
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 0, &[distinct(0)])).await, Ok(vec![]));
    let before = destination.read().await.len();
    assert_eq!(before, 1);
    destination.take_away().await;
    let rows: Vec<Row> = (1..20).map(distinct).collect();
    let rows = batch(&destination, 0, 1, &rows);
    match give(sink.as_ref(), &rows).await {
        Ok(failures) => {
            assert_eq!(failures.len(), rows.len(), "rows count as written that cannot be");
            assert!(failures.iter().all(|failure| failure.kind != FailureKind::Reject), "{failures:?}");
        }
        Err(error) => {
            assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
            let again =
                matches!(error, tidegate::model::CallError::Unavailable(_) | tidegate::model::CallError::Unknown(_));
            assert!(again, "{error:?}");
        }
    }
    sink.discard(&rows.source).await;
    destination.bring_back().await;
    let begun = std::time::Instant::now();
    while give(sink.as_ref(), &rows).await != Ok(vec![]) {
        assert!(begun.elapsed() < PATIENCE, "the sink did not find its destination again");
        sink.discard(&rows.source).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut found = sorted(ids(&destination.read().await));
    found.dedup();
    found.retain(|id| *id != 0);
    assert_eq!(found, (1..20).collect::<Vec<_>>());
}

/// S26: a buffer that is discarded is gone; where there is none, nothing happens.
pub async fn s26_what_is_discarded_does_not_arrive(destination: impl Destination) {
    let sink = connected(&destination).await;
    let (kept, gone) =
        (batch(&destination, 0, 0, &[distinct(0)]), batch(&destination, 1, 0, &[distinct(1), distinct(2)]));
    if sink.description().style == Style::Buffering {
        assert_eq!(sink.add(&gone).await, Ok(vec![]));
        assert_eq!(sink.add(&kept).await, Ok(vec![]));
        sink.discard(&gone.source).await;
        sink.discard(&gone.source).await;
        assert_eq!(sink.flush(&gone.source).await, Ok(vec![]));
        assert_eq!(sink.flush(&kept.source).await, Ok(vec![]));
    } else {
        sink.discard(&gone.source).await;
        assert_eq!(give(sink.as_ref(), &kept).await, Ok(vec![]));
    }
    assert_eq!(ids(&destination.read().await), [0]);
    // S22: a partition without a row is flushed as well.
    assert_eq!(sink.flush(&orders(7)).await, Ok(vec![]));
    assert_eq!(sink.sync(&orders(7)).await, Ok(()));
}

pub async fn s57_closing_is_final_and_harmless(destination: impl Destination) {
    let sink = connected(&destination).await;
    assert_eq!(give(sink.as_ref(), &batch(&destination, 0, 0, &[distinct(0)])).await, Ok(vec![]));
    for _ in 0..2 {
        let closed = tokio::time::timeout(Duration::from_secs(10), sink.close()).await;
        closed.expect("closing took too long").unwrap();
    }
    assert_eq!(ids(&destination.read().await), [0]);
}

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::model::{Answer, Owner};
use crate::sink::Description;

/// What a call answers: the offsets that failed, or why nothing of it counts.
type Scripted = Result<Vec<(i64, FailureKind)>, CallError>;

/// Takes every row below a size, save what the script says, and remembers what it was given.
#[derive(Default)]
struct Shelf {
    limit: usize,
    /// A compacted topic: refuses rows without a key.
    compacted: bool,
    /// What the next calls answer instead, by the records' offsets.
    script: Mutex<VecDeque<Scripted>>,
    calls: Mutex<Vec<Batch>>,
}

impl Shelf {
    fn scripted(script: impl IntoIterator<Item = Scripted>) -> Arc<Self> {
        Arc::new(Self { limit: 10_000, script: Mutex::new(script.into_iter().collect()), ..Self::default() })
    }

    /// The offsets of each call.
    fn given(&self) -> Vec<Vec<i64>> {
        self.calls.lock().unwrap().iter().map(|batch| batch.offsets.clone()).collect()
    }
}

#[async_trait]
impl Sink for Shelf {
    fn description(&self) -> Description {
        Description::direct(false)
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        self.calls.lock().unwrap().push(Batch::clone(batch));
        if let Some(answer) = self.script.lock().unwrap().pop_front() {
            let place = |offset| u32::try_from(batch.offsets.iter().position(|it| *it == offset).unwrap()).unwrap();
            return Ok(answer?.into_iter().map(|(offset, kind)| Failure::new(place(offset), kind, "no")).collect());
        }
        let headers = |row| batch.headers(row).map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len));
        let bytes = |row: usize| {
            let of = batch.row(row);
            of.key.map_or(0, <[u8]>::len) + of.value.map_or(0, <[u8]>::len) + headers(row).sum::<usize>()
        };
        Ok((0..batch.len())
            .filter_map(|row| {
                let index = u32::try_from(row).unwrap();
                if bytes(row) > self.limit {
                    return Some(Failure::too_large(index, "too large"));
                }
                (self.compacted && batch.row(row).key.is_none()).then(|| Failure::reject(index, "no key"))
            })
            .collect())
    }
}

fn letter(offset: i64, key: Option<&[u8]>, value: &str) -> Letter {
    let mut record = Batch::new(TopicPartition::new("orders", 3));
    record.push(offset, 1_600_000_000_000, key, Some(value.as_bytes()));
    Letter { failed_at: 1_700_000_000_250, sink_name: "search".into(), ..Letter::of_record(&record, 0) }
}

fn header(batch: &Batch, row: usize, name: &str) -> Option<String> {
    let found = batch.headers(row).find(|(found, _)| *found == name.as_bytes())?;
    Some(String::from_utf8(found.1?.to_vec()).unwrap())
}

/// S88: without a topic of its own the queue is named after the first source topic.
#[test]
fn s88_the_topic_is_derived() {
    let sources = ["search-requests".to_owned(), "b".to_owned()];
    assert_eq!(topic(&DlqOptions::default(), &sources), "search-requests_dlq");
    let own = DlqOptions { topic: "dead".into(), ..DlqOptions::default() };
    assert_eq!(topic(&own, &sources), "dead");
}

/// S89, S92: a letter is JSON under its record's key, with the coordinates in headers and the failure's time.
#[tokio::test]
async fn s92_coordinates_are_headers() {
    let shelf = Arc::new(Shelf { limit: 2000, ..Shelf::default() });
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
    let sent = letter(1042, Some(b"\xff"), "{}");
    dlq.send(std::slice::from_ref(&sent)).await.unwrap();
    let calls = shelf.calls.lock().unwrap();
    let row = calls[0].row(0);
    assert_eq!((row.key, row.timestamp), (Some(b"\xff".as_slice()), 1_700_000_000_250));
    assert_eq!(row.value, Some(sent.json().as_bytes()));
    assert_eq!(header(&calls[0], 0, "tidegate-source-offset").as_deref(), Some("1042"));
    assert_eq!(header(&calls[0], 0, "tidegate-payload-omitted"), None);
}

/// S94a: a letter that is too large is written again without its payloads, alone.
#[tokio::test]
async fn s94a_a_letter_too_large_goes_without_its_payloads() {
    let shelf = Arc::new(Shelf { limit: 1200, ..Shelf::default() });
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
    dlq.send(&[letter(1, None, "a"), letter(2, None, &"x".repeat(3000)), letter(3, None, "c")]).await.unwrap();
    let calls = shelf.calls.lock().unwrap();
    assert_eq!((calls.len(), calls[0].len(), calls[1].len()), (2, 3, 1));
    let value = String::from_utf8(calls[1].row(0).value.unwrap().to_vec()).unwrap();
    assert!(value.starts_with(r#"{"original_payloads":[],"sink_name":"search""#), "{value}");
    assert_eq!(header(&calls[1], 0, "tidegate-payload-omitted").as_deref(), Some("size"));
    assert_eq!(header(&calls[1], 0, "tidegate-source-offset").as_deref(), Some("2"));
}

/// S92: `dlq.format: raw` writes the record's bytes; a tombstone stays one.
#[tokio::test]
async fn s92_raw_letters_are_the_record_itself() {
    let shelf = Arc::new(Shelf { limit: 2000, ..Shelf::default() });
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Raw);
    let mut tombstone = letter(2, Some(b"k"), "");
    tombstone.value = None;
    dlq.send(&[letter(1, None, "as it came"), tombstone]).await.unwrap();
    let calls = shelf.calls.lock().unwrap();
    assert_eq!(calls[0].row(0).value, Some(b"as it came".as_slice()));
    assert_eq!(calls[0].row(1).value, None);
    assert_eq!(header(&calls[0], 1, "tidegate-sink").as_deref(), Some("collect/search"));
}

/// S94a: a key that is too large is kept once, then its beginning, then nothing of it; the letter always arrives.
#[tokio::test]
async fn s94a_a_key_is_cut_to_a_length_that_fits() {
    for (key_bytes, kept) in [(900, 900), (1700, 425), (60_000, 937)] {
        let shelf = Arc::new(Shelf { limit: 2000, ..Shelf::default() });
        let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
        dlq.send(&[letter(1, Some(&vec![b'k'; key_bytes]), &"x".repeat(3000))]).await.unwrap();
        let calls = shelf.calls.lock().unwrap();
        let last = calls.last().unwrap();
        assert_eq!(last.row(0).key.map(<[u8]>::len), Some(kept));
        assert_eq!(header(last, 0, "tidegate-key-omitted").is_some(), kept < key_bytes);
        assert_eq!(header(last, 0, "tidegate-source-offset").as_deref(), Some("1"));
    }
}

/// S94a, K12: where the topic takes no record without a key, a letter of one is given a key of its own.
#[tokio::test]
async fn s94a_a_letter_without_a_key_is_given_one_where_it_has_to() {
    let shelf = Arc::new(Shelf { limit: 2000, compacted: true, ..Shelf::default() });
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Raw);
    dlq.send(&[letter(1, None, "a"), letter(2, Some(b"k"), "b"), letter(3, None, &"c".repeat(3000))]).await.unwrap();
    let calls = shelf.calls.lock().unwrap();
    let keys: Vec<Option<&[u8]>> = calls[1].rows().map(|row| row.key).collect();
    assert_eq!((calls[1].offsets.as_slice(), keys[1]), ([1, 3].as_slice(), None));
    assert!(keys[0].is_some_and(|key| key.len() == 16));
    assert!(calls[2].row(0).key.is_some() && calls[2].offsets == [3]);
}

/// S79c, S93: letters that were not tried are sent again at once, those that the topic cannot take now are waited for, and
/// those that it has taken are not written twice.
#[tokio::test]
async fn s93_what_is_acknowledged_is_not_written_again() {
    let (later, not_tried) = (FailureKind::Unavailable, FailureKind::NotTried);
    let fault = Fault::destination("no broker");
    let shelf = Shelf::scripted([
        Ok(vec![(2, not_tried), (3, later), (4, not_tried)]),
        Err(CallError::Unavailable(fault.clone())),
        Ok(vec![(2, not_tried), (3, not_tried)]),
        Ok(vec![(3, FailureKind::Retry)]),
        Ok(vec![]),
    ]);
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
    let letters = [1, 2, 3, 4].map(|offset| letter(offset, None, "a"));
    assert_eq!(dlq.send(&letters).await.unwrap_err().owner, Owner::Destination);
    assert_eq!(dlq.send(&letters).await, Err(fault));
    assert_eq!(dlq.send(&letters).await.unwrap_err().owner, Owner::Destination);
    dlq.send(&letters).await.unwrap();
    assert_eq!(shelf.given(), [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2, 3, 4], vec![2, 3], vec![3]]);
    // Other letters of the same partition are not taken for these.
    let shelf = Shelf::scripted([Ok(vec![(1, later)])]);
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
    dlq.send(&letters).await.unwrap_err();
    dlq.send(&letters[..2]).await.unwrap();
    assert_eq!(shelf.given()[1], [1, 2]);
}

/// S79b, S93: letters that are refused together are written one by one, so that the topic's refusal names one.
#[tokio::test]
async fn s93_letters_refused_together_are_written_one_by_one() {
    let refused = CallError::Reject(Fault::destination("against the policy"));
    let shelf = Shelf::scripted([Err(refused.clone()), Ok(vec![]), Err(refused), Ok(vec![])]);
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
    let letters = [1, 2, 3].map(|offset| letter(offset, Some(b"k"), "a"));
    assert_eq!(dlq.send(&letters).await.unwrap_err().owner, Owner::Config);
    assert_eq!(shelf.given(), [vec![1, 2, 3], vec![1], vec![2], vec![3]]);
}

/// S93, S94a: a letter that is not acknowledged is an error, and keeps its owner; what is never tried ends in one too.
#[tokio::test]
async fn s93_what_is_not_acknowledged_is_an_error() {
    let fault = Fault::config("topic `orders_dlq` cannot be written to");
    let shelf = Shelf::scripted([Err(CallError::Fatal(fault.clone()))]);
    assert_eq!(KafkaDlq::new(shelf, "orders_dlq", DlqFormat::Json).send(&[letter(1, None, "a")]).await, Err(fault));
    let shelf = Shelf::scripted(vec![Ok(vec![(1, FailureKind::NotTried)]); 20]);
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
    assert_eq!(dlq.send(&[letter(1, None, "a")]).await.unwrap_err().owner, Owner::Destination);
    assert!(shelf.given().len() < 20);
    // Not even its coordinates fit.
    let dlq = KafkaDlq::new(Arc::new(Shelf::default()), "orders_dlq", DlqFormat::Json);
    assert_eq!(dlq.send(&[letter(1, None, "a")]).await.unwrap_err().owner, Owner::Config);
}

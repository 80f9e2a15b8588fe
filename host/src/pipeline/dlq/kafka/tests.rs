#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use super::*;
use crate::model::Answer;
use crate::sink::Description;

/// Takes everything below a size, and remembers it.
#[derive(Default)]
struct Shelf {
    limit: usize,
    broken: Option<CallError>,
    calls: Mutex<Vec<Batch>>,
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
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.calls.lock().unwrap().push(Batch::clone(batch));
        let large = (0..batch.len()).filter(|row| batch.row(*row).value.is_some_and(|value| value.len() > self.limit));
        Ok(large.map(|row| Failure::reject(u32::try_from(row).unwrap(), TOO_LARGE)).collect())
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
    let shelf = Arc::new(Shelf { limit: 1000, ..Shelf::default() });
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
    let shelf = Arc::new(Shelf { limit: 400, ..Shelf::default() });
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Json);
    dlq.send(&[letter(1, None, "a"), letter(2, None, &"x".repeat(1000)), letter(3, None, "c")]).await.unwrap();
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
    let shelf = Arc::new(Shelf { limit: 1000, ..Shelf::default() });
    let dlq = KafkaDlq::new(shelf.clone(), "orders_dlq", DlqFormat::Raw);
    let mut tombstone = letter(2, Some(b"k"), "");
    tombstone.value = None;
    dlq.send(&[letter(1, None, "as it came"), tombstone]).await.unwrap();
    let calls = shelf.calls.lock().unwrap();
    assert_eq!(calls[0].row(0).value, Some(b"as it came".as_slice()));
    assert_eq!(calls[0].row(1).value, None);
    assert_eq!(header(&calls[0], 1, "tidegate-sink").as_deref(), Some("collect/search"));
}

/// S93, S94a: a letter that is not acknowledged is an error, and keeps its owner.
#[tokio::test]
async fn s93_what_is_not_acknowledged_is_an_error() {
    let fault = Fault::config("topic `orders_dlq` cannot be written to");
    let shelf = Shelf { broken: Some(CallError::Fatal(fault.clone())), ..Shelf::default() };
    let dlq = KafkaDlq::new(Arc::new(shelf), "orders_dlq", DlqFormat::Json);
    assert_eq!(dlq.send(&[letter(1, None, "a")]).await, Err(fault));
    // Even without its payload the letter does not fit.
    let dlq = KafkaDlq::new(Arc::new(Shelf::default()), "orders_dlq", DlqFormat::Json);
    assert!(dlq.send(&[letter(1, None, "a")]).await.is_err());
}

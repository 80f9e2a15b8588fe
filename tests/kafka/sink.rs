//! The sink's promises, and the dead letters'.

use std::sync::Arc;

use tidegate::model::{Batch, CallError, FailureKind, Owner};
use tidegate::pipeline::dlq::kafka::KafkaDlq;
use tidegate::pipeline::dlq::{DeadLetters, Letter};
use tidegate::pipeline::options::DlqFormat;
use tidegate::sink::kafka::{Inherited, KafkaSink, Options};
use tidegate::sink::{Sink, TOO_LARGE};

use crate::help::*;

fn inherited() -> Inherited {
    Inherited { brokers: broker().bootstrap(), ..Inherited::default() }
}

async fn connected(topic: &str) -> KafkaSink {
    let sink = KafkaSink::new(Options { topic: topic.into(), ..Options::default() }, &inherited()).unwrap();
    sink.connect().await.unwrap();
    sink
}

fn batch(rows: &[Row]) -> Arc<Batch> {
    let mut batch = Batch::new(place("orders", 3));
    for (offset, row) in rows.iter().enumerate() {
        let timestamp = row.timestamp.unwrap_or(-1);
        batch.push(i64::try_from(offset).unwrap(), timestamp, row.key.as_deref(), row.value.as_deref());
        batch.push_headers(row.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())));
    }
    Arc::new(batch)
}

/// S103: key and value arrive byte for byte, nulls stay null, headers and the record's time come along, in order.
#[tokio::test(flavor = "multi_thread")]
async fn s103_rows_arrive_byte_for_byte() {
    let topic = topic("out", 1).await;
    let sink = connected(&topic).await;
    let rows = [
        Row { timestamp: Some(1_700_000_000_000), ..Row::default() },
        Row { key: Some(vec![]), value: Some(vec![]), timestamp: Some(1_700_000_000_001), ..Row::default() },
        Row {
            key: Some(vec![0xff, 0]),
            value: Some(vec![0, 0xfe]),
            headers: vec![("a".into(), None), ("a".into(), Some(vec![0xff])), ("é".into(), Some(vec![]))],
            timestamp: Some(1_700_000_000_002),
        },
    ];
    assert_eq!(sink.deliver(&batch(&rows)).await, Ok(Vec::new()));
    let found: Vec<Row> = contents(&topic).into_iter().map(|(_, _, row)| row).collect();
    assert_eq!(found, rows);
    // Without a time of its own a row gets that of its writing.
    assert_eq!(sink.deliver(&batch(&[Row::value("now")])).await, Ok(Vec::new()));
    assert!(contents(&topic)[3].2.timestamp.unwrap() > 1_700_000_000_002);
    sink.close().await.unwrap();
}

/// S104: thousands of rows are all reported, and each partition has its keys in the order given.
#[tokio::test(flavor = "multi_thread")]
async fn s104_every_row_is_reported_and_keys_keep_their_order() {
    let topic = topic("many", 4).await;
    let sink = connected(&topic).await;
    let rows: Vec<Row> = (0..20_000)
        .map(|n| Row { key: Some(format!("k{}", n % 50).into_bytes()), ..Row::value(format!("{n:06}")) })
        .collect();
    for part in rows.chunks(5000) {
        assert_eq!(sink.deliver(&batch(part)).await, Ok(Vec::new()));
    }
    let mut found = contents(&topic);
    assert_eq!(found.len(), 20_000);
    found.sort_by_key(|(partition, offset, row)| (row.key.clone(), *partition, *offset));
    for pair in found.windows(2) {
        if pair[0].2.key == pair[1].2.key {
            assert_eq!(pair[0].0, pair[1].0, "one key, one partition");
            assert!(pair[0].2.value < pair[1].2.value);
        }
    }
    sink.close().await.unwrap();
}

/// S76, S104: a row that the topic finds too large is rejected alone; all others arrive, in order, though the topic takes
/// only small batches.
#[tokio::test(flavor = "multi_thread")]
async fn s104_a_row_too_large_is_rejected_alone() {
    let topic = unique("small");
    broker().create_topic(&topic, 1, &[("max.message.bytes", "2000")]).await;
    let sink = connected(&topic).await;
    // Noise, so that compression does not make it small.
    let noise: Vec<u8> = (0..4000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let rows: Vec<Row> = (0..200)
        .map(|n| if n % 90 == 45 { Row::value(noise.clone()) } else { Row::value(format!("row {n:04}")) })
        .collect();
    let failures = sink.deliver(&batch(&rows)).await.unwrap();
    let told: Vec<(u32, FailureKind)> = failures.iter().map(|failure| (failure.index, failure.kind)).collect();
    assert_eq!(told, [(45, FailureKind::Reject), (135, FailureKind::Reject)]);
    assert!(failures[0].too_large && failures[0].reason.starts_with(TOO_LARGE), "{}", failures[0].reason);
    let found: Vec<Row> = contents(&topic).into_iter().map(|(_, _, row)| Row { timestamp: None, ..row }).collect();
    let expected: Vec<Row> = rows.into_iter().enumerate().filter(|(n, _)| n % 90 != 45).map(|(_, row)| row).collect();
    assert_eq!(found, expected);
    sink.close().await.unwrap();
}

/// A header name that is not text is that row's fault, before anything of it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn s76_a_header_name_that_is_no_text_is_rejected() {
    let topic = topic("names", 1).await;
    let sink = connected(&topic).await;
    let mut rows = Batch::new(place("orders", 0));
    rows.push(0, -1, None, Some(b"good"));
    rows.push(1, -1, None, Some(b"bad"));
    rows.push_headers([(b"\xff".as_slice(), None)]);
    let failures = sink.deliver(&Arc::new(rows)).await.unwrap();
    assert_eq!((failures.len(), failures[0].index, failures[0].kind), (1, 1, FailureKind::Reject));
    assert_eq!(contents(&topic).len(), 1);
    sink.close().await.unwrap();
}

/// S124, S78: connecting proves the topic, names what is missing, and comes first.
#[tokio::test(flavor = "multi_thread")]
async fn s124_connecting_proves_the_topic() {
    let options = Options { topic: unique("missing"), ..Options::default() };
    let sink = KafkaSink::new(options.clone(), &inherited()).unwrap();
    assert!(matches!(sink.deliver(&batch(&[Row::value("x")])).await, Err(CallError::Fatal(_))));
    let Err(CallError::Fatal(fault)) = sink.connect().await else { panic!("a fatal fault was expected") };
    assert_eq!(fault.owner, Owner::Config);
    assert!(fault.message.contains(&options.topic) && fault.hint.is_some(), "{fault}");

    let asking = KafkaSink::new(options.clone(), &inherited()).unwrap().only_asking();
    asking.connect().await.unwrap();
    let sink = KafkaSink::new(options.clone(), &inherited()).unwrap();
    assert!(sink.connect().await.is_err(), "S94a: asking has created nothing");

    let sink = KafkaSink::new(options.clone(), &inherited()).unwrap().creating_the_topic();
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&batch(&[Row::value("x")])).await, Ok(Vec::new()));
    assert_eq!(contents(&options.topic).len(), 1);

    let elsewhere = Inherited { brokers: "127.0.0.1:1".into(), ..Inherited::default() };
    let sink = KafkaSink::new(options, &elsewhere).unwrap();
    let Err(CallError::Unavailable(fault)) = sink.connect().await else { panic!("a fault to retry was expected") };
    assert!(fault.message.contains("127.0.0.1:1"), "{fault}");
}

/// S89, S92, S93, S94a: what stands in the dead letter topic, to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn s89_dead_letters_stand_in_their_topic() {
    let topic = unique("orders_dlq");
    broker().create_topic(&topic, 1, &[("max.message.bytes", "3000"), ("retention.ms", "-1")]).await;
    let sink = KafkaSink::new(Options { topic: topic.clone(), ..Options::default() }, &inherited()).unwrap();
    let dlq = KafkaDlq::new(Arc::new(sink), topic.as_str(), DlqFormat::Json);
    dlq.connect().await.unwrap();
    let letter = Letter {
        sink_type: "postgres".into(),
        sink_name: "main".into(),
        error: "no column `é`".into(),
        kind: FailureKind::Reject,
        attempt_count: 4,
        failed_at: 1_700_000_000_250,
        first_failed_at: None,
        replays: 0,
        source: place("orders", 3),
        offset: 1042,
        key: Some(vec![0xff]),
        value: Some(b"v".to_vec()),
        timestamp: 1_600_000_000_000,
        headers: Vec::new(),
        form: None,
        payloads: vec![r#"{"sink":"main","table":"t","data":{"n":1.0}}"#.into()],
    };
    let noise: String =
        (0..6000_u32).map(|n| char::from(b'a' + n.wrapping_mul(2_654_435_761).to_le_bytes()[3] % 26)).collect();
    let large = Letter { offset: 1043, payloads: vec![noise], ..letter.clone() };
    dlq.send(&[letter, large]).await.unwrap();
    dlq.close().await;

    let found = contents(&topic);
    assert_eq!(found.len(), 2);
    let (_, _, first) = &found[0];
    assert_eq!(first.key, Some(vec![0xff]));
    assert_eq!(first.timestamp, Some(1_700_000_000_250));
    assert_eq!(
        String::from_utf8(first.value.clone().unwrap()).unwrap(),
        r#"{"original_payloads":["{\"sink\":\"main\",\"table\":\"t\",\"data\":{\"n\":1.0}}"],"sink_name":"main","sink_type":"postgres","error":"no column `é`","timestamp":1700000000.25,"partition":3,"attempt_count":4}"#
    );
    let header = |row: &Row, name: &str| {
        row.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone().unwrap_or_default())
    };
    for (name, value) in [
        ("tidegate-source-topic", b"orders".as_slice()),
        ("tidegate-source-partition", b"3"),
        ("tidegate-source-offset", b"1042"),
        ("tidegate-source-timestamp", b"1600000000000"),
        ("tidegate-error-kind", b"reject"),
        ("tidegate-attempts", b"4"),
    ] {
        assert_eq!(header(first, name).as_deref(), Some(value), "{name}");
    }
    let (_, _, second) = &found[1];
    assert_eq!(header(second, "tidegate-payload-omitted").as_deref(), Some(b"size".as_slice()));
    assert_eq!(header(second, "tidegate-source-offset").as_deref(), Some(b"1043".as_slice()));
    assert!(second.value.as_deref().unwrap().starts_with(br#"{"original_payloads":[],"#));
}

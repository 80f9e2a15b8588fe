//! The source's promises.

use std::time::Duration;

use tidegate::memory::Budget;
use tidegate::model::Owner;
use tidegate::source::kafka::{Brokers, KafkaSource, Limits, OnOffsetGap, probe};
use tidegate::source::{CommitError, Event, Read, Reader, Source};

use crate::help::*;

fn numbered(count: usize) -> impl Iterator<Item = Row> {
    (0..count).map(|n| Row { key: Some(format!("k{n}").into_bytes()), ..Row::value(format!("v{n}")) })
}

/// S17, S51: without a committed offset every partition starts at its first record, and every byte arrives, in order.
#[tokio::test(flavor = "multi_thread")]
async fn s17_s51_everything_is_read_in_order_from_the_start() {
    let topic = topic("all", 4).await;
    for partition in 0..4 {
        produce(&topic, partition, numbered(2500));
    }
    let mut source = start(&options(&topic, &unique("g")));
    let mut readers = assigned(&mut source, 4).await;
    for reader in &mut readers {
        assert_eq!(reader.start(), 0);
        let got = read(reader, 2500).await;
        assert_eq!(got.offsets, (0..2500).collect::<Vec<i64>>());
        for (n, row) in got.rows().enumerate() {
            assert_eq!(row.key, Some(format!("k{n}").as_bytes()));
            assert_eq!(row.value, Some(format!("v{n}").as_bytes()));
        }
    }
    finish(source, readers).await;
}

/// S17: nulls, empty values, bytes that are no text, and headers with null and repeated names are carried as they are.
#[tokio::test(flavor = "multi_thread")]
async fn s17_nulls_bytes_and_headers_are_kept() {
    let topic = topic("odd", 1).await;
    let rows = vec![
        Row { timestamp: Some(1_700_000_000_000), ..Row::default() },
        Row { key: Some(vec![]), value: Some(vec![]), timestamp: Some(1_700_000_000_001), ..Row::default() },
        Row {
            key: Some(vec![0xff, 0x00, 0xfe]),
            value: Some(vec![0x00, 0xff]),
            headers: vec![
                ("h".into(), Some(b"1".to_vec())),
                ("h".into(), None),
                ("empty".into(), Some(vec![])),
                ("h".into(), Some(vec![0xff])),
            ],
            timestamp: Some(1_700_000_000_002),
        },
        Row { timestamp: Some(1_700_000_000_003), ..Row::value("last") },
    ];
    produce(&topic, 0, rows.clone());
    let mut source = start(&options(&topic, &unique("g")));
    let mut readers = assigned(&mut source, 1).await;
    let got = read(&mut readers[0], 4).await;
    for (n, row) in rows.iter().enumerate() {
        let read = got.row(n);
        assert_eq!(read.key, row.key.as_deref());
        assert_eq!(read.value, row.value.as_deref());
        assert_eq!(Some(read.timestamp), row.timestamp);
        let headers: Vec<(String, Option<Vec<u8>>)> = got
            .headers(n)
            .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(headers, row.headers);
    }
    finish(source, readers).await;
}

/// S59: a window holds what is there, up to its limits, and one record may exceed them alone.
#[tokio::test(flavor = "multi_thread")]
async fn s59_windows_keep_their_limits() {
    let topic = topic("windows", 1).await;
    let mut rows = vec![Row::value(vec![b'x'; 100]); 1000];
    rows[500] = Row::value(vec![b'y'; 5000]);
    produce(&topic, 0, rows);
    let limits = Limits { records: 64, bytes: 2000, ..LIMITS };
    let mut source = KafkaSource::start(&options(&topic, &unique("g")), limits).unwrap();
    let mut readers = assigned(&mut source, 1).await;
    let (mut next, mut largest) = (0, 0);
    while next < 1000 {
        if let Read::Records(window) = readers[0].read().await.unwrap() {
            assert!(window.len() <= 64 && (window.size_bytes() <= 2000 || window.len() == 1), "{}", window.len());
            assert_eq!(window.offsets[0], next);
            largest = largest.max(window.len());
            next += i64::try_from(window.len()).unwrap();
        }
    }
    assert_eq!(largest, 20);
    finish(source, readers).await;
}

/// S38: as little as can be held at once, and everything is read all the same: partitions over their share wait for the others,
/// and one whose worker does not read starves none.
#[tokio::test(flavor = "multi_thread")]
async fn s38_partitions_over_their_share_wait_and_none_starves() {
    let topic = topic("share", 4).await;
    for partition in 0..4 {
        produce(&topic, partition, numbered(300));
    }
    let limits = Limits { records: 10, memory: Budget { record_bytes: 12 * 48, ..LIMITS.memory }, ..LIMITS };
    let mut source = KafkaSource::start(&options(&topic, &unique("g")), limits).unwrap();
    let mut readers = assigned(&mut source, 4).await;
    // The first one reads nothing yet, the others a part, then all of them the rest.
    let mut had = [0; 4];
    for (reader, had) in readers.iter_mut().zip(&mut had).skip(1) {
        let part = read(reader, 150).await;
        assert_eq!(part.offsets[0], 0);
        *had = part.len();
    }
    for (reader, had) in readers.iter_mut().zip(had) {
        assert_eq!(read(reader, 300 - had).await.offsets.last(), Some(&299));
    }
    finish(source, readers).await;
}

/// S34, S34a: a rewind reads exactly from its target, whatever was handed over before, and as often as asked.
#[tokio::test(flavor = "multi_thread")]
async fn s34_a_rewind_reads_again_from_its_target() {
    let topic = topic("rewind", 2).await;
    produce(&topic, 0, numbered(5000));
    produce(&topic, 1, numbered(100));
    let mut source = start(&options(&topic, &unique("g")));
    let mut readers = assigned(&mut source, 2).await;
    // At once, before anything was read: right after an assignment the library refuses to seek.
    readers[0].rewind(7).await.unwrap();
    assert_eq!(read(&mut readers[0], 1).await.offsets[0], 7);
    for target in [1234, 0, 4999, 17, 17, 2500] {
        readers[0].rewind(target).await.unwrap();
        let got = read(&mut readers[0], usize::try_from(5000 - target).unwrap().min(1500)).await;
        let last = target + i64::try_from(got.len()).unwrap();
        assert_eq!(got.offsets, (target..last).collect::<Vec<i64>>());
        assert_eq!(got.row(0).value, Some(format!("v{target}").as_bytes()));
    }
    // The neighbour was not disturbed (S5).
    assert_eq!(read(&mut readers[1], 100).await.offsets, (0..100).collect::<Vec<i64>>());
    finish(source, readers).await;
}

/// S30: while paused nothing new comes; afterwards nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn s30_a_pause_loses_nothing() {
    let topic = topic("pause", 1).await;
    produce(&topic, 0, numbered(10));
    let mut source = start(&options(&topic, &unique("g")));
    let mut readers = assigned(&mut source, 1).await;
    assert_eq!(read(&mut readers[0], 10).await.len(), 10);
    readers[0].set_paused(true).await.unwrap();
    produce(&topic, 0, numbered(20));
    assert!(tokio::time::timeout(Duration::from_millis(700), readers[0].read()).await.is_err());
    // A rewind does not end a pause.
    readers[0].rewind(5).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(700), readers[0].read()).await.is_err());
    readers[0].set_paused(false).await.unwrap();
    assert_eq!(read(&mut readers[0], 25).await.offsets, (5..30).collect::<Vec<i64>>());
    finish(source, readers).await;
}

/// S12, S16, S51: a committed offset is where the next start begins, and a commit never goes back.
#[tokio::test(flavor = "multi_thread")]
async fn s12_s51_a_commit_is_where_the_next_start_begins() {
    let (topic, group) = (topic("commit", 2).await, unique("g"));
    produce(&topic, 0, numbered(100));
    let mut source = start(&options(&topic, &group));
    let mut readers = assigned(&mut source, 2).await;
    read(&mut readers[0], 100).await;
    readers[0].commit(40).await.unwrap();
    assert!(matches!(readers[0].commit(39).await, Err(CommitError::Fatal(_))));
    assert_eq!(committed(&topic, 0, &group), Some(40));
    assert_eq!(committed(&topic, 1, &group), None);
    finish(source, readers).await;

    let mut source = start(&options(&topic, &group));
    let mut readers = assigned(&mut source, 2).await;
    assert_eq!((readers[0].start(), readers[1].start()), (40, 0));
    assert_eq!(read(&mut readers[0], 60).await.offsets[0], 40);
    finish(source, readers).await;
}

/// S45, S45a, S50: a second member gets partitions only after the first has let them go; the first can commit until then,
/// not afterwards (S12), and keeps reading what it kept.
#[tokio::test(flavor = "multi_thread")]
async fn s45_partitions_are_handed_over_after_the_last_commit() {
    let (topic, group) = (topic("move", 2).await, unique("g"));
    for partition in 0..2 {
        produce(&topic, partition, numbered(10));
    }
    let mut first = start(&options(&topic, &group));
    let mut readers = assigned(&mut first, 2).await;
    for reader in &mut readers {
        read(reader, 10).await;
    }
    let mut second = start(&options(&topic, &group));
    let taken = match tokio::time::timeout(PATIENCE, first.next()).await.unwrap() {
        Event::Revoked(taken) => taken,
        _ => panic!("a revocation was expected"),
    };
    assert_eq!(taken.len(), 1);
    // As long as it is not let go nobody else has it, and what was read of it may be committed.
    assert!(tokio::time::timeout(Duration::from_secs(2), second.next()).await.is_err());
    let at = readers.iter().position(|reader| *reader.partition() == taken[0]).unwrap();
    let mut leaving = readers.remove(at);
    leaving.commit(10).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), leaving.read()).await.is_err());
    first.release(taken.clone()).await;
    assert!(matches!(leaving.commit(11).await, Err(CommitError::Stale(_))));
    drop(leaving);

    let mut theirs = assigned(&mut second, 1).await;
    assert_eq!((theirs[0].partition(), theirs[0].start()), (&taken[0], 10));
    let kept = readers[0].partition().partition;
    produce(&topic, kept, numbered(5));
    produce(&topic, taken[0].partition, numbered(5));
    assert_eq!(read(&mut readers[0], 5).await.offsets, (10..15).collect::<Vec<i64>>());
    assert_eq!(read(&mut theirs[0], 5).await.offsets, (10..15).collect::<Vec<i64>>());

    // The second leaves: the first gets its partition back, from where it was committed.
    theirs[0].commit(13).await.unwrap();
    finish(second, theirs).await;
    let back = assigned(&mut first, 1).await;
    assert_eq!((back[0].partition(), back[0].start()), (&taken[0], 13));
    readers.extend(back);
    finish(first, readers).await;
}

/// S45a: a source closes although a revocation was never answered.
#[tokio::test(flavor = "multi_thread")]
async fn s45a_closing_answers_what_is_open() {
    let (topic, group) = (topic("open", 2).await, unique("g"));
    let mut first = start(&options(&topic, &group));
    let readers = assigned(&mut first, 2).await;
    let mut second = start(&options(&topic, &group));
    assert!(matches!(tokio::time::timeout(PATIENCE, first.next()).await.unwrap(), Event::Revoked(_)));
    finish(first, readers).await;
    let readers = assigned(&mut second, 2).await;
    finish(second, readers).await;
}

/// S52: records that were deleted unread stop the source, unless the operator lets it go on.
#[tokio::test(flavor = "multi_thread")]
async fn s52_a_gap_stops_the_source() {
    let (topic, group) = (topic("gap", 1).await, unique("g"));
    produce(&topic, 0, numbered(100));
    let mut source = start(&options(&topic, &group));
    let mut readers = assigned(&mut source, 1).await;
    read(&mut readers[0], 10).await;
    readers[0].commit(10).await.unwrap();
    finish(source, readers).await;
    delete_below(&topic, 0, 60).await;

    let mut source = start(&options(&topic, &group));
    let fault = failure(&mut source).await;
    assert_eq!(fault.message, format!("`{topic}[0]@10` is to be read next and is not there"));
    finish(source, Vec::new()).await;

    let mut going_on = options(&topic, &group);
    going_on.on_offset_gap = OnOffsetGap::Continue;
    let mut source = start(&going_on);
    let mut readers = assigned(&mut source, 1).await;
    assert_eq!(readers[0].start(), 60);
    assert_eq!(read(&mut readers[0], 40).await.offsets[0], 60);
    // The same while running: what a rewind wants is deleted meanwhile.
    delete_below(&topic, 0, 80).await;
    readers[0].rewind(65).await.unwrap();
    assert_eq!(read(&mut readers[0], 20).await.offsets, (80..100).collect::<Vec<i64>>());
    finish(source, readers).await;

    let mut source = start(&options(&topic, &unique("g")));
    let mut readers = assigned(&mut source, 1).await;
    readers[0].rewind(70).await.unwrap();
    let fault = failure(&mut source).await;
    assert_eq!(fault.message, format!("`{topic}[0]@70` is to be read next and is not there"));
    assert_eq!(fault.causes, ["10 records were deleted before they were read; the first one left is 80"]);
    finish(source, readers).await;
}

/// S98, S99: a transaction's markers and aborted records take offsets and never come; the position passes them.
#[tokio::test(flavor = "multi_thread")]
async fn s99_the_position_passes_what_is_no_record() {
    let topic = topic("markers", 1).await;
    transactions(&topic, &[(5, true), (7, false), (3, true), (2, false)]);
    let mut source = start(&options(&topic, &unique("g")));
    let mut readers = assigned(&mut source, 1).await;
    let got = read(&mut readers[0], 8).await;
    // 0..=4 and their marker 5; 6..=12 aborted, marker 13; 14..=16 and marker 17; 18..=19 aborted, marker 20.
    assert_eq!(got.offsets, [0, 1, 2, 3, 4, 14, 15, 16]);
    let mut position = 0;
    while position < 21 {
        match tokio::time::timeout(PATIENCE, readers[0].read()).await.expect("the position did not move").unwrap() {
            Read::Position(to) => position = to,
            Read::Records(_) => panic!("a record came that was aborted"),
        }
    }
    assert_eq!(position, 21);
    readers[0].commit(position).await.unwrap();
    finish(source, readers).await;
}

/// A record of 10 MB passes, among small ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_ten_megabytes_passes() {
    let topic = unique("large");
    broker().create_topic(&topic, 1, &[("max.message.bytes", "20000000")]).await;
    let large: Vec<u8> = (0..10_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    produce(&topic, 0, [Row::value("before"), Row::value(large.clone()), Row::value("after")]);
    let mut source = start(&options(&topic, &unique("g")));
    let mut readers = assigned(&mut source, 1).await;
    let got = read(&mut readers[0], 3).await;
    assert_eq!(got.row(0).value, Some(b"before".as_slice()));
    assert!(got.row(1).value == Some(large.as_slice()));
    assert_eq!(got.row(2).value, Some(b"after".as_slice()));
    finish(source, readers).await;
}

/// S124: the start names a topic that is missing, and brokers that do not answer, and tells the two apart.
#[tokio::test(flavor = "multi_thread")]
async fn s124_the_probe_tells_a_missing_topic_from_a_missing_broker() {
    let topic = topic("there", 3).await;
    let mut options = options(&topic, "g");
    options.source_topics = vec![topic.clone()];
    assert_eq!(probe(&options, PATIENCE).await.unwrap(), [(topic.clone(), 3), (topic.clone(), 3)]);

    options.source_topics = vec!["nowhere".into()];
    let fault = probe(&options, PATIENCE).await.unwrap_err();
    assert_eq!((fault.owner, fault.message.as_str()), (Owner::Config, "topic `nowhere` does not exist"));
    assert!(fault.hint.unwrap().contains("create `nowhere`"));

    options.brokers = Brokers::One("127.0.0.1:1".into());
    let fault = probe(&options, Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(fault.owner, Owner::Host);
    assert!(fault.message.contains("127.0.0.1:1"), "{fault}");
    assert!(fault.causes[0].contains("onnection refused") || fault.causes[0].contains("brokers are down"), "{fault}");
    assert!(fault.hint.is_some());
}

/// A broker that crashes and comes back is waited for: no fault, no record twice, none missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_broker_is_waited_for() {
    let mut own = crate::support::broker::Broker::start();
    own.create_topic("t", 1, &[]).await;
    let mut options = options("t", "g");
    options.brokers = Brokers::One(own.bootstrap());
    produce_on(&own.bootstrap(), "t", 0, numbered(100));
    let mut source = start(&options);
    let mut readers = assigned(&mut source, 1).await;
    assert_eq!(read(&mut readers[0], 100).await.len(), 100);
    own.kill();
    assert!(tokio::time::timeout(Duration::from_secs(3), source.next()).await.is_err(), "unreachable is not the end");
    own.restart();
    produce_on(&own.bootstrap(), "t", 0, numbered(50));
    // The broker comes back after the session's end, so that the partition may have been lost and given again.
    let mut next = 100;
    while next < 150 {
        tokio::select! {
            event = source.next() => match event {
                Event::Lost(lost) | Event::Revoked(lost) => {
                    readers.clear();
                    source.release(lost).await;
                    readers = assigned(&mut source, 1).await;
                    readers[0].rewind(next).await.unwrap();
                }
                Event::Failed(fault) => panic!("{fault}"),
                _ => {}
            },
            found = readers[0].read() => if let Read::Records(window) = found.unwrap() {
                assert_eq!(window.offsets[0], next);
                next += i64::try_from(window.len()).unwrap();
            },
            () = tokio::time::sleep(PATIENCE) => panic!("nothing came after the restart"),
        }
    }
    readers[0].commit(150).await.unwrap();
    finish(source, readers).await;
}

/// The demo's broker serves the same source and sink, though it knows no administration.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_serves_source_and_sink() {
    use tidegate::sink::Sink as _;
    use tidegate::sink::kafka::{Inherited, KafkaSink, Options};

    let own = tidegate::source::embedded::EmbeddedBroker::start().unwrap();
    own.create_topic("t", 1).unwrap();
    let options_of_sink = Options { topic: "t".into(), ..Options::default() };
    let inherited = Inherited { brokers: own.brokers(), ..Inherited::default() };
    let sink = KafkaSink::new(options_of_sink, &inherited).unwrap().creating_the_topic();
    let asked = std::time::Instant::now();
    sink.connect().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "limits that nobody tells do not hold up a start");
    let mut rows = tidegate::model::Batch::new(place("s", 0));
    (0..50).for_each(|n| rows.push(n, -1, None, Some(b"x")));
    assert_eq!(sink.deliver(&std::sync::Arc::new(rows)).await, Ok(Vec::new()));

    let mut options = options("t", "g");
    options.brokers = Brokers::One(own.brokers());
    let mut source = start(&options);
    let mut readers = assigned(&mut source, 1).await;
    assert_eq!(read(&mut readers[0], 50).await.offsets, (0..50).collect::<Vec<i64>>());
    readers[0].rewind(20).await.unwrap();
    assert_eq!(read(&mut readers[0], 30).await.offsets[0], 20);
    readers[0].commit(50).await.unwrap();
    finish(source, readers).await;
    sink.close().await.unwrap();
}

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::model::{Payload, SinkKind};

fn batch(key: Option<&[u8]>, value: Option<&[u8]>) -> Batch {
    let mut batch = Batch::new(TopicPartition::new("orders", 3));
    batch.push(1042, 1_700_000_000_123, key, value);
    batch
}

/// S89, S91: exactly the seven fields, with the seconds as a fraction and the calls that were made.
#[test]
fn s89_a_letter_has_the_seven_fields_and_no_other() {
    let mut letter = Letter::of_record(&batch(Some(b"k"), Some(b"{\"a\":1}")), 0);
    letter.sink_name = "search".into();
    letter.error = "no `pattern`".into();
    letter.failed_at = 1_700_000_001_500;
    letter.attempt_count = 4;
    assert_eq!(
        letter.json(),
        r#"{"original_payloads":["{\"a\":1}"],"sink_name":"search","sink_type":"collect","error":"no `pattern`","timestamp":1700000001.5,"partition":3,"attempt_count":4}"#
    );
}

/// S90, E8: a payload keeps its data and routing fields; a key that is no text is base64.
#[test]
fn s90_a_payload_is_complete_and_bytes_are_base64() {
    let kafka = batch(Some(b"\xff\x00"), Some(b"{\"n\":1.0,\"big\":12345678901234567890123}"));
    assert_eq!(
        payload_json(SinkKind::Kafka, "results", None, &kafka, 0),
        r#"{"sink":"results","key_b64":"/wA=","data":{"n":1.0,"big":12345678901234567890123}}"#
    );
    let mut file = batch(None, Some(b"not json"));
    file.targets.push(Some(b"a.jsonl"));
    assert_eq!(
        payload_json(SinkKind::Filesystem, "log", Some("b"), &file, 0),
        r#"{"sink":"log","path":"a.jsonl","data_text":"not json"}"#
    );
}

/// S92: a value that is no text is base64, a tombstone is null.
#[test]
fn s92_a_source_record_is_kept_whatever_its_bytes() {
    assert_eq!(Letter::of_record(&batch(None, Some(b"\xff")), 0).payloads, [r#"{"value_b64":"/w=="}"#]);
    assert_eq!(Letter::of_record(&batch(None, None), 0).payloads, ["null"]);
}

/// S90: a payload's value that is no JSON document, or not one alone, or `null`, is told from one that is.
#[test]
fn s90_data_is_json_or_said_to_be_something_else() {
    let data = |value: Option<&[u8]>| {
        let text = payload_json(SinkKind::Http, "hook", None, &batch(None, value), 0);
        text.strip_prefix(r#"{"sink":"hook","#).map(str::to_owned).unwrap_or(text)
    };
    assert_eq!(data(Some(br#"{"a":1,"a":1.00}"#)), r#""data":{"a":1,"a":1.00}}"#);
    assert_eq!(data(Some(b" 1")), r#""data_text":" 1"}"#);
    assert_eq!(data(Some(b"null")), r#""data_text":"null"}"#);
    assert_eq!(data(Some(b"")), r#""data_text":""}"#);
    assert_eq!(data(Some(b"\xff")), r#""data_b64":"/w=="}"#);
    assert_eq!(data(None), r#""data":null}"#);
}

/// Letters of a topic, as they are written and read again.
fn posted(letter: &Letter, format: DlqFormat, extent: Extent) -> Batch {
    let mut letters = Batch::new(TopicPartition::new("orders_dlq", 0));
    kafka::push(&mut letters, letter, format, extent, false);
    letters
}

/// S94a: a letter that had to leave its payloads out says so.
#[test]
fn s94a_what_was_left_out_is_told() {
    for format in [DlqFormat::Json, DlqFormat::Raw] {
        let letters = posted(&Letter::of_record(&batch(None, Some(b"x")), 0), format, Extent::WithoutPayload);
        let opened = open(&letters, 0).unwrap();
        assert_eq!((opened.content, opened.omitted.names()), (Content::Omitted, vec!["payload"]));
    }
}

/// S94a: a key is told from its beginning, and a key that a letter was given from that of its record.
#[test]
fn s94a_a_key_comes_back_as_far_as_it_was_kept() {
    let letter = Letter::of_record(&batch(Some(b"0123456789"), Some(b"x")), 0);
    for (extent, key, omitted) in [
        (Extent::Whole, Some(&b"0123456789"[..]), vec![]),
        (Extent::WithoutPayload, Some(b"0123456789"), vec!["payload"]),
        (Extent::Cut(8), Some(b"0123"), vec!["payload", "key"]),
        (Extent::Coordinates, None, vec!["payload", "key"]),
    ] {
        let opened = open(&posted(&letter, DlqFormat::Raw, extent), 0).unwrap();
        assert_eq!((opened.letter.key.as_deref(), opened.omitted.names()), (key, omitted), "{extent:?}");
    }
    let mut letters = Batch::new(TopicPartition::new("orders_dlq", 0));
    let keyless = Letter::of_record(&batch(None, Some(b"x")), 0);
    kafka::push(&mut letters, &keyless, DlqFormat::Json, Extent::Whole, true);
    assert!(letters.row(0).key.is_some());
    assert_eq!(open(&letters, 0).map(|opened| (opened.letter.key, opened.content)), Ok((None, Content::Record)));
}

/// S79: whether the destination was at fault is read back.
#[test]
fn s79_the_kind_comes_back() {
    for kind in [FailureKind::Retry, FailureKind::Reject, FailureKind::Unavailable] {
        let letter = Letter { kind, ..Letter::of_record(&batch(None, Some(b"x")), 0) };
        let opened = open(&posted(&letter, DlqFormat::Json, Extent::Whole), 0);
        assert_eq!(opened.map(|opened| opened.letter.kind), Ok(kind));
    }
}

/// S96: what others wrote there is told from letters, with the reason.
#[test]
fn s96_what_is_no_letter_says_why() {
    let mut letters = Batch::new(TopicPartition::new("orders_dlq", 0));
    letters.push(0, -1, None, Some(b"{}"));
    assert_eq!(open(&letters, 0), Err("it has no header `tidegate-source-topic`".into()));
    let good = posted(&Letter::of_record(&batch(None, Some(b"x")), 0), DlqFormat::Json, Extent::Whole);
    for (value, why) in [
        (None, "it has no value"),
        (Some(&b"{}"[..]), "its value has not the seven fields: missing field `original_payloads`"),
        (Some(b"no JSON"), "its value has not the seven fields: expected ident"),
    ] {
        let mut other = Batch::new(good.source.clone());
        other.push(0, -1, None, value);
        other.push_headers(good.headers(0));
        let told = open(&other, 0).map(|opened| opened.letter).unwrap_err();
        assert!(told.starts_with(why), "{told}");
    }
}

/// What a batch of one record takes in Kafka's format (version 2) at most, in bytes.
fn bytes_of_batch(batch: &Batch) -> usize {
    const BATCH: usize = 61;
    const RECORD: usize = 1 + 3 * 10 + 3 * 5;
    const LENGTH: usize = 3;
    let headers = batch.headers(0).map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 2 * LENGTH);
    let row = batch.row(0);
    BATCH + RECORD + row.key.map_or(0, <[u8]>::len) + row.value.map_or(0, <[u8]>::len) + headers.sum::<usize>()
}

prop_compose! {
    fn text_or_bytes()(bytes in prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..12),
        "\\PC{0,8}".prop_map(String::into_bytes),
        prop_oneof![
            Just("null"), Just(" null"), Just("{\"a\": [1.0, 1e400, \"\\ud800\"]}"), Just("1\n"), Just("\"x\""),
            Just("{\"a\":1}{}"), Just("\u{feff}1"),
        ].prop_map(|text| text.as_bytes().to_vec()),
    ]) -> Vec<u8> { bytes }
}

fn some_headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec((text_or_bytes(), prop::option::of(text_or_bytes())), 0..3)
}

proptest! {
    /// S90, S96: any row → letter → payload is that row, byte for byte.
    #[test]
    fn s96_a_payload_comes_back_as_it_was(
        kind in prop::sample::select(SinkKind::ALL.to_vec()),
        key in prop::option::of(text_or_bytes()),
        value in prop::option::of(text_or_bytes()),
        target in prop::option::of("\\PC{0,8}"),
        ttl in prop::option::of(any::<u32>()),
        headers in some_headers(),
        timestamp in -1i64..2_000_000_000_000,
    ) {
        let mut row = batch(key.as_deref(), value.as_deref());
        row.timestamps[0] = timestamp;
        row.push_headers(headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
        if let Some(target) = &target {
            row.targets.push(Some(target.as_bytes()));
        }
        row.ttls.extend(ttl.map(Some));
        let mut letter = Letter::of_record(&row, 0);
        letter.sink_type = kind.name().into();
        letter.sink_name = "main".into();
        letter.payloads = vec![payload_json(kind, "main", None, &row, 0)];
        let opened = open(&posted(&letter, DlqFormat::Json, Extent::Whole), 0).map_err(TestCaseError::fail)?;
        prop_assert_eq!(opened.letter.timestamp, timestamp);
        prop_assert_eq!(opened.sink(), Some((kind, "main")));
        let payload = Payload { key, value, target, ttl, headers, ..Payload::default() };
        prop_assert_eq!(opened.content, Content::Payloads(kind, vec![payload]));
    }

    /// S92, S96: any record → letter → record is that record, in either format, with all that the letter says.
    #[test]
    fn s96_a_record_comes_back_as_it_was(
        key in prop::option::of(text_or_bytes()),
        value in prop::option::of(text_or_bytes()),
        headers in some_headers(),
        raw in any::<bool>(),
        replays in 0u32..5,
        error in "\\PC{0,20}",
    ) {
        let mut row = batch(key.as_deref(), value.as_deref());
        row.push_headers(headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
        let letter = Letter {
            sink_name: "search".into(),
            error,
            failed_at: 1_700_000_000_123,
            first_failed_at: Some(1_600_000_000_000),
            replays,
            attempt_count: 3,
            ..Letter::of_record(&row, 0)
        };
        let format = if raw { DlqFormat::Raw } else { DlqFormat::Json };
        let opened = open(&posted(&letter, format, Extent::Whole), 0).map_err(TestCaseError::fail)?;
        prop_assert_eq!(opened.content, Content::Record);
        prop_assert_eq!(opened.letter, letter);
    }

    /// S94a: however large its parts are, a letter ends at one that its topic takes and that names its record.
    #[test]
    fn s94a_some_letter_always_fits(
        limit in 1024usize..200_000,
        key in prop::option::of(prop_oneof![0usize..2000, 0usize..400_000]),
        value in prop::option::of(0usize..400_000),
        headers in prop::collection::vec((prop_oneof![0usize..20, 0usize..5000], prop::option::of(0usize..5000), any::<bool>()), 0..60),
        error in prop_oneof!["\\PC{0,40}", "[\\x00-\\x1f]{0,40}", "é\"{0,9}"],
        repeated in prop_oneof![0usize..3, 0usize..20_000],
        topic in "[a-z._-]{1,249}",
        name in "\\PC{0,255}",
        raw in any::<bool>(),
        of_sink in any::<bool>(),
    ) {
        let mut record = Batch::new(TopicPartition::new(topic, i32::MAX));
        let (key, value) = (key.map(|bytes| vec![b'k'; bytes]), value.map(|bytes| vec![0xff; bytes]));
        record.push(i64::MAX, 1_700_000_000_123, key.as_deref(), value.as_deref());
        let headers: Vec<(Vec<u8>, Option<Vec<u8>>)> = headers
            .into_iter()
            .map(|(name, value, text)| (vec![if text { b'n' } else { 0xff }; name], value.map(|bytes| vec![b'v'; bytes])))
            .collect();
        record.push_headers(headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
        let mut letter = Letter {
            sink_name: name,
            error: error.repeat(repeated),
            attempt_count: u32::MAX,
            replays: u32::MAX,
            failed_at: 1_700_000_001_523,
            ..Letter::of_record(&record, 0)
        };
        if of_sink {
            letter.sink_type = "filesystem".into();
            letter.payloads = vec![payload_json(SinkKind::Filesystem, "", None, &record, 0)];
        }
        let format = if raw { DlqFormat::Raw } else { DlqFormat::Json };
        let mut extent = Extent::Whole;
        let (written, steps) = (1..).find_map(|step| {
            let written = posted(&letter, format, extent);
            if bytes_of_batch(&written) <= limit {
                return Some((written, step));
            }
            let less = extent.less(&letter);
            extent = less.unwrap_or_else(|| panic!("{} bytes do not fit into {limit}", bytes_of_batch(&written)));
            None
        }).unwrap();
        prop_assert!(steps <= 32, "{steps}");
        let opened = open(&written, 0).map_err(TestCaseError::fail)?;
        prop_assert_eq!(opened.letter.source.at(opened.letter.offset), letter.source.at(letter.offset));
        prop_assert_eq!(&opened.letter.sink_type, &letter.sink_type);
        prop_assert_eq!(opened.omitted.payload, extent != Extent::Whole);
        let kept = opened.letter.key.unwrap_or_default();
        prop_assert!(letter.key.clone().unwrap_or_default().starts_with(&kept));
        prop_assert_eq!(opened.omitted.key, kept.len() < letter.key.map_or(0, |key| key.len()));
        if raw || !of_sink {
            prop_assert!(letter.headers.starts_with(&opened.letter.headers));
            prop_assert_eq!(opened.omitted.headers, opened.letter.headers.len() < letter.headers.len());
        }
    }

    /// S96: whatever somebody wrote to the topic, reading it ends in a letter or in a reason.
    #[test]
    fn s96_nothing_that_stands_there_panics(
        value in prop::option::of(prop_oneof![
            text_or_bytes(),
            ("[a-z/]{0,12}", "\\PC{0,30}", any::<f64>()).prop_map(|(kind, payload, time)| json!({
                "original_payloads": [payload], "sink_name": "s", "sink_type": kind, "error": "", "timestamp": time,
                "partition": 0, "attempt_count": 1,
            }).to_string().into_bytes()),
            "\\PC{0,30}".prop_map(|payload| json!({
                "original_payloads": [payload], "sink_name": "s", "sink_type": "kafka", "error": "", "timestamp": 1e300,
                "partition": 0, "attempt_count": 1,
            }).to_string().into_bytes()),
        ]),
        facts in prop::collection::vec((0usize..16, prop_oneof![text_or_bytes(), (0i64..9).prop_map(|n| n.to_string().into_bytes())]), 0..24),
    ) {
        const NAMES: [&str; 16] = [
            names::TOPIC, names::PARTITION, names::OFFSET, names::TIMESTAMP, names::KEY, names::SINK, names::ERROR, names::KIND,
            names::ATTEMPTS, names::FAILED_AT, names::FIRST_FAILED_AT, names::REPLAYS, names::FORMAT, names::ENCODING,
            names::SOURCE_HEADER_B64, names::PAYLOAD_OMITTED,
        ];
        let mut letters = batch(None, value.as_deref());
        letters.push_headers(facts.iter().map(|(name, value)| (NAMES[*name].as_bytes(), Some(value.as_slice()))));
        if let Ok(opened) = open(&letters, 0) {
            prop_assert!(!opened.letter.source.to_string().is_empty());
        }
    }
}

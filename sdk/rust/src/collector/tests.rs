use serde::Serialize;

use super::*;
use crate::bindings::types;

/// Answers as each record's value says; `n` is the number that it carries.
struct Echo;

#[derive(Serialize)]
struct Data<'a> {
    text: &'a str,
    number: f64,
}

impl Collector for Echo {
    fn new(_context: &Context) -> Result<Self, String> {
        Ok(Self)
    }

    fn collect(&mut self, record: &Record<'_>, out: &mut Payloads) -> Result<(), Failed> {
        let text = record.text()?;
        let data = Data { text, number: f64::NAN };
        if text != "nothing" {
            out.kafka(&data)?.key("k").sink("results");
            out.postgres("t", &data)?;
            out.mongo("c", &data)?;
            out.http(&data)?;
            out.redis("r", &data)?.ttl(60);
            out.file("f.jsonl", &data)?;
            out.plugin_json(&data)?.header("h", None);
            out.plugin().sink("kafka/results").key("k");
        }
        match text {
            "reject" => Err(Failed::reject("no")),
            "retry" => Err(Failed::retry("later")),
            "fault" => Err(Fault::wait(std::time::Duration::from_millis(1500)).into()),
            _ => Ok(()),
        }
    }
}

fn batch(values: &[Option<&str>]) -> Batch {
    let mut column = types::Column { bytes: Vec::new(), lengths: Vec::new() };
    for value in values {
        column.bytes.extend_from_slice(value.unwrap_or_default().as_bytes());
        column.lengths.push(value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX)));
    }
    let none = || types::Column { bytes: Vec::new(), lengths: vec![-1; values.len()] };
    types::Batch {
        topic: "orders".into(),
        partition: 0,
        offsets: (0..).take(values.len()).collect(),
        ordinals: Vec::new(),
        timestamps: vec![-1; values.len()],
        keys: none(),
        values: column,
        header_counts: Vec::new(),
        header_names: types::Column { bytes: Vec::new(), lengths: Vec::new() },
        header_values: types::Column { bytes: Vec::new(), lengths: Vec::new() },
    }
    .into()
}

fn indices(result: &payloads::CollectResult) -> [Vec<u32>; 7] {
    [
        result.kafka.iter().map(|payload| payload.index).collect(),
        result.postgres.iter().map(|payload| payload.index).collect(),
        result.mongo.iter().map(|payload| payload.index).collect(),
        result.http.iter().map(|payload| payload.index).collect(),
        result.redis.iter().map(|payload| payload.index).collect(),
        result.files.iter().map(|payload| payload.index).collect(),
        result.plugin.iter().map(|payload| payload.index).collect::<Vec<_>>(),
    ]
}

#[test]
fn s61_s67_each_record_fills_the_lists_and_may_yield_nothing() {
    let Ok(result) = collect(&mut Echo, &batch(&[Some("a"), Some("nothing"), Some("é")])) else { panic!("no fault") };
    let each = vec![0, 2];
    assert_eq!(
        indices(&result),
        [each.clone(), each.clone(), each.clone(), each.clone(), each.clone(), each, vec![0, 0, 2, 2]]
    );
    assert!(result.failed.is_empty());
    let json = r#"{"text":"é","number":null}"#;
    let kafka = &result.kafka[1];
    assert_eq!((kafka.sink.as_str(), kafka.key.as_deref(), kafka.data.as_str()), ("results", Some(&b"k"[..]), json));
    assert_eq!((result.postgres[1].table.as_str(), result.postgres[1].data.as_str()), ("t", json));
    assert_eq!((result.mongo[1].collection.as_str(), result.mongo[1].data.as_str()), ("c", json));
    assert_eq!((result.http[1].sink.as_str(), result.http[1].data.as_str()), ("", json));
    let redis = &result.redis[1];
    assert_eq!((redis.key.as_str(), redis.data.as_str(), redis.ttl), ("r", json, Some(60)));
    assert_eq!((result.files[1].path.as_str(), result.files[1].data.as_str()), ("f.jsonl", json));
    assert_eq!(result.plugin[2].value.as_deref(), Some(json.as_bytes()));
    assert_eq!(result.plugin[2].headers.len(), 1);
    assert_eq!((result.plugin[3].sink.as_str(), result.plugin[3].value.as_deref()), ("kafka/results", None));
}

#[test]
fn s63_a_rejected_record_leaves_no_payload_and_its_neighbours_alone() {
    let Ok(result) = collect(&mut Echo, &batch(&[Some("a"), Some("reject"), None, Some("b")])) else {
        panic!("no fault")
    };
    assert_eq!(indices(&result)[..6], std::array::from_fn::<_, 6, _>(|_| vec![0, 3]));
    let failed: Vec<_> = result.failed.iter().map(|row| (row.index, row.kind, row.reason.as_str())).collect();
    assert_eq!(
        failed,
        [(1, types::FailureKind::Reject, "no"), (2, types::FailureKind::Reject, "the record has no value")]
    );
}

#[test]
fn from_the_first_record_to_retry_on_nothing_is_answered() {
    let Ok(result) = collect(&mut Echo, &batch(&[Some("a"), Some("retry"), Some("b")])) else { panic!("no fault") };
    assert_eq!(indices(&result)[0], [0]);
    let failed: Vec<_> = result.failed.iter().map(|row| (row.index, row.kind)).collect();
    assert_eq!(failed, [(1, types::FailureKind::Retry)]);
}

#[test]
fn a_fault_fails_the_whole_call() {
    let fault = collect(&mut Echo, &batch(&[Some("a"), Some("fault")])).err();
    assert!(matches!(fault, Some(Fault::Backpressure(1500))), "{fault:?}");
}

/// The macros compile outside WebAssembly too, and give an instance that lives from `setup` on.
#[test]
fn an_exported_collector_answers_only_after_setup() {
    struct Component;
    thread_local! {
        static INSTANCE: std::cell::RefCell<Option<Echo>> = const { std::cell::RefCell::new(None) };
    }
    impl CollectorInstance for Component {
        type Plugin = Echo;

        fn with<R>(call: impl FnOnce(&mut Option<Echo>) -> R) -> R {
            INSTANCE.with_borrow_mut(call)
        }
    }
    assert!(matches!(Component::with(|slot| slot.as_mut().ok_or_else(before_setup).map(|_| ())), Err(Fault::Fatal(_))));
}

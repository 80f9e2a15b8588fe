//! A collector that misbehaves as its options and the records say. It speaks to the contract directly, past the SDK, which would not
//! let it.
//!
//! Every record yields a payload for each of `sinks`, a row of `kafka`, `filesystem` and `plugin`, unless its value contains one of the
//! words in [`faults::Act`].

use std::cell::RefCell;

use faults::{Act, asked, log, misbehave};
use serde::Deserialize;
use tidegate_sdk::bindings::collector::Guest;
use tidegate_sdk::bindings::payloads::{CollectResult, FilePayload, KafkaPayload, PluginPayload};
use tidegate_sdk::bindings::{delivery_hook, ready_hook, types, window_hook};
use tidegate_sdk::{Batch, Context, DeliveryAction, DeliveryError, Failure, Fault, Record, Window};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// `kind` or `kind/name`.
    sinks: Vec<String>,
    /// What whole calls do.
    setup: Act,
    ready: Act,
    window: Act,
    /// The answer of the delivery hook: `default`, `dlq`, `retry`, `skip`, `abort`, `backpressure`, or any [`Act`] that
    /// ends it.
    delivery: String,
    backpressure_milliseconds: u64,
    /// Whether the window hook yields a payload for each of `sinks`.
    window_payloads: bool,
    /// A file in a granted directory that says whether a fault has happened; see [`asked`].
    once: Option<String>,
    /// A file in a granted directory to which every call adds a line.
    log: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sinks: vec!["kafka".into()],
            setup: Act::Ok,
            ready: Act::Ok,
            window: Act::Ok,
            delivery: "default".into(),
            backpressure_milliseconds: 100,
            window_payloads: false,
            once: None,
            log: None,
        }
    }
}

thread_local! {
    static OPTIONS: RefCell<Options> = RefCell::new(Options::default());
}

/// What the component exports.
#[derive(Debug)]
pub struct Faulty;

fn options() -> Options {
    OPTIONS.with_borrow(Options::clone)
}

/// The fault that an act stands for, if it stands for one.
fn fault(act: Act, place: &str, options: &Options) -> Result<(), Fault> {
    misbehave(act, place);
    match act {
        Act::RejectCall | Act::Reject => Err(Fault::reject(format_args!("{place} was told to reject"))),
        Act::Unavailable | Act::Retry => {
            Err(Fault::unavailable(format_args!("{place} was told that nothing is there")))
        }
        Act::Fatal => Err(Fault::fatal(format_args!("{place} was told to give up"))),
        Act::Backpressure => Err(Fault::Backpressure(options.backpressure_milliseconds)),
        _ => Ok(()),
    }
}

fn emit(result: &mut CollectResult, index: u32, sinks: &[String], key: Option<&[u8]>, value: Option<&[u8]>) {
    let data = serde_json::json!({ "value": value.map(String::from_utf8_lossy) }).to_string();
    for target in sinks {
        let (kind, name) = target.split_once('/').unwrap_or((target, ""));
        let (sink, data, key) = (name.to_owned(), data.clone(), key.map(<[u8]>::to_vec));
        match kind {
            "kafka" => result.kafka.push(KafkaPayload { index, sink, key, data }),
            "filesystem" => result.files.push(FilePayload { index, sink, path: "faulty.jsonl".into(), data }),
            _ => {
                let value = value.map(<[u8]>::to_vec);
                result.plugin.push(PluginPayload { index, sink, key, value, headers: Vec::new() });
            }
        }
    }
}

fn nothing() -> CollectResult {
    CollectResult {
        kafka: Vec::new(),
        postgres: Vec::new(),
        mongo: Vec::new(),
        http: Vec::new(),
        redis: Vec::new(),
        files: Vec::new(),
        plugin: Vec::new(),
        failed: Vec::new(),
    }
}

fn collect(batch: &Batch, options: &Options) -> Result<CollectResult, Fault> {
    log(options.log.as_deref(), &format!("collect {}[{}] {}", batch.topic(), batch.partition(), batch.size()));
    let mut result = nothing();
    for (row, record) in batch.iter().enumerate() {
        answer(&mut result, row, &record, options)?;
    }
    Ok(result)
}

fn answer(result: &mut CollectResult, row: usize, record: &Record<'_>, options: &Options) -> Result<(), Fault> {
    let index = u32::try_from(row).unwrap_or(u32::MAX);
    let act = asked(record.value, options.once.as_deref());
    misbehave(act, "collect");
    match act {
        Act::Reject => result.failed.push(Failure::reject(row, "told to reject")),
        Act::Retry => result.failed.push(Failure::retry(row, "told to retry")),
        Act::Twice => result
            .failed
            .extend([Failure::reject(row, "told to say it twice"), Failure::reject(row, "told to say it twice")]),
        Act::WrongIndex => emit(result, u32::MAX, &options.sinks, record.key, record.value),
        Act::UnknownSink => emit(result, index, &["kafka/nobody".into()], record.key, record.value),
        Act::BadJson => {
            result.kafka.push(KafkaPayload { index, sink: String::new(), key: None, data: "{\"value\":".into() });
        }
        Act::Both => {
            emit(result, index, &options.sinks, record.key, record.value);
            result.failed.push(Failure::reject(row, "told to reject"));
        }
        Act::Many => {
            for _ in 0..100_000 {
                emit(result, index, &options.sinks, record.key, record.value);
            }
        }
        Act::Nothing => {}
        other => {
            fault(other, "collect", options)?;
            emit(result, index, &options.sinks, record.key, record.value);
        }
    }
    Ok(())
}

impl Guest for Faulty {
    fn setup(context: Context) -> Result<(), String> {
        tidegate_sdk::exports::install_panic_hook();
        let options: Options = context.options()?;
        log(options.log.as_deref(), &format!("setup {} {}/{}", context.name, context.slot, context.slots));
        let told = fault(options.setup, "setup", &options).map_err(|_| "setup was told to fail".to_owned());
        OPTIONS.set(options);
        told
    }

    fn collect(batch: types::Batch) -> Result<CollectResult, Fault> {
        collect(&batch.into(), &options())
    }
}

impl window_hook::Guest for Faulty {
    fn on_window_complete(window: Window) -> Result<Option<CollectResult>, Fault> {
        let options = options();
        let Window { topic, partition, first_offset, last_offset, records } = &window;
        log(options.log.as_deref(), &format!("window {topic}[{partition}] {first_offset}..={last_offset} {records}"));
        let mut result = nothing();
        match options.window {
            // Not a fault of the call: an answer that names a record outside the window.
            Act::WrongIndex => emit(&mut result, *records, &options.sinks, None, Some(b"window")),
            act => fault(act, "on_window_complete", &options)?,
        }
        if options.window_payloads {
            let value = format!("window {first_offset}..={last_offset}");
            emit(&mut result, records.saturating_sub(1), &options.sinks, None, Some(value.as_bytes()));
            return Ok(Some(result));
        }
        Ok((options.window == Act::WrongIndex).then_some(result))
    }
}

impl delivery_hook::Guest for Faulty {
    fn on_delivery_error(error: DeliveryError) -> DeliveryAction {
        let options = options();
        log(
            options.log.as_deref(),
            &format!(
                "delivery-error {}/{} {:?} attempt {} payloads {}",
                error.sink_type,
                error.sink_name,
                error.kind,
                error.attempt,
                error.payloads.len()
            ),
        );
        match options.delivery.as_str() {
            "default" => DeliveryAction::Default,
            "dlq" => DeliveryAction::Dlq,
            "retry" => DeliveryAction::Retry,
            "skip" => DeliveryAction::Skip,
            "abort" => DeliveryAction::Abort,
            "backpressure" => DeliveryAction::Backpressure(options.backpressure_milliseconds),
            word => {
                misbehave(asked(Some(word.as_bytes()), None), "on_delivery_error");
                DeliveryAction::Skip
            }
        }
    }
}

impl ready_hook::Guest for Faulty {
    fn on_ready() -> Result<(), Fault> {
        let options = options();
        log(options.log.as_deref(), "ready");
        fault(options.ready, "on_ready", &options)
    }
}

#[cfg(target_family = "wasm")]
tidegate_sdk::bindings::collector::export_raw_collector!(Faulty with_types_in tidegate_sdk::bindings::collector);
#[cfg(target_family = "wasm")]
tidegate_sdk::bindings::ready_hook::export_raw_ready_hook!(Faulty with_types_in tidegate_sdk::bindings::ready_hook);
#[cfg(target_family = "wasm")]
tidegate_sdk::bindings::window_hook::export_raw_window_hook!(Faulty with_types_in tidegate_sdk::bindings::window_hook);
#[cfg(target_family = "wasm")]
tidegate_sdk::bindings::delivery_hook::export_raw_delivery_hook!(Faulty with_types_in tidegate_sdk::bindings::delivery_hook);

use super::*;
use crate::bindings::delivery_hook::{DeliveryErrorKind, Guest as _};
use crate::bindings::ready_hook::Guest as _;
use crate::bindings::window_hook::Guest as _;
use crate::{Context, Failed, Record};

/// Has every hook; `collect` is of no interest here.
struct Hooked;

impl Collector for Hooked {
    fn new(_context: &Context) -> Result<Self, String> {
        Ok(Self)
    }

    fn collect(&mut self, _record: &Record<'_>, _out: &mut Payloads) -> Result<(), Failed> {
        Ok(())
    }
}

impl ReadyHook for Hooked {
    fn ready(&mut self) -> Result<(), Fault> {
        Err(Fault::unavailable("no table yet"))
    }
}

impl WindowHook for Hooked {
    fn window_complete(&mut self, window: &Window, out: &mut Payloads) -> Result<(), Fault> {
        out.kafka(&window.records).map(drop).map_err(Fault::reject)
    }
}

impl DeliveryHook for Hooked {
    fn delivery_error(&mut self, error: &DeliveryError) -> DeliveryAction {
        match error.kind {
            DeliveryErrorKind::Reject => DeliveryAction::Skip,
            DeliveryErrorKind::Retry => DeliveryAction::Retry,
            DeliveryErrorKind::Unavailable => DeliveryAction::default(),
        }
    }
}

struct Component;

thread_local! {
    static INSTANCE: std::cell::RefCell<Option<Hooked>> = const { std::cell::RefCell::new(None) };
}

impl CollectorInstance for Component {
    type Plugin = Hooked;

    fn with<R>(call: impl FnOnce(&mut Option<Hooked>) -> R) -> R {
        INSTANCE.with_borrow_mut(call)
    }
}

fn decided(kind: DeliveryErrorKind) -> DeliveryAction {
    Component::on_delivery_error(DeliveryError {
        sink_type: "kafka".into(),
        sink_name: "results".into(),
        topic: "orders".into(),
        partition: 0,
        offsets: vec![7],
        payloads: vec!["{}".into()],
        kind,
        error: "no".into(),
        attempt: 1,
    })
}

fn window() -> Window {
    Window { topic: "orders".into(), partition: 0, first_offset: 4, last_offset: 9, records: 6 }
}

#[test]
fn s79_a_delivery_hook_decides_by_kind_and_has_no_opinion_before_setup() {
    assert!(matches!(decided(DeliveryErrorKind::Reject), DeliveryAction::Default));
    INSTANCE.set(Some(Hooked));
    assert!(matches!(decided(DeliveryErrorKind::Reject), DeliveryAction::Skip));
    assert!(matches!(decided(DeliveryErrorKind::Retry), DeliveryAction::Retry));
    assert!(matches!(decided(DeliveryErrorKind::Unavailable), DeliveryAction::Default));
}

#[test]
fn s62_what_a_window_yields_comes_from_its_last_record() {
    assert!(matches!(Component::on_window_complete(window()), Err(Fault::Fatal(_))));
    INSTANCE.set(Some(Hooked));
    let Ok(Some(result)) = Component::on_window_complete(window()) else { panic!("no fault") };
    assert_eq!(result.kafka.iter().map(|payload| payload.index).collect::<Vec<_>>(), [5]);
}

#[test]
fn s66_a_ready_hook_may_find_its_destination_unavailable() {
    INSTANCE.set(Some(Hooked));
    assert!(matches!(Component::on_ready(), Err(Fault::Unavailable(why)) if why == "no table yet"));
}

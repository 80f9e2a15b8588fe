//! How long a call may take, and whose time it was: the guest's own, or the host's while the guest waited for it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use wasmtime::{Store, UpdateDeadline};

use super::Stop;
use crate::plugin::engine::{Ticks, ticks_in};
use crate::plugin::imports::State;
use crate::plugin::report::Deadline;

/// Tells a call that nobody waits for its answer any more.
#[derive(Debug, Default)]
pub(crate) struct Abandon {
    given_up: AtomicBool,
    wake: Notify,
}

impl Abandon {
    /// Nobody waits any more.
    pub(crate) fn now(&self) {
        self.given_up.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

/// Gives the call up when its caller's future is dropped.
pub(crate) struct AbandonOnDrop(pub(crate) Arc<Abandon>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// Counts the ticks of one call.
struct Meter {
    ticks: Arc<Ticks>,
    started: u64,
    limit: u64,
    /// Ticks in which the guest ran, up to where it last waited.
    ran: AtomicU64,
    /// The tick in which it last went on.
    resumed: AtomicU64,
}

impl Meter {
    fn over(&self) -> bool {
        self.ticks.now().saturating_sub(self.started) >= self.limit
    }

    /// Whether most of the call's time was the guest's own: then the guest is to blame for what was left undone (S63).
    fn guest_is_to_blame(&self) -> bool {
        let passed = self.ticks.now().saturating_sub(self.started);
        self.ran.load(Ordering::Relaxed) * 2 >= passed.max(1)
    }
}

/// Runs one call of the guest. Epochs stop a guest that runs; a timer stops one that waits in an import, which no epoch
/// reaches. Either is judged by whose time it was.
pub(crate) async fn timed<T>(
    store: &mut Store<State>,
    ticks: &Arc<Ticks>,
    deadline: Deadline,
    abandon: &Arc<Abandon>,
    hook: &'static str,
    call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Result<T, Stop> {
    let started = ticks.now();
    let meter = Arc::new(Meter {
        ticks: Arc::clone(ticks),
        started,
        limit: ticks_in(deadline.time),
        ran: AtomicU64::new(0),
        resumed: AtomicU64::new(started),
    });
    let (watched, asked) = (Arc::clone(&meter), Arc::clone(abandon));
    store.epoch_deadline_callback(move |_| {
        let stop = watched.over() || asked.is_given_up();
        Ok(if stop { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
    });
    store.set_epoch_deadline(1);
    store.data().output.begin_call();
    store.data_mut().requests.begin_call();
    let mut call = pin!(call(store));
    let metered = poll_fn(|context| {
        meter.resumed.store(meter.ticks.now(), Ordering::Relaxed);
        let polled = call.as_mut().poll(context);
        let now = meter.ticks.now();
        meter.ran.fetch_add(now - meter.resumed.swap(now, Ordering::Relaxed), Ordering::Relaxed);
        polled
    });
    tokio::select! {
        biased;
        ended = metered => ended.map_err(|error| {
            let interrupted = matches!(error.downcast_ref(), Some(wasmtime::Trap::Interrupt));
            match (interrupted, meter.guest_is_to_blame()) {
                _ if abandon.is_given_up() => Stop::Abandoned,
                (true, true) => Stop::Overran { hook, limit: deadline, error: Some(error) },
                (true, false) => Stop::Waited { hook, limit: deadline },
                (false, _) => Stop::Trapped { hook, error },
            }
        }),
        () = abandon.wake.notified() => Err(Stop::Abandoned),
        () = tokio::time::sleep(deadline.time) => Err(if meter.guest_is_to_blame() {
            Stop::Overran { hook, limit: deadline, error: None }
        } else {
            Stop::Waited { hook, limit: deadline }
        }),
    }
}

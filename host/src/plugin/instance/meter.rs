//! How long a call may take, and what ends it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use wasmtime::{Store, UpdateDeadline};

use super::Stop;
use super::spent::Ticked;
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

/// Runs one call of the guest. Epochs stop a guest that runs; a timer stops one that waits in an import, which no epoch
/// reaches. Either is judged by what its time was spent on.
pub(crate) async fn timed<T>(
    store: &mut Store<State>,
    ticks: &Arc<Ticks>,
    deadline: Deadline,
    abandon: &Arc<Abandon>,
    hook: &'static str,
    call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Result<T, Stop> {
    let (started, limit) = (ticks.now(), ticks_in(deadline.time));
    let (watched, asked) = (Arc::clone(ticks), Arc::clone(abandon));
    store.epoch_deadline_callback(move |_| {
        let stop = watched.now().saturating_sub(started) >= limit || asked.is_given_up();
        Ok(if stop { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
    });
    store.set_epoch_deadline(1);
    let spent = Arc::clone(&store.data().spent);
    spent.begin_call();
    store.data().output.begin_call();
    store.data_mut().requests.begin_call();
    let mut call = pin!(call(store));
    let metered = poll_fn(|context| {
        spent.set_running(true);
        let polled = call.as_mut().poll(context);
        spent.set_running(false);
        polled
    });
    tokio::select! {
        biased;
        ended = metered => ended.map_err(|error| {
            match matches!(error.downcast_ref(), Some(wasmtime::Trap::Interrupt)) {
                _ if abandon.is_given_up() => Stop::Abandoned,
                true => late(spent.ticked(), hook, deadline, Some(error)),
                false => Stop::Trapped { hook, error },
            }
        }),
        () = abandon.wake.notified() => Err(Stop::Abandoned),
        () = tokio::time::sleep(deadline.time) => Err(late(spent.ticked(), hook, deadline, None)),
    }
}

/// Blames whoever most of the time was spent on: the guest, unless it waited for a request of its own (S63).
fn late(spent: Ticked, hook: &'static str, limit: Deadline, error: Option<wasmtime::Error>) -> Stop {
    let own = spent.running + spent.waiting;
    if spent.waiting_for_requests > own {
        return Stop::Waited { hook, limit };
    }
    Stop::Overran { hook, limit, is_waiting: spent.waiting > spent.running, error }
}

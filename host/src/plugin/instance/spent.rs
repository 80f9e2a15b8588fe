//! What a call's time was spent on: the guest's own code, a wait of its own, or a request that somebody else has to
//! answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plugin::engine::Ticks;

/// The ticks of one instance's present call, by what they were spent on (S63). A wait is for a request while an HTTP
/// request or a statement of the instance is under way; any other wait, for a clock or a file, is the guest's own time.
pub(crate) struct Spent {
    ticks: Arc<Ticks>,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    is_running: bool,
    requests: u32,
    /// The tick up to which everything is counted.
    until: u64,
    spent: Ticked,
}

/// Ticks, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticked {
    pub(super) running: u64,
    pub(super) waiting: u64,
    pub(super) waiting_for_requests: u64,
}

impl Spent {
    /// Nothing spent yet.
    pub(crate) fn new(ticks: &Arc<Ticks>) -> Arc<Self> {
        Arc::new(Self { ticks: Arc::clone(ticks), counted: Mutex::default() })
    }

    /// A request is under way until what is returned is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> UnderWay {
        self.counted().requests += 1;
        UnderWay(Arc::clone(self))
    }

    /// A call begins.
    pub(super) fn begin_call(&self) {
        self.counted().spent = Ticked::default();
    }

    /// The guest runs from now on, or waits.
    pub(super) fn set_running(&self, is_running: bool) {
        self.counted().is_running = is_running;
    }

    /// Up to now.
    pub(super) fn ticked(&self) -> Ticked {
        self.counted().spent
    }

    /// Counts the ticks since the last change, so that the next change counts from now on.
    fn counted(&self) -> MutexGuard<'_, Counted> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.ticks.now();
        let passed = now.saturating_sub(counted.until);
        counted.until = now;
        let (is_running, requests, spent) = (counted.is_running, counted.requests, &mut counted.spent);
        *match (is_running, requests) {
            (true, _) => &mut spent.running,
            (false, 0) => &mut spent.waiting,
            (false, _) => &mut spent.waiting_for_requests,
        } += passed;
        counted
    }
}

/// A request that is under way.
pub(crate) struct UnderWay(Arc<Spent>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut counted = self.0.counted();
        counted.requests = counted.requests.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S63: a tick belongs to what the guest did when it passed, and only a request makes a wait somebody else's.
    #[test]
    fn s63_ticks_are_counted_by_what_they_were_spent_on() {
        let ticks = Arc::new(Ticks::default());
        let spent = Spent::new(&ticks);
        let pass = |count| (0..count).for_each(|_| ticks.pass());
        pass(5);
        spent.begin_call();
        spent.set_running(true);
        pass(2);
        let request = spent.request();
        pass(1);
        spent.set_running(false);
        pass(10);
        let second = spent.request();
        drop(request);
        pass(20);
        drop(second);
        pass(4);
        spent.set_running(true);
        assert_eq!(spent.ticked(), Ticked { running: 3, waiting: 4, waiting_for_requests: 30 });
        spent.begin_call();
        pass(1);
        assert_eq!(spent.ticked(), Ticked { running: 1, ..Ticked::default() });
    }
}

//! Waits that no attempt is counted for: for a destination that is not available, or as long as one asked for. Each is logged
//! when it begins, once a minute, and when it ends (S79a, S27b).

use std::time::Duration;

use super::shared::Shared;
use crate::clock::{Clock, Millis};
use crate::model::TopicPartition;

/// Time between two log lines of one wait, in milliseconds.
const LOG_INTERVAL: Millis = 60_000;
/// The shortest wait for a destination that says "now" twice in a row (S33).
const SHORTEST_REPEATED_BACKPRESSURE: Duration = Duration::from_millis(100);

/// How long something has been waited for, over all repetitions of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// When it began, on the pipeline's clock.
    since: Option<Millis>,
    /// When it was last logged.
    logged: Millis,
    /// How often in a row the destination was not available.
    failures: u32,
    /// How often in a row it asked to wait.
    asked: u32,
}

impl Waiting {
    /// How often in a row the destination asked to wait.
    pub fn asked(&self) -> u32 {
        self.asked
    }
}

impl<C: Clock> Shared<C> {
    /// Waits before a destination that is not available is asked again: with a growing back-off, for as long as it takes (S79a).
    pub async fn wait_until_available(&self, waiting: &mut Waiting, what: &str, source: &TopicPartition, reason: &str) {
        waiting.asked = 0;
        waiting.failures = waiting.failures.saturating_add(1);
        if let Some(seconds) = self.log_due(waiting) {
            tracing::warn!(sink = what, partition = %source, seconds, reason, "waiting until it is available");
        }
        self.back_off_abort(waiting.failures).await;
    }

    /// Waits as long as a destination asked for (S37).
    pub async fn wait_as_asked(&self, waiting: &mut Waiting, what: &str, source: &TopicPartition, asked: Duration) {
        waiting.failures = 0;
        waiting.asked = waiting.asked.saturating_add(1);
        if let Some(seconds) = self.log_due(waiting) {
            tracing::info!(sink = what, partition = %source, seconds, ?asked, "backpressure: waiting as asked");
        }
        let least = if waiting.asked > 1 { SHORTEST_REPEATED_BACKPRESSURE } else { Duration::ZERO };
        self.clock.sleep(asked.max(least)).await;
    }

    /// Waits as long as a flush asked for, `repeated` when it had asked just before (S29, S33).
    pub async fn wait_paused(&self, asked: Duration, repeated: bool) {
        let least = if repeated { SHORTEST_REPEATED_BACKPRESSURE } else { Duration::ZERO };
        self.clock.sleep(asked.max(least)).await;
    }

    /// Ends a wait: the call got an answer.
    pub fn end_wait(&self, waiting: &mut Waiting, what: &str, source: &TopicPartition) {
        if let Some(since) = std::mem::take(waiting).since {
            let seconds = self.clock.now().saturating_sub(since) / 1000;
            tracing::info!(sink = what, partition = %source, seconds, "the wait is over");
        }
    }

    /// How many seconds the wait has lasted, where that is to be logged now.
    fn log_due(&self, waiting: &mut Waiting) -> Option<Millis> {
        let now = self.clock.now();
        let since = *waiting.since.get_or_insert(now);
        let due = since == now || now.saturating_sub(waiting.logged) >= LOG_INTERVAL;
        if due {
            waiting.logged = now;
        }
        due.then(|| now.saturating_sub(since) / 1000)
    }
}

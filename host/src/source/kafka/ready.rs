//! Which partitions the polling thread is to look at, in the order in which they announced themselves: with thousands assigned
//! it must not walk through all of them at each wake, and with all of them busy each gets its turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Bell;
use crate::model::TopicPartition;

/// A partition is in here at most once: its own flag says whether it is, so that this is bounded by the assignment.
#[derive(Debug, Default)]
pub(super) struct Ready {
    partitions: Mutex<VecDeque<TopicPartition>>,
    pub bell: Arc<Bell>,
}

impl Ready {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self { partitions: Mutex::default(), bell }
    }

    pub(super) fn push(&self, partition: TopicPartition) {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).push_back(partition);
    }

    /// The one that has waited longest.
    pub(super) fn pop(&self) -> Option<TopicPartition> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S38: a partition that announces itself again and again is served behind all that wait already.
    #[test]
    fn s38_who_has_waited_longest_is_served_first() {
        let ready = Ready::new(Arc::default());
        let place = |partition| TopicPartition::new("t", partition);
        (0..3).for_each(|partition| ready.push(place(partition)));
        let served: Vec<TopicPartition> = (0..7)
            .filter_map(|_| {
                let next = ready.pop()?;
                // Its queue is full again at once, as in a backlog.
                ready.push(next.clone());
                Some(next)
            })
            .collect();
        assert_eq!(served, [0, 1, 2, 0, 1, 2, 0].map(place));
        assert_eq!(ready.len(), 3);
    }
}

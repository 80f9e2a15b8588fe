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

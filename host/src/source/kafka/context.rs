//! What librdkafka calls: nothing here decides anything, everything is queued for the polling thread (S45a).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use crate::brokers;
use crate::model::TopicPartition;

/// Wakes the polling thread. Rung by librdkafka's threads, so it never waits.
#[derive(Debug, Default)]
pub(super) struct Bell {
    thread: OnceLock<Thread>,
}

impl Bell {
    pub(super) fn ring(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Called once, by the thread that wants to be woken.
    pub(super) fn hang(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }
}

/// A change of the assignment that has to be answered.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke { partitions: Vec<TopicPartition>, lost: bool },
}

/// Keeps what the callbacks are told until the polling thread asks.
#[derive(Debug, Default)]
pub(super) struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    complaint: Mutex<Option<String>>,
    closing: AtomicBool,
}

impl Context {
    pub(super) fn take_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The last thing that a connection complained of, in librdkafka's words.
    pub(super) fn take_complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// From now on every change is answered inside its callback: while the consumer closes, nobody is left to ask.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        brokers::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        brokers::error("Kafka", &error, reason);
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let answer = if assigned { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            if let Err(error) = answer {
                tracing::debug!("while closing: {error}");
            }
            return;
        }
        let partitions = list.elements().iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect();
        let change = if assigned {
            Rebalance::Assign(partitions)
        } else {
            // Only in here does the library say whether there is still a claim to commit (S48).
            Rebalance::Revoke { partitions, lost: consumer.assignment_lost() }
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

//! Members of a group that are not Tidegate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset as Position, TopicPartitionList};

use crate::binary::wait;

/// A member that takes part in rebalances, reads, and commits only what it is told to.
pub struct Foreign {
    consumer: Arc<BaseConsumer>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Foreign {
    /// Joins, and waits until it has a partition.
    pub fn join(bootstrap: &str, group: &str, topic: &str, assignor: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "300")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", assignor)
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let (consumer, stop) = (Arc::new(consumer), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (consumer, stop) = (consumer.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = consumer.poll(Duration::from_millis(50));
                }
            }
        });
        let member = Self { consumer, stop, thread: Some(thread) };
        wait("the foreign member has a partition", || !member.held().is_empty());
        member
    }

    /// The partitions that it has.
    pub fn held(&self) -> Vec<i32> {
        let assignment = self.consumer.assignment().unwrap();
        assignment.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
    }

    /// Commits an offset.
    pub fn commit(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Position::Offset(offset)).unwrap();
        self.consumer.commit(&list, CommitMode::Sync).unwrap();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

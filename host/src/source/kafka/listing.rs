//! Where logs begin and end, asked for many partitions in one request to each leader: Kafka's ListOffsets, which the safe
//! wrapper offers for one partition at a time only.
#![allow(unsafe_code, reason = "the wrapper has no ListOffsets for many partitions")]

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::context::Context;
use crate::model::{Offset, TopicPartition};

/// Which offset of each log is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    /// The first one that the broker has.
    Earliest,
    /// The one behind the last record that may be read.
    Latest,
    /// The first one of that time or later, in milliseconds since the Unix epoch; none where no record is that young.
    At(i64),
}

/// What the leader said of one partition: an offset, no offset, or an error.
pub(super) type Listed = Result<Option<Offset>, RDKafkaErrorCode>;

/// The answer to one request.
pub(super) struct Answer {
    /// What the request was given.
    pub id: usize,
    /// One entry for each partition asked for, or why there is none.
    pub listed: Result<Vec<(TopicPartition, Listed)>, RDKafkaErrorCode>,
}

/// A queue of answers. Requests do not wait; several may be on their way.
pub(super) struct Listing {
    consumer: Arc<BaseConsumer<Context>>,
    queue: NonNull<rd::rd_kafka_queue_t>,
    /// Whether transactions that are still open count as the end of the log.
    read_committed: bool,
}

/// Frees the options on every way out.
struct Options(NonNull<rd::rd_kafka_AdminOptions_t>);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_AdminOptions_new` and freed nowhere else.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) };
    }
}

impl Listing {
    /// `None`: the library has no memory for a queue.
    pub(super) fn new(consumer: Arc<BaseConsumer<Context>>, read_committed: bool) -> Option<Self> {
        // SAFETY: the client lives as long as the consumer that is kept here.
        let queue = NonNull::new(unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) })?;
        Some(Self { consumer, queue, read_committed })
    }

    pub(super) fn consumer(&self) -> &Arc<BaseConsumer<Context>> {
        &self.consumer
    }

    /// Sends the question; [`Self::answer`] tells what came of it, also when the time has run out.
    pub(super) fn ask(
        &self,
        id: usize,
        partitions: &[TopicPartition],
        spec: Spec,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let offset = match spec {
            Spec::Earliest => Position::Beginning,
            Spec::Latest => Position::End,
            Spec::At(time) => Position::Offset(time),
        };
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&partition.topic, partition.partition).set_offset(offset)?;
        }
        let client = self.consumer.client().native_ptr();
        let options = self.options(id, timeout)?;
        // SAFETY: client and queue are alive as long as `self`; list and options are copied by the call.
        unsafe { rd::rd_kafka_ListOffsets(client, list.ptr(), options.0.as_ptr(), self.queue.as_ptr()) };
        Ok(())
    }

    fn options(&self, id: usize, timeout: Duration) -> Result<Options, KafkaError> {
        use rd::rd_kafka_IsolationLevel_t as Level;
        let client = self.consumer.client().native_ptr();
        let level = if self.read_committed {
            Level::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        } else {
            Level::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client is alive; the options are freed by their owner, errors right here; the opaque is a number that
        // nobody follows.
        unsafe {
            let options = rd::rd_kafka_AdminOptions_new(client, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS);
            let options = NonNull::new(options).map(Options).ok_or(KafkaError::Canceled)?;
            let set = rd::rd_kafka_AdminOptions_set_request_timeout(options.0.as_ptr(), millis, ptr::null_mut(), 0);
            if set != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(KafkaError::AdminOp(RDKafkaErrorCode::from(set)));
            }
            let error = rd::rd_kafka_AdminOptions_set_isolation_level(options.0.as_ptr(), level);
            if !error.is_null() {
                rd::rd_kafka_error_destroy(error);
                return Err(KafkaError::AdminOp(RDKafkaErrorCode::InvalidArgument));
            }
            rd::rd_kafka_AdminOptions_set_opaque(options.0.as_ptr(), ptr::without_provenance_mut::<c_void>(id));
            Ok(options)
        }
    }

    /// The next answer, when one comes in time.
    pub(super) fn answer(&self, wait: Duration) -> Option<Answer> {
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive. The event is freed below, after the last look at what belongs to it.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.queue.as_ptr(), millis);
            if event.is_null() {
                return None;
            }
            let answer = (rd::rd_kafka_event_type(event) == rd::RD_KAFKA_EVENT_LISTOFFSETS_RESULT)
                .then(|| Answer { id: rd::rd_kafka_event_opaque(event).addr(), listed: listed(event) });
            rd::rd_kafka_event_destroy(event);
            answer
        }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed nowhere else, and the client outlives it.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// # Safety
/// `event` is an answer to ListOffsets and alive.
unsafe fn listed(event: *mut rd::rd_kafka_event_t) -> Result<Vec<(TopicPartition, Listed)>, RDKafkaErrorCode> {
    // SAFETY: as the caller promises; infos and their partitions belong to the event and are copied here.
    unsafe {
        let error = rd::rd_kafka_event_error(event);
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(RDKafkaErrorCode::from(error));
        }
        let result = rd::rd_kafka_event_ListOffsets_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let infos = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        let mut all: Vec<(TopicPartition, Listed)> = Vec::with_capacity(count);
        for place in 0..count {
            let found = &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(place));
            let name = CStr::from_ptr(found.topic).to_string_lossy();
            // The entries of one topic share its name.
            let topic = match all.last() {
                Some((last, _)) if *last.topic == *name => Arc::clone(&last.topic),
                _ => Arc::from(name),
            };
            all.push((TopicPartition::new(topic, found.partition), one(found.err, found.offset)));
        }
        Ok(all)
    }
}

fn one(error: RDKafkaRespErr, offset: Offset) -> Listed {
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR if offset >= 0 => Ok(Some(offset)),
        // The protocol's "no record of that time or later".
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR if offset == -1 => Ok(None),
        // Left as it was set out: this leader's answer did not come.
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Err(RDKafkaErrorCode::OperationTimedOut),
        error => Err(RDKafkaErrorCode::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S51: an offset, none, and a leader that did not answer are told apart.
    #[test]
    fn s51_answers_of_leaders_are_told_apart() {
        let fine = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        assert_eq!([one(fine, 7), one(fine, -1)], [Ok(Some(7)), Ok(None)]);
        assert_eq!(one(fine, -1001), Err(RDKafkaErrorCode::OperationTimedOut));
        let moved = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
        assert_eq!(one(moved, -1), Err(RDKafkaErrorCode::NotLeaderForPartition));
    }
}

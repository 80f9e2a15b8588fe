//! What the polling thread does about errors, and about records that are gone.

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::probe::missing;
use super::super::resolver::Question;
use super::Poller;
use crate::brokers;
use crate::model::{Fault, Offset, TopicPartition};
use crate::source::Event;

/// The property whose name the library gives where an answer is larger than it receives.
const RECEIVE_LIMIT: &str = "receive.message.max.bytes";

/// A broker's answer is larger than the library receives: records that are that large come whole (S58).
fn too_large(reason: String) -> Fault {
    Fault::config("a broker's answer is larger than this client receives").because(reason).hint(format!(
        "raise `{RECEIVE_LIMIT}` in `kafka.properties` above the size that is named; records larger than it are in a topic"
    ))
}

impl Poller {
    /// An error of the consumer as a whole.
    pub(super) fn complain(&mut self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        match (error, code) {
            (KafkaError::MessageConsumptionFatal(_), _) | (_, Some(Code::Fatal)) => self.fatal(error),
            (_, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => self.topic_gone(),
            (_, Some(code)) if self.cannot_join(code) => {}
            // Asked again, the broker answers the same: no partition of that broker gets any further.
            (_, Some(Code::BadMessage)) => match self.consumer.context().take_complaint() {
                Some(reason) if reason.contains(RECEIVE_LIMIT) => self.fail(too_large(reason)),
                _ => tracing::warn!("Kafka consumer: {error}"),
            },
            // The client has told that already.
            _ if brokers::is_of_connection(error) => tracing::debug!("Kafka consumer: {error}"),
            _ => tracing::warn!("Kafka consumer: {error}"),
        }
    }

    /// The client has ended for good.
    fn fatal(&mut self, error: &KafkaError) {
        let (code, reason) = self
            .consumer
            .client()
            .fatal_error()
            .map_or_else(|| (error.rdkafka_error_code(), error.to_string()), |(code, reason)| (Some(code), reason));
        self.fail(match code {
            Some(RDKafkaErrorCode::FencedInstanceId) => {
                Fault::config("another host has joined the group under this one's `kafka.instance_id`")
                    .because(reason)
                    .hint("give every host an instance id of its own, and run each host once")
            }
            _ => Fault::host("the Kafka consumer cannot go on").because(reason),
        });
    }

    /// The library says of some topic that it does not exist, and not of which.
    fn topic_gone(&mut self) {
        // Every answer makes the library say it again. When too much is being asked already, the next time is soon enough.
        if !self.failed && !self.asking_for_topics {
            let question = Question::Missing(self.settings.topics.clone());
            self.asking_for_topics = self.openings.resolver().ask(question).is_ok();
        }
    }

    /// These topics are not there.
    pub(super) fn topics_gone(&mut self, topics: &[String]) {
        self.asking_for_topics = false;
        if topics.is_empty() {
            tracing::warn!("Kafka consumer: a topic was missing for a moment");
        } else {
            self.fail(missing(topics));
        }
    }

    /// An error that the library reports in a partition's place in the log.
    pub(super) fn misplaced(&mut self, partition: &TopicPartition, error: &KafkaError) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AutoOffsetReset) {
            return self.complain(error);
        }
        // Only reported when a gap is to stop us: otherwise the library has gone on at the first record by itself.
        let Some(lane) = self.lanes.get(partition) else { return };
        let wanted = lane.window.wanted();
        let epoch = lane.shared.leader_epochs.below(wanted);
        if self.openings.resolver().ask(Question::Missed { partition: partition.clone(), wanted, epoch }).is_err() {
            self.fail(Fault::host(format!("`{}` is to be read next and is not there", partition.at(wanted))));
        }
    }

    /// The record to read next is not in the log, unless the partition was taken from us meanwhile.
    pub(super) fn missed(&mut self, partition: &TopicPartition, fault: Fault) {
        if self.lanes.contains_key(partition) {
            self.fail(fault);
        }
    }

    /// Counts records that were deleted unread, each once, however often the partition goes back to where they were (S52).
    pub(super) fn passed_over(&mut self, partition: &TopicPartition, (from, to): (Offset, Offset)) {
        let counted = self.gone.entry(partition.clone()).or_insert(from);
        let from = from.max(*counted);
        if let Some(records) = u64::try_from(to - from).ok().filter(|records| *records > 0) {
            *counted = to;
            tracing::error!(%partition, from, to, records, "records were deleted before they were read; going on behind them");
            self.outbox.push_back(Event::Gap { partition: partition.clone(), records });
        }
    }

    /// Says once that the source cannot go on.
    pub(super) fn fail(&mut self, fault: Fault) {
        if !std::mem::replace(&mut self.failed, true) {
            self.outbox.push_back(Event::Failed(fault));
        }
    }
}

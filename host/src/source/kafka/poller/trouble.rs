//! What the polling thread does about errors, and about records that are gone.

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::offsets;
use super::super::probe::{is_missing, missing, refused};
use super::Poller;
use crate::brokers;
use crate::model::{Fault, Offset, TopicPartition};
use crate::source::Event;

impl Poller {
    /// An error of the consumer as a whole.
    pub(super) fn complain(&mut self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        match (error, code) {
            (KafkaError::MessageConsumptionFatal(_), _) | (_, Some(Code::Fatal)) => self.fatal(error),
            (_, Some(code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed))) => {
                self.fail(refused(code));
            }
            (_, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => self.topic_gone(),
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
        if self.failed {
            // Every answer makes the library say it again.
            return;
        }
        let gone: Vec<String> = self
            .settings
            .topics
            .iter()
            .filter(|topic| is_missing(&self.consumer, topic, offsets::QUESTION_TIMEOUT))
            .cloned()
            .collect();
        if gone.is_empty() {
            tracing::warn!("Kafka consumer: a topic was missing for a moment");
        } else {
            self.fail(missing(&gone.join(", ")));
        }
    }

    /// An error that the library reports in a partition's place in the log.
    pub(super) fn misplaced(&mut self, partition: &TopicPartition, error: &KafkaError) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AutoOffsetReset) {
            return self.complain(error);
        }
        // Only reported when a gap is to stop us: otherwise the library has gone on at the first record by itself.
        let Some(wanted) = self.lanes.get(partition).map(|lane| lane.window.wanted()) else { return };
        let marks = self.consumer.fetch_watermarks(&partition.topic, partition.partition, offsets::QUESTION_TIMEOUT);
        self.fail(match marks {
            Ok((low, high)) => offsets::gap(partition, wanted, low, high),
            Err(_) => Fault::host(format!("`{}` is to be read next and is not there", partition.at(wanted))),
        });
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

//! Storing one partition's offset (S12).

use std::sync::{Arc, LazyLock, Weak};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::context::Context;
use super::lane::{Shared, Standing};
use super::leader_epoch;
use super::probe::refused;
use crate::blocking::BlockingPool;
use crate::model::{Fault, Offset, TopicPartition};
use crate::source::CommitError;

/// Commits under way at once; more wait for their turn, which is theirs alone: no other work takes these threads.
const COMMIT_THREADS: usize = 64;
static COMMITS: LazyLock<BlockingPool> = LazyLock::new(|| BlockingPool::new("commit", COMMIT_THREADS));

/// One OffsetCommit for one partition: of a joint one librdkafka says that it succeeded unless every partition failed.
/// It blocks a thread for as long as the broker takes, at most the session timeout. The broker would take an offset
/// from any member for any partition, so that the claim is checked here. The offset is stored with the leader epoch of
/// the last record below it, so that a log that was cut below it is noticed when it is read on from there (S52).
pub(super) async fn commit(
    partition: &TopicPartition,
    (offset, leader_epoch): (Offset, i32),
    shared: &Arc<Shared>,
    consumer: &Weak<BaseConsumer<Context>>,
) -> Result<(), CommitError> {
    // Moves into the blocking call: should this future be given up, the next commit still waits for that call's end (S16).
    let turn = Arc::clone(&shared.committing).lock_owned().await;
    let (place, shared, consumer) = (partition.clone(), Arc::clone(shared), Weak::clone(consumer));
    let result = COMMITS.spawn(move || {
        let _turn = turn;
        let gone = || CommitError::Stale(format!("{place} is no longer assigned"));
        if shared.standing() == Standing::Gone {
            return Err(gone());
        }
        let consumer = consumer.upgrade().ok_or_else(gone)?;
        let list = leader_epoch::at(&place, offset, leader_epoch).map_err(|error| refusal(&place, offset, &error))?;
        consumer.commit(&list, CommitMode::Sync).map_err(|error| refusal(&place, offset, &error))
    });
    match result.await {
        Ok(result) => result,
        Err(error) => Err(CommitError::Retry(failed(partition, offset).because(error))),
    }
}

fn failed(partition: &TopicPartition, offset: Offset) -> Fault {
    Fault::host(format!("`{}` could not be committed", partition.at(offset)))
}

fn refusal(partition: &TopicPartition, offset: Offset, error: &KafkaError) -> CommitError {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(
            Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::RebalanceInProgress
            | Code::FencedInstanceId
            | Code::FencedMemberEpoch
            | Code::StaleMemberEpoch
            | Code::AssignmentLost
            // The client as a whole has ended, for a reason that the polling thread tells.
            | Code::Fatal,
        ) => CommitError::Stale(format!("the group has moved on: {error}")),
        // A topic that is gone has nothing to commit, and one that the brokers do not know yet is committed next time.
        Some(Code::UnknownTopicOrPartition) => CommitError::Stale(format!("the topic is not there: {error}")),
        Some(code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed)) => {
            CommitError::Fatal(refused(code))
        }
        Some(Code::OffsetMetadataTooLarge | Code::InvalidGroupId) => {
            CommitError::Fatal(failed(partition, offset).because(error))
        }
        _ => CommitError::Retry(failed(partition, offset).because(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S12: only a group that has moved on is no failure; a refusal for good is told from one that may pass.
    #[test]
    fn refusals_are_told_apart_s12() {
        let partition = TopicPartition::new("orders", 0);
        let told = |code| refusal(&partition, 7, &KafkaError::ConsumerCommit(code));
        for code in [
            RDKafkaErrorCode::IllegalGeneration,
            RDKafkaErrorCode::UnknownMemberId,
            RDKafkaErrorCode::RebalanceInProgress,
            RDKafkaErrorCode::FencedInstanceId,
            RDKafkaErrorCode::Fatal,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ] {
            assert!(matches!(told(code), CommitError::Stale(_)), "{code:?}");
        }
        assert!(matches!(told(RDKafkaErrorCode::GroupAuthorizationFailed), CommitError::Fatal(_)));
        assert!(matches!(told(RDKafkaErrorCode::RequestTimedOut), CommitError::Retry(_)));
        assert!(matches!(told(RDKafkaErrorCode::CoordinatorNotAvailable), CommitError::Retry(_)));
    }
}

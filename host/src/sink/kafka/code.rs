//! What an error code of librdkafka or of a broker says about a record that was not acknowledged.

use rdkafka::error::RDKafkaErrorCode as Code;

/// Whom a code blames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This record or, where others of its batch have the code too, one of them; for good. Brokers name the record, but
    /// librdkafka gives its code to the whole batch where it is the only one.
    Reject,
    /// This record's batch is larger than the topic takes.
    TooLarge,
    /// The destination: no record was at fault.
    Unavailable,
    /// Another record of its batch, or another call.
    NotTried,
    /// The topic does not exist, as far as is known.
    Missing,
    /// The configuration: no record can be written.
    Config,
    /// A record or the destination, which is not told.
    Unknown,
}

/// The table. Codes that no answer to a written record carries are unknown, as is every new one.
pub(super) fn meaning(code: Code) -> Meaning {
    match code {
        Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation
        | Code::UnsupportedForMessageFormat => Meaning::Reject,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => Meaning::TooLarge,
        Code::InvalidDifferentRecord
        // Taken out of the queue because another call was given up, or because the producer ended.
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::BrokerDestroy
        | Code::OperationNotAttempted
        | Code::Retry => Meaning::NotTried,
        // Not acknowledged in time, or no room in the queue of what waits for the brokers.
        Code::MessageTimedOut
        | Code::TimedOutQueue
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::QueueFull
        // Not reached, or not let in.
        | Code::BrokerTransportFailure
        | Code::NetworkException
        | Code::Resolve
        | Code::AllBrokersDown
        | Code::SSL
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::DelegationTokenAuthDisabled
        | Code::DelegationTokenAuthorizationFailed
        | Code::DelegationTokenExpired
        | Code::DelegationTokenNotFound
        | Code::DelegationTokenOwnerMismatch
        | Code::DelegationTokenRequestNotAllowed
        | Code::PrincipalDeserializationFailure
        | Code::ListenerNotFound
        | Code::DestroyBroker
        | Code::UnknownBroker
        | Code::RebootstrapRequired
        // The partition has no leader, or another one, or too few replicas.
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::NotController
        | Code::PreferredLeaderNotAvailable
        | Code::ReassignmentInProgress
        | Code::StaleBrokerEpoch
        | Code::StaleControllerEpoch
        | Code::ReplicaNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::UnknownPartition
        | Code::UnknownTopicId
        | Code::ISRInsufficient
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::KafkaStorageError
        | Code::LogDirNotFound
        | Code::CriticalSystemResource
        | Code::ThrottlingQuotaExceeded
        // The coordinator that numbers idempotent producers.
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator
        | Code::ConcurrentTransactions
        | Code::TransactionCoordinatorFenced
        // The numbering itself is broken: a new producer starts a new one.
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::ProducerFenced
        | Code::Fenced
        | Code::Fatal
        | Code::Inconsistent
        | Code::GaplessGuarantee => Meaning::Unavailable,
        Code::UnknownTopic | Code::UnknownTopicOrPartition => Meaning::Missing,
        Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SecurityDisabled
        | Code::InvalidRequiredAcks
        | Code::UnsupportedCompressionType
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature => Meaning::Config,
        // Among them an internal error of the broker (`Unknown`) and a checksum that does not match (`InvalidMessage`).
        _ => Meaning::Unknown,
    }
}

/// What the operator can do about a configuration that is to blame.
pub(super) fn hint(code: Code, topic: &str) -> String {
    match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            format!("allow the principal to write to `{topic}`")
        }
        Code::UnsupportedCompressionType => "set the property `compression.type` to one that the brokers know".into(),
        Code::InvalidRequiredAcks | Code::UnsupportedVersion | Code::UnsupportedFeature => {
            "use brokers that know idempotent producers, version 0.11 or later".into()
        }
        Code::SecurityDisabled => "correct the properties `security.protocol` and `sasl.*`".into(),
        _ => format!("create `{topic}`, or correct its name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S79c: each code of an outage says that the destination is unavailable; the rest of a batch is not to blame for a
    /// record that is; what a broker does not explain blames nobody yet.
    #[test]
    fn s79c_every_code_blames_whom_it_should() {
        for (code, expected) in [
            (Code::InvalidRecord, Meaning::Reject),
            (Code::InvalidTimestamp, Meaning::Reject),
            (Code::PolicyViolation, Meaning::Reject),
            (Code::MessageSizeTooLarge, Meaning::TooLarge),
            (Code::MessageBatchTooLarge, Meaning::TooLarge),
            (Code::InvalidDifferentRecord, Meaning::NotTried),
            (Code::PurgeQueue, Meaning::NotTried),
            (Code::PurgeInflight, Meaning::NotTried),
            (Code::MessageTimedOut, Meaning::Unavailable),
            (Code::RequestTimedOut, Meaning::Unavailable),
            (Code::BrokerTransportFailure, Meaning::Unavailable),
            (Code::AllBrokersDown, Meaning::Unavailable),
            (Code::Authentication, Meaning::Unavailable),
            (Code::NotLeaderForPartition, Meaning::Unavailable),
            (Code::LeaderNotAvailable, Meaning::Unavailable),
            (Code::NotEnoughReplicas, Meaning::Unavailable),
            (Code::NotEnoughReplicasAfterAppend, Meaning::Unavailable),
            (Code::KafkaStorageError, Meaning::Unavailable),
            (Code::ThrottlingQuotaExceeded, Meaning::Unavailable),
            (Code::OutOfOrderSequenceNumber, Meaning::Unavailable),
            (Code::Fatal, Meaning::Unavailable),
            (Code::UnsupportedSASLMechanism, Meaning::Unavailable),
            (Code::DelegationTokenExpired, Meaning::Unavailable),
            (Code::ListenerNotFound, Meaning::Unavailable),
            (Code::ReassignmentInProgress, Meaning::Unavailable),
            (Code::EligibleLeadersNotAvailable, Meaning::Unavailable),
            (Code::ConcurrentTransactions, Meaning::Unavailable),
            (Code::CriticalSystemResource, Meaning::Unavailable),
            (Code::OperationNotAttempted, Meaning::NotTried),
            (Code::TransactionalIdAuthorizationFailed, Meaning::Config),
            (Code::InvalidRequest, Meaning::Unknown),
            (Code::UnknownTopicOrPartition, Meaning::Missing),
            (Code::UnknownTopic, Meaning::Missing),
            (Code::TopicAuthorizationFailed, Meaning::Config),
            (Code::UnsupportedCompressionType, Meaning::Config),
            (Code::Unknown, Meaning::Unknown),
            (Code::InvalidMessage, Meaning::Unknown),
            (Code::OffsetOutOfRange, Meaning::Unknown),
        ] {
            assert_eq!(meaning(code), expected, "{code:?}");
        }
    }
}

//! Why a consumer group cannot be joined, and whether that may pass by itself.

use rdkafka::error::RDKafkaErrorCode;

use super::probe::refused;
use crate::model::Fault;

/// A group that could not be joined.
#[derive(Clone, Debug)]
pub(super) struct JoinError {
    pub fault: Fault,
    /// Whether it may pass without a change of the configuration.
    pub passes: bool,
}

/// What the error code means when it was met while joining `group`; `None` for a code that says nothing about joining.
/// The client library joins again every second whatever the reason was.
pub(super) fn join_error(code: RDKafkaErrorCode, group: &str, session_timeout: &str) -> Option<JoinError> {
    use RDKafkaErrorCode as Code;
    let lasting = |fault: Fault| Some(JoinError { fault: fault.because(code), passes: false });
    let unjoined = format!("the consumer group `{group}` cannot be joined");
    match code {
        Code::InconsistentGroupProtocol | Code::UnknownProtocol | Code::UnsupportedAssignor => lasting(
            Fault::config(unjoined)
                .because(
                    "a member of it uses another assignor than `cooperative-sticky`, or the group is of another type",
                )
                .hint("give `kafka.group` a name that no other program uses, or stop the group's other members"),
        ),
        Code::InvalidSessionTimeout => lasting(
            Fault::config(unjoined)
                .because(format!("the brokers do not allow a `session.timeout.ms` of {session_timeout}"))
                .hint(
                    "set `kafka.properties.session.timeout.ms` between the brokers' `group.min.session.timeout.ms` and \
                     `group.max.session.timeout.ms`",
                ),
        ),
        Code::InvalidGroupId => lasting(Fault::config(unjoined).hint("correct `kafka.group`")),
        Code::UnsupportedVersion => {
            lasting(Fault::config(unjoined).hint("upgrade the brokers: they do not know the requests of this client"))
        }
        Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            Some(JoinError { fault: refused(code), passes: false })
        }
        Code::GroupMaxSizeReached => Some(JoinError {
            fault: Fault::host(unjoined)
                .because(code)
                .hint("stop members that are not needed, or raise the brokers' `group.max.size`"),
            passes: true,
        }),
        Code::UnreleasedInstanceId => Some(JoinError {
            fault: Fault::host(unjoined)
                .because(code)
                .hint("another host has the same `kafka.instance_id`: give every host one of its own"),
            passes: true,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::Owner;

    /// S58: what only a change of the configuration cures ends the host with a hint; what other members may cure is
    /// waited for; what says nothing about joining is left to others.
    #[test]
    fn s58_join_errors_are_told_apart() {
        use RDKafkaErrorCode as Code;
        let met = |code| join_error(code, "orders-out", "100");
        for code in [
            Code::InconsistentGroupProtocol,
            Code::UnknownProtocol,
            Code::UnsupportedAssignor,
            Code::InvalidSessionTimeout,
            Code::InvalidGroupId,
            Code::UnsupportedVersion,
            Code::GroupAuthorizationFailed,
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
        ] {
            let JoinError { fault, passes } = met(code).unwrap();
            assert!(!passes && fault.owner == Owner::Config && fault.hint.is_some(), "{code:?}: {fault}");
        }
        for code in [Code::GroupMaxSizeReached, Code::UnreleasedInstanceId] {
            let JoinError { fault, passes } = met(code).unwrap();
            assert!(passes && fault.owner == Owner::Host && fault.hint.is_some(), "{code:?}: {fault}");
        }
        for code in [Code::AllBrokersDown, Code::NotCoordinator, Code::UnknownTopicOrPartition, Code::Fatal] {
            assert!(met(code).is_none(), "{code:?}");
        }
        let fault = met(Code::InvalidSessionTimeout).unwrap().fault;
        assert!(fault.to_string().contains("of 100"), "{fault}");
    }
}

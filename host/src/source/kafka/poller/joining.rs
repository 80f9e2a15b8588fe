//! What the polling thread does about a group that cannot be joined (S58).

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;

use super::super::join_errors::{JoinError, join_error};
use super::Poller;
use crate::clock::{self, Instant};
use crate::model::Fault;

/// How often it is said that the group cannot be joined yet.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What keeps this member out of the group, and may pass.
pub(super) struct Unjoined {
    fault: Fault,
    since: Instant,
    said: Instant,
}

impl Poller {
    /// The group that offsets are kept under.
    pub(super) fn group(&self) -> String {
        self.settings.client.get("group.id").unwrap_or_default().to_owned()
    }

    /// Fails if the error keeps this member out of the group for good. `false`: it says nothing about joining.
    pub(super) fn cannot_join(&mut self, code: RDKafkaErrorCode) -> bool {
        let session_timeout = self.settings.client.get("session.timeout.ms").unwrap_or_default();
        let Some(JoinError { fault, passes }) = join_error(code, &self.group(), session_timeout) else { return false };
        if !passes {
            self.fail(fault);
            return true;
        }
        let now = clock::instant();
        let before = self.unjoined.take();
        let said = before.as_ref().map(|unjoined| unjoined.said).filter(|said| said.elapsed() < SAY_EVERY);
        if said.is_none() {
            tracing::warn!("joining goes on: {fault}");
        }
        let since = before.map_or(now, |unjoined| unjoined.since);
        self.unjoined = Some(Unjoined { fault, since, said: said.unwrap_or(now) });
        true
    }

    /// A source with an end does not wait for ever to be let in.
    pub(super) fn give_up_joining(&mut self, patience: Duration) {
        if let Some(unjoined) = self.unjoined.take_if(|unjoined| unjoined.since.elapsed() >= patience) {
            self.fail(unjoined.fault);
        }
    }
}

//! What the seeds have to reach for a run to mean anything.

use super::call::Call;
use super::flaws::Flaw;
use super::group::Fault;
use super::stage::Stage;

const MARKS: &[&str] = &[
    "a loss overtook a revocation",
    "answer of a commit lost",
    "backpressure",
    "backpressure storm in add",
    "backpressure storm in collect",
    "backpressure storm in deliver",
    "backpressure storm in flush",
    "balanced",
    "add failed and the guest forgot its buffer",
    "add failed and the guest kept its buffer",
    "add failed by index",
    "add rejected a whole call",
    "buffer lost to a neighbour's trap",
    "buffer was full",
    "call too large for its guest",
    "chosen row dead-lettered",
    "collect row rejected",
    "deliver rejected a whole call",
    "destination unavailable",
    "flush failed and the guest forgot its buffer",
    "flush failed and the guest kept its buffer",
    "flush failed by index",
    "flush rejected a whole call",
    "guest memory outgrown",
    "guest memory outgrown in flush",
    "instance retired with a call that was given up",
    "max_rows 1",
    "neighbours of a chosen row delivered",
    "outage in add",
    "outage in collect",
    "outage in deliver",
    "outage in flush",
    "row not tried because of another",
    "row not written, destination unavailable",
    "slow destination",
    "too slow in add",
    "too slow in collect",
    "too slow in deliver",
    "too slow in flush",
    "call hung",
    "clean stop",
    "collect row to retry",
    "commit arrived after it was given up",
    "commit failed",
    "commit refused",
    "crash",
    "dead letter queue down for long",
    "dead letter queue failed",
    "discard hung",
    "nothing but patience asked for",
    "partition lost",
    "partition revoked",
    "pause left behind",
    "payload dead-lettered",
    "payload retried",
    "payload skipped",
    "record dead-lettered",
    "release waited for a commit",
    "seek lied",
    "session of a dead member expired",
    "session of a sleeping member expired",
    "stopped by a fault",
    "sync failed",
    "takeover",
    "the group lost its patience with a member",
    "trap",
    "zombie write",
];

/// Every mark that has to be reached: the rare paths, and each fault in each call that it can happen in.
pub fn rare() -> Vec<String> {
    let mut marks: Vec<String> = MARKS.iter().map(|mark| (*mark).to_owned()).collect();
    for stage in Stage::ALL {
        for flaw in Flaw::of(stage) {
            marks.push(format!("row {} in {}", flaw.name(), stage.name()));
        }
    }
    for call in Call::ALL {
        for fault in Fault::ALL {
            // A partition that is being let go cannot be taken any more.
            let gone = call == Call::Release && matches!(fault, Fault::Revoked | Fault::Lost);
            if !gone {
                marks.push(format!("{} in {}", fault.name(), call.name()));
            }
        }
    }
    marks
}

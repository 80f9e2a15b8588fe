//! What the seeds have to reach for a run to mean anything.

use super::call::Call;
use super::group::Fault;

const MARKS: [&str; 38] = [
    "a loss overtook a revocation",
    "answer of a commit lost",
    "backpressure",
    "backpressure storm in add",
    "backpressure storm in collect",
    "backpressure storm in deliver",
    "backpressure storm in flush",
    "balanced",
    "buffer lost with its instance",
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
    "poison",
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
    let mut marks: Vec<String> = MARKS.map(str::to_owned).into();
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

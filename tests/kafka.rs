//! Source, sink and dead letters on a real broker.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[path = "kafka/backfill.rs"]
mod backfill;
#[path = "kafka/backpressure.rs"]
mod backpressure;
#[path = "kafka/bad_inputs.rs"]
mod bad_inputs;
#[path = "kafka/binary.rs"]
mod binary;
#[path = "kafka/buffering.rs"]
mod buffering;
#[path = "kafka/complete.rs"]
mod complete;
#[path = "kafka/disk.rs"]
mod disk;
#[path = "kafka/dlq.rs"]
mod dlq;
#[path = "kafka/end_to_end.rs"]
mod end_to_end;
#[path = "kafka/ends.rs"]
mod ends;
#[path = "kafka/ensemble.rs"]
mod ensemble;
#[path = "kafka/foreign.rs"]
mod foreign;
#[path = "kafka/handover.rs"]
mod handover;
#[path = "kafka/help.rs"]
mod help;
#[path = "kafka/interrupted_start.rs"]
mod interrupted_start;
#[path = "kafka/leaderless.rs"]
mod leaderless;
#[path = "kafka/letter_size.rs"]
mod letter_size;
#[path = "kafka/logs.rs"]
mod logs;
#[path = "kafka/members.rs"]
mod members;
#[path = "kafka/outage.rs"]
mod outage;
#[path = "kafka/passthrough.rs"]
mod passthrough;
#[path = "kafka/proxied.rs"]
mod proxied;
#[path = "kafka/sandbox.rs"]
mod sandbox;
#[path = "kafka/secured.rs"]
mod secured;
#[path = "kafka/sink.rs"]
mod sink;
#[path = "kafka/source.rs"]
mod source;
#[path = "kafka/standard_error.rs"]
mod standard_error;
#[path = "kafka/start.rs"]
mod start;
#[path = "kafka/stopping.rs"]
mod stopping;
#[path = "kafka/topic_settings.rs"]
mod topic_settings;
#[path = "kafka/truncation.rs"]
mod truncation;
#[path = "kafka/unavailable.rs"]
mod unavailable;
#[path = "support"]
mod support {
    pub mod broker;
    pub mod certificates;
    pub mod child;
    pub mod cluster;
    pub mod proxy;
    pub mod servers;
}

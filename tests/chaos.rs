//! The whole of it under fire: three hosts of one group between three brokers and seven sinks, PostgreSQL behind PgBouncer. Hosts,
//! brokers, the database, its pooler and Redis are killed, stopped, stalled, cut off and failed over at random moments while
//! records are written, and one of the three plugins traps at random. Every record has to arrive in every sink, and none in the
//! dead letter topic.
//!
//! `make soak` runs the same hosts for half an hour at a steady rate: see `soak`.
//!
//! `cargo test --test chaos` is the short run, `make chaos` the long one. One seed draws what happens to whom and how long it
//! lasts; `TIDEGATE_CHAOS_SEED` repeats this schedule. What the machine does meanwhile is not repeated by it: a failure may
//! need several runs with its seed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[path = "chaos/arrivals.rs"]
mod arrivals;
#[path = "chaos/conclude.rs"]
mod conclude;
#[path = "chaos/configuration.rs"]
mod configuration;
#[path = "chaos/dead_letters.rs"]
mod dead_letters;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/feed.rs"]
mod feed;
#[path = "chaos/hosts.rs"]
mod hosts;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/redis.rs"]
mod redis;
#[path = "chaos/run.rs"]
mod run;
#[path = "chaos/samples.rs"]
mod samples;
#[path = "chaos/soak.rs"]
mod soak;
#[path = "chaos/stamps.rs"]
mod stamps;
#[path = "chaos/verdict.rs"]
mod verdict;
#[path = "chaos/world.rs"]
mod world;
#[path = "support"]
mod support {
    pub mod broker;
    pub mod certificates;
    pub mod child;
    pub mod cluster;
    pub mod proxy;
    pub mod servers;
}

use plan::Size;

/// A number from the environment, where there is one.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|error| panic!("`{name}={text}`: {error}")))
}

/// S1, S11, S16, S27a, S34a, S40, S41, S45–S49, S51, S54, S58, S63, S79a, S79b, S93: whatever happens to hosts, brokers,
/// database and plugins, every record arrives in every sink, in order, no offset is committed before that, and nothing is
/// dead-lettered.
#[test]
fn s1_nothing_is_lost_whatever_happens_to_hosts_brokers_and_database() {
    let size = Size::of(number("TIDEGATE_CHAOS_RECORDS"));
    for turn in 0..number("TIDEGATE_CHAOS_RUNS").unwrap_or(1) {
        let seed = match number("TIDEGATE_CHAOS_SEED") {
            Some(seed) => seed.wrapping_add(turn),
            None => fastrand::u64(..1 << 32),
        };
        match run::run(seed, &size) {
            Ok(verdict) => println!("{verdict}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

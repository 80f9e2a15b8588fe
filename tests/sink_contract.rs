//! One suite for every sink: the same cases over all six native sinks on real servers, the csv plugin and a scripted sink. What a
//! sink says of itself, and what `host/src/sink.rs` promises in its name, is held against what its destination really has.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support"]
mod support {
    pub mod broker;
    pub mod certificates;
    pub mod child;
    pub mod proxy;
    pub mod servers;
}

#[path = "sink_contract"]
mod sink_contract {
    pub mod cases;
    pub mod files;
    pub mod scripted;
    pub mod servers;
    pub mod topic;
}

use sink_contract::{cases, files, scripted, servers, topic};

/// Every case as a test of its own, for every destination.
macro_rules! suite {
    ($($name:ident => $destination:ty),* $(,)?) => {$(
        mod $name {
            use super::*;

            suite! { @cases $destination:
                s124_connecting_proves_the_destination,
                s78_a_sink_that_is_not_connected_writes_nothing,
                s74_every_row_arrives,
                s76_a_bad_row_takes_no_neighbour_with_it,
                an_empty_call_is_no_call,
                text_arrives_as_it_is,
                s76a_rows_of_a_key_keep_their_order,
                an_idempotent_sink_is_one,
                s5_partitions_do_not_mix,
                s28_a_call_given_up_leaves_a_sound_sink,
                s41_a_destination_that_was_away_gets_everything,
                s26_what_is_discarded_does_not_arrive,
                s57_closing_is_final_and_harmless,
            }
        }
    )*};
    (@cases $destination:ty: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            cases::$case(<$destination>::new().await).await;
        }
    )*};
}

suite! {
    kafka => topic::Topic,
    postgres => servers::PostgresTable,
    postgres_upsert => servers::PostgresUpsert,
    postgres_guard => servers::PostgresGuard,
    mongo => servers::MongoCollection,
    mongo_upsert => servers::MongoUpsert,
    http => servers::Endpoint,
    redis => servers::RedisKeys,
    filesystem => files::Lines,
    csv => files::Csv,
    direct => scripted::Direct,
    buffering => scripted::Buffering,
}

/// The suite sees what it is there to see: a sink that lies is found.
mod liars {
    use super::scripted::{Liar, Lie};
    use super::*;

    macro_rules! found {
        ($($name:ident: $lie:ident by $case:ident),* $(,)?) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let found = tokio::spawn(async { cases::$case(Liar::new(Lie::$lie)).await }).await;
                assert!(found.is_err_and(|error| error.is_panic()), "the suite passed a sink that lies");
            }
        )*};
    }

    found! {
        one_that_loses_a_row: LosesARow by s74_every_row_arrives,
        one_that_takes_neighbours_along: RefusesAll by s76_a_bad_row_takes_no_neighbour_with_it,
        one_that_is_not_idempotent: ClaimsIdempotence by an_idempotent_sink_is_one,
        one_that_turns_rows_round: Reverses by s76a_rows_of_a_key_keep_their_order,
        one_that_forgets_to_connect: ConnectsAnywhere by s124_connecting_proves_the_destination,
        one_that_says_done_while_away: IgnoresAbsence by s41_a_destination_that_was_away_gets_everything,
    }
}

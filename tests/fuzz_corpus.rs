//! The fuzz targets of the host over their corpora and over every input that once failed; `make fuzz` looks for more. (S120, S90,
//! S96, S64, S131: see each target.)

use std::path::Path;

#[path = "fuzz/src/artifact.rs"]
mod artifact;
#[path = "fuzz/src/collect.rs"]
mod collect;
#[path = "fuzz/src/config.rs"]
mod config;
#[path = "fuzz/src/corpus.rs"]
mod corpus;
#[path = "fuzz/src/dlq.rs"]
mod dlq;
#[path = "fuzz/src/plugins.rs"]
mod plugins;
#[path = "fuzz/src/runtime.rs"]
mod runtime;

fn replay(target: &str, run: fn(&[u8])) {
    corpus::replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests"), target, run);
}

#[test]
fn s121_configurations() {
    replay("config", config::run);
}

#[test]
fn components_and_cache_entries() {
    replay("artifact", artifact::run);
}

#[test]
fn s131_answers_of_collectors() {
    replay("collect", collect::run);
}

#[test]
fn s96_dead_letters() {
    replay("dlq", dlq::run);
}

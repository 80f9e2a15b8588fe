//! Hostile guests, each beside a well-behaved plugin in one process: what the guest saw, what the log says, that the host lives,
//! and that the other delivers everything (S129, S130).
//!
//! An attack is a function over a [`stage::Stage`]; the macro [`attacks`] makes it a test and a row of [`EVERY`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

use std::pin::Pin;

#[macro_use]
#[path = "plugin_faults/attacks.rs"]
mod attacks;
#[path = "plugin_faults/answers.rs"]
mod answers;
#[path = "plugin_faults/beside.rs"]
mod beside;
#[path = "plugin_faults/claims.rs"]
mod claims;
#[path = "plugin_faults/components.rs"]
mod components;
#[path = "plugin_faults/files.rs"]
mod files;
#[path = "plugin_faults/handles.rs"]
mod handles;
#[path = "plugin_faults/http.rs"]
mod http;
#[path = "plugin_faults/journal.rs"]
mod journal;
#[path = "plugin_faults/loops.rs"]
mod loops;
#[path = "plugin_faults/machine.rs"]
mod machine;
#[path = "plugin_faults/measure.rs"]
mod measure;
#[path = "plugin_faults/memory.rs"]
mod memory;
#[path = "plugin_faults/output.rs"]
mod output;
#[path = "plugin_faults/prowler.rs"]
mod prowler;
#[path = "plugin_faults/stage.rs"]
mod stage;
#[path = "plugin_faults/surroundings.rs"]
mod surroundings;
#[path = "plugin_faults/waits.rs"]
mod waits;
#[path = "plugin_faults/wat.rs"]
mod wat;
#[path = "support/web.rs"]
mod web;

/// One attack.
#[derive(Clone, Copy)]
struct Attack {
    /// Its name, which is its plugin's name and topic, too.
    name: &'static str,
    run: for<'a> fn(&'a stage::Stage) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// Every attack there is.
const EVERY: &[&[Attack]] = &[
    answers::ATTACKS,
    claims::ATTACKS,
    components::ATTACKS,
    files::ATTACKS,
    handles::ATTACKS,
    http::ATTACKS,
    loops::ATTACKS,
    memory::ATTACKS,
    output::ATTACKS,
    surroundings::ATTACKS,
    waits::ATTACKS,
];

/// Fewest attacks that the suite is made of.
const FEWEST: usize = 200;

#[test]
fn there_are_enough_attacks_and_each_has_a_name_of_its_own() {
    let names: Vec<_> = EVERY.iter().flat_map(|some| some.iter()).map(|attack| attack.name).collect();
    assert!(names.len() >= FEWEST, "only {} attacks", names.len());
    let distinct: std::collections::HashSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
}

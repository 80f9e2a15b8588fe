//! The fuzz target of batches over its corpus and over every input that once failed; `make fuzz` looks for more (S17).

use std::path::Path;

#[path = "../../../tests/fuzz/src/batch.rs"]
mod batch;
#[path = "../../../tests/fuzz/src/corpus.rs"]
mod corpus;

#[test]
fn s17_batches() {
    batch::prepare();
    corpus::replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests"), "batch", batch::run);
}

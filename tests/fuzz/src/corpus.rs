//! A target over the inputs that are kept, without the fuzzer: part of `make test`.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Gives the target every input of its corpus, and every one that once failed. `tests` is this repository's folder of tests.
///
/// # Panics
/// When an input fails, with its name, or when there is none.
pub fn replay(tests: &Path, target: &str, run: fn(&[u8])) {
    let mut inputs = 0;
    let mut failed = Vec::new();
    for kept in ["corpus", "found"] {
        // What never failed has no folder of failures.
        let Ok(folder) = fs::read_dir(tests.join("fuzz").join(kept).join(target)) else { continue };
        for entry in folder {
            let path = entry.unwrap_or_else(|error| panic!("{error}")).path();
            let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            inputs += 1;
            if catch_unwind(|| run(&input)).is_err() {
                failed.push(path.display().to_string());
            }
        }
    }
    assert!(inputs > 0, "`{target}` has no corpus");
    assert!(failed.is_empty(), "{} of {inputs} inputs failed:\n{}", failed.len(), failed.join("\n"));
}

//! Coverage-guided fuzzing of what takes bytes from outside: libFuzzer, on the pinned stable toolchain.
//!
//! `make fuzz` runs every target for ten minutes, one after the other; `TIDEGATE_FUZZ_SECONDS` and `TIDEGATE_FUZZ_TARGET` choose.
//! It exits non-zero when an input failed, and leaves it in `target/fuzz/TARGET/found`.
//!
//! | Target | Bytes | What must hold |
//! |---|---|---|
//! | `config` | the configuration file and the environment | no fault holds a secret; what is let through keeps its bounds and makes sinks |
//! | `artifact` | a component's file; an entry of the cache of compiled ones | refused in words or loaded for what it is; a changed entry is never run |
//! | `collect` | the memory with which a guest answers `collect` | the plugin's fault, or payloads and failures within every bound |
//! | `dlq` | a dead letter as somebody wrote it | refused in words, or replayed and written again without loss |
//! | `batch` | records, and columns that lie | what goes in comes out, in the host and in the Rust SDK |
//!
//! - `corpus/TARGET/` is where it starts: few inputs, with much coverage. `bash tests/fuzz/run.sh minimise` takes over what a run found.
//! - `found/TARGET/` has every input that once failed, kept with its fix. `make test` gives both to the targets, without the fuzzer.
//! - `words/TARGET.dict` has words that chance would not find.
//! - `rustc.sh` adds the coverage to our own packages, by stable options of the compiler (the sanitizers' are not, so memory errors
//!   show as crashes alone). Debug assertions and overflow checks are on.
//!
//! A further target is a module here with `pub fn run(data: &[u8])` that panics when something does not hold, a binary in
//! `src/bin` and in `Cargo.toml`, its name in `run.sh`, a corpus, and a test in `tests/fuzz_corpus.rs`.

#[cfg(feature = "host")]
pub mod artifact;
#[cfg(feature = "sdk")]
pub mod batch;
#[cfg(feature = "host")]
pub mod collect;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod dlq;
#[cfg(feature = "host")]
mod plugins;
#[cfg(feature = "host")]
mod runtime;

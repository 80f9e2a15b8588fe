//! The log as the binary would write it, kept in memory for the tests to read.

use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

static ENTRIES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static STARTED: Once = Once::new();

/// Where the log goes: one write is one entry.
struct Journal;

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let entry = String::from_utf8_lossy(bytes).into_owned();
        ENTRIES.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// Keeps what is logged from now on, written as `tidegate run` writes it. Plugins are heard down to `debug`, where metrics are.
pub(crate) fn start() {
    STARTED.call_once(|| {
        let filter = EnvFilter::new("info,plugin=debug");
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Journal).init();
    });
}

/// The entries that name `word`, oldest first, without their time.
///
/// # Panics
/// When an entry is more than one line: whoever reads the log would take the rest for entries of their own.
pub(crate) fn of(word: &str) -> Vec<String> {
    let entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
    let named = entries.iter().filter(|entry| names(entry, word));
    named
        .map(|entry| {
            let line = entry.strip_suffix('\n').unwrap_or(entry);
            assert!(!line.contains(|it: char| it.is_control() && it != '\t'), "not one line: {line:?}");
            line.split_once('Z').map_or(line, |(_, rest)| rest).trim_start().to_owned()
        })
        .collect()
}

/// Forgets the entries that name `word`.
pub(crate) fn forget(word: &str) {
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| !names(entry, word));
}

/// Whether `word` stands in the text, and not as a part of a longer one.
fn names(text: &str, word: &str) -> bool {
    let inside = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    let mut found = text.match_indices(word);
    found.any(|(at, _)| !inside(text[..at].chars().next_back()) && !inside(text[at + word.len()..].chars().next()))
}

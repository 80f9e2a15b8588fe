//! Standard error, written by a thread of its own: whoever has something to say queues it and goes on. A pipe that nobody reads
//! stops no record, no commit and not the end of the process.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::clock;

/// Most bytes that wait to be written. Log lines beyond them are dropped and counted.
const QUEUE_BYTES: usize = 4 << 20;
/// Room beyond that for what is no log line: the faults and the closing line are never dropped for lines before them.
const RESERVED_BYTES: usize = 1 << 20;
/// How long the end of the process waits for a reader that takes nothing.
const STALL_PATIENCE: Duration = Duration::from_millis(500);
/// How long it waits for one that takes what is queued slowly.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// All that this part of rdkafka ever reports as an error is that a consumer which we closed is closed.
const SILENCED: &str = "rdkafka::consumer::base_consumer=off";

static STANDARD_ERROR: LazyLock<Queue> = LazyLock::new(|| Queue::start(io::stderr()));

/// Sends log lines to standard error, from `level` up unless `RUST_LOG` says otherwise. Never in colour.
pub fn start(level: &str) {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref(), level);
    // A second call, as in tests, changes nothing.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Lines).try_init();
}

/// Queues text for standard error, behind the log lines so far.
pub fn write(text: &str) {
    STANDARD_ERROR.push(text.as_bytes(), QUEUE_BYTES + RESERVED_BYTES);
}

/// Waits until standard error has taken what is queued, as long as it takes anything.
pub fn flush() {
    STANDARD_ERROR.flush();
}

/// What `RUST_LOG` asks for, or else `level` and above.
fn filter(asked: Option<&str>, level: &str) -> EnvFilter {
    let asked = asked.map(str::trim).filter(|asked| !asked.is_empty());
    asked
        .and_then(|asked| EnvFilter::builder().parse(format!("{asked},{SILENCED}")).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("{level},{SILENCED}")))
}

/// Where the subscriber writes its lines.
struct Lines;

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Line;

    fn make_writer(&'w self) -> Line {
        Line
    }
}

/// One line: the subscriber writes each event whole.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        STANDARD_ERROR.push(line, QUEUE_BYTES);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Text on its way to a thread that writes it.
struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued, or written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread is writing what it took from the queue.
    writing: bool,
    /// Lines dropped since the last time that it was said.
    dropped: u64,
    /// Pieces of text written since the start.
    written: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn start(out: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || drain(&own, out));
        if thread.is_err() {
            // Without a thread nothing is ever written; the flush at the end gives up after its patience.
            shared.state().dropped += 1;
        }
        Self { shared }
    }

    fn push(&self, text: &[u8], most_bytes: usize) {
        let mut state = self.shared.state();
        if state.bytes + text.len() > most_bytes {
            state.dropped += 1;
            return;
        }
        state.bytes += text.len();
        state.waiting.push_back(text.to_vec());
        drop(state);
        self.shared.changed.notify_all();
    }

    fn flush(&self) {
        let begun = clock::instant();
        let mut state = self.shared.state();
        while (state.writing || !state.waiting.is_empty() || state.dropped > 0) && begun.elapsed() < FLUSH_PATIENCE {
            let before = state.written;
            let waited = self.shared.changed.wait_timeout_while(state, STALL_PATIENCE, |state| state.written == before);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.written == before {
                return;
            }
        }
    }
}

/// Writes what is queued, in order, without end.
fn drain(shared: &Shared, mut out: impl Write) {
    let mut state = shared.state();
    loop {
        let (text, bytes) = match state.waiting.pop_front() {
            Some(text) => (text, None),
            None if state.dropped > 0 => (notice(std::mem::take(&mut state.dropped)), Some(0)),
            None => {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
        };
        state.writing = true;
        drop(state);
        // Nobody may be listening any more; there is no one left to tell.
        let _ = out.write_all(&text);
        state = shared.state();
        state.writing = false;
        state.written += 1;
        // What is being written still takes its room.
        state.bytes -= bytes.unwrap_or(text.len());
        shared.changed.notify_all();
    }
}

/// Stands where the lines are missing: behind those that were kept before them.
fn notice(dropped: u64) -> Vec<u8> {
    format!("{dropped} log lines are missing here: standard error did not take them in time\n").into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::mpsc;

    use super::*;

    /// Takes one piece of text per permit.
    struct Slow {
        permits: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.permits.recv();
            self.taken.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Queue, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (permit, permits) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        (Queue::start(Slow { permits, taken: Arc::clone(&taken) }), permit, taken)
    }

    #[test]
    fn text_arrives_in_order_before_the_end() {
        let (queue, permit, taken) = slow();
        for number in 0..100 {
            queue.push(format!("{number}\n").as_bytes(), QUEUE_BYTES);
        }
        drop(permit);
        queue.flush();
        let wanted: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(taken.lock().unwrap().clone()).unwrap(), wanted);
    }

    /// Whoever writes never waits; what is beyond the bound is dropped, counted, and told once there is room.
    #[test]
    fn a_reader_that_takes_nothing_delays_nobody_and_is_told_what_is_missing() {
        let (queue, permit, taken) = slow();
        queue.push(b"first\n", 20);
        for _ in 0..7 {
            queue.push(b"0123456789\n", 20);
        }
        // The end, which nobody reads either.
        queue.flush();
        queue.push(b"fault\n", 40);
        drop(permit);
        queue.flush();
        let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        assert_eq!(text, format!("first\n0123456789\nfault\n{}", String::from_utf8(notice(6)).unwrap()));
    }

    /// O2: whatever `RUST_LOG` says, a consumer that we closed is no error.
    #[test]
    fn s58_the_closed_consumers_error_is_silenced_by_any_filter() {
        for asked in
            [None, Some(""), Some("info"), Some("debug,tidegate=trace"), Some("rdkafka=error"), Some("no=such=filter")]
        {
            let text = filter(asked, "info").to_string();
            assert!(text.contains(SILENCED), "{asked:?}: {text}");
        }
        assert!(filter(Some("rdkafka::consumer::base_consumer=trace"), "info").to_string().contains(SILENCED));
        assert!(filter(Some("warn,tidegate=trace"), "info").to_string().contains("tidegate=trace"));
    }
}

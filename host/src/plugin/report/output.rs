//! A guest's standard output and error, line by line into the log, with the last lines kept for its obituary.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::quota::{Quota, Spoken};
use crate::model::hides;

/// Most bytes of one line; the rest of it is cut.
const LINE_BYTES: usize = 4096;
/// Most lines kept per instance.
const KEPT_LINES: usize = 64;
/// Most bytes of them.
const KEPT_BYTES: usize = 16 << 10;
/// Most bytes that a guest may write at once.
const WRITE_BYTES: usize = 64 << 10;

/// What one instance says. Shared between its streams, its imports and whoever reports its end.
pub(crate) struct Output {
    label: String,
    quota: Arc<Quota>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    partial: [Vec<u8>; 2],
    kept: VecDeque<String>,
    kept_bytes: usize,
    /// How many of the kept lines, from the end, belong to the present call.
    fresh: usize,
}

/// Standard output or error.
#[derive(Clone, Copy)]
pub(crate) enum Channel {
    Out,
    Error,
}

impl Output {
    /// Nothing said yet.
    pub(crate) fn new(label: String, quota: Arc<Quota>) -> Arc<Self> {
        Arc::new(Self { label, quota, said: Mutex::default() })
    }

    /// A stream whose lines arrive here.
    pub(crate) fn stream(self: &Arc<Self>, channel: Channel) -> Stream {
        Stream { output: Arc::clone(self), channel }
    }

    /// A call begins: what is said from now on belongs to it.
    pub(crate) fn begin_call(&self) {
        self.lock().fresh = 0;
    }

    /// What was said in the present call, or, when that is nothing, all that is kept; unfinished lines included.
    pub(crate) fn last_call(&self) -> Vec<String> {
        for channel in [Channel::Out, Channel::Error] {
            let rest = std::mem::take(&mut self.lock().partial[channel as usize]);
            if !rest.is_empty() {
                self.line(channel, &rest);
            }
        }
        let said = self.lock();
        let count = if said.fresh == 0 { said.kept.len() } else { said.fresh };
        said.kept.iter().skip(said.kept.len().saturating_sub(count)).cloned().collect()
    }

    /// Writes a line to the log under the plugin's name, unless there was too much this second.
    pub(crate) fn say(&self, level: Level, text: &str) {
        let Some(suppressed) = self.quota.take_line(text.len()) else { return };
        if suppressed > 0 {
            let Spoken { lines, bytes } = self.quota.most;
            let words = format!("{suppressed} lines left out: more than {lines} lines or {bytes} bytes in a second");
            self.log(Level::WARN, &words);
        }
        self.log(level, text);
    }

    /// Tells the operator what the guest was refused.
    pub(crate) fn refused(&self, what: &str) {
        if !self.quota.take_refusal() {
            return;
        }
        self.log(Level::WARN, &format!("`{}` was refused: {what}", self.label));
    }

    fn log(&self, level: Level, text: &str) {
        // The last word of every line is the host's, so that no guest can speak in another's name.
        let plugin = self.label.as_str();
        match level {
            Level::TRACE => tracing::trace!(target: "plugin", plugin, "{text}"),
            Level::DEBUG => tracing::debug!(target: "plugin", plugin, "{text}"),
            Level::INFO => tracing::info!(target: "plugin", plugin, "{text}"),
            Level::WARN => tracing::warn!(target: "plugin", plugin, "{text}"),
            Level::ERROR => tracing::error!(target: "plugin", plugin, "{text}"),
        }
    }

    fn write(&self, channel: Channel, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            let mut whole = std::mem::take(&mut self.lock().partial[channel as usize]);
            append(&mut whole, line);
            self.line(channel, &whole);
            rest = after.get(1..).unwrap_or_default();
        }
        append(&mut self.lock().partial[channel as usize], rest);
    }

    fn line(&self, channel: Channel, line: &[u8]) {
        let text = printable(String::from_utf8_lossy(line).trim_end_matches('\r'), LINE_BYTES);
        {
            let mut said = self.lock();
            said.kept_bytes += text.len();
            said.kept.push_back(text.clone());
            said.fresh += 1;
            while said.kept.len() > KEPT_LINES || said.kept_bytes > KEPT_BYTES {
                let Some(gone) = said.kept.pop_front() else { break };
                said.kept_bytes -= gone.len();
            }
            said.fresh = said.fresh.min(said.kept.len());
        }
        self.say(if matches!(channel, Channel::Out) { Level::INFO } else { Level::WARN }, &text);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one byte more than a line may have, so that it is seen to be cut.
fn append(line: &mut Vec<u8>, more: &[u8]) {
    let room = (LINE_BYTES + 1).saturating_sub(line.len()).min(more.len());
    line.extend_from_slice(more.get(..room).unwrap_or_default());
}

/// A guest's words as they may stand in a log or a terminal: what steers, turns or hides text escaped, and no longer than
/// `most` bytes.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for character in text.chars() {
        let before = shown.len();
        if (character.is_control() && character != '\t') || hides(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        if shown.len() > most {
            shown.truncate(before);
            shown.push('…');
            break;
        }
    }
    shown
}

/// One of a guest's standard streams. Never makes it wait.
#[derive(Clone)]
pub(crate) struct Stream {
    output: Arc<Output>,
    channel: Channel,
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.channel, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.write(self.channel, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::limits::Limits;

    fn output() -> Arc<Output> {
        Output::new("collect".into(), Quota::new(&Arc::default(), &Limits::default()))
    }

    #[test]
    fn lines_are_put_together_escaped_and_cut() {
        let output = output();
        output.write(Channel::Out, b"one ");
        output.write(Channel::Error, b"two\nthr");
        output.write(Channel::Out, b"line \x1b[31mred\n");
        output.write(Channel::Out, &[b'x'; 3 * LINE_BYTES]);
        let said = output.last_call();
        assert_eq!(said.first().map(String::as_str), Some("two"));
        assert_eq!(said.get(1).map(String::as_str), Some("one line \\u{1b}[31mred"));
        assert_eq!(said.get(2).map(String::len), Some(LINE_BYTES + '…'.len_utf8()));
        assert_eq!(said.get(3).map(String::as_str), Some("thr"));
    }

    #[test]
    fn a_flood_is_kept_within_its_bounds() {
        let output = output();
        for _ in 0..10_000 {
            output.write(Channel::Error, b"again and again\n");
        }
        assert_eq!(output.last_call().len(), KEPT_LINES);
        assert_eq!(output.quota.take_line(1), None);
    }

    #[test]
    fn a_call_is_told_from_the_ones_before() {
        let output = output();
        output.write(Channel::Out, b"before\n");
        output.begin_call();
        output.write(Channel::Out, b"now\n");
        assert_eq!(output.last_call(), ["now"]);
    }
}

//! What a guest says, and what is said of it when the sandbox stopped it.

use std::time::Duration;

use wasmtime::WasmBacktrace;

use super::limits::Limits;
use crate::model::Fault;

mod exceeded;
mod output;
mod quota;

pub(crate) use exceeded::Met;
pub(crate) use output::{Channel, Output, printable};
pub(crate) use quota::Quota;

/// Most frames of a guest's stack that a fault names.
const FRAMES: usize = 4;
/// How functions are called that stand between a guest's own and its end.
const PLUMBING: [&str; 6] = ["std::", "core::", "alloc::", "__rust", "rust_", "abort"];
/// Most of a guest's last lines that a fault repeats.
const REPEATED_LINES: usize = 3;
/// Most bytes of each of them, and of a guest's words in a fault.
pub(crate) const WORDS_BYTES: usize = 600;

/// How long a call may take, and the limit that says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// The key under `limits`.
    pub(crate) key: &'static str,
    /// The time.
    pub(crate) time: Duration,
}

/// Who a plugin is, in messages.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// The name in messages: `plugin/csv`, `collect`.
    pub(crate) label: String,
    /// Where it stands in the configuration: `sinks.plugin.csv`, `collect`.
    pub(crate) place: String,
    /// How much it may use.
    pub(crate) limits: Limits,
}

impl Who {
    /// `sinks.plugin.csv` is called `plugin/csv`.
    pub(crate) fn label_of(place: &str) -> String {
        place.strip_prefix("sinks.").unwrap_or(place).replacen('.', "/", 1)
    }

    /// The guest stopped by itself: a panic, an `unreachable`, a lie about memory, or a limit.
    pub(crate) fn trapped(&self, hook: &str, error: &wasmtime::Error, output: &Output) -> Fault {
        let mut fault = match Met::read(error, &self.limits) {
            Some(met) => self.exceeded(hook, &met),
            None => Fault::plugin(format!("`{}` trapped in `{hook}`", self.label)),
        };
        let said = output.last_call();
        let (complaint, before) = complaint(&said);
        // Words of the guest's own say where it ended; its stack would only show how its language panics.
        let stack = if complaint.is_some() { None } else { stack(error) };
        fault.causes.extend(complaint.map(|words| format!("guest panic: {}", printable(&words, WORDS_BYTES))));
        fault.causes.push(printable(&error.root_cause().to_string(), WORDS_BYTES));
        fault.causes.extend(stack);
        fault.causes.extend(last_output(&before));
        fault
    }

    /// The guest met a limit.
    pub(crate) fn exceeded(&self, hook: &str, met: &Met) -> Fault {
        let Self { label, place, .. } = self;
        Fault::plugin(format!("`{label}` wanted {} in `{hook}`, and was stopped", met.words))
            .hint(format!("if that is legitimate, raise `{place}.limits.{}`", met.key))
    }

    /// The guest ran for as long as the call might take.
    pub(crate) fn overran(
        &self,
        hook: &str,
        limit: Deadline,
        error: Option<&wasmtime::Error>,
        output: &Output,
    ) -> Fault {
        let mut fault = self.late(Fault::plugin, "running", hook, limit);
        fault.causes.extend(error.and_then(stack));
        fault.causes.extend(last_output(&output.last_call()));
        fault
    }

    /// The guest waited for something of its own for as long as the call might take.
    pub(crate) fn idled(&self, hook: &str, limit: Deadline, output: &Output) -> Fault {
        let mut fault = self.late(Fault::plugin, "waiting", hook, limit);
        fault.causes.push("for a clock or a file, not for a request".to_owned());
        fault.causes.extend(last_output(&output.last_call()));
        fault
    }

    /// The guest waited for a request for as long as the call might take.
    pub(crate) fn waited(&self, hook: &str, limit: Deadline, output: &Output) -> Fault {
        let mut fault = self.late(Fault::destination, "waiting", hook, limit);
        fault.causes.push("for an HTTP request or a statement".to_owned());
        fault.causes.extend(last_output(&output.last_call()));
        fault
    }

    fn late(&self, of: impl FnOnce(String) -> Fault, what: &str, hook: &str, limit: Deadline) -> Fault {
        let (label, seconds) = (&self.label, limit.time.as_secs_f64());
        of(format!("`{label}` was still {what} in `{hook}` when its {seconds} s were over, and was stopped"))
            .hint(format!("if that is legitimate, raise `{}.limits.{}`", self.place, limit.key))
    }

    /// The guest answered what the contract does not allow, so nothing of the call counts.
    pub(crate) fn broke(&self, hook: &str, how: &str, output: &Output) -> Fault {
        let mut fault = Fault::plugin(format!("`{}` broke the contract in `{hook}`", self.label)).because(how);
        fault.causes.extend(last_output(&output.last_call()));
        fault
    }
}

/// The guest's innermost functions, so that a loop or a trap can be found without its output.
fn stack(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
    let mut names: Vec<String> = frames
        .iter()
        .filter_map(|frame| frame.func_name())
        .map(|name| printable(&format!("{:#}", rustc_demangle::demangle(name)), WORDS_BYTES))
        .filter(|name| !PLUMBING.iter().any(|start| name.starts_with(start)))
        .map(|name| format!("`{name}`"))
        .collect();
    names.dedup();
    names.truncate(FRAMES);
    (!names.is_empty()).then(|| format!("in {}", names.join(", called by ")))
}

fn last_output(lines: &[String]) -> Option<String> {
    let from = lines.len().saturating_sub(REPEATED_LINES);
    let lines: Vec<String> = lines.get(from..)?.iter().map(|line| printable(line, WORDS_BYTES)).collect();
    (!lines.is_empty()).then(|| format!("last output: {}", lines.join(" | ")))
}

/// What the guest itself said of its end, in the manner of its language, and what it had said before.
fn complaint(lines: &[String]) -> (Option<String>, Vec<String>) {
    let found = lines.iter().enumerate().rev().find_map(|(at, line)| {
        let after = lines.get(at + 1..).unwrap_or_default();
        let words = rust_panic(line, after)
            .or_else(|| python_traceback(line, after))
            .or_else(|| line.starts_with("Uncaught ").then(|| line.clone()))
            .or_else(|| line.strip_prefix("panic: ").map(str::to_owned))?;
        Some((at, words))
    });
    match found {
        Some((at, words)) => (Some(words), lines.get(..at).unwrap_or_default().to_vec()),
        None => (None, lines.to_vec()),
    }
}

/// `thread '<unnamed>' panicked at src/lib.rs:7:9:` with the words on the next line, or, from guests that print it shorter,
/// `panicked at 'src/lib.rs:7': words`.
fn rust_panic(line: &str, after: &[String]) -> Option<String> {
    let (_, place) = line.split_once("panicked at ")?;
    if let Some((place, words)) = place.strip_prefix('\'').and_then(|rest| rest.split_once("': ")) {
        return Some(format!("{words} ({place})"));
    }
    let place = place.trim_end_matches(':');
    Some(match after.first() {
        Some(words) => format!("{words} ({place})"),
        None => place.to_owned(),
    })
}

/// `Traceback …`, indented frames, and the exception on the first line that is not indented.
fn python_traceback(line: &str, after: &[String]) -> Option<String> {
    if !line.starts_with("Traceback (most recent call last)") {
        return None;
    }
    let end = after.iter().position(|line| !line.starts_with(' '))?;
    let exception = after.get(end)?;
    let frame = after.get(..end)?.iter().rev().find_map(|line| {
        let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let file = file.rsplit('/').next().unwrap_or(file);
        Some(format!(" ({file}:{number})"))
    });
    Some(format!("{exception}{}", frame.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_rust_panic_is_read_from_the_output() {
        let said =
            lines("writing batch of 200\nthread '<unnamed>' panicked at src/lib.rs:7:9:\nno such column\nnote: run");
        let (words, before) = complaint(&said);
        assert_eq!(words.unwrap(), "no such column (src/lib.rs:7:9)");
        assert_eq!(before, lines("writing batch of 200"));
        let short = lines("panicked at 'src/lib.rs:97': poison");
        assert_eq!(complaint(&short).0.unwrap(), "poison (src/lib.rs:97)");
    }

    #[test]
    fn a_python_traceback_is_read_from_the_output() {
        let said = lines(
            "Traceback (most recent call last):\n  File \"/app/app.py\", line 18, in deliver\n    row['order_id']\nKeyError: 'order_id'",
        );
        assert_eq!(complaint(&said).0.unwrap(), "KeyError: 'order_id' (app.py:18)");
    }

    #[test]
    fn nothing_said_is_no_complaint() {
        assert_eq!(complaint(&lines("all good")), (None, lines("all good")));
    }

    #[test]
    fn places_become_labels() {
        assert_eq!(Who::label_of("sinks.plugin.csv"), "plugin/csv");
        assert_eq!(Who::label_of("collect"), "collect");
    }
}

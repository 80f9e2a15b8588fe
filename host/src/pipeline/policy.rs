//! What is done about failures: one table for calls that failed as a whole, one for single rows. Everything that asks a sink or
//! a collector for something decides here, so that one cause has one consequence wherever it occurs (S79a–S79c).
//!
//! Both tables are printed in `docs/sinks/README.md`; a test holds that page against [`call_table`] and [`row_table`].

use std::time::Duration;

use super::options::OnError;
use crate::model::{Action, CallError, FailureKind, Fault, Owner};

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `collect`.
    Collect,
    /// `on-window-complete`.
    WindowHook,
    /// `deliver` of a direct sink.
    Deliver,
    /// `add` of a buffering sink.
    Add,
    /// `flush` of what several calls of `add` have buffered.
    Flush,
    /// `add` and `flush` of rows that the host gives again: after a fault, in parts, or as another attempt.
    AddAndFlush,
}

impl Stage {
    /// Every stage, in the order of the printed table.
    pub const ALL: [Self; 6] =
        [Self::Collect, Self::WindowHook, Self::Deliver, Self::Add, Self::Flush, Self::AddAndFlush];

    fn name(self) -> &'static str {
        match self {
            Self::Collect => "`collect`",
            Self::WindowHook => "window hook",
            Self::Deliver => "`deliver`",
            Self::Add => "`add`",
            Self::Flush => "`flush`",
            Self::AddAndFlush => "`add` and `flush` again",
        }
    }
}

/// Why a call may have failed, which decides what a row that fails alone is blamed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The destination or plugin says that some row never will be taken.
    Rejected,
    /// The guest trapped or broke its contract.
    Trapped,
    /// The guest met its deadline or another limit.
    LimitExceeded,
    /// No answer came in time.
    TimedOut,
    /// Neither is known.
    Unknown,
}

impl Suspicion {
    /// What a row is answered with that fails alone while others pass.
    pub fn of_a_single_row(self) -> FailureKind {
        match self {
            Self::Rejected | Self::Trapped | Self::LimitExceeded => FailureKind::Reject,
            Self::TimedOut | Self::Unknown => FailureKind::Retry,
        }
    }

    /// Whether the destination is what fails where no row passes; otherwise it is the plugin (S63, S79b).
    pub fn may_be_an_outage(self) -> bool {
        matches!(self, Self::TimedOut | Self::Unknown)
    }

    /// Whether each call that fails so may take its whole deadline.
    pub fn is_slow(self) -> bool {
        matches!(self, Self::TimedOut | Self::LimitExceeded)
    }
}

/// What to do about a call that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Wait as long as was asked for, then repeat the call; no attempt is counted (S37).
    WaitAndRepeat(Duration),
    /// Flush what is buffered; with nothing buffered, wait as long as was asked for. Then repeat the call (S27b).
    FlushAndRepeat(Duration),
    /// Discard, go back to the last commit, and continue after the wait in smaller portions (S29).
    RewindAndWait(Duration),
    /// Wait with growing back-off until the destination is available again, then repeat; no attempt is counted (S79a).
    WaitForDestination(Fault),
    /// Give the rows that were buffered again (S27a).
    GiveAgain(Fault),
    /// Ask about the window again from its first record.
    CollectAgain(Fault),
    /// Repeat the call in parts until each row has its own answer (S63, S79b).
    Isolate(Suspicion, Fault),
    /// Dead-letter the source records of the window (S64).
    RejectWindow(Fault),
    /// Go back to the last commit; counts towards `abort.max_consecutive` (S41).
    Abort(Fault),
    /// Commit what is settled and end the process (S44).
    Stop(Fault),
}

/// What to do about a call that failed as a whole (S44, S79a, S79b).
pub fn disposition(stage: Stage, error: CallError) -> Disposition {
    use Disposition as To;
    let window_hook = stage == Stage::WindowHook;
    match error {
        CallError::Fatal(fault) => To::Stop(fault),
        CallError::Backpressure(wait) => match stage {
            Stage::Add => To::FlushAndRepeat(wait),
            Stage::Flush => To::RewindAndWait(wait),
            Stage::Collect | Stage::WindowHook | Stage::Deliver | Stage::AddAndFlush => To::WaitAndRepeat(wait),
        },
        // No instance of the plugin could be made: there is no destination to wait for.
        CallError::Unavailable(fault) if fault.owner != Owner::Destination => To::Abort(fault),
        CallError::Unavailable(fault) => To::WaitForDestination(fault),
        CallError::BufferLost(fault) => match stage {
            Stage::Collect | Stage::WindowHook => To::CollectAgain(fault),
            Stage::Deliver | Stage::Add | Stage::Flush | Stage::AddAndFlush => To::GiveAgain(fault),
        },
        CallError::Timeout(fault) | CallError::Unknown(fault) if window_hook => To::WaitForDestination(fault),
        CallError::Reject(fault) | CallError::Trap(fault) | CallError::LimitExceeded(fault) if window_hook => {
            To::RejectWindow(fault)
        }
        CallError::Reject(fault) => To::Isolate(Suspicion::Rejected, fault),
        CallError::Trap(fault) => To::Isolate(Suspicion::Trapped, fault),
        CallError::LimitExceeded(fault) => To::Isolate(Suspicion::LimitExceeded, fault),
        CallError::Timeout(fault) => To::Isolate(Suspicion::TimedOut, fault),
        CallError::Unknown(fault) => To::Isolate(Suspicion::Unknown, fault),
    }
}

/// What to do about a row that a call did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowDisposition {
    /// Write it to the dead letter topic.
    DeadLetter,
    /// Send it again after a back-off, as another attempt (S80).
    Retry,
    /// Send it again at once, without the row that failed; no attempt is counted (S79c).
    SendAgain,
    /// Send it again when the destination is available; no attempt is counted (S79a).
    WaitForDestination,
    /// Send it again after the wait that was asked for; no attempt is counted (S37).
    Wait(Duration),
    /// Give it up, counted.
    Skip,
    /// Go back to the last commit.
    Abort,
}

/// What a sink's `on_error` chooses for a failure of that kind.
pub fn chosen(on_error: Option<OnError>, kind: FailureKind) -> Action {
    match on_error {
        None => Action::Default,
        Some(OnError::Dlq) => Action::Dlq,
        // What never will be written is not tried again.
        Some(OnError::Retry) if kind == FailureKind::Reject => Action::Dlq,
        Some(OnError::Retry) => Action::Retry,
        Some(OnError::Skip) => Action::Skip,
        Some(OnError::Abort) => Action::Abort,
    }
}

/// Whether `on_error` or a hook has a say in failures of that kind.
pub fn is_chosen(kind: FailureKind) -> bool {
    !matches!(kind, FailureKind::Backpressure(_) | FailureKind::NotTried)
}

/// What to do about a row (S79a). `attempts_left`: whether it may be tried again, its call included.
pub fn row_disposition(kind: FailureKind, action: Action, attempts_left: bool) -> RowDisposition {
    use RowDisposition as To;
    match (kind, action) {
        (FailureKind::Backpressure(wait), _) => To::Wait(wait),
        (FailureKind::NotTried, _) => To::SendAgain,
        (FailureKind::Unavailable, Action::Default) => To::WaitForDestination,
        (FailureKind::Reject, Action::Default) | (_, Action::Dlq) => To::DeadLetter,
        (_, Action::Retry | Action::Default) => {
            if attempts_left {
                To::Retry
            } else {
                To::DeadLetter
            }
        }
        (_, Action::Skip) => To::Skip,
        (_, Action::Abort) => To::Abort,
        (_, Action::Backpressure(wait)) => To::Wait(wait),
    }
}

/// The table of calls that failed as a whole, as Markdown: a line per error, a column per stage.
pub fn call_table() -> String {
    let about = || Fault::destination(String::new());
    let errors = [
        ("backpressure", CallError::Backpressure(Duration::ZERO)),
        ("unavailable", CallError::Unavailable(about())),
        ("the plugin cannot be started", CallError::Unavailable(Fault::plugin(String::new()))),
        ("unknown cause or outcome", CallError::Unknown(about())),
        ("timeout", CallError::Timeout(about())),
        ("reject without a row", CallError::Reject(about())),
        ("trap, broken contract", CallError::Trap(about())),
        ("the guest's deadline or another limit", CallError::LimitExceeded(about())),
        ("buffer lost with its instance", CallError::BufferLost(about())),
        ("fatal", CallError::Fatal(about())),
    ];
    let mut table = format!("| The call says | {} |\n", Stage::ALL.map(Stage::name).join(" | "));
    table.push_str(&format!("|---|{}\n", "---|".repeat(Stage::ALL.len())));
    for (name, error) in errors {
        let cells = Stage::ALL.map(|stage| describe(&disposition(stage, error.clone())));
        table.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    table
}

fn describe(disposition: &Disposition) -> &'static str {
    match disposition {
        Disposition::WaitAndRepeat(_) => "waits as asked, then repeats the call",
        Disposition::FlushAndRepeat(_) => {
            "flushes what is buffered, or waits as asked where nothing is; then repeats the call"
        }
        Disposition::RewindAndWait(_) => "goes back to the last commit, waits as asked, continues in smaller portions",
        Disposition::WaitForDestination(_) => "waits until it is available, then repeats the call",
        Disposition::GiveAgain(_) => "discards and gives the rows again",
        Disposition::CollectAgain(_) => "collects the window again",
        Disposition::Isolate(Suspicion::Rejected, _) => "isolates: a row that fails alone is *reject*",
        Disposition::Isolate(Suspicion::Trapped | Suspicion::LimitExceeded, _) => {
            "isolates: a row that fails alone while others pass is *reject*; where none passes, the plugin is at fault"
        }
        Disposition::Isolate(Suspicion::TimedOut | Suspicion::Unknown, _) => {
            "isolates: a row that fails alone while others pass is *retry*; where none passes, the destination is \
             *unavailable*"
        }
        Disposition::RejectWindow(_) => "dead-letters the window's source records",
        Disposition::Abort(_) => "goes back to the last commit; `abort.max_consecutive` times in a row end the host",
        Disposition::Stop(_) => "commits what is settled and stops",
    }
}

/// The table of single rows, as Markdown: a line per answer, a column per choice.
pub fn row_table() -> String {
    let kinds = [
        ("reject", "this row, never", FailureKind::Reject),
        ("retry", "this row, perhaps later", FailureKind::Retry),
        ("unavailable", "the destination, not the row", FailureKind::Unavailable),
        ("backpressure", "the destination asked to wait", FailureKind::Backpressure(Duration::ZERO)),
        ("not tried", "another row of its batch failed", FailureKind::NotTried),
    ];
    let choices = [
        ("`on_error` left out", None),
        ("`dlq`", Some(OnError::Dlq)),
        ("`retry`", Some(OnError::Retry)),
        ("`skip`", Some(OnError::Skip)),
        ("`abort`", Some(OnError::Abort)),
    ];
    let mut table = format!("| Answer | Meaning | {} |\n", choices.map(|(name, _)| name).join(" | "));
    table.push_str(&format!("|---|---|{}\n", "---|".repeat(choices.len())));
    for (name, meaning, kind) in kinds {
        let cells = choices.map(|(_, on_error)| {
            let action = chosen(on_error, kind);
            describe_row(row_disposition(kind, action, true), row_disposition(kind, action, false))
        });
        table.push_str(&format!("| {name} | {meaning} | {} |\n", cells.join(" | ")));
    }
    table
}

fn describe_row(first: RowDisposition, last: RowDisposition) -> &'static str {
    match (first, last) {
        (RowDisposition::Retry, RowDisposition::DeadLetter) => "tried again, then dead letter",
        (RowDisposition::Retry, _) => "tried again",
        (RowDisposition::DeadLetter, _) => "dead letter",
        (RowDisposition::SendAgain, _) => "sent again at once",
        (RowDisposition::WaitForDestination, _) => "waits until it is available",
        (RowDisposition::Wait(_), _) => "waits as asked",
        (RowDisposition::Skip, _) => "given up",
        (RowDisposition::Abort, _) => "from the last commit",
    }
}

//! What a sink's call does, drawn from what its rows, its destination and its guest are like, and from the dice.

use std::time::Duration;

use tidegate::model::{Answer, CallError, Failure, Fault};

use super::flaws::Flaw;
use super::stage::Stage;
use super::world::{World, Write};

/// What a call comes to.
pub struct Drawn {
    /// The rows that are written; of an `add`, those that are taken.
    pub written: Vec<Write>,
    pub answer: Answer,
    /// What it takes beyond its usual time.
    pub extra: Duration,
}

impl Drawn {
    fn failed(error: CallError) -> Self {
        Self { written: Vec::new(), answer: Err(error), extra: Duration::ZERO }
    }
}

pub fn fault(what: &str) -> Fault {
    Fault::destination(format!("simulated: {what}"))
}

/// How long a destination asks to wait: nothing, now and then, and often the same again.
pub fn patience(world: &mut World) -> Duration {
    let most = [0, 0, 200, 4_000][world.random.usize(0..4)];
    Duration::from_millis(world.random.u64(0..=most))
}

impl World {
    /// Draws a call with these rows, to a guest that holds `held` others of the partition. A call that fails may have
    /// written a part, as one whose connection breaks half-way does.
    pub fn draw(&mut self, stage: Stage, rows: &[Write], held: usize) -> Drawn {
        if let Some(error) = self.outage(stage) {
            return self.out(stage, rows, error);
        }
        if stage == Stage::Add && self.capacity.full_rows.is_some_and(|full| held >= full) {
            self.mark("buffer was full");
            let wait = patience(self);
            return Drawn::failed(CallError::Backpressure(wait));
        }
        if self.chance(|weights| weights.backpressure) {
            self.mark("backpressure");
            let wait = patience(self);
            return Drawn::failed(CallError::Backpressure(wait));
        }
        let flawed = rows.iter().enumerate().filter(|(_, row)| !row.window);
        let flawed = flawed.filter_map(|(at, row)| Some((at, self.flaw(stage, row.partition, row.offset)?))).next();
        if let Some((at, flaw)) = flawed {
            return self.meet(stage, rows, at, flaw);
        }
        if let Some(error) = self.exceeded(stage, rows.len(), held).or_else(|| self.call_fault(stage)) {
            let written = self.part(stage, rows);
            let extra = self.extra(&error);
            return Drawn { written, answer: Err(error), extra };
        }
        self.each(stage, rows)
    }

    /// An outage: nothing is written, save by a call whose outcome is unknown.
    fn out(&mut self, stage: Stage, rows: &[Write], error: CallError) -> Drawn {
        let by_row = matches!(error, CallError::Unavailable(_)) && stage == Stage::Deliver(0) && self.random.bool();
        if by_row {
            let failures = (0u32..).zip(rows).map(|(index, _)| Failure::unavailable(index, "simulated: outage"));
            return Drawn { written: Vec::new(), answer: Ok(failures.collect()), extra: Duration::ZERO };
        }
        let written = if matches!(error, CallError::Unavailable(_)) { Vec::new() } else { self.part(stage, rows) };
        let extra = self.extra(&error);
        Drawn { written, answer: Err(error), extra }
    }

    /// A call meets the row that it cannot get past.
    fn meet(&mut self, stage: Stage, rows: &[Write], at: usize, flaw: Flaw) -> Drawn {
        self.mark(format!("row {} in {}", flaw.name(), stage.name()));
        let by = format!("simulated: {:?} {} the call", rows[at].offset, flaw.name());
        let error = match flaw {
            Flaw::Traps => CallError::Trap(Fault::plugin(by)),
            Flaw::NeverReturns => CallError::LimitExceeded(Fault::plugin(by)),
            Flaw::RejectsCall => CallError::Reject(fault(&by)),
            Flaw::TimesOut => CallError::Timeout(fault(&by)),
            Flaw::Breaks => CallError::Unknown(fault(&by)),
        };
        // The slow row itself may be written in the end.
        let reached = if flaw == Flaw::TimesOut && self.random.bool() { at + 1 } else { at };
        let written = self.part(stage, &rows[..reached]);
        let extra = self.extra(&error);
        Drawn { written, answer: Err(error), extra }
    }

    /// The whole call fails by chance.
    fn call_fault(&mut self, stage: Stage) -> Option<CallError> {
        if self.chance(|weights| weights.call_unknown) {
            self.mark("call failed");
            return Some(CallError::Unknown(fault("connection reset")));
        }
        if self.chance(|weights| weights.call_unavailable) {
            self.mark("destination unavailable");
            return Some(CallError::Unavailable(fault("connection refused")));
        }
        if self.chance(|weights| weights.call_reject) {
            self.mark(format!("{} rejected a whole call", stage.name()));
            return Some(CallError::Reject(fault("rejected")));
        }
        if self.chance(|weights| weights.call_timeout) {
            self.mark("call timed out");
            return Some(CallError::Timeout(fault("no answer")));
        }
        if self.chance(|weights| weights.call_limit) {
            self.mark("limit exceeded");
            return Some(CallError::LimitExceeded(Fault::plugin("simulated: limit exceeded")));
        }
        if self.chance(|weights| weights.trap) {
            self.mark("trap");
            return Some(CallError::Trap(Fault::plugin("simulated: trap")));
        }
        None
    }

    /// Each row by itself. A plugin's rows are rejected or to be tried again; a native sink's may also not have been
    /// tried.
    fn each(&mut self, stage: Stage, rows: &[Write]) -> Drawn {
        let (mut written, mut failures) = (Vec::new(), Vec::new());
        let native = stage == Stage::Deliver(0);
        for (index, row) in (0u32..).zip(rows) {
            if self.chance(|weights| weights.row_reject) {
                self.mark("row rejected");
                failures.push(Failure::reject(index, "simulated"));
            } else if stage != Stage::Deliver(1) && self.chance(|weights| weights.row_retry) {
                self.mark("row to retry");
                failures.push(Failure::retry(index, "simulated"));
            } else if native && self.chance(|weights| weights.row_unavailable) {
                self.mark("row not written, destination unavailable");
                failures.push(Failure::unavailable(index, "simulated"));
            } else if native && self.chance(|weights| weights.row_backpressure) {
                self.mark("row not written, backpressure");
                let wait = Duration::from_millis(self.random.u64(0..2_000));
                failures.push(Failure::backpressure(index, wait, "simulated"));
            } else {
                written.push(*row);
            }
        }
        if native && !failures.is_empty() && self.chance(|weights| weights.row_not_tried) {
            self.mark("row not tried because of another");
            written.clear();
            let failed = |index: u32| failures.iter().any(|failure| failure.index == index);
            let others: Vec<u32> = (0u32..).zip(rows).map(|(index, _)| index).filter(|index| !failed(*index)).collect();
            failures.extend(others.into_iter().map(|index| Failure::not_tried(index, "simulated")));
        }
        if !failures.is_empty() && matches!(stage, Stage::Add | Stage::Flush) {
            self.mark(format!("{} failed by index", stage.name()));
        }
        Drawn { written, answer: Ok(failures), extra: Duration::ZERO }
    }

    /// What a failed call wrote before it failed; an `add` took nothing.
    fn part(&mut self, stage: Stage, rows: &[Write]) -> Vec<Write> {
        let part = if stage == Stage::Add { 0 } else { self.random.usize(0..=rows.len()) };
        rows[..part].to_vec()
    }

    /// Deadlines take their time.
    pub fn extra(&mut self, error: &CallError) -> Duration {
        match error {
            CallError::Timeout(_) | CallError::LimitExceeded(_) => Duration::from_millis(self.random.u64(100..3_000)),
            _ => Duration::ZERO,
        }
    }
}

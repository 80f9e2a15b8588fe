//! A buffering sink that uses every freedom of the contract: nothing that it was given is lost, and nobody is blamed for another.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::sink::{BufferLimit, Style};

/// What a row makes of the calls that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Fine,
    /// `add` names it.
    RefusedByAdd,
    /// `flush` names it.
    RefusedByFlush,
    /// `add` fails as a whole.
    Breaks(Fails),
    /// `flush` fails as a whole.
    BreaksFlush(Fails),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Reject,
    Trap,
    Limit,
}

impl Fails {
    fn error(self, row: i64) -> CallError {
        let fault = Fault::plugin(format!("broke on {row}"));
        match self {
            Self::Reject => CallError::Reject(fault),
            Self::Trap => CallError::Trap(fault),
            Self::Limit => CallError::LimitExceeded(fault),
        }
    }
}

/// A guest of one instance, as the contract allows it to be.
#[derive(Debug, Default)]
struct Guest {
    rows: Vec<Row>,
    max_rows: usize,
    /// It answers backpressure to `add` while it holds so many rows.
    full_at: usize,
    /// It traps where it would hold more.
    memory: usize,
    /// It answers backpressure to a flush of more rows; 0: of none.
    flush_at_most: usize,
    /// It drops its buffer when it answers a fault; otherwise it keeps it, and would write its rows twice.
    forgets: bool,
    /// Some of its answers say that its destination is away.
    unavailable: Vec<bool>,
    calls: usize,
    /// Offsets that it counts, and whether it holds them.
    counted: Vec<(i64, bool)>,
    /// A fault was answered and nobody has discarded.
    faulted: bool,
    written: Vec<i64>,
    breach: Option<String>,
}

impl Guest {
    fn held(&self) -> usize {
        self.counted.iter().filter(|(_, held)| *held).count()
    }

    fn row(&self, offset: i64) -> Row {
        self.rows[usize::try_from(offset).unwrap()]
    }

    fn enter(&mut self, call: &str) -> Result<(), CallError> {
        if self.faulted {
            self.breach.get_or_insert(format!("{call} came after a fault, before discard"));
        }
        self.calls += 1;
        let unavailable = self.unavailable.get(self.calls).copied().unwrap_or(false);
        if unavailable { self.fault(CallError::Unavailable(Fault::destination("gone"))) } else { Ok(()) }
    }

    fn fault<T>(&mut self, error: CallError) -> Result<T, CallError> {
        if self.forgets || matches!(error, CallError::Trap(_) | CallError::LimitExceeded(_)) {
            self.counted.clear();
        }
        self.faulted = true;
        Err(error)
    }

    fn add(&mut self, offsets: &[i64]) -> Answer {
        self.enter("add")?;
        if self.held() >= self.full_at {
            return Err(CallError::Backpressure(Duration::from_secs(1)));
        }
        if self.held() + offsets.len() > self.memory {
            return self.fault(CallError::LimitExceeded(Fault::plugin("memory")));
        }
        for &offset in offsets {
            if let Row::Breaks(fails) = self.row(offset) {
                return self.fault(fails.error(offset));
            }
        }
        let refused = |offset: i64| self.row(offset) == Row::RefusedByAdd;
        let failures = (0u32..).zip(offsets).filter(|(_, offset)| refused(**offset));
        let failures = failures.map(|(index, _)| Failure::reject(index, "add")).collect();
        let taken: Vec<(i64, bool)> = offsets.iter().map(|offset| (*offset, !refused(*offset))).collect();
        self.counted.extend(taken);
        Ok(failures)
    }

    fn flush(&mut self) -> Answer {
        self.enter("flush")?;
        let counted = std::mem::take(&mut self.counted);
        if self.flush_at_most > 0 && counted.len() > self.flush_at_most {
            return self.fault(CallError::Backpressure(Duration::from_secs(1)));
        }
        for (offset, held) in &counted {
            if let (Row::BreaksFlush(fails), true) = (self.row(*offset), held) {
                if !self.forgets {
                    self.counted.clone_from(&counted);
                }
                return self.fault(fails.error(*offset));
            }
        }
        let mut failures = Vec::new();
        for (index, (offset, held)) in (0u32..).zip(&counted) {
            if self.row(*offset) == Row::RefusedByFlush {
                failures.push(Failure::reject(index, "flush"));
            } else if *held {
                self.written.push(*offset);
            }
        }
        Ok(failures)
    }
}

struct Model(Mutex<Guest>);

#[async_trait]
impl Sink for Model {
    fn description(&self) -> Description {
        let max_rows = self.0.lock().unwrap().max_rows;
        Description { style: Style::Buffering, max_rows, ..Description::direct(true) }
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, _: &Arc<Batch>) -> Answer {
        Err(CallError::Fatal(Fault::host("not a direct sink")))
    }

    async fn add(&self, batch: &Arc<Batch>) -> Answer {
        self.0.lock().unwrap().add(&batch.offsets)
    }

    async fn flush(&self, _: &TopicPartition) -> Answer {
        self.0.lock().unwrap().flush()
    }

    async fn discard(&self, _: &TopicPartition) {
        let mut guest = self.0.lock().unwrap();
        guest.counted.clear();
        guest.faulted = false;
    }

    fn buffer_limit(&self, _: &TopicPartition) -> Option<BufferLimit> {
        Some(BufferLimit { instance: 0, max_bytes: 1 << 20 })
    }
}

/// Gives windows to the guest, flushing after some; what it wrote, what was dead-lettered, and what ended it.
async fn play(guest: Guest, windows: &[(usize, bool)]) -> (Guest, BTreeMap<i64, String>, Option<Stop>) {
    let sink = Arc::new(Model(Mutex::new(guest)));
    let (mut shared, _, letters) = shared(Given::answers(Vec::new()));
    shared.sinks = vec![SinkSlot::new(NamedSink::new(SinkKind::Plugin, "model", sink.clone()), Arc::default())];
    let source = TopicPartition::new("t", 0);
    let (mut state, mut first, mut stopped) = (SinkState::default(), 0, None);
    for (number, (rows, flush)) in windows.iter().enumerate() {
        let mut window = Batch::new(source.clone());
        for offset in (first..).take(*rows) {
            window.push(offset, 1, Some(&offset.to_be_bytes()), Some(b"{}"));
        }
        first += i64::try_from(*rows).unwrap();
        let window = Arc::new(window);
        let rows = Rows::of_group(&Group { sink: 0, batch: window.clone(), origin: None }, &window);
        let mut delivery = Delivery::new(&shared, 0, &source, &mut state);
        let last = number + 1 == windows.len();
        let given = async {
            delivery.give(rows).await?;
            if *flush || last { delivery.flush().await } else { Ok(()) }
        };
        if let Err(stop) = given.await {
            stopped = Some(stop);
            break;
        }
    }
    drop(shared);
    let dead = letters.0.lock().unwrap().iter().map(|letter| (letter.offset, letter.error.clone())).collect();
    (Arc::into_inner(sink).unwrap().0.into_inner().unwrap(), dead, stopped)
}

fn run(guest: Guest, windows: &[(usize, bool)]) -> (Guest, BTreeMap<i64, String>, Option<Stop>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(guest, windows))
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let fails = || prop_oneof![Just(Fails::Reject), Just(Fails::Trap), Just(Fails::Limit)];
    let row = prop_oneof![
        12 => Just(Row::Fine),
        1 => Just(Row::RefusedByAdd),
        1 => Just(Row::RefusedByFlush),
        1 => fails().prop_map(Row::Breaks),
        1 => fails().prop_map(Row::BreaksFlush),
    ];
    proptest::collection::vec(row, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// S27, S27a, S27b, S63, S79b: every row is written, or dead-lettered because of itself; a guest is never asked for anything between
    /// a fault and the discard that has to follow.
    #[test]
    fn s27_nothing_that_a_buffering_guest_was_given_is_lost(
        rows in rows(),
        cuts in proptest::collection::vec((1usize..30, any::<bool>()), 1..12),
        max_rows in prop_oneof![Just(0usize), Just(1), 2usize..9],
        full_at in prop_oneof![Just(usize::MAX), 1usize..20],
        memory in prop_oneof![Just(usize::MAX), 2usize..40],
        forgets in any::<bool>(),
        unavailable in proptest::collection::vec(proptest::bool::weighted(0.1), 0..60),
    ) {
        // Windows that cover the rows; the first has a good row, so that a plugin is not blamed as a whole.
        let mut rows = rows;
        let mut windows = Vec::new();
        let mut left = rows.len();
        for (size, flush) in cuts.iter().cycle() {
            let size = (*size).min(left);
            let first = rows.len() - left;
            rows[first] = Row::Fine;
            windows.push((size, *flush));
            left -= size;
            if left == 0 {
                break;
            }
        }
        let guest = Guest { rows: rows.clone(), max_rows, full_at, memory, forgets, unavailable, ..Guest::default() };
        let (guest, dead, stopped) = run(guest, &windows);
        prop_assert_eq!(guest.breach, None);
        prop_assert!(stopped.is_none(), "{:?}", stopped);
        let written: BTreeSet<i64> = guest.written.iter().copied().collect();
        for (offset, row) in (0..).zip(&rows) {
            let is_dead = dead.contains_key(&offset);
            prop_assert_eq!(is_dead, *row != Row::Fine, "[{}] {:?} {:?}", offset, row, dead.get(&offset));
            prop_assert_eq!(written.contains(&offset), *row == Row::Fine, "[{}] {:?}", offset, row);
            if let (Row::Breaks(_) | Row::BreaksFlush(_), Some(reason)) = (row, dead.get(&offset)) {
                prop_assert!(reason.ends_with(&format!("broke on {offset}")), "{}", reason);
            }
        }
    }
}

fn fine(rows: usize) -> Guest {
    Guest { rows: vec![Row::Fine; rows], full_at: usize::MAX, memory: usize::MAX, ..Guest::default() }
}

/// F1: the rows of a rejected call are in no count of the guest, so its flush's indices name the right ones.
#[test]
fn s27_a_rejected_call_shifts_no_index() {
    for forgets in [false, true] {
        let mut guest = Guest { forgets, ..fine(5) };
        guest.rows[1] = Row::Breaks(Fails::Reject);
        guest.rows[3] = Row::RefusedByFlush;
        let (guest, dead, stopped) = run(guest, &[(5, true)]);
        assert!(stopped.is_none());
        assert_eq!(dead.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(guest.written, [0, 2, 4]);
    }
}

/// F3: a guest that is full is flushed before it is asked again; nobody stands still.
#[test]
fn s27b_a_full_buffer_is_flushed_first() {
    let guest = Guest { full_at: 10, max_rows: 5, ..fine(1_000) };
    let (guest, dead, stopped) = run(guest, &[(1_000, true)]);
    assert!(stopped.is_none() && dead.is_empty());
    assert_eq!(guest.written, (0..1_000).collect::<Vec<_>>());
}

/// S29: while rows are given again in parts, a part that is refused twice for its size is divided; nobody stands still.
#[test]
fn s29_a_part_that_asks_to_wait_is_divided() {
    let mut guest = Guest { flush_at_most: 4, ..fine(40) };
    guest.rows[3] = Row::Breaks(Fails::Reject);
    let (guest, dead, stopped) = run(guest, &[(40, true)]);
    assert!(stopped.is_none());
    assert_eq!((guest.written.len(), dead.into_keys().collect::<Vec<_>>()), (39, vec![3]));
}

/// S15a: a guest whose memory is outgrown is given less from then on, and no row is suspected.
#[test]
fn s15a_a_guest_that_met_its_memory_is_given_less() {
    let guest = Guest { memory: 60, ..fine(2_000) };
    let (guest, dead, stopped) = run(guest, &[(500, false), (500, false), (1_000, true)]);
    assert!(stopped.is_none() && dead.is_empty());
    assert_eq!(guest.written.len(), 2_000);
    assert!(guest.calls < 400, "{} calls", guest.calls);
}

/// A thousand rows of one window trap: each is a dead letter, the others are written.
#[test]
fn s63_a_thousand_trapping_rows_in_one_window() {
    let mut guest = fine(1_024);
    for row in (0..1_024).filter(|row| row % 43 != 7) {
        guest.rows[row] = if row % 2 == 0 { Row::Breaks(Fails::Trap) } else { Row::BreaksFlush(Fails::Trap) };
    }
    let (guest, dead, stopped) = run(guest, &[(1_024, true)]);
    assert!(stopped.is_none());
    assert_eq!((guest.written.len(), dead.len()), (24, 1_000));
}

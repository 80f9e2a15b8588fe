//! A sink that takes every freedom that the contract gives to one, as the rows say. Knows nothing of WebAssembly, so
//! that tests can use it as it is, and compare it with the component that is made of it.
//!
//! A row's value is JSON such as `{"id": 7, "add": "refuse_reject", "flush": "trap"}`. `add` says what the call of
//! `add` does because of the row, `flush` what the call of `flush` does, or `deliver` in a direct sink; without a word
//! the row is taken. `times` is how often the word is followed, counted by `id` for as long as the instance lives: see
//! [`Word`].

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// How long a call that answers backpressure asks to wait, in milliseconds.
pub const WAIT_MILLISECONDS: u64 = 20;

/// A topic-partition.
pub type Source = (String, i32);

/// What the sink is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Writes in `deliver`; otherwise buffers.
    pub direct: bool,
    /// What the sink says of itself.
    pub idempotent: bool,
    /// Most rows wished for in one call, 0 for no wish.
    pub max_rows: u32,
    /// Most bytes wished for in one call, 0 for no wish.
    pub max_bytes: u64,
    /// The file that gets a line for every row that is durable.
    pub path: Option<String>,
    /// `add` answers backpressure while this many rows are held, over all topic-partitions; 0 for never.
    pub full_at: u64,
    /// Forgets what it holds of the topic-partition with every fault after which it may.
    pub forget_on_fault: bool,
    /// Rows before the one that ends a call with a fault, a trap or never are written first.
    pub write_before_fault: bool,
    /// Bytes that each row takes in memory while it is held.
    pub hoard_bytes_per_row: u64,
    /// How long each row takes in `flush` or `deliver`.
    pub milliseconds_per_row: u64,
    /// That time is spent running; otherwise asleep.
    pub busy: bool,
}

impl Options {
    /// Reads them from a JSON object.
    ///
    /// # Errors
    /// Names what is no option, or has another type.
    pub fn parse(json: &str) -> Result<Self, String> {
        let Ok(Value::Object(given)) = serde_json::from_str(json) else { return Err("no JSON object".to_owned()) };
        let mut options = Self::default();
        for (name, value) in given {
            let number = || value.as_u64().ok_or(format!("`{name}` is no number"));
            let switch = || value.as_bool().ok_or(format!("`{name}` is neither true nor false"));
            match name.as_str() {
                "direct" => options.direct = switch()?,
                "idempotent" => options.idempotent = switch()?,
                "max_rows" => options.max_rows = u32::try_from(number()?).unwrap_or(u32::MAX),
                "max_bytes" => options.max_bytes = number()?,
                "path" => options.path = Some(value.as_str().ok_or("`path` is no text")?.to_owned()),
                "full_at" => options.full_at = number()?,
                "forget_on_fault" => options.forget_on_fault = switch()?,
                "write_before_fault" => options.write_before_fault = switch()?,
                "hoard_bytes_per_row" => options.hoard_bytes_per_row = number()?,
                "milliseconds_per_row" => options.milliseconds_per_row = number()?,
                "busy" => options.busy = switch()?,
                _ => return Err(format!("`{name}` is no option")),
            }
        }
        Ok(options)
    }
}

/// What a row asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Names the row, which is never to be taken: `refuse_reject`, in `flush` `reject`.
    Reject,
    /// Names the row, which may be taken later, always or `times` times: `refuse_retry`, in `flush` `retry`.
    Retry,
    /// Refuses the call: `reject_call`.
    RejectCall,
    /// Refuses the call and forgets what is held of the topic-partition: `reject_call_forget`.
    RejectCallForget,
    /// Traps: `trap`.
    Trap,
    /// Never returns: `spin`.
    Spin,
    /// The destination is unavailable, once or `times` times: `unavailable`.
    Unavailable,
    /// The destination takes no more for now, once or `times` times: `backpressure`.
    Backpressure,
    /// It takes no more while any row of the topic-partition is held: `backpressure_when_held`.
    BackpressureWhenHeld,
}

impl Word {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "reject" | "refuse_reject" => Self::Reject,
            "retry" | "refuse_retry" => Self::Retry,
            "reject_call" => Self::RejectCall,
            "reject_call_forget" => Self::RejectCallForget,
            "trap" => Self::Trap,
            "spin" => Self::Spin,
            "unavailable" => Self::Unavailable,
            "backpressure" => Self::Backpressure,
            "backpressure_when_held" => Self::BackpressureWhenHeld,
            _ => return None,
        })
    }
}

/// A row as it is given to the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its record's offset.
    pub offset: i64,
    /// Which of its record's payloads it is.
    pub ordinal: u32,
    /// See the module's text.
    pub value: Option<Vec<u8>>,
}

/// A row that is held, or is about to be written.
#[derive(Clone, Debug)]
struct Asking {
    offset: i64,
    ordinal: u32,
    id: i64,
    add: Option<Word>,
    flush: Option<Word>,
    times: Option<u64>,
    #[allow(dead_code, reason = "held for the sake of holding it")]
    hoard: Vec<u8>,
}

impl Asking {
    fn new(row: &Row) -> Self {
        let value: Value =
            row.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default();
        let word = |field: &str| value.get(field).and_then(Value::as_str).and_then(Word::of);
        Self {
            offset: row.offset,
            ordinal: row.ordinal,
            id: value.get("id").and_then(Value::as_i64).unwrap_or(-1),
            add: word("add"),
            flush: word("flush"),
            times: value.get("times").and_then(Value::as_u64),
            hoard: Vec::new(),
        }
    }
}

/// A row that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The value's `id`, -1 without one.
    pub id: i64,
    /// Where it comes from.
    pub source: Source,
    /// Its record's offset.
    pub offset: i64,
    /// Which of its record's payloads it is.
    pub ordinal: u32,
}

impl Arrival {
    /// The line that stands for it in a file.
    pub fn line(&self) -> String {
        let Self { id, source: (topic, partition), offset, ordinal } = self;
        let topic = Value::from(topic.as_str());
        format!(r#"{{"id":{id},"topic":{topic},"partition":{partition},"offset":{offset},"ordinal":{ordinal}}}"#)
    }
}

/// A row that was not taken or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The row as the contract counts it.
    pub index: u32,
    /// It may be taken later; otherwise never.
    pub retry: bool,
    /// Why.
    pub reason: String,
}

/// Why a call ends without a list of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It answers backpressure: milliseconds.
    Backpressure(u64),
    /// It answers that the destination is unavailable.
    Unavailable(String),
    /// It refuses all of the call.
    Reject(String),
    /// It traps, and the instance is gone.
    Trap(String),
    /// It never returns, and the instance is gone when its time is over.
    Spin,
}

/// What a call answers.
pub type Answer = Result<Vec<Failed>, End>;

/// What the sink does to what is around it.
pub trait World {
    /// Makes rows durable.
    ///
    /// # Errors
    /// Why it cannot: the destination is unavailable.
    fn write(&mut self, arrivals: &[Arrival]) -> Result<(), String>;

    /// Takes that long.
    fn work(&mut self, milliseconds: u64, busy: bool);
}

/// The call in which a word is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    Add,
    Flush,
}

/// The sink.
#[derive(Debug)]
pub struct Model {
    options: Options,
    /// The rows of accepted calls as `flush` counts them; those that were refused there keep their place.
    buffers: BTreeMap<Source, Vec<Option<Asking>>>,
    /// How often a word of that row was followed.
    followed: HashMap<(Call, i64), u64>,
}

impl Model {
    /// Holds nothing yet.
    pub fn new(options: Options) -> Self {
        Self { options, buffers: BTreeMap::new(), followed: HashMap::new() }
    }

    /// What it was told.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Offsets and ordinals of the rows that are held of the topic-partition, in order, without those that were
    /// refused.
    pub fn held(&self, source: &Source) -> Vec<(i64, u32)> {
        self.buffers.get(source).into_iter().flatten().flatten().map(|row| (row.offset, row.ordinal)).collect()
    }

    /// Takes rows into the topic-partition's buffer.
    ///
    /// # Errors
    /// See [`End`].
    pub fn add(&mut self, source: &Source, rows: &[Row]) -> Answer {
        let answer = self.try_add(source, rows);
        if self.options.forget_on_fault && matches!(&answer, Err(End::Unavailable(_) | End::Reject(_))) {
            self.discard(source);
        }
        answer
    }

    fn try_add(&mut self, source: &Source, rows: &[Row]) -> Answer {
        let held: usize = self.buffers.values().map(|rows| rows.iter().flatten().count()).sum();
        if self.options.full_at > 0 && held as u64 >= self.options.full_at {
            return Err(End::Backpressure(WAIT_MILLISECONDS));
        }
        let mut rows: Vec<Asking> = rows.iter().map(Asking::new).collect();
        let failed = self.follow(Call::Add, source, rows.iter().map(Some)).map_err(|ended| ended.end)?;
        let refused: Vec<usize> = failed.iter().map(|failed| failed.index as usize).collect();
        let bytes = usize::try_from(self.options.hoard_bytes_per_row).unwrap_or(usize::MAX);
        for row in &mut rows {
            row.hoard = vec![1; bytes];
        }
        let taken = rows.into_iter().enumerate().map(|(index, row)| (!refused.contains(&index)).then_some(row));
        self.buffers.entry(source.clone()).or_default().extend(taken);
        Ok(failed)
    }

    /// Makes durable what is held of the topic-partition.
    ///
    /// # Errors
    /// See [`End`].
    pub fn flush(&mut self, source: &Source, world: &mut impl World) -> Answer {
        let rows = self.buffers.remove(source).unwrap_or_default();
        self.write(source, &rows.iter().map(Option::as_ref).collect::<Vec<_>>(), world)
    }

    /// Makes rows durable at once.
    ///
    /// # Errors
    /// See [`End`].
    pub fn deliver(&mut self, source: &Source, rows: &[Row], world: &mut impl World) -> Answer {
        let rows: Vec<Asking> = rows.iter().map(Asking::new).collect();
        self.write(source, &rows.iter().map(Some).collect::<Vec<_>>(), world)
    }

    /// Forgets what is held of the topic-partition.
    pub fn discard(&mut self, source: &Source) {
        self.buffers.remove(source);
    }

    fn write(&mut self, source: &Source, rows: &[Option<&Asking>], world: &mut impl World) -> Answer {
        let milliseconds = self.options.milliseconds_per_row.saturating_mul(rows.iter().flatten().count() as u64);
        if milliseconds > 0 {
            world.work(milliseconds, self.options.busy);
        }
        let (failed, up_to, end) = match self.follow(Call::Flush, source, rows.iter().copied()) {
            Ok(failed) => (failed, rows.len(), None),
            Err(Ended { end, index, failed }) if self.options.write_before_fault => (failed, index, Some(end)),
            Err(Ended { end, .. }) => return Err(end),
        };
        let refused: Vec<usize> = failed.iter().map(|failed| failed.index as usize).collect();
        let arrivals: Vec<Arrival> = rows
            .iter()
            .take(up_to)
            .enumerate()
            .filter(|(index, _)| !refused.contains(index))
            .filter_map(|(_, row)| {
                let Asking { offset, ordinal, id, .. } = (*row)?;
                Some(Arrival { id: *id, source: source.clone(), offset: *offset, ordinal: *ordinal })
            })
            .collect();
        if !arrivals.is_empty() {
            world.write(&arrivals).map_err(End::Unavailable)?;
        }
        end.map_or(Ok(failed), Err)
    }

    /// Does what the rows' words for the call say: names rows, or ends it with the first word that ends a call.
    fn follow<'r>(
        &mut self,
        call: Call,
        source: &Source,
        rows: impl Iterator<Item = Option<&'r Asking>>,
    ) -> Result<Vec<Failed>, Ended> {
        let mut failed = Vec::new();
        for (index, row) in rows.enumerate() {
            let Some(row) = row else { continue };
            let word = match call {
                Call::Add => row.add,
                Call::Flush => row.flush,
            };
            let Some(word) = word else { continue };
            let reason = format!("row {} asks for it", row.id);
            let named = |retry| {
                let (index, reason) = (u32::try_from(index).unwrap_or(u32::MAX), reason.clone());
                Failed { index, retry, reason }
            };
            let ended = match word {
                Word::Reject => {
                    failed.push(named(false));
                    continue;
                }
                Word::Retry if self.is_due(call, row, u64::MAX) => {
                    failed.push(named(true));
                    continue;
                }
                Word::RejectCall => End::Reject(reason),
                Word::RejectCallForget => {
                    self.discard(source);
                    End::Reject(reason)
                }
                Word::Trap => End::Trap(reason),
                Word::Spin => End::Spin,
                Word::Unavailable if self.is_due(call, row, 1) => End::Unavailable(reason),
                Word::Backpressure if self.is_due(call, row, 1) => End::Backpressure(WAIT_MILLISECONDS),
                Word::BackpressureWhenHeld if !self.held(source).is_empty() => End::Backpressure(WAIT_MILLISECONDS),
                Word::Retry | Word::Unavailable | Word::Backpressure | Word::BackpressureWhenHeld => continue,
            };
            return Err(Ended { end: ended, index, failed });
        }
        Ok(failed)
    }

    /// Whether the row's word is to be followed once more.
    fn is_due(&mut self, call: Call, row: &Asking, times: u64) -> bool {
        let followed = self.followed.entry((call, row.id)).or_default();
        if *followed >= row.times.unwrap_or(times) {
            return false;
        }
        *followed += 1;
        true
    }
}

/// The call is over before its last row.
struct Ended {
    end: End,
    /// The row that ends it.
    index: usize,
    /// The rows before it that were named.
    failed: Vec<Failed>,
}

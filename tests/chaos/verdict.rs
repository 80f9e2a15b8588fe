//! What the sinks have, held against what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::stamps::{Arrival, Instance, Life};
use super::world::KEYS;

/// Most breaches that are told of one sink.
const TOLD: usize = 10;

/// What one sink has.
///
/// A *lane* is what one instance wrote of one partition in one of its epochs, as it stands in one sequence of the sink: PostgreSQL
/// has one (the audit's ids), the topic one for each of its partitions, the files one for each host, since two processes share no
/// file. Two lanes of one partition and of different processes should follow each other.
///
/// - **zombie write**: of a process that was stopped past its session timeout, behind the beginning of another process' later
///   lane, or between two writes of another process' lane. No host can know that it was stopped until it runs again, and what
///   it had given to a connection is on its way by then.
/// - **late write**: of a process that was not, behind the beginning of a later lane of another one that was not: its partition
///   was taken from it while the write was under way (S47).
/// - **repeated**: an arrival that its own lane has already. A call whose outcome was unknown was made again.
/// - **duplicate**: every other arrival of a record that had arrived before in the sink.
///
/// Files are not comparable across hosts, so that their zombie and late writes count as duplicates.
#[derive(Clone, Debug, Default)]
pub struct SinkVerdict {
    pub sink: &'static str,
    pub arrived: u64,
    pub records: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub zombies: u64,
    pub late: u64,
    pub repeated: u64,
    /// Who wrote zombie and late writes into whose lanes, and how many.
    pub between: BTreeMap<(Life, Life), u64>,
    pub breaches: Vec<String>,
}

/// How strict a sink's sequences are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// A call is never made again by itself.
    Never,
    /// A call of unknown outcome is made again with the same rows, for the sink is idempotent.
    WholeCalls,
    /// Rows that were not written are sent again, each on its own: only rows of one key keep their order.
    Rows,
}

impl Repeats {
    /// What the order of a record is held against: everything of its partition, or of its key.
    fn line(self, n: u32) -> u32 {
        if self == Self::Rows { n % KEYS } else { 0 }
    }
}

/// Where a lane begins and ends in its sequence.
#[derive(Clone, Copy)]
struct Span {
    life: Life,
    begin: usize,
    end: usize,
}

impl Span {
    /// Whether a write of this lane can be behind the beginning of the other one, or in the midst of it.
    fn meets(&self, other: &Self) -> bool {
        self.life != other.life && other.begin < self.end && (other.begin > self.begin || other.end > self.begin)
    }

    /// Whose lane the write at `place` should not have met.
    fn met(&self, others: &[Self], place: usize, stopped: &BTreeSet<Life>) -> Option<Life> {
        let wrong = |other: &&Self| {
            let overtaken = other.begin > self.begin && other.begin < place;
            match (stopped.contains(&self.life), stopped.contains(&other.life)) {
                (true, _) => overtaken || (other.begin < place && place < other.end),
                (false, stopped) => overtaken && !stopped,
            }
        };
        others.iter().find(wrong).map(|other| other.life)
    }
}

type LaneKey = (u16, Instance, u32);

/// The lanes of a sequence, each with those that it meets.
fn lanes(arrivals: &[Arrival]) -> HashMap<LaneKey, (Span, Vec<Span>)> {
    let mut spans: HashMap<LaneKey, Span> = HashMap::new();
    for (place, arrival) in arrivals.iter().enumerate() {
        let Arrival { p, instance, epoch, .. } = *arrival;
        let new = Span { life: instance.life, begin: place, end: place };
        spans.entry((p, instance, epoch)).or_insert(new).end = place;
    }
    let mut partitions: HashMap<u16, Vec<Span>> = HashMap::new();
    for ((p, ..), span) in &spans {
        partitions.entry(*p).or_default().push(*span);
    }
    let met = |(key, span): (LaneKey, Span)| {
        let others = partitions[&key.0].iter().filter(|other| span.meets(other)).copied().collect();
        (key, (span, others))
    };
    spans.into_iter().map(met).collect()
}

/// What is known of one partition while a sequence is read.
#[derive(Default)]
struct Sequence {
    /// The newest number of each lane and line.
    lanes: HashMap<(Instance, u32, u32), u32>,
    /// The newest epoch of each instance.
    epochs: HashMap<Instance, u32>,
    seen: Vec<bool>,
    /// The newest number of each line.
    newest: HashMap<u32, u32>,
}

/// Reads the sequences of one sink. `ends` are the logs' ends by partition, `stopped` the processes that were stopped past
/// their session timeout.
pub fn judge(
    sink: &'static str,
    sequences: &[Vec<Arrival>],
    ends: &[u32],
    stopped: &BTreeSet<Life>,
    repeats: Repeats,
) -> SinkVerdict {
    let mut verdict = SinkVerdict { sink, ..SinkVerdict::default() };
    let mut seen: Vec<Vec<bool>> = ends.iter().map(|&end| vec![false; end as usize]).collect();
    for (number, arrivals) in sequences.iter().enumerate() {
        let mut partitions: HashMap<u16, Sequence> = HashMap::new();
        let lanes = lanes(arrivals);
        for (place, arrival) in arrivals.iter().enumerate() {
            verdict.arrived += 1;
            let Some(known) = seen.get_mut(arrival.p as usize).and_then(|seen| seen.get_mut(arrival.n as usize)) else {
                verdict.breach(number, format!("{arrival} was never written to the source"));
                continue;
            };
            let is_new = !std::mem::replace(known, true);
            let sequence = partitions.entry(arrival.p).or_default();
            let repeated = verdict.follow(number, sequence, arrival, is_new, repeats);
            let (span, others) = &lanes[&(arrival.p, arrival.instance, arrival.epoch)];
            match span.met(others, place, stopped) {
                Some(other) => {
                    *verdict.between.entry((span.life, other)).or_default() += 1;
                    match stopped.contains(&span.life) {
                        true => verdict.zombies += 1,
                        false => verdict.late += 1,
                    }
                }
                None if !is_new && repeated => verdict.repeated += 1,
                None if !is_new => verdict.duplicates += 1,
                None => {}
            }
        }
    }
    for (partition, seen) in seen.iter().enumerate() {
        let missing: Vec<usize> = (0..seen.len()).filter(|&number| !seen[number]).collect();
        verdict.records += (seen.len() - missing.len()) as u64;
        verdict.lost += missing.len() as u64;
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let text = format!("lost {} records of partition {partition}, from {first} to {last}", missing.len());
            verdict.breaches.push(text);
        }
    }
    verdict
}

impl SinkVerdict {
    fn breach(&mut self, sequence: usize, what: String) {
        self.breaches.push(format!("sequence {sequence}: {what}"));
    }

    /// Looks at the order in which one partition's records arrive. Answers whether the lane has the record already.
    fn follow(
        &mut self,
        number: usize,
        sequence: &mut Sequence,
        arrival: &Arrival,
        is_new: bool,
        repeats: Repeats,
    ) -> bool {
        let Arrival { n, instance, epoch, .. } = *arrival;
        let line = repeats.line(n);
        let newest_epoch = sequence.epochs.entry(instance).or_insert(epoch);
        if *newest_epoch > epoch {
            self.breach(number, format!("{arrival} came behind a later epoch of the same instance"));
        } else {
            *newest_epoch = epoch;
        }
        let newest = sequence.lanes.insert((instance, epoch, line), n);
        let repeated = newest.is_some_and(|newest| n <= newest);
        if let Some(newest) = newest.filter(|_| repeated) {
            sequence.lanes.insert((instance, epoch, line), newest);
            if repeats == Repeats::Never || is_new {
                self.breach(number, format!("{arrival} came behind {newest} of the same lane"));
            }
        }
        // First occurrences in this sequence: a file has only its own host's part of them.
        let place = n as usize;
        if sequence.seen.len() <= place {
            sequence.seen.resize(place + 1, false);
        }
        if !std::mem::replace(&mut sequence.seen[place], true) {
            let newest = sequence.newest.entry(line).or_insert(n);
            if *newest > n {
                let newest = *newest;
                self.breach(number, format!("{arrival} came for the first time behind {newest}"));
            } else {
                *newest = n;
            }
        }
        repeated
    }

    /// Whether nothing is lost and all stands in order.
    pub fn is_good(&self) -> bool {
        self.breaches.is_empty() && self.lost == 0
    }

    /// The table's head.
    pub fn head() -> String {
        format!(
            "{:<10} {:>10} {:>10} {:>6} {:>11} {:>9} {:>7} {:>6}  {}",
            "sink", "arrived", "records", "lost", "duplicates", "repeated", "zombie", "late", "order"
        )
    }
}

impl fmt::Display for SinkVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sink, arrived, records, lost, duplicates, repeated, zombies, late, between, breaches } = self;
        let order = if breaches.is_empty() { "kept" } else { "BROKEN" };
        write!(
            f,
            "{sink:<10} {arrived:>10} {records:>10} {lost:>6} {duplicates:>11} {repeated:>9} {zombies:>7} {late:>6}  {order}"
        )?;
        for ((life, other), count) in between.iter().take(TOLD) {
            write!(f, "\n  {sink}: {count} of {life} met those of {other}")?;
        }
        for breach in breaches.iter().take(TOLD) {
            write!(f, "\n  {sink}: {breach}")?;
        }
        if breaches.len() > TOLD {
            write!(f, "\n  {sink}: and {} more", breaches.len() - TOLD)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(host: u16) -> Life {
        Life { host, number: 0 }
    }

    /// What one host writes in one epoch.
    fn wrote(host: u16, epoch: u32, numbers: impl IntoIterator<Item = u32>) -> Vec<Arrival> {
        let instance = Instance { life: life(host), nonce: 7 };
        numbers.into_iter().map(|n| Arrival { p: 0, n, instance, epoch }).collect()
    }

    fn of(parts: &[Vec<Arrival>], stopped: &[u16]) -> SinkVerdict {
        let stopped = stopped.iter().map(|&host| life(host)).collect();
        judge("test", &[parts.concat()], &[10], &stopped, Repeats::Never)
    }

    #[test]
    fn each_kind_of_arrival_is_counted_as_what_it_is() {
        let taken_over = [wrote(0, 0, 0..6), wrote(1, 0, 4..8)];
        let good = of(&[taken_over.concat(), wrote(1, 0, 8..10)], &[0]);
        assert!(good.is_good(), "{good}");
        assert_eq!((good.duplicates, good.zombies, good.late), (2, 0, 0));
        let zombie = [taken_over.concat(), wrote(0, 0, 6..7), wrote(1, 0, 8..10)];
        let counts = |verdict: SinkVerdict| (verdict.is_good(), verdict.duplicates, verdict.zombies, verdict.late);
        assert_eq!(counts(of(&zombie, &[0])), (true, 2, 1, 0));
        assert_eq!(counts(of(&zombie, &[])), (true, 2, 0, 1));
        // A stopped host that starts over in the midst of another one's lane.
        let midst = [taken_over.concat(), wrote(0, 1, 5..8), wrote(1, 0, 8..10)];
        assert_eq!(counts(of(&midst, &[0])), (true, 2, 3, 0));
        // A host that got its partition back writes under a new epoch.
        let back = [taken_over.concat(), wrote(0, 1, 8..10)];
        assert_eq!(counts(of(&back, &[0])), (true, 2, 0, 0));
    }

    #[test]
    fn rows_that_are_sent_again_keep_the_order_of_their_key() {
        let of_rows = |numbers: Vec<u32>| {
            let end = numbers.iter().max().unwrap() + 1;
            judge("test", &[wrote(0, 0, numbers)], &[end], &BTreeSet::new(), Repeats::Rows)
        };
        let rest = |without: u32| (0..=KEYS + 1).filter(|n| *n != without).collect::<Vec<_>>();
        let overtaken = of_rows([vec![1], rest(1)].concat());
        assert!(overtaken.is_good(), "{overtaken}");
        let broken = of_rows([rest(1), vec![1]].concat());
        assert!(!broken.is_good() && broken.to_string().contains("[0]@1 of h0-0"), "{broken}");
    }

    #[test]
    fn each_breach_is_found() {
        let breach = |parts: &[Vec<Arrival>], words: &str| {
            let verdict = of(parts, &[]);
            assert!(!verdict.is_good() && verdict.to_string().contains(words), "{verdict}");
        };
        breach(&[wrote(0, 0, 0..9)], "lost 1 records of partition 0, from 9 to 9");
        breach(&[wrote(0, 0, 0..11)], "never written to the source");
        breach(&[wrote(0, 0, 0..10), wrote(0, 0, 3..4)], "[0]@3 of h0-0 (instance 00000007, epoch 0) came behind 9");
        breach(&[wrote(0, 1, 0..10), wrote(0, 0, 3..4)], "behind a later epoch");
        breach(&[wrote(0, 0, 0..4), wrote(0, 1, 5..10), wrote(0, 2, 4..5)], "for the first time behind 9");
    }
}

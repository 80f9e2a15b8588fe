//! What has arrived in each sink, read little by little; and the check that nothing was committed before.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset as Position, TopicPartitionList};

use super::stamps::{Arrival, Instance, Life};
use super::support::servers::Postgres;

/// How long the brokers may take to show what they have.
const PATIENCE: Duration = Duration::from_secs(60);
/// A record that was acknowledged by all replicas is not shown yet for a moment after its broker was lost.
const SHOWN_PATIENCE: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);

/// How a sink writes the lines of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A payload.
    Json,
    /// A payload as the only field of a CSV row, below a line of column names.
    Csv,
}

impl Format {
    /// The payload in a line, or `None` for the line of column names.
    fn payload(self, line: &[u8]) -> Option<Cow<'_, [u8]>> {
        match (self, line) {
            (Self::Csv, b"value") => None,
            (Self::Csv, [b'"', quoted @ .., b'"']) => {
                Some(Cow::Owned(String::from_utf8_lossy(quoted).replace("\"\"", "\"").into_bytes()))
            }
            _ => Some(Cow::Borrowed(line)),
        }
    }
}

/// The files of one sink of all hosts, read as they grow. No two hosts write to the same one.
pub struct Files {
    pub sink: &'static str,
    format: Format,
    paths: Vec<PathBuf>,
    read: Vec<u64>,
    keys: u32,
    /// One sequence for each file.
    pub arrivals: Vec<Vec<Arrival>>,
    /// Lines that were cut off.
    pub cut: usize,
}

impl Files {
    pub fn new(sink: &'static str, format: Format, paths: Vec<PathBuf>, keys: u32) -> Self {
        let count = paths.len();
        Self { sink, format, read: vec![0; count], arrivals: vec![Vec::new(); count], paths, keys, cut: 0 }
    }

    /// Reads the lines that are new. One that does not end yet is left for the next time.
    pub fn update(&mut self) {
        for (number, path) in self.paths.iter().enumerate() {
            let Ok(mut file) = File::open(path) else { continue };
            file.seek(SeekFrom::Start(self.read[number])).unwrap();
            let mut text = Vec::new();
            file.read_to_end(&mut text).unwrap();
            let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            self.read[number] += whole as u64;
            for line in text[..whole].split_inclusive(|&byte| byte == b'\n') {
                let Some(payload) = self.format.payload(&line[..line.len() - 1]) else { continue };
                match Arrival::parse(&payload, self.keys) {
                    Ok(arrival) => self.arrivals[number].push(arrival),
                    Err(_) => self.cut += 1,
                }
            }
        }
    }
}

/// The topic of results, read as it grows: one sequence for each of its partitions.
pub struct Results {
    consumer: BaseConsumer,
    topic: String,
    next: Vec<i64>,
    keys: u32,
    pub arrivals: Vec<Vec<Arrival>>,
}

impl Results {
    pub fn new(consumer: BaseConsumer, topic: &str, partitions: i32, keys: u32) -> Self {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Position::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let count = usize::try_from(partitions).unwrap();
        Self { consumer, topic: topic.to_owned(), next: vec![0; count], keys, arrivals: vec![Vec::new(); count] }
    }

    /// Reads up to where the partitions end now.
    ///
    /// # Errors
    /// When the brokers do not show it in time, or show what is no payload.
    pub fn update(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let ends = ends(&self.consumer, &self.topic, self.next.len())?;
        while self.next.iter().zip(&ends).any(|(next, end)| next < end) {
            match self.consumer.poll(LOOK) {
                Some(Ok(record)) => {
                    let partition = usize::try_from(record.partition()).unwrap();
                    self.arrivals[partition].push(Arrival::parse(record.payload().unwrap_or_default(), self.keys)?);
                    self.next[partition] = record.offset() + 1;
                }
                Some(Err(_)) | None if started.elapsed() < PATIENCE => {}
                Some(Err(error)) => return Err(format!("`{}` cannot be read: {error}", self.topic)),
                None => return Err(format!("`{}` shows {:?} instead of {ends:?}", self.topic, self.next)),
            }
        }
        Ok(())
    }
}

/// The ends of a topic's partitions.
///
/// # Errors
/// When the brokers do not answer in time.
pub fn ends(consumer: &BaseConsumer, topic: &str, partitions: usize) -> Result<Vec<i64>, String> {
    let started = Instant::now();
    let mut ends = Vec::new();
    while ends.len() < partitions {
        let partition = i32::try_from(ends.len()).unwrap();
        match consumer.fetch_watermarks(topic, partition, ANSWER) {
            Ok((_, high)) => ends.push(high),
            Err(error) if started.elapsed() > PATIENCE => {
                return Err(format!("nobody tells where `{topic}[{partition}]` ends: {error}"));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
    Ok(ends)
}

/// What a group has committed, 0 where it has not.
///
/// # Errors
/// When the brokers do not answer in time.
pub fn committed(consumer: &BaseConsumer, topic: &str, partitions: usize) -> Result<Vec<u32>, String> {
    let started = Instant::now();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, i32::try_from(partition).unwrap());
    }
    loop {
        match consumer.committed_offsets(list.clone(), ANSWER) {
            Ok(found) if found.elements().iter().all(|element| element.error().is_ok()) => {
                let offset = |partition| found.find_partition(topic, partition).map(|element| element.offset());
                let offsets = (0..partitions).map(|partition| match offset(i32::try_from(partition).unwrap()) {
                    Some(Position::Offset(offset)) => u32::try_from(offset).unwrap(),
                    _ => 0,
                });
                return Ok(offsets.collect());
            }
            Ok(_) => {}
            Err(error) if started.elapsed() > PATIENCE => {
                return Err(format!("nobody tells what is committed: {error}"));
            }
            Err(_) => {}
        }
        std::thread::sleep(LOOK);
    }
}

/// Everything that has arrived, and how far it was held against what is committed.
pub struct Arrivals {
    pub files: Vec<Files>,
    pub results: Results,
    /// Below these nothing is missing, in any sink.
    checked: Vec<u32>,
}

impl Arrivals {
    pub fn new(files: Vec<Files>, results: Results, partitions: usize) -> Self {
        Self { files, results, checked: vec![0; partitions] }
    }

    /// Every record below what is committed has to be in every sink. `committed` was asked for before this call.
    ///
    /// # Errors
    /// The records that are not, or why that cannot be told.
    pub fn check(&mut self, committed: &[u32], postgres: &Postgres, database: &str) -> Result<(), String> {
        for (partition, (now, before)) in committed.iter().zip(&self.checked).enumerate() {
            if now < before {
                return Err(format!("partition {partition} was committed at {before}, and now at {now}"));
            }
        }
        let mut told = Vec::new();
        self.files.iter_mut().for_each(Files::update);
        told.extend(self.files.iter().filter_map(|files| self.missing(files.sink, &files.arrivals, committed)));
        told.extend(self.missing_rows(committed, postgres, database));
        let started = Instant::now();
        loop {
            self.results.update()?;
            let missing = self.missing("kafka", &self.results.arrivals, committed);
            if missing.is_none() || started.elapsed() > SHOWN_PATIENCE {
                told.extend(missing);
                break;
            }
            std::thread::sleep(LOOK);
        }
        if !told.is_empty() {
            return Err(told.join("\n"));
        }
        self.checked = committed.to_vec();
        Ok(())
    }

    fn missing(&self, sink: &str, sequences: &[Vec<Arrival>], committed: &[u32]) -> Option<String> {
        let mut open: Vec<Vec<bool>> = committed
            .iter()
            .zip(&self.checked)
            .map(|(now, before)| vec![true; now.saturating_sub(*before) as usize])
            .collect();
        for arrival in sequences.iter().flatten() {
            let before = self.checked.get(arrival.p as usize);
            let place = before.and_then(|before| arrival.n.checked_sub(*before)).map(|place| place as usize);
            if let Some(place) = place.and_then(|place| open.get_mut(arrival.p as usize)?.get_mut(place)) {
                *place = false;
            }
        }
        let missing = open.iter().zip(&self.checked).enumerate().flat_map(|(partition, (open, before))| {
            let places = open.iter().zip(*before..).filter(|(open, _)| **open);
            places.map(move |(_, number)| (partition, number))
        });
        told(sink, missing.collect(), committed)
    }

    fn missing_rows(&self, committed: &[u32], postgres: &Postgres, database: &str) -> Option<String> {
        let ranges: Vec<String> = committed
            .iter()
            .zip(&self.checked)
            .enumerate()
            .map(|(partition, (now, before))| format!("({partition}, {before}, {now} - 1)"))
            .collect();
        let sql = format!(
            "WITH committed(p, low, high) AS (VALUES {})
             SELECT p, n FROM committed, generate_series(low, high) AS n
             EXCEPT SELECT a.p, a.n FROM audit a JOIN committed c ON a.p = c.p AND a.n BETWEEN c.low AND c.high
             ORDER BY 1, 2",
            ranges.join(", ")
        );
        let rows = postgres.psql(database, &sql);
        let places = rows.lines().map(|row| {
            let (partition, number) = row.split_once('|').unwrap();
            (partition.parse().unwrap(), number.parse().unwrap())
        });
        told("postgres", places.collect(), committed)
    }
}

/// Names the first records that are missing.
fn told(sink: &str, missing: Vec<(usize, u32)>, committed: &[u32]) -> Option<String> {
    let (partition, number) = *missing.first()?;
    Some(format!(
        "{sink}: {} records are committed and have not arrived, the first is [{partition}]@{number}, committed {}: {:?}",
        missing.len(),
        committed[partition],
        &missing[..missing.len().min(20)]
    ))
}

/// What the audit has, in the order of its ids.
pub fn audited(postgres: &Postgres, database: &str) -> Vec<Arrival> {
    let rows = postgres.psql(database, "SELECT p, n, host, nonce, epoch FROM audit ORDER BY id");
    let arrival = |row: &str| -> Option<Arrival> {
        let mut columns = row.split('|');
        let (p, n) = (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?);
        let life = Life::parse(columns.next()?)?;
        let (nonce, epoch) = (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?);
        Some(Arrival { p, n, instance: Instance { life, nonce }, epoch })
    };
    rows.lines().map(|row| arrival(row).unwrap_or_else(|| panic!("a row of the audit: `{row}`"))).collect()
}

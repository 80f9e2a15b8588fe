//! What has arrived, held against what was written.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::cases::{Case, Scene};
use super::topics::{ID_DIGITS, ID_PREFIX};

/// How many of the records did not arrive, and how many arrivals were of records that had arrived already.
pub struct Rows {
    pub missing: u64,
    pub repeated: u64,
}

/// Reads the files of a case. `results` is how many records the topic holds that it writes to as well.
pub fn count(scene: &Scene, records: u64, results: u64) -> Rows {
    let mut seen = Seen { places: vec![false; usize::try_from(records).unwrap()], arrived: 0, repeated: 0 };
    let folder = if scene.case == Case::Files { scene.files() } else { scene.rows() };
    let number = |line: &str| match scene.case {
        Case::Contract => by_coordinates(line, scene.partitions),
        _ => by_id(line),
    };
    for file in fs::read_dir(folder).unwrap() {
        seen.read(&file.unwrap().path(), number);
    }
    let mut missing = records - seen.arrived;
    if !scene.results.is_empty() {
        missing = missing.max(records.saturating_sub(results));
    }
    Rows { missing, repeated: seen.repeated }
}

struct Seen {
    places: Vec<bool>,
    arrived: u64,
    repeated: u64,
}

impl Seen {
    fn read(&mut self, path: &Path, number: impl Fn(&str) -> Option<u64>) {
        for line in BufReader::new(File::open(path).unwrap()).lines() {
            let line = line.unwrap();
            // The other lines are the names of columns.
            let Some(number) = number(&line) else { continue };
            let place = self.places.get_mut(usize::try_from(number).unwrap());
            let place = place.unwrap_or_else(|| panic!("this was never written: `{line}`"));
            match std::mem::replace(place, true) {
                false => self.arrived += 1,
                true => self.repeated += 1,
            }
        }
    }
}

/// The number in the first id of a line.
fn by_id(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(ID_PREFIX)?;
    rest.get(..ID_DIGITS)?.parse().ok()
}

/// The number of the record at the place that a line names; see [`super::topics::fill`].
fn by_coordinates(line: &str, partitions: i32) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        let (_, rest) = line.split_once(name)?;
        rest.split([',', '}']).next()?.parse().ok()
    };
    Some(field("\"offset\":")? * u64::try_from(partitions).ok()? + field("\"partition\":")?)
}

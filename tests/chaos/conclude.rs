//! The verdict over a run: what every sink has, held against what was written.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset as Position, TopicPartitionList};

use super::arrivals::{Files, audited, ends};
use super::dead_letters::dead_letters;
use super::plan::Course;
use super::stamps::key;
use super::support::servers::Postgres;
use super::verdict::{Repeats, SinkVerdict, judge};
use super::world::{KEYS, PARTITIONS, SOURCE, World};

/// What the end of a run takes at most, once everything is committed, and how many records it reads in a second beyond that.
const LAST_WORDS: Duration = Duration::from_secs(30);
const READ_A_SECOND: u64 = 30_000;

/// Reads everything once more, from its beginning, and judges it. `faults` says what happened meanwhile.
///
/// # Errors
/// The same with everything that is not as it should be.
pub fn conclude(world: &World, ends: &[u32], faults: &str) -> Result<String, String> {
    let started = Instant::now();
    log_is_as_written(world, ends)?;
    let postgres = world.postgres.read().unwrap();
    let mut arrivals = world.arrivals.lock().unwrap();
    arrivals.files.iter_mut().for_each(Files::update);
    arrivals.results.update()?;
    let stopped = world.stopped.lock().unwrap().clone();
    let rows = [audited(&postgres, &world.database)];
    let mut verdicts = vec![
        judge("postgres", &rows, ends, &stopped, Repeats::Rows),
        judge("kafka", &arrivals.results.arrivals, ends, &stopped, Repeats::Rows),
    ];
    verdicts.extend(arrivals.files.iter().map(|files| {
        let repeats = if files.sink == "filesystem" { Repeats::Never } else { Repeats::WholeCalls };
        judge(files.sink, &files.arrivals, ends, &stopped, repeats)
    }));
    let lives: Vec<u16> = world.hosts.iter().map(|host| host.lock().unwrap().lives()).collect();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} records in {:.0?}, {faults}, hosts of {lives:?} lives",
        ends.iter().map(|&end| u64::from(end)).sum::<u64>(),
        world.started.elapsed(),
    );
    let told = |word| world.hosts.iter().map(|host| host.lock().unwrap().told(word).len()).sum::<usize>();
    let _ = writeln!(
        text,
        "{} assignments of a partition, {} revocations, {} losses, {} rewinds, {} lives stopped past their session",
        told(": assigned partition="),
        told("lost=false"),
        told("lost=true"),
        told("starting over from the watermark"),
        stopped.len(),
    );
    let _ = writeln!(text, "{}", SinkVerdict::head());
    verdicts.iter().for_each(|verdict| {
        let _ = writeln!(text, "{verdict}");
    });
    let mut wrong: Vec<String> = Vec::new();
    if !verdicts.iter().all(SinkVerdict::is_good) {
        wrong.push("a sink does not have what it should".into());
    }
    // The guard leaves the newest row of every key, whoever wrote last.
    wrong.extend(newest_rows(&postgres, &world.database, ends));
    if world.size.course == Course::Faults {
        match world.redis.lock().unwrap().judge(ends, &stopped) {
            Ok(told) => drop(writeln!(text, "{told}")),
            Err(why) => wrong.push(why),
        }
    }
    match dead_letters(world) {
        Ok(count) => {
            let traps = told("at random, behind");
            let _ = writeln!(text, "{traps} lines about traps at random, {count} dead letters");
            if traps == 0 && world.size.course == Course::Faults {
                wrong.push("no plugin has trapped, so that nothing is shown about that".into());
            }
        }
        Err(why) => wrong.push(why),
    }
    // At most one line in each sink is under way when a life ends.
    let most = lives.iter().map(|&lives| usize::from(lives)).sum::<usize>();
    for files in arrivals.files.iter().filter(|files| files.cut > most) {
        wrong.push(format!("{}: {} lines are cut off", files.sink, files.cut));
    }
    for host in &world.hosts {
        wrong.extend(host.lock().unwrap().told("panicked"));
    }
    if started.elapsed() > LAST_WORDS + Duration::from_secs(world.size.records / READ_A_SECOND) {
        wrong.push(format!("the verdict took {:?}", started.elapsed()));
    }
    if wrong.is_empty() { Ok(text) } else { Err(format!("{text}{}", wrong.join("\n"))) }
}

/// The feed's own promise: a record's number is its offset.
fn log_is_as_written(world: &World, expected: &[u32]) -> Result<(), String> {
    let found = ends(&world.onlooker, SOURCE, PARTITIONS)?;
    let wanted: Vec<i64> = expected.iter().map(|&end| i64::from(end)).collect();
    if found != wanted {
        return Err(format!("the source ends at {found:?}, and {wanted:?} was written"));
    }
    let consumer: BaseConsumer = world.cluster.client().set("group.id", "reader").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(SOURCE, i32::try_from(partition).unwrap(), Position::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    for _ in 0..wanted.iter().sum::<i64>() {
        let record = next(&consumer)?;
        let (p, n) = (record.partition(), record.offset());
        let key = key(u16::try_from(p).unwrap(), u32::try_from(n).unwrap(), KEYS);
        let value = format!(r#"{{"p":{p},"n":{n},"k":"{key}"}}"#);
        if record.payload() != Some(value.as_bytes()) {
            return Err(format!("the source has another record at [{p}]@{n} than {value}"));
        }
    }
    Ok(())
}

/// The next record. A poll may end with nothing long before its time is over.
fn next(consumer: &BaseConsumer) -> Result<BorrowedMessage<'_>, String> {
    let asked = Instant::now();
    while asked.elapsed() < LAST_WORDS {
        if let Some(record) = consumer.poll(LAST_WORDS) {
            return record.map_err(|error| error.to_string());
        }
    }
    Err("the source cannot be read".into())
}

/// Each key's row has to be that of its newest record.
fn newest_rows(postgres: &Postgres, database: &str, ends: &[u32]) -> Vec<String> {
    let rows = postgres.psql(database, "SELECT k, n FROM latest");
    let found: std::collections::HashMap<&str, u32> = rows
        .lines()
        .filter_map(|row| row.split_once('|').map(|(key, number)| (key, number.parse().unwrap())))
        .collect();
    let mut wrong = Vec::new();
    for (p, &end) in ends.iter().enumerate() {
        for n in end.saturating_sub(KEYS)..end {
            let key = key(u16::try_from(p).unwrap(), n, KEYS);
            if found.get(key.as_str()) != Some(&n) {
                wrong.push(format!(
                    "S76a: PostgreSQL has {:?} under `{key}`, whose newest is {n}",
                    found.get(key.as_str())
                ));
            }
        }
    }
    wrong.truncate(20);
    wrong
}

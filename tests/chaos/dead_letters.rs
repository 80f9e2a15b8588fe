//! The dead letter topic, in which there must be nothing: no record is bad, and no outage or trap is a record's fault.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset as Position, TopicPartitionList};

use super::arrivals::ends;
use super::world::{DEAD_LETTERS, World};

const PATIENCE: Duration = Duration::from_secs(60);
/// How many dead letters are shown.
const SHOWN: usize = 5;

/// How many dead letters there are: none.
///
/// # Errors
/// The dead letters that there are, or why that cannot be told.
pub fn dead_letters(world: &World) -> Result<i64, String> {
    let metadata = world.onlooker.fetch_metadata(Some(DEAD_LETTERS), PATIENCE).map_err(|error| error.to_string())?;
    let partitions = metadata.topics().iter().map(|topic| topic.partitions().len()).sum();
    let ends = ends(&world.onlooker, DEAD_LETTERS, partitions)?;
    let count: i64 = ends.iter().sum();
    if count == 0 {
        return Ok(0);
    }
    let shown = shown(world, &ends)?;
    let told: Vec<String> = world.hosts.iter().flat_map(|host| host.lock().unwrap().told("dead-lettered")).collect();
    Err(format!("{count} dead letters, {ends:?}\n{}\n{}", shown.join("\n"), told.join("\n")))
}

/// The first dead letters.
fn shown(world: &World, ends: &[i64]) -> Result<Vec<String>, String> {
    let consumer: BaseConsumer = world.cluster.client().set("group.id", "dead-letters").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..ends.len() {
        let partition = i32::try_from(partition).unwrap();
        list.add_partition_offset(DEAD_LETTERS, partition, Position::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let count = usize::try_from(ends.iter().sum::<i64>()).unwrap();
    let letters = (0..count.min(SHOWN)).map(|_| {
        let record =
            consumer.poll(PATIENCE).ok_or("the dead letters cannot be read")?.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned())
    });
    letters.collect()
}

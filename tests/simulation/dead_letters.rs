//! The dead letter queue: fails as the dice say, and holds every letter against what the calls said of its row.

use std::time::Duration;

use async_trait::async_trait;
use tidegate::model::Fault;
use tidegate::pipeline::dlq::{DeadLetters, Letter};
use tokio::time::Instant;

use super::call::{Call, Host};
use super::draw::fault;
use super::group::Standing;
use super::payload;
use super::sinks::partition;
use super::world::{SINKS, World, lock};

pub struct Queue {
    pub host: Host,
}

#[async_trait]
impl DeadLetters for Queue {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        let Some(first) = letters.first() else { return Ok(()) };
        let claim = self.host.call(Call::DeadLetter, partition(&first.source), 0).await;
        let mut world = lock(&self.host.world);
        let now = Instant::now();
        if world.chance(|weights| weights.dlq_outage) {
            let down = now + Duration::from_secs(world.random.u64(10..600));
            world.dlq_down_until = world.dlq_down_until.max(Some(down));
        }
        if !world.calm && world.dlq_down_until.is_some_and(|until| until > now) {
            world.mark("dead letter queue down for long");
            return Err(fault("dead letter queue down"));
        }
        let failed = world.chance(|weights| weights.dlq_fault);
        // A part may have been written all the same.
        let written = if failed { world.random.usize(0..=letters.len()) } else { letters.len() };
        for letter in &letters[..written] {
            let at = partition(&letter.source);
            if !matches!(world.claims[claim].standing, Standing::Held | Standing::Leaving | Standing::Fenced) {
                world.violate(format!("a dead letter was written for a partition that is not ours: [{at}]"));
            }
            world.dead_letter(self.host.member, at, letter);
        }
        if failed {
            world.mark("dead letter queue failed");
            return Err(fault("dead letters lost on their way"));
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self) {}
}

impl World {
    fn dead_letter(&mut self, member: usize, at: usize, letter: &Letter) {
        let name = format!("{}/{}", letter.sink_type, letter.sink_name);
        let sink = SINKS.iter().position(|sink| *sink == name);
        self.note(format!("dead letter of {name} [{at}]@{}: {}", letter.offset, letter.error));
        let wrong = if let Some(sink) = sink {
            self.mark("payload dead-lettered");
            let Some((window, ordinal)) = letter.payloads.first().and_then(|text| payload::of_letter(text)) else {
                self.violate(format!("[{at}]@{}: a dead letter without its payload", letter.offset));
                return;
            };
            let row = (sink, at, letter.offset, window, ordinal);
            self.dead_rows.insert(row);
            if self.may_be_an_outage(member, row)
                && self.members[member].on_error[sink].is_none()
                && !self.delivery_hook
            {
                self.mark("dead letter that an outage may have cost");
            }
            self.wrongly_blamed(member, row)
        } else {
            self.mark("record dead-lettered");
            self.dead_records.insert((at, letter.offset));
            self.record_wrongly_blamed(member, at, letter.offset)
        };
        if self.is_chosen(sink, at, letter.offset) {
            self.mark("chosen row dead-lettered");
        }
        if let Some(wrong) = wrong {
            self.violate(format!("{name} [{at}]@{} was dead-lettered: {wrong}", letter.offset));
        }
        if self.weights.is_patient() && !self.calm {
            self.violate(format!("[{at}]@{} was dead-lettered where only patience was asked for", letter.offset));
        }
    }
}

//! Destinations that cannot be reached for a while, whatever the rows are.

use std::time::Duration;

use tidegate::model::{CallError, Fault};
use tokio::time::Instant;

use super::stage::Stage;
use super::world::World;

/// How an outage shows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Unavailable,
    Unknown,
    Timeout,
}

#[derive(Clone, Copy, Debug)]
pub struct Outage {
    until: Instant,
    shape: Shape,
}

impl World {
    /// What every call of that stage answers while its outage lasts.
    pub fn outage(&mut self, stage: Stage) -> Option<CallError> {
        if self.calm {
            return None;
        }
        let now = Instant::now();
        if self.chance(|weights| weights.outage) {
            let longest = [2_000, 30_000, 600_000][self.random.usize(0..3)];
            let until = now + Duration::from_millis(self.random.u64(1..=longest));
            let shape = if self.chance(|weights| weights.outage_unknown) {
                [Shape::Unknown, Shape::Timeout][self.random.usize(0..2)]
            } else {
                Shape::Unavailable
            };
            self.note(format!("outage of {stage:?}: {shape:?}"));
            self.mark(format!("outage in {}", stage.name()));
            self.outages.insert(stage, Outage { until, shape });
        }
        let outage = self.outages.get(&stage).copied().filter(|outage| outage.until > now)?;
        let fault = Fault::destination("simulated: outage");
        Some(match outage.shape {
            Shape::Unavailable => CallError::Unavailable(fault),
            Shape::Unknown => CallError::Unknown(fault),
            Shape::Timeout => CallError::Timeout(fault),
        })
    }
}

//! Rows on which a call fails whenever it contains them, chosen once for each seed.

use std::collections::BTreeMap;

use tidegate::model::Offset;

use super::stage::Stage;
use super::weights::Weights;
use super::world::{Log, World};

/// What a row does to the call that contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    Traps,
    /// The guest runs until its deadline.
    NeverReturns,
    /// The call is rejected as a whole.
    RejectsCall,
    /// The row takes longer than the call may.
    TimesOut,
    /// The destination answers an internal error.
    Breaks,
}

impl Flaw {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traps => "trapped",
            Self::NeverReturns => "never returned",
            Self::RejectsCall => "rejected its call",
            Self::TimesOut => "timed out",
            Self::Breaks => "met an internal error",
        }
    }

    /// Those that can be met in that call.
    pub const fn of(stage: Stage) -> &'static [Self] {
        const GUEST: [Flaw; 4] = [Flaw::Traps, Flaw::NeverReturns, Flaw::RejectsCall, Flaw::TimesOut];
        const DESTINATION: [Flaw; 5] =
            [Flaw::Traps, Flaw::NeverReturns, Flaw::RejectsCall, Flaw::TimesOut, Flaw::Breaks];
        match stage {
            Stage::Deliver(_) => &DESTINATION,
            Stage::Collect | Stage::Add | Stage::Flush => &GUEST,
        }
    }
}

/// The chosen rows. All payloads that their record yields for the sink have the flaw, those of the window hook have
/// none.
#[derive(Clone, Debug, Default)]
pub struct Flaws {
    pub rows: BTreeMap<(Stage, usize, Offset), Flaw>,
    /// Whether they stay as they are when everything else has stopped failing.
    pub lasting: bool,
}

impl Flaws {
    /// The last record of a partition is never chosen: where nothing passes, the plugin is blamed and no row.
    pub fn draw(random: &mut fastrand::Rng, weights: &Weights, logs: &[Log]) -> Self {
        let mut rows = BTreeMap::new();
        for (partition, log) in logs.iter().enumerate() {
            let Some((_, candidates)) = log.offsets.split_last() else { continue };
            for &offset in candidates {
                for stage in Stage::ALL {
                    if random.f64() < weights.flaw(stage) {
                        let flaws = Flaw::of(stage);
                        rows.insert((stage, partition, offset), flaws[random.usize(0..flaws.len())]);
                    }
                }
            }
        }
        Self { rows, lasting: random.bool() }
    }
}

impl World {
    /// What the row does to a call of `stage`.
    pub fn flaw(&self, stage: Stage, partition: usize, offset: Offset) -> Option<Flaw> {
        let flaw = self.flaws.rows.get(&(stage, partition, offset)).copied();
        flaw.filter(|_| !self.calm || self.flaws.lasting)
    }

    /// Whether the row has a flaw in any call of that sink, or of the collector.
    pub fn is_chosen(&self, sink: Option<usize>, partition: usize, offset: Offset) -> bool {
        let of_sink = |stage: &Stage| stage.sink() == sink;
        Stage::ALL
            .iter()
            .filter(|stage| of_sink(stage))
            .any(|stage| self.flaws.rows.contains_key(&(*stage, partition, offset)))
    }
}

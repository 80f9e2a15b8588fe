//! How likely each kind of fault is in one run; a swarm: many are off, some are frequent.

use super::stage::Stage;

/// Shares between 0 and 1. Those of the group are weighed against each other when a fault is due at an await point.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    pub row_reject: f64,
    pub row_retry: f64,
    pub row_unavailable: f64,
    pub row_backpressure: f64,
    /// Of the calls with failed rows, those whose other rows were not tried.
    pub row_not_tried: f64,
    pub call_unknown: f64,
    pub call_unavailable: f64,
    pub call_reject: f64,
    pub call_timeout: f64,
    pub call_limit: f64,
    pub trap: f64,
    pub backpressure: f64,
    /// Of the calls, those with which an outage begins.
    pub outage: f64,
    /// Of the outages, those that do not say what they are.
    pub outage_unknown: f64,
    /// Of the rows, those on which a call fails whenever it contains them.
    pub flaw_collect: f64,
    pub flaw_deliver: f64,
    pub flaw_add: f64,
    pub flaw_flush: f64,
    /// How often a destination or plugin is too slow for large calls, a guest has limits, and a buffer fills.
    pub slow_destination: f64,
    pub limits: f64,
    pub full: f64,
    pub slow: f64,
    pub glacial: f64,
    pub hang: f64,
    pub collect_fault: f64,
    pub window_fault: f64,
    pub sync_fault: f64,
    pub dlq_fault: f64,
    pub dlq_outage: f64,
    pub commit_fault: f64,
    pub seek_fault: f64,
    pub seek_lie: f64,
    pub wall_jump: f64,
    /// Moves between members that no fault asks for.
    pub balance: f64,
    pub revoke: f64,
    pub lose: f64,
    pub crash: f64,
    pub stop: f64,
    pub suspend: f64,
    pub time_jump: f64,
}

impl Weights {
    pub fn swarm(random: &mut fastrand::Rng) -> Self {
        let mut weight = |often: f64| match random.u8(0..4) {
            0 | 1 => 0.0,
            2 => often / 8.0,
            _ => often,
        };
        let mut weights = Self {
            row_reject: weight(0.1),
            row_retry: weight(0.15),
            row_unavailable: weight(0.1),
            row_backpressure: weight(0.1),
            row_not_tried: weight(0.5),
            call_unknown: weight(0.2),
            call_unavailable: weight(0.2),
            call_reject: weight(0.15),
            call_timeout: weight(0.1),
            call_limit: weight(0.1),
            trap: weight(0.15),
            backpressure: weight(0.3),
            outage: weight(0.03),
            outage_unknown: weight(0.5),
            flaw_collect: weight(0.05),
            flaw_deliver: weight(0.05),
            flaw_add: weight(0.1),
            flaw_flush: weight(0.1),
            slow_destination: weight(0.3),
            limits: weight(0.5),
            full: weight(0.5),
            slow: weight(0.3),
            glacial: weight(0.03),
            hang: weight(0.05),
            collect_fault: weight(0.15),
            window_fault: weight(0.2),
            sync_fault: weight(0.2),
            dlq_fault: weight(0.3),
            dlq_outage: weight(0.1),
            commit_fault: weight(0.3),
            seek_fault: weight(0.1),
            seek_lie: weight(0.3),
            wall_jump: weight(0.3),
            balance: weight(0.2),
            revoke: weight(1.0),
            lose: weight(1.0),
            crash: weight(1.0),
            stop: weight(1.0),
            suspend: weight(1.0),
            time_jump: weight(1.0),
        };
        match random.u8(0..12) {
            // A storm: destinations and guests that only ever ask for patience. Nothing may be given up then.
            0 => {
                let (outage, slow_destination, limits, full) = (0.03, 0.3, 0.3, 0.3);
                let (row_unavailable, row_backpressure, call_unavailable) = (0.05, 0.05, 0.1);
                weights = Self {
                    backpressure: 0.4,
                    row_unavailable,
                    row_backpressure,
                    call_unavailable,
                    outage,
                    slow_destination,
                    limits,
                    full,
                    slow: 0.1,
                    suspend: 0.0,
                    ..weights.group_only()
                };
            }
            // Nothing fails but the group: what a member keeps is then never touched.
            1 => weights = weights.group_only(),
            // Nothing fails but the chosen rows: exactly these are dead letters then.
            2 => {
                let (flaw_deliver, flaw_collect, limits) = (0.08, 0.04, weights.limits);
                let group = weights.group_only();
                weights = Self { flaw_deliver, flaw_collect, flaw_add: 0.1, flaw_flush: 0.1, limits, ..group };
            }
            // Nothing fails but destinations that cannot be reached, and that do not say so.
            3 => {
                let (outage, outage_unknown, suspend) = (0.03, 1.0, 0.0);
                weights = Self { outage, outage_unknown, suspend, ..weights.group_only() };
            }
            _ => {}
        }
        weights
    }

    /// The same group with destinations that do as they are told.
    fn group_only(self) -> Self {
        Self {
            balance: self.balance,
            revoke: self.revoke,
            lose: self.lose,
            crash: self.crash,
            stop: self.stop,
            suspend: self.suspend,
            glacial: self.glacial,
            slow: self.slow,
            commit_fault: self.commit_fault,
            wall_jump: self.wall_jump,
            ..Self::default()
        }
    }

    /// The share of rows on which a call of that stage fails.
    pub const fn flaw(&self, stage: Stage) -> f64 {
        match stage {
            Stage::Collect => self.flaw_collect,
            Stage::Deliver(_) => self.flaw_deliver,
            Stage::Add => self.flaw_add,
            Stage::Flush => self.flaw_flush,
        }
    }

    /// Whether nothing but patience is ever asked for, so that no payload may be given up and no attempt counted:
    /// waits, outages, smaller calls and smaller buffers.
    pub fn is_patient(&self) -> bool {
        let rows = self.row_reject + self.row_retry;
        let calls = self.call_unknown + self.call_reject + self.call_timeout + self.call_limit;
        let flaws = self.flaw_collect + self.flaw_deliver + self.flaw_add + self.flaw_flush;
        let broken = self.trap + self.collect_fault + self.window_fault + self.sync_fault + self.hang;
        let disturbed = self.seek_fault + self.seek_lie + self.suspend + self.time_jump;
        rows + calls + flaws + broken + disturbed + self.outage_unknown == 0.0
    }
}

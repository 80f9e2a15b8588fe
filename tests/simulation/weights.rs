//! How likely each kind of fault is in one run; a swarm: many are off, some are frequent.

/// Shares between 0 and 1. Those of the group are weighed against each other when a fault is due at an await point.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    pub row_reject: f64,
    pub row_retry: f64,
    pub call_retry: f64,
    pub away: f64,
    pub row_away: f64,
    pub row_hold: f64,
    pub backpressure: f64,
    pub slow: f64,
    pub glacial: f64,
    pub hang: f64,
    pub trap: f64,
    pub collect_fault: f64,
    pub window_fault: f64,
    pub poison: f64,
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
            call_retry: weight(0.2),
            away: weight(0.2),
            row_away: weight(0.1),
            row_hold: weight(0.1),
            backpressure: weight(0.3),
            slow: weight(0.3),
            glacial: weight(0.03),
            hang: weight(0.05),
            trap: weight(0.15),
            collect_fault: weight(0.15),
            window_fault: weight(0.2),
            poison: weight(0.05),
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
        match random.u8(0..8) {
            // A storm: destinations that only ever ask for patience. Nothing may be given up then.
            0 => weights = Self { backpressure: 0.7, slow: 0.1, ..weights.group_only() },
            // Nothing fails but the group: what a member keeps is then never touched.
            1 => weights = weights.group_only(),
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

    /// Whether nothing but patience is ever asked for, so that no payload may be given up and no attempt counted.
    pub fn is_patient(&self) -> bool {
        let failing = self.row_reject + self.row_retry + self.call_retry + self.away + self.row_away + self.hang;
        let broken = self.trap + self.collect_fault + self.window_fault + self.poison + self.sync_fault;
        failing + broken + self.seek_fault + self.seek_lie + self.suspend + self.time_jump == 0.0
    }
}

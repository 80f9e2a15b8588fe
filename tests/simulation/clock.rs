//! One member's clock: late for a member that sleeps, and with jumps of both its sides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate::clock::{Clock, Millis};

use super::call::{Call, Host};
use super::world::lock;

/// The first moment of every simulation on its wall clock.
const EPOCH: i64 = 1_700_000_000_000;

#[derive(Clone)]
pub struct SimClock {
    host: Host,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl SimClock {
    pub fn new(host: Host, seed: u64) -> Self {
        Self { host, random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))) }
    }

    fn elapsed(&self) -> Duration {
        lock(&self.host.world).time_of(self.host.member)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Millis {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_millis(&self) -> i64 {
        let mut world = lock(&self.host.world);
        if world.chance(|weights| weights.wall_jump) {
            world.mark("wall clock jumped");
            world.skew = world.random.i64(-43_200_000..43_200_000);
        }
        EPOCH + world.skew + i64::try_from(world.time_of(self.host.member).as_millis()).unwrap_or(0)
    }

    async fn sleep(&self, wait: Duration) {
        let jumped = lock(&self.host.world).members[self.host.member].jumped.clone();
        let until = self.elapsed() + wait;
        if wait > Duration::ZERO {
            lock(&self.host.world).point(self.host.member, Call::Wait, None);
        }
        loop {
            self.host.gate().await;
            let left = until.saturating_sub(self.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                () = jumped.notified() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    fn jitter(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.random.lock().unwrap_or_else(PoisonError::into_inner).f64())
    }
}

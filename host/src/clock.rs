//! Time and randomness. Nothing else reads either, so a simulated run repeats exactly.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

/// Milliseconds on a clock that never goes back, counted from a start of its own.
pub type Millis = u64;

/// What the pipeline knows of time and chance.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now, on a clock that never goes back.
    fn now(&self) -> Millis;
    /// Now, in milliseconds since the Unix epoch.
    fn unix_millis(&self) -> i64;
    /// Returns after `wait`.
    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send;
    /// A random share of `longest`, between nothing and all of it: full jitter (S83).
    fn jitter(&self, longest: Duration) -> Duration;
}

/// The machine's clock. Its monotonic side is tokio's, so it stands still and jumps with a paused runtime.
#[derive(Clone, Debug)]
pub struct RealClock {
    start: tokio::time::Instant,
}

impl RealClock {
    /// A clock that starts now. Call inside a tokio runtime.
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Millis {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_millis(&self) -> i64 {
        unix_millis()
    }

    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(wait)
    }

    fn jitter(&self, longest: Duration) -> Duration {
        longest.mul_f64(fastrand::f64())
    }
}

/// The time of day for what has no clock at hand: log lines, files' names and their times.
pub fn time_of_day() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// The same in milliseconds since the Unix epoch.
pub fn unix_millis() -> i64 {
    time_of_day()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A clock for simulations: tokio's paused time, and jitter from a seed.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    start: tokio::time::Instant,
    random: std::sync::Arc<Mutex<fastrand::Rng>>,
}

impl VirtualClock {
    /// A clock that starts now, with randomness from `seed`. Call inside a tokio runtime whose time is paused.
    pub fn start(seed: u64) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            random: std::sync::Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Millis {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_millis(&self) -> i64 {
        i64::try_from(self.now()).unwrap_or(i64::MAX)
    }

    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(wait)
    }

    fn jitter(&self, longest: Duration) -> Duration {
        let share = self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner).f64();
        longest.mul_f64(share)
    }
}

/// A moment on the machine's clock that never goes back, for threads that know of no runtime.
pub type Instant = std::time::Instant;

/// Now, for such threads.
pub fn instant() -> Instant {
    Instant::now()
}

/// Repeatable choices: the same from the same seed.
pub type Dice = fastrand::Rng;

/// Choices that repeat with their seed, for made-up records.
pub fn dice(seed: u64) -> Dice {
    Dice::with_seed(seed)
}

//! How much memory records take at the moment, over all partitions, so that it stays bounded however many there are and however
//! large their records (S15, S38).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Reading goes on everywhere when this share of the mark is left, one in so many.
const LOW_SHARE: u64 = 4;
/// Checkpoints are due from this part of the mark on, so that buffers are emptied before reading has to stop.
const PRESSED: (u64, u64) = (3, 4);
/// Windows are cut smaller from this part of the mark on, one in so many.
const CROWDED_SHARE: u64 = 2;
/// Windows that one partition may have at a time: being made, waiting, and in its worker's hands.
const WINDOWS: u64 = 4;

/// What one partition's windows take.
#[derive(Debug, Default)]
pub struct Share(AtomicU64);

/// Called once the low mark is reached.
type Relief = Box<dyn Fn() + Send + Sync>;

/// What all records take, against its mark.
pub struct Account {
    used: AtomicU64,
    mark: u64,
    full: AtomicBool,
    relieved: AtomicBool,
    on_relief: OnceLock<Relief>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("used", &self.used()).field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Account {
    /// Nothing is taken yet; `mark` bytes may be.
    pub fn new(mark: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            mark,
            full: AtomicBool::new(false),
            relieved: AtomicBool::new(false),
            on_relief: OnceLock::new(),
        })
    }

    /// Has `call` called whenever the low mark is reached after the high one. The first of them counts.
    pub fn on_relief(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_relief.set(Box::new(call));
    }

    /// Bytes that are taken at the moment.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Whether so much is taken that checkpoints are due, so that what buffers keep is let go (S15).
    pub fn is_pressed(&self) -> bool {
        self.used() >= self.mark / PRESSED.1 * PRESSED.0
    }

    /// Whether a partition has to wait before it reads more: all together are over the mark, and it over its share. One that has
    /// nothing never waits, so that none is starved.
    pub fn holds_back(&self, own: &Share, partitions: usize) -> bool {
        let own = own.0.load(Ordering::Acquire);
        self.full.load(Ordering::Acquire) && own > 0 && own >= self.mark / partitions.max(1) as u64
    }

    /// Most bytes of a partition's next window; a single larger record still makes one of its own. Without bound as long as there is
    /// plenty, so that a share matters only where there is little.
    pub fn window_bytes(&self, partitions: usize) -> usize {
        if self.used() < self.mark / CROWDED_SHARE {
            return usize::MAX;
        }
        usize::try_from(self.mark / WINDOWS / partitions.max(1) as u64).unwrap_or(usize::MAX)
    }

    /// Whether the low mark was reached since this was last asked: partitions that were held back are to be looked at.
    pub fn take_relieved(&self) -> bool {
        self.relieved.swap(false, Ordering::AcqRel)
    }

    /// Counts so many bytes until what is returned is dropped, as part of a partition's share if one is given.
    pub fn lease(self: &Arc<Self>, share: Option<&Arc<Share>>, bytes: u64) -> Lease {
        if let Some(share) = share {
            share.0.fetch_add(bytes, Ordering::AcqRel);
        }
        self.add(bytes);
        Lease { account: Arc::clone(self), share: share.cloned(), bytes }
    }

    fn add(&self, bytes: u64) {
        let used = self.used.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes);
        if used >= self.mark {
            self.full.store(true, Ordering::Release);
        }
    }

    fn remove(&self, bytes: u64) {
        let used = self.used.fetch_sub(bytes, Ordering::AcqRel).saturating_sub(bytes);
        if used < self.mark / LOW_SHARE && self.full.swap(false, Ordering::AcqRel) {
            self.relieved.store(true, Ordering::Release);
            if let Some(call) = self.on_relief.get() {
                call();
            }
        }
    }
}

/// Bytes that are counted as long as this lives.
#[derive(Debug)]
pub struct Lease {
    account: Arc<Account>,
    share: Option<Arc<Share>>,
    bytes: u64,
}

impl Lease {
    /// From now on counts so many bytes instead. Not for a partition's share.
    pub fn resize(&mut self, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.account.add(more),
            None => self.account.remove(self.bytes - bytes),
        }
        self.bytes = bytes;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.0.fetch_sub(self.bytes, Ordering::AcqRel);
        }
        self.account.remove(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// S38: above the high mark those over their share wait, and until the low mark is reached; who has nothing reads on.
    #[test]
    fn s38_who_is_over_the_share_waits_until_the_low_mark() {
        let (account, calls) = (Account::new(800), Arc::new(AtomicU32::new(0)));
        account.on_relief({
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (large, small, idle) = (Arc::new(Share::default()), Arc::new(Share::default()), Share::default());
        let mut leases: Vec<Lease> = (0..7).map(|_| account.lease(Some(&large), 100)).collect();
        let little = account.lease(Some(&small), 50);
        assert!(!account.holds_back(&large, 2), "750 bytes are below the mark");
        leases.push(account.lease(Some(&large), 100));
        assert!(account.holds_back(&large, 2));
        assert!(!account.holds_back(&small, 2) && !account.holds_back(&idle, 2));
        leases.truncate(2);
        assert!(account.holds_back(&large, 4), "250 bytes are above the low mark");
        assert!(!account.take_relieved());
        leases.truncate(1);
        assert!(account.take_relieved() && !account.holds_back(&large, 4));
        assert!(!account.take_relieved(), "said once");
        drop((leases, little));
        assert_eq!((account.used(), large.0.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)), (0, 0, 1));
    }

    /// S15: checkpoints are due and windows become smaller before reading stops; what a lease counts may change.
    #[test]
    fn s15_pressure_comes_before_the_mark() {
        let account = Account::new(800);
        let mut lease = account.lease(None, 399);
        assert_eq!((account.is_pressed(), account.window_bytes(2)), (false, usize::MAX));
        lease.resize(400);
        assert_eq!((account.is_pressed(), account.window_bytes(2)), (false, 100));
        lease.resize(600);
        assert!(account.is_pressed());
        lease.resize(10);
        assert_eq!(account.used(), 10);
        drop(lease);
        assert_eq!(account.used(), 0);
    }
}

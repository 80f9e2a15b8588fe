//! A plugin's instances. Each slot has one, leased to one call at a time; a slot whose instance was retired gets a new one
//! at the next call, after a wait (S129, S130).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use super::meter::{Abandon, AbandonOnDrop};
use super::{Guest, Live, Plan, Stop};
use crate::blocking::BlockingPool;
use crate::model::{CallError, Fault, Offset, Owner, TopicPartition};

/// The wait before an instance takes the place of one that was stopped in a call. It does not grow, because finding a
/// thousand records that trap takes some two thousand instances (S63), and is long enough to leave most of a core to
/// others.
const REPLACING_WAIT: Duration = Duration::from_millis(5);
/// The wait after an instance could not be made or did not get ready, and how long it may grow while that goes on.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Calls that a slot may have under way: one on its instance, and one on a fresh instance.
const CALLS_PER_SLOT: usize = 2;

/// What is remembered of a topic-partition's rows inside an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The instance that has them.
    pub(crate) generation: u64,
    /// How many there are.
    pub(crate) rows: u64,
    /// The first of them.
    pub(crate) first: Offset,
}

/// Per topic-partition, what the slot's instances were given and have not yet answered for.
pub(crate) type Marks = HashMap<TopicPartition, Mark>;

struct Slot<G: Guest> {
    number: u32,
    live: Option<Live<G>>,
    generation: u64,
    marks: Marks,
    wait: Wait,
}

/// How long a slot waits before its next instance.
struct Wait {
    next: Option<Duration>,
    /// The waits after failed starts, from the last good one on.
    failed_starts: ExponentialBackoff,
}

impl Wait {
    fn new() -> Self {
        let growing = ExponentialBuilder::new().with_min_delay(SHORTEST_WAIT).with_max_delay(LONGEST_WAIT);
        Self { next: None, failed_starts: growing.without_max_times().build() }
    }

    /// An instance was stopped in a call.
    fn after_stop(&mut self) {
        self.next = Some(REPLACING_WAIT);
    }

    /// An instance could not be made, or did not get ready.
    fn after_failed_start(&mut self) {
        self.next = self.failed_starts.next();
    }
}

/// Gives the instance that a call is for.
pub(crate) struct Lease<'a, G: Guest> {
    pub(crate) live: &'a mut Live<G>,
    pub(crate) marks: &'a mut Marks,
    pub(crate) abandon: &'a Arc<Abandon>,
}

/// All slots of one plugin.
pub(crate) struct Slots<G: Guest> {
    pub(crate) plan: Arc<Plan>,
    pub(crate) described: G::Described,
    slots: Vec<Arc<Mutex<Slot<G>>>>,
    threads: BlockingPool,
    /// Instances are asked to get ready before their first record: from the first time that this was asked for.
    preparing: AtomicBool,
    probes: Semaphore,
}

impl<G: Guest> Slots<G> {
    /// Makes every slot's instance and calls `setup` on each (S66). Where the configuration leaves their number out, a plugin that
    /// refuses to be one of several is made one (S129).
    pub(crate) async fn start(plan: Plan) -> Result<Self, Fault> {
        plan.artifact.contract().require(G::ROLE, &plan.who.place, &plan.artifact.summary().path)?;
        let plan = Arc::new(plan);
        match Self::make(Arc::clone(&plan)).await {
            Err(fault) if plan.who.limits.is_automatic() && plan.slots > 1 && fault.owner == Owner::Config => {
                let alone = Self::make(Arc::new(plan.with_one_slot())).await;
                if alone.is_ok() {
                    tracing::info!(plugin = plan.who.label, reason = %fault, "one instance: it refuses to be one of several");
                }
                alone
            }
            made => made,
        }
    }

    async fn make(plan: Arc<Plan>) -> Result<Self, Fault> {
        let threads = threads(&plan);
        let (mut slots, mut described) = (Vec::new(), None);
        for number in 0..plan.slots {
            let mut live = build::<G>(&threads, &plan, number).await?;
            live.generation = 1;
            if described.get_or_insert_with(|| live.described.clone()) != &live.described {
                return Err(differs(&plan));
            }
            slots.push(Arc::new(Mutex::new(Slot {
                number,
                live: Some(live),
                generation: 1,
                marks: Marks::new(),
                wait: Wait::new(),
            })));
        }
        let described = described.ok_or_else(|| Fault::host(format!("`{}` has no instance", plan.who.label)))?;
        let probes = Semaphore::new(slots.len());
        Ok(Self { plan, described, slots, threads, preparing: AtomicBool::new(false), probes })
    }

    /// Gets every instance ready for its first record; those that replace one later get ready by themselves (S66a).
    pub(crate) async fn prepare(&self) -> Result<(), CallError> {
        self.preparing.store(true, Ordering::Release);
        let each = self.slots.iter().map(|slot| self.run(slot, |_, _| Ok(()), async |_: Lease<'_, G>| Ok(())));
        futures_util::future::try_join_all(each).await.map(|_| ())
    }

    /// Calls the instance that serves `source`. `look` sees the slot's marks and the live instance's generation first and
    /// may answer instead. Dropping the future gives the call up: what was under way is stopped, and its instance retired.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        source: &TopicPartition,
        look: impl FnOnce(&mut Marks, Option<u64>) -> Result<(), CallError>,
        job: impl AsyncFnOnce(Lease<'_, G>) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, CallError> {
        match self.slots.get(self.slot_of(source)) {
            Some(slot) => self.run(slot, look, job).await,
            None => Err(CallError::Fatal(Fault::host(format!("`{}` has no instance", self.plan.who.label)))),
        }
    }

    /// Calls a fresh instance that is thrown away afterwards (S63).
    pub(crate) async fn call_fresh<T: Send + 'static>(
        &self,
        source: &TopicPartition,
        job: impl AsyncFnOnce(Lease<'_, G>) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, CallError> {
        let permit = self.probes.acquire().await;
        let (plan, preparing) = (Arc::clone(&self.plan), self.preparing.load(Ordering::Acquire));
        let number = u32::try_from(self.slot_of(source)).unwrap_or(0);
        let answer = blocking(&self.threads, &self.plan, move |abandon| async move {
            let mut live: Live<G> = plan.build(number, &abandon).await.map_err(not_built)?;
            if preparing {
                live.prepare(&abandon).await?;
            }
            let lease = Lease { live: &mut live, marks: &mut Marks::new(), abandon: &abandon };
            job(lease).await.map_err(|stop| live.ended(stop))
        })
        .await;
        drop(permit);
        answer
    }

    /// Runs `job` on every live instance in turn, for what is worth doing only while it lives.
    pub(crate) async fn each_live<T: Send + 'static>(
        &self,
        job: impl AsyncFn(Lease<'_, G>) -> Result<T, Stop> + Clone + Send + 'static,
    ) -> Vec<Result<T, CallError>> {
        let mut answers = Vec::new();
        for slot in &self.slots {
            let slot = Arc::clone(slot).lock_owned().await;
            if slot.live.is_some() {
                let job = job.clone();
                let job = async move |lease: Lease<'_, G>| job(lease).await;
                answers.push(self.run_in(slot, |_, _| Ok(()), job).await);
            }
        }
        answers
    }

    async fn run<T: Send + 'static>(
        &self,
        slot: &Arc<Mutex<Slot<G>>>,
        look: impl FnOnce(&mut Marks, Option<u64>) -> Result<(), CallError>,
        job: impl AsyncFnOnce(Lease<'_, G>) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, CallError> {
        self.run_in(Arc::clone(slot).lock_owned().await, look, job).await
    }

    async fn run_in<T: Send + 'static>(
        &self,
        mut slot: OwnedMutexGuard<Slot<G>>,
        look: impl FnOnce(&mut Marks, Option<u64>) -> Result<(), CallError>,
        job: impl AsyncFnOnce(Lease<'_, G>) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, CallError> {
        let generation = slot.live.as_ref().map(|live| live.generation);
        look(&mut slot.marks, generation)?;
        if slot.live.is_none()
            && let Some(wait) = slot.wait.next
        {
            tokio::time::sleep(wait).await;
        }
        let preparing = self.preparing.load(Ordering::Acquire);
        let (plan, described) = (Arc::clone(&self.plan), self.described.clone());
        blocking(&self.threads, &self.plan, move |abandon| async move {
            let mut live = take_or_build(&mut slot, &plan, &described, &abandon).await?;
            if preparing && !live.prepared {
                if let Err(error) = live.prepare(&abandon).await {
                    slot.wait.after_failed_start();
                    return Err(error);
                }
                slot.wait = Wait::new();
            }
            let lease = Lease { live: &mut live, marks: &mut slot.marks, abandon: &abandon };
            match job(lease).await {
                // A caller who is gone has not heard the answer, so nobody knows what the instance holds.
                Ok(_) if abandon.is_given_up() => {
                    slot.wait.after_stop();
                    Err(live.ended(Stop::Abandoned))
                }
                Ok(answer) => {
                    slot.live = Some(live);
                    Ok(answer)
                }
                Err(stop) => {
                    slot.wait.after_stop();
                    Err(live.ended(stop))
                }
            }
        })
        .await
    }

    /// The same slot for the same topic-partition, always; the partitions of one topic spread evenly.
    pub(crate) fn slot_of(&self, source: &TopicPartition) -> usize {
        let mut hasher = DefaultHasher::new();
        source.topic.hash(&mut hasher);
        let mixed = hasher.finish().wrapping_add(u64::from(source.partition.unsigned_abs()));
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX).max(1);
        usize::try_from(mixed % slots).unwrap_or(0)
    }
}

async fn take_or_build<G: Guest>(
    slot: &mut OwnedMutexGuard<Slot<G>>,
    plan: &Arc<Plan>,
    described: &G::Described,
    abandon: &Arc<Abandon>,
) -> Result<Live<G>, CallError> {
    if let Some(live) = slot.live.take() {
        return Ok(live);
    }
    let built = plan
        .build::<G>(slot.number, abandon)
        .await
        .and_then(|live| if live.described == *described { Ok(live) } else { Err(differs(plan)) });
    match built {
        Ok(mut live) => {
            slot.generation += 1;
            live.generation = slot.generation;
            Ok(live)
        }
        Err(fault) => {
            slot.wait.after_failed_start();
            Err(not_built(fault))
        }
    }
}

/// An instance that could not be made was shown no row, so no row can be the cause: never a trap.
fn not_built(fault: Fault) -> CallError {
    match fault.owner {
        Owner::Config => CallError::Fatal(fault),
        Owner::Plugin | Owner::Destination | Owner::Host => CallError::Unavailable(fault),
    }
}

fn differs(plan: &Plan) -> Fault {
    Fault::plugin(format!("`{}` describes itself differently on different instances", plan.who.label))
        .hint("`setup` must answer the same to the same options")
}

/// The threads of one plugin's calls: a call on every instance and on every fresh one beside it. They are the plugin's own, so
/// that guests that wait, however many, keep no thread from commits, from files or from another plugin.
fn threads(plan: &Plan) -> BlockingPool {
    BlockingPool::new(&plan.who.label, plan.slots as usize * CALLS_PER_SLOT)
}

async fn build<G: Guest>(threads: &BlockingPool, plan: &Arc<Plan>, number: u32) -> Result<Live<G>, Fault> {
    let (made, label) = (Arc::clone(plan), &plan.who.label);
    let handle = Handle::current();
    let abandon = Arc::new(Abandon::default());
    let _gives_up = AbandonOnDrop(Arc::clone(&abandon));
    threads
        .spawn(move || handle.block_on(made.build(number, &abandon)))
        .await
        .unwrap_or_else(|error| Err(Fault::host(format!("an instance of `{label}` could not be made")).because(error)))
}

/// Runs guest code on a thread that may be kept busy, so that no guest ever holds up an async worker.
async fn blocking<T, W, F>(threads: &BlockingPool, plan: &Plan, work: W) -> Result<T, CallError>
where
    T: Send + 'static,
    W: FnOnce(Arc<Abandon>) -> F + Send + 'static,
    F: Future<Output = Result<T, CallError>>,
{
    let handle = Handle::current();
    let abandon = Arc::new(Abandon::default());
    let _gives_up = AbandonOnDrop(Arc::clone(&abandon));
    let run = move || {
        if abandon.is_given_up() {
            return Err(CallError::Timeout(Fault::host("a call was given up before it began")));
        }
        handle.block_on(work(abandon))
    };
    threads.spawn(run).await.unwrap_or_else(|error| {
        // The thread panicked, and its instance went with it.
        Err(CallError::Trap(Fault::host(format!("a call of `{}` did not end", plan.who.label)).because(error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S63: a thousand records that trap are found at the pace of the first; only what cannot start is left alone for
    /// longer.
    #[test]
    fn s63_the_wait_grows_after_failed_starts_alone() {
        let mut wait = Wait::new();
        assert_eq!(wait.next, None);
        for _ in 0..2000 {
            wait.after_stop();
            assert_eq!(wait.next, Some(REPLACING_WAIT));
        }
        let waits: Vec<_> = (0..12).map(|_| (wait.after_failed_start(), wait.next).1.unwrap_or_default()).collect();
        assert_eq!(waits.first(), Some(&SHORTEST_WAIT));
        assert!(waits.is_sorted() && waits.last() == Some(&LONGEST_WAIT), "{waits:?}");
        wait.after_stop();
        assert_eq!(wait.next, Some(REPLACING_WAIT));
    }
}

//! Assign, revoke, lost: which workers there are, and when a partition may be let go (S45–S50).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use super::orders::Order;
use super::shared::{Shared, millis};
use super::worker::{Ended, serve};
use crate::clock::{Clock, Millis};
use crate::model::{Fault, TopicPartition};
use crate::source::Reader;

/// The workers of all assigned partitions, and the revocations that wait for some of them.
pub struct Assignment<C> {
    shared: Arc<Shared<C>>,
    orders: BTreeMap<TopicPartition, watch::Sender<Order>>,
    workers: JoinSet<Ended>,
    /// Whose worker a task is, for the case that it panics.
    tasks: HashMap<Id, TopicPartition>,
    leaving: Vec<Leaving>,
}

/// Partitions that are let go together once none of them has a worker.
struct Leaving {
    all: Vec<TopicPartition>,
    open: Vec<TopicPartition>,
}

impl<C: Clock> Assignment<C> {
    /// No partition yet.
    pub fn new(shared: Arc<Shared<C>>) -> Self {
        Self { shared, orders: BTreeMap::new(), workers: JoinSet::new(), tasks: HashMap::new(), leaving: Vec::new() }
    }

    /// Whether no partition is served.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Starts a worker for each partition.
    pub fn assign<R: Reader>(&mut self, readers: Vec<R>) {
        for reader in readers {
            let (sender, receiver) = watch::channel(Order::Serve);
            tracing::info!(partition = %reader.partition(), start = reader.start(), "assigned");
            let partition = reader.partition().clone();
            self.orders.insert(partition.clone(), sender);
            let task = self.workers.spawn(serve(self.shared.clone(), reader, receiver));
            self.tasks.insert(task.id(), partition);
        }
    }

    /// Ends the workers of these partitions: each makes a last cut within the budget, or stops at once (S46, S48).
    pub fn leave(&mut self, partitions: Vec<TopicPartition>, lost: bool) {
        let deadline = self.shared.clock.now() + millis(self.shared.settings.revoke_budget);
        let order = if lost { Order::Drop } else { Order::Close { deadline, commit_late: false } };
        let mut open = Vec::new();
        for partition in &partitions {
            tracing::info!(%partition, lost, "leaving");
            if let Some(sender) = self.orders.get(partition) {
                sender.send_modify(|current| *current = current.and(order));
                open.push(partition.clone());
            }
        }
        // A loss that overtakes a revocation lets its partitions go alone: named a second time, one that was given to us
        // again meanwhile would be let go under its worker.
        for earlier in &mut self.leaving {
            earlier.all.retain(|partition| !partitions.contains(partition));
            earlier.open.retain(|partition| !partitions.contains(partition));
        }
        self.leaving.retain(|leaving| !leaving.all.is_empty());
        self.leaving.push(Leaving { all: partitions, open });
    }

    /// Ends every worker (S54, S55).
    pub fn close_all(&self, deadline: Millis) {
        for sender in self.orders.values() {
            sender.send_if_modified(|order| {
                let serving = *order == Order::Serve;
                if serving {
                    *order = Order::Close { deadline, commit_late: true };
                }
                serving
            });
        }
    }

    /// Waits for the next worker to end. `None` when there is none. May be cancelled.
    pub async fn ended(&mut self) -> Option<Ended> {
        let ended = match self.workers.join_next_with_id().await? {
            Ok((task, ended)) => {
                self.tasks.remove(&task);
                ended
            }
            // A worker never panics on purpose; if it does, nothing of its partition was committed past its watermark.
            Err(error) => {
                let partition = self.tasks.remove(&error.id()).unwrap_or_else(|| TopicPartition::new("", -1));
                let fault = Fault::host(format!("the worker of {partition} panicked, which is a bug in Tidegate"));
                Ended { partition, fault: Some(fault.because(error)) }
            }
        };
        self.orders.remove(&ended.partition);
        for leaving in &mut self.leaving {
            leaving.open.retain(|partition| *partition != ended.partition);
        }
        Some(ended)
    }

    /// The partitions that no worker serves any more and that were taken away, as they were taken away together. They are to be
    /// given to [`Source::release`](crate::source::Source::release).
    pub fn take_left(&mut self) -> Vec<Vec<TopicPartition>> {
        let (done, waiting) = std::mem::take(&mut self.leaving).into_iter().partition(|one| one.open.is_empty());
        self.leaving = waiting;
        let done: Vec<Leaving> = done;
        done.into_iter().map(|leaving| leaving.all).filter(|all| !all.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use async_trait::async_trait;

    use super::super::tests::shared_for_tests;
    use super::*;
    use crate::model::Offset;
    use crate::source::{CommitError, Read};

    struct Panics(TopicPartition);

    #[async_trait]
    impl Reader for Panics {
        fn partition(&self) -> &TopicPartition {
            &self.0
        }

        fn start(&self) -> Offset {
            0
        }

        async fn read(&mut self) -> Result<Read, Fault> {
            panic!("on purpose")
        }

        async fn rewind(&mut self, _to: Offset) -> Result<(), Fault> {
            Ok(())
        }

        async fn first_from(&mut self, _from: Offset) -> Result<Option<Offset>, Fault> {
            Ok(None)
        }

        async fn set_paused(&mut self, _paused: bool) -> Result<(), Fault> {
            Ok(())
        }

        async fn commit(&mut self, _offset: Offset) -> Result<(), CommitError> {
            Ok(())
        }
    }

    /// A worker's panic names its partition, which is then let go like any other.
    #[tokio::test(start_paused = true)]
    async fn s44_a_panic_names_its_partition() {
        let mut assignment = Assignment::new(Arc::new(shared_for_tests()));
        let partition = TopicPartition::new("orders", 3);
        assignment.assign(vec![Panics(partition.clone())]);
        tokio::task::yield_now().await;
        assignment.leave(vec![partition.clone()], false);
        assert!(assignment.take_left().is_empty());
        let ended = assignment.ended().await.unwrap();
        assert_eq!(ended.partition, partition);
        assert!(ended.fault.unwrap().message.contains("orders[3]"));
        assert_eq!(assignment.take_left(), [vec![partition]]);
        assert!(assignment.is_empty() && assignment.orders.is_empty() && assignment.tasks.is_empty());
    }
}

//! Assign, revoke, lost: which workers there are, and when a partition may be let go (S45–S50).

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::orders::Order;
use super::shared::{Shared, millis};
use super::worker::{Ended, serve};
use crate::clock::{Clock, Millis};
use crate::model::{Fault, TopicPartition};
use crate::source::{Reader, Source};

/// The workers of all assigned partitions, and the revocations that wait for some of them.
pub struct Assignment<C> {
    shared: Arc<Shared<C>>,
    orders: BTreeMap<TopicPartition, watch::Sender<Order>>,
    workers: JoinSet<Ended>,
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
        Self { shared, orders: BTreeMap::new(), workers: JoinSet::new(), leaving: Vec::new() }
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
            self.orders.insert(reader.partition().clone(), sender);
            self.workers.spawn(serve(self.shared.clone(), reader, receiver));
        }
    }

    /// Ends the workers of these partitions: each makes a last cut within the budget, or stops at once (S46, S48).
    pub async fn leave<S: Source>(&mut self, source: &mut S, partitions: Vec<TopicPartition>, lost: bool) {
        let deadline = self.shared.clock.now() + millis(self.shared.settings.revoke_budget);
        let order = if lost { Order::Drop } else { Order::Close { deadline, commit_late: false } };
        let mut open = Vec::new();
        for partition in &partitions {
            tracing::info!(%partition, lost, "leaving");
            if let Some(sender) = self.orders.get(partition) {
                sender.send_replace(order);
                open.push(partition.clone());
            }
        }
        // What is lost while it leaves is let go once, when its worker has ended.
        let all: Vec<TopicPartition> = partitions
            .into_iter()
            .filter(|partition| !self.leaving.iter().any(|leaving| leaving.all.contains(partition)))
            .collect();
        if !all.is_empty() {
            self.leaving.push(Leaving { all, open });
        }
        self.release(source).await;
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

    /// Waits for the next worker to end, and lets partitions go that waited for it. `None` when there is none. May be
    /// cancelled.
    pub async fn ended(&mut self) -> Option<Ended> {
        let ended = match self.workers.join_next().await? {
            Ok(ended) => ended,
            // A worker never panics on purpose; if it does, nothing of its partition was committed past its watermark.
            Err(error) => {
                let partition = TopicPartition::new("", -1);
                let fault = Fault::host("a partition's worker panicked, which is a bug in Tidegate").because(error);
                return Some(Ended { partition, fault: Some(fault) });
            }
        };
        self.orders.remove(&ended.partition);
        for leaving in &mut self.leaving {
            leaving.open.retain(|partition| *partition != ended.partition);
        }
        Some(ended)
    }

    /// Lets go what no worker serves any more.
    pub async fn release<S: Source>(&mut self, source: &mut S) {
        let (done, waiting) = std::mem::take(&mut self.leaving).into_iter().partition(|one| one.open.is_empty());
        self.leaving = waiting;
        let done: Vec<Leaving> = done;
        for leaving in done {
            source.release(leaving.all).await;
        }
    }
}

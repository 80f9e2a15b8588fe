//! Which files each partition still has to see on the disk before its offsets may be committed (S11).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::file::{OpenFile, lock};
use super::open::OPEN_FILES;
use crate::model::{Batch, Fault, Offset, TopicPartition};

/// Files that every partition may leave to its checkpoint, however many partitions there are.
const OWN_FILES: usize = 8;

/// What every partition owes.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    debts: Mutex<HashMap<TopicPartition, Debt>>,
    /// How often each partition was forgotten: what a call writes that began before owes nothing.
    epochs: Mutex<HashMap<TopicPartition, u64>>,
}

#[derive(Debug)]
struct Debt {
    /// The lowest offset written since the last sync.
    first: Offset,
    files: Vec<Arc<OpenFile>>,
    /// Why a sync failed. A second one could succeed although lines were lost, so it is not tried: the rows have to come
    /// again first.
    lost: Option<Fault>,
}

impl Unsynced {
    /// What a call that begins now has to show with what it writes.
    pub(super) fn epoch(&self, source: &TopicPartition) -> u64 {
        lock(&self.epochs).get(source).copied().unwrap_or(0)
    }

    /// The rows of `batch` were written to `file` by a call of that epoch.
    pub(super) fn owe(&self, batch: &Batch, file: &Arc<OpenFile>, epoch: u64) {
        let Some(first) = batch.offsets.first().copied() else { return };
        let mut debts = lock(&self.debts);
        if self.epoch(&batch.source) != epoch {
            return;
        }
        let debt = match debts.get_mut(&batch.source) {
            Some(debt) => debt,
            None => debts.entry(batch.source.clone()).or_insert(Debt { first, files: Vec::new(), lost: None }),
        };
        debt.first = debt.first.min(first);
        if !debt.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            debt.files.push(Arc::clone(file));
        }
    }

    /// Whether a sync has anything to do.
    pub(super) fn owes(&self, source: &TopicPartition) -> bool {
        lock(&self.debts).contains_key(source)
    }

    /// Whether the partition holds so many of the files that wait for a sync that its own is due before the checkpoint.
    pub(super) fn too_many(&self, source: &TopicPartition) -> bool {
        let debts = lock(&self.debts);
        debts.get(source).is_some_and(|debt| debt.files.len() > OWN_FILES)
            && debts.values().map(|debt| debt.files.len()).sum::<usize>() > OPEN_FILES
    }

    /// Rows from `first` on are about to be written. When they reach back to what a failed sync lost, that is settled.
    pub(super) fn comes_again(&self, source: &TopicPartition, first: Option<Offset>) {
        let mut debts = lock(&self.debts);
        if debts.get(source).is_some_and(|debt| debt.lost.is_some() && first.is_some_and(|first| first <= debt.first)) {
            debts.remove(source);
        }
    }

    /// The partition starts over, or is gone.
    pub(super) fn forget(&self, source: &TopicPartition) {
        let mut debts = lock(&self.debts);
        debts.remove(source);
        *lock(&self.epochs).entry(source.clone()).or_default() += 1;
    }

    /// Forces everything that the partition wrote to the disk.
    ///
    /// # Errors
    /// Some of it was lost. The same again until the partition's rows come again or it starts over.
    pub(super) fn sync(&self, source: &TopicPartition) -> Result<(), Fault> {
        let (first, files) = match lock(&self.debts).get(source) {
            None => return Ok(()),
            Some(Debt { lost: Some(fault), .. }) => return Err(fault.clone()),
            Some(debt) => (debt.first, debt.files.clone()),
        };
        let errors: Vec<String> = files.iter().filter_map(|file| file.sync().err()).collect();
        let mut debts = lock(&self.debts);
        if errors.is_empty() {
            debts.remove(source);
            return Ok(());
        }
        let fault = Fault::destination(errors.join("; "));
        debts.insert(source.clone(), Debt { first, files: Vec::new(), lost: Some(fault.clone()) });
        Err(fault)
    }
}

//! Appending to a disk that is full, slow or shared, and syncing to one that loses lines.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::super::file::{Disk, End, append};
use super::*;

/// A file in memory that takes so many bytes and no more.
#[derive(Default)]
struct Fake {
    bytes: RefCell<Vec<u8>>,
    room: Cell<usize>,
    interrupted: Cell<bool>,
    refuses_cuts: Cell<bool>,
    /// Written by somebody else right behind our next write.
    intruder: RefCell<Vec<u8>>,
}

impl Fake {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.borrow().clone()).unwrap()
    }
}

impl Disk for Fake {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.borrow().len() as u64)
    }

    fn byte_at(&self, position: u64) -> io::Result<u8> {
        self.bytes.borrow().get(position as usize).copied().ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    fn write(&self, block: &[u8]) -> io::Result<usize> {
        if self.interrupted.take() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let taken = block.len().min(self.room.get());
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room.set(self.room.get() - taken);
        self.bytes.borrow_mut().extend_from_slice(&block[..taken]);
        self.bytes.borrow_mut().append(&mut self.intruder.borrow_mut());
        Ok(taken)
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        if self.refuses_cuts.get() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.bytes.borrow_mut().truncate(size as usize);
        Ok(())
    }
}

/// S119: what a short write left is cut off, and the reason is the disk's own.
#[test]
fn s119_a_short_write_is_taken_back() {
    let (disk, mut end) = (Fake::default(), End::default());
    disk.room.set(8);
    disk.interrupted.set(true);
    append(&disk, &mut end, b"\n111\n").unwrap();
    let error = append(&disk, &mut end, b"\n222\n333\n").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.text(), "111\n");
    let error = append(&disk, &mut end, b"\n4\n").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.room.set(100);
    append(&disk, &mut end, b"\n555\n").unwrap();
    assert_eq!(disk.text(), "111\n555\n");
}

/// Lines that somebody else wrote behind our half line are not cut off with it; the next write ends what is left.
#[test]
fn s119_nobody_elses_lines_are_cut_off() {
    let (disk, mut end) = (Fake::default(), End::default());
    disk.room.set(2);
    disk.intruder.borrow_mut().extend_from_slice(b"theirs");
    let error = append(&disk, &mut end, b"\n111\n").unwrap_err();
    assert!(error.to_string().ends_with("the part written stays: somebody else wrote to it meanwhile"), "{error}");
    disk.room.set(100);
    append(&disk, &mut end, b"\n222\n").unwrap();
    assert_eq!(disk.text(), "11theirs\n222\n");
}

/// When even cutting fails, the half line is ended by the next write.
#[test]
fn s119_a_half_line_that_cannot_be_cut_off_is_ended() {
    let (disk, mut end) = (Fake::default(), End::default());
    disk.room.set(2);
    disk.refuses_cuts.set(true);
    append(&disk, &mut end, b"\n111\n").unwrap_err();
    disk.room.set(100);
    append(&disk, &mut end, b"\n222\n").unwrap();
    assert_eq!(disk.text(), "11\n222\n");
}

/// S79a, S119 on a real file: one at the greatest length that its file system knows, where a write falls short or
/// fails.
#[tokio::test]
async fn s79a_a_file_that_can_grow_no_more_is_unavailable() {
    let place = Place::new().await;
    let file = fs::File::create(place.base().join("f")).unwrap();
    // Sparse, so it takes no room; some file systems know no limit.
    let greatest = (0..62)
        .rev()
        .fold(0_u64, |size, bit| if file.set_len(size + (1 << bit)).is_ok() { size + (1 << bit) } else { size });
    if file.set_len(greatest + 1).is_ok() {
        return;
    }
    for room in [0, 3] {
        // Ends with a whole line, so that the next starts right there.
        file.set_len(greatest - room).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(place.base().join("f"))
            .unwrap()
            .write_all_at(b"\n", greatest - room - 1)
            .unwrap();
        let failures = place.deliver(routed(&[(b"f", b"{}"), (b"g", b"1"), (b"f", b"[]")])).await;
        assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [0, 2]);
        assert!(failures.iter().all(|failure| failure.kind == FailureKind::Unavailable), "{failures:?}");
        assert!(failures[0].reason.starts_with("could not write to `f`: File too large"), "{failures:?}");
        assert_eq!(file.metadata().unwrap().len(), greatest - room);
    }
    assert_eq!(place.read("g"), "1\n1\n");
}

/// S11: what a failed sync lost is told to every partition that wrote to the file, again and again until its rows have
/// come again or it has started over; a second sync of the same handle would claim success.
#[tokio::test]
async fn s11_a_failed_sync_is_not_forgotten() {
    let place = Place::new().await;
    let rows = |number, first| {
        let mut rows = batch_at(number, first, &[Some(b"1")]);
        rows.targets.push(Some(b"f"));
        rows
    };
    for number in 0..3 {
        assert_eq!(place.deliver(rows(number, 10)).await, []);
    }
    place.sink.shared.open.get(&place.sink.shared.base().unwrap(), Path::new("f")).unwrap().lose("gone");
    for number in [0, 1, 1, 2] {
        let error = place.sink.sync(&partition(number)).await.unwrap_err();
        assert!(matches!(&error, CallError::Unknown(fault) if fault.owner == Owner::Destination), "{error:?}");
        assert_eq!(
            error.to_string(),
            "`filesystem/log` could not force its files to the disk: gone",
            "partition {number}"
        );
    }
    // Later rows settle nothing, the same rows do.
    assert_eq!(place.deliver(rows(0, 11)).await, []);
    place.sink.sync(&partition(0)).await.unwrap_err();
    assert_eq!(place.deliver(rows(0, 10)).await, []);
    place.sink.sync(&partition(0)).await.unwrap();
    place.sink.discard(&partition(1)).await;
    place.sink.sync(&partition(1)).await.unwrap();
    place.sink.sync(&partition(2)).await.unwrap_err();
}

/// Any JSON value, written over several lines.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[\\\\\" \n\t]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,5}", inner), 0..5)
                .prop_map(|fields| Value::from(fields.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

proptest! {
    /// However the disk fails, the file holds whole calls, in order, and exactly those that were reported written.
    #[test]
    fn s119_a_file_holds_whole_calls(
        calls in prop::collection::vec((prop::collection::vec("[a-z]{0,4}", 1..4), 0_usize..12), 0..12)
    ) {
        let (disk, mut end) = (Fake::default(), End::default());
        let mut expected = String::new();
        for (lines, room) in calls {
            disk.room.set(room);
            let block = format!("\n{}\n", lines.join("\n"));
            if append(&disk, &mut end, block.as_bytes()).is_ok() {
                expected.push_str(&block[1..]);
            }
            prop_assert_eq!(disk.text(), expected.clone());
        }
    }

    /// A value over several lines becomes the one line that a serialiser would have written.
    #[test]
    fn compacting_is_what_a_serialiser_does(value in json()) {
        let pretty = format!("{}\n", serde_json::to_string_pretty(&value).unwrap());
        let (mut block, mut failures) = (Vec::new(), Vec::new());
        lines::fill(&mut block, &batch(&[&pretty]), &[0], OnTombstone::Reject, &mut failures);
        prop_assert_eq!(failures, []);
        prop_assert_eq!(String::from_utf8(block).unwrap(), format!("\n{value}\n"));
    }
}

/// F16: a write that outlives its dropped call owes nothing once its partition was forgotten.
#[tokio::test]
async fn s49_a_late_write_owes_nothing_after_it_was_forgotten() {
    let place = Place::new().await;
    let (shared, rows) = (&place.sink.shared, batch_at(0, 10, &[Some(b"1")]));
    let epoch = shared.unsynced.epoch(&rows.source);
    place.sink.discard(&rows.source).await;
    assert_eq!(shared.deliver(&rows, epoch), Ok(Vec::new()));
    assert!(!shared.unsynced.owes(&rows.source), "the late write owes");
    assert_eq!(shared.deliver(&rows, shared.unsynced.epoch(&rows.source)), Ok(Vec::new()));
    assert!(shared.unsynced.owes(&rows.source));
}

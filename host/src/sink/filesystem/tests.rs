//! The sink against real directories, and appending against a disk that is full.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::model::{Failure, FailureKind, Offset};

mod append;
mod containment;

/// `base` with a folder `sub`, and beside it `secret`, which no row may reach.
struct Place {
    root: TempDir,
    sink: FilesystemSink,
}

impl Place {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["base/sub", "secret"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let mut options = Options {
            base_path: root.path().join("base"),
            path: default_path(),
            fsync: Fsync::Flush,
            on_tombstone: OnTombstone::Reject,
        };
        change(&mut options);
        let sink = FilesystemSink::new("log", &options);
        sink.connect().await.unwrap();
        Self { root, sink }
    }

    fn base(&self) -> PathBuf {
        self.root.path().join("base")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.base().join(path)).unwrap()
    }

    async fn deliver(&self, batch: Batch) -> Vec<Failure> {
        self.sink.deliver(&Arc::new(batch)).await.unwrap()
    }

    /// One row, `{}`, to `path`.
    async fn write(&self, path: impl AsRef<[u8]>) -> Vec<Failure> {
        self.deliver(routed(&[(path.as_ref(), b"{}")])).await
    }

    /// The reason for which a row to `path` is rejected.
    async fn rejected(&self, path: impl AsRef<[u8]>) -> String {
        let shown = String::from_utf8_lossy(path.as_ref()).into_owned();
        let failures = self.write(path).await;
        assert_eq!(failures.len(), 1, "`{shown}` must be refused");
        assert_eq!(failures[0].kind, FailureKind::Reject, "`{shown}`");
        failures[0].reason.clone()
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("orders", number)
}

fn batch_at(number: i32, first: Offset, values: &[Option<&[u8]>]) -> Batch {
    let mut batch = Batch::new(partition(number));
    for (value, offset) in values.iter().zip(first..) {
        batch.push(offset, -1, None, *value);
    }
    batch
}

fn batch(values: &[&str]) -> Batch {
    batch_at(0, 0, &values.iter().map(|value| Some(value.as_bytes())).collect::<Vec<_>>())
}

/// Rows with a path each.
fn routed(rows: &[(&[u8], &[u8])]) -> Batch {
    let mut batch = batch_at(0, 0, &rows.iter().map(|(_, value)| Some(*value)).collect::<Vec<_>>());
    for (path, _) in rows {
        batch.targets.push(Some(path));
    }
    batch
}

/// S116: one line per row, the file created; the default path holds topic and partition.
#[tokio::test]
async fn s116_rows_become_lines_of_a_file_per_partition() {
    let place = Place::new().await;
    assert_eq!(place.deliver(batch(&[r#"{"a":1}"#, "[2]", "3"])).await, []);
    assert_eq!(place.deliver(batch(&[r#""é""#])).await, []);
    assert_eq!(place.read("orders-0.jsonl"), "{\"a\":1}\n[2]\n3\n\"é\"\n");
    assert_eq!(place.deliver(batch_at(7, 0, &[Some(b"true")])).await, []);
    assert_eq!(place.read("orders-7.jsonl"), "true\n");
    assert_eq!(fs::read_dir(place.base()).unwrap().count(), 3, "two files, `sub`, and nothing left of the probe");
}

/// S76: the rows that are no JSON are named, one by one, and their neighbours arrive.
#[tokio::test]
async fn s76_a_row_that_is_no_json_is_rejected_alone() {
    let place = Place::new().await;
    let bad: [Option<&[u8]>; 9] = [
        None,
        Some(b""),
        Some(b"NaN"),
        Some(b"-Infinity"),
        Some(b"{'a':1}"),
        Some(b"{} {}"),
        Some(b"\"\xff\""),
        Some(b"\"a\nb\""),
        Some(b"\xef\xbb\xbf{}"),
    ];
    let mut values = vec![Some(b"1".as_slice())];
    for value in bad {
        values.extend([value, Some(b"2")]);
    }
    let failures = place.deliver(batch_at(0, 0, &values)).await;
    assert_eq!(
        failures.iter().map(|failure| failure.index).collect::<Vec<_>>(),
        (1..18).step_by(2).collect::<Vec<_>>()
    );
    assert!(failures.iter().all(|failure| failure.kind == FailureKind::Reject));
    assert_eq!(failures[0].reason, "the value is null where a JSON document is needed");
    assert_eq!(failures[2].reason, "the value is not valid JSON: expected value at line 1 column 1");
    assert_eq!(failures[6].reason, "the value is not UTF-8 from byte 1 on");
    assert_eq!(place.read("orders-0.jsonl"), format!("1\n{}", "2\n".repeat(9)));
}

/// Section 15: one line each, and nothing of a value changes but whitespace that means nothing.
#[tokio::test]
async fn values_keep_their_bytes() {
    let place = Place::new().await;
    let one_line = r#" {"b": 1.0, "a":12345678901234567890123, "a":1E5, "n":"\u00e9\n"} "#;
    let many_lines = "{\r\n\t\"b\" : 1.0,\n \"a\": [12345678901234567890123, 1E+05, -0.0],\n \"a\": \"x \\\" y\\\\\",\n \
                      \"\\u00e9 é\" : { }\n}\n";
    assert_eq!(place.deliver(batch(&[one_line, many_lines])).await, []);
    let compact = r#"{"b":1.0,"a":[12345678901234567890123,1E+05,-0.0],"a":"x \" y\\","\u00e9 é":{}}"#;
    assert_eq!(place.read("orders-0.jsonl"), format!("{one_line}\n{compact}\n"));
}

/// S76, S119: a path that is refused costs its own rows, and rows of one file keep their order under several names.
#[tokio::test]
async fn s119_each_file_gets_its_rows_in_order() {
    let place = Place::new().await;
    symlink("b", place.base().join("alias")).unwrap();
    let failures = place
        .deliver(routed(&[
            (b"a", b"1"),
            (b"b", b"2"),
            (b"../secret/x", b"3"),
            (b"./a", b"4"),
            (b"alias", b"5"),
            (b"none/x", b"6"),
            (b"sub/../a", b"7"),
            (b"b", b"8"),
            (b"alias", b"9"),
        ]))
        .await;
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [2, 5]);
    assert_eq!(place.read("a"), "1\n4\n7\n");
    assert_eq!(place.read("b"), "2\n5\n8\n9\n");
}

/// A row without a path in a batch where others have one goes to the default file; an empty path is a mistake.
#[tokio::test]
async fn rows_without_a_path_go_to_the_default_file() {
    let place = Place::with(|options| options.path = "sub/{partition}/../all".into()).await;
    fs::create_dir(place.base().join("sub/0")).unwrap();
    let mut rows = batch(&["1", "2", "3"]);
    for target in [None, Some(b"".as_slice()), Some(b"\xff.jsonl")] {
        rows.targets.push(target);
    }
    let failures = place.deliver(rows).await;
    assert_eq!(failures, [Failure::reject(1, "the path is empty")]);
    assert_eq!(place.read("sub/all"), "1\n");
    assert!(place.base().join(OsStr::from_bytes(b"\xff.jsonl")).exists(), "a path need not be UTF-8");
}

/// S119: many partitions, two sinks and three names for one file, and every line whole and in its partition's order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s119_lines_never_interleave() {
    const PARTITIONS: i32 = 6;
    const CALLS: i64 = 20;
    const ROWS: i64 = 50;
    let place = Arc::new(Place::new().await);
    fs::write(place.base().join("all"), "").unwrap();
    symlink("all", place.base().join("link")).unwrap();
    fs::hard_link(place.base().join("all"), place.base().join("sub/hard")).unwrap();
    let other = Arc::new(FilesystemSink::new("other", &place.sink.shared.options));
    other.connect().await.unwrap();
    let writers = (0..PARTITIONS).map(|number| {
        let (place, other) = (Arc::clone(&place), Arc::clone(&other));
        tokio::spawn(async move {
            for call in 0..CALLS {
                let mut batch = Batch::new(partition(number));
                for row in 0..ROWS {
                    let offset = call * ROWS + row;
                    let filler = "x".repeat(usize::try_from(offset * 7 % 300).unwrap());
                    batch.push(offset, -1, None, Some(format!("[{number},{offset},\"{filler}\"]").as_bytes()));
                    batch.targets.push(Some([b"all".as_slice(), b"link", b"sub/hard"][number as usize % 3]));
                }
                let sink = if number % 2 == 0 { &place.sink } else { &*other };
                assert_eq!(sink.deliver(&Arc::new(batch)).await.unwrap(), []);
            }
            let sink = if number % 2 == 0 { &place.sink } else { &*other };
            sink.sync(&partition(number)).await.unwrap();
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut next = [0; PARTITIONS as usize];
    for line in place.read("all").lines() {
        let (number, offset, _): (usize, i64, String) = serde_json::from_str(line).unwrap();
        assert_eq!(offset, next[number]);
        next[number] += 1;
    }
    assert_eq!(next, [CALLS * ROWS; PARTITIONS as usize]);
}

/// A call that is given up still writes whole lines.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_leaves_whole_lines() {
    let place = Place::new().await;
    let rows = Arc::new(batch(&[r#"{"a":"0123456789"}"#; 1000]));
    for _ in 0..50 {
        let _ = tokio::time::timeout(Duration::ZERO, place.sink.deliver(&rows)).await;
    }
    // The work left behind ends on its own.
    let lines = || fs::read_to_string(place.base().join("orders-0.jsonl")).unwrap_or_default().lines().count();
    for _ in 0..1000 {
        if lines() >= 50_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(place.deliver(batch(&["1"])).await, []);
    assert_eq!(place.read("orders-0.jsonl"), format!("{}1\n", "{\"a\":\"0123456789\"}\n".repeat(50_000)));
}

/// A file that is deleted, renamed or replaced between calls is made anew, not written to under its old name.
#[tokio::test]
async fn a_file_taken_away_is_created_again() {
    let place = Place::new().await;
    let file = place.base().join("f");
    assert_eq!(place.write("f").await, []);
    fs::remove_file(&file).unwrap();
    assert_eq!(place.write("f").await, []);
    assert_eq!(place.read("f"), "{}\n");
    fs::rename(&file, place.base().join("f.1")).unwrap();
    assert_eq!(place.write("f").await, []);
    assert_eq!((place.read("f"), place.read("f.1")), ("{}\n".into(), "{}\n".into()));
    fs::write(place.base().join("g"), "[]\n").unwrap();
    fs::rename(place.base().join("g"), &file).unwrap();
    assert_eq!(place.write("f").await, []);
    assert_eq!(place.read("f"), "[]\n{}\n");
    fs::write(&file, "").unwrap();
    assert_eq!(place.write("f").await, []);
    assert_eq!(place.read("f"), "{}\n", "cut short by somebody else, as `copytruncate` does");
}

/// A directory that is deleted and made anew is found again; while it is away, rows wait.
#[tokio::test]
async fn a_base_taken_away_is_waited_for() {
    let place = Place::new().await;
    assert_eq!(place.write("f").await, []);
    fs::remove_dir_all(place.base()).unwrap();
    let error = place.sink.deliver(&Arc::new(batch(&["1"]))).await.unwrap_err();
    assert!(matches!(&error, CallError::Unavailable(fault) if fault.owner == Owner::Destination), "{error:?}");
    fs::create_dir(place.base()).unwrap();
    assert_eq!(place.write("f").await, []);
    assert_eq!(place.read("f"), "{}\n");
}

/// The half line that a crash left is ended first, so that it spoils no line of ours.
#[tokio::test]
async fn a_half_line_is_ended_first() {
    let place = Place::new().await;
    fs::write(place.base().join("f"), "{\"a\":").unwrap();
    assert_eq!(place.write("f").await, []);
    assert_eq!(place.write("f").await, []);
    assert_eq!(place.read("f"), "{\"a\":\n{}\n{}\n");
}

/// Open files have a bound, and so have files that wait for a sync.
#[tokio::test]
async fn open_files_are_bounded() {
    let place = Place::new().await;
    let names: Vec<String> = (0..3 * open::OPEN_FILES).map(|number| number.to_string()).collect();
    for _ in 0..2 {
        let rows: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), b"{}".as_slice())).collect();
        assert_eq!(place.deliver(routed(&rows)).await, []);
    }
    assert_eq!(place.sink.shared.open.count(), open::OPEN_FILES);
    let handles = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let ours = handles.filter(|target| target.starts_with(place.base().canonicalize().unwrap())).count();
    assert!(ours <= 2 * open::OPEN_FILES + 2, "{ours} open: some files were synced before the checkpoint");
    for name in &names {
        assert_eq!(place.read(name), "{}\n{}\n");
    }
}

/// S11, S119: what was written is synced before the commit, once; with `never` there is nothing to do.
#[tokio::test]
async fn s119_sync_settles_what_was_written() {
    for (fsync, owed) in [(Fsync::Flush, true), (Fsync::Never, false)] {
        let place = Place::with(|options| options.fsync = fsync).await;
        place.sink.sync(&partition(0)).await.unwrap();
        assert_eq!(place.write("sub/f").await, []);
        assert_eq!(place.sink.shared.unsynced.owes(&partition(0)), owed);
        assert!(!place.sink.shared.unsynced.owes(&partition(1)));
        place.sink.sync(&partition(0)).await.unwrap();
        assert!(!place.sink.shared.unsynced.owes(&partition(0)));
        // A file that is gone by then needs no sync of its name.
        assert_eq!(place.write("gone").await, []);
        fs::remove_file(place.base().join("gone")).unwrap();
        place.sink.sync(&partition(0)).await.unwrap();
    }
}

/// S78: a sink that is not connected writes nothing and says so.
#[tokio::test]
async fn s78_an_unconnected_sink_answers_with_an_error() {
    let root = tempfile::tempdir().unwrap();
    let options = Options {
        base_path: root.path().into(),
        path: default_path(),
        fsync: Fsync::Flush,
        on_tombstone: OnTombstone::Reject,
    };
    let sink = FilesystemSink::new("log", &options);
    assert!(matches!(sink.deliver(&Arc::new(batch(&["1"]))).await, Err(CallError::Fatal(_))));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

/// S117, S124: what is wrong with the configuration is said at connect, with the key and a hint.
#[tokio::test]
async fn s117_connect_names_the_key() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let cases = [
        ("none", "f", "`sinks.filesystem.log.base_path` is not an existing directory"),
        ("file", "f", "`sinks.filesystem.log.base_path` is not an existing directory"),
        ("", "", "`sinks.filesystem.log.path` is empty"),
        ("", "{date}.jsonl", "`sinks.filesystem.log.path` holds an unknown placeholder: `{date}.jsonl`"),
    ];
    for (folder, path, expected) in cases {
        let options = Options {
            base_path: root.path().join(folder),
            path: path.into(),
            fsync: Fsync::Flush,
            on_tombstone: OnTombstone::Reject,
        };
        let Err(CallError::Fatal(fault)) = FilesystemSink::new("log", &options).connect().await else {
            panic!("`{folder}` `{path}` must not connect");
        };
        assert_eq!(fault.owner, Owner::Config);
        assert!(fault.message.starts_with(expected), "{fault}");
        assert!(fault.hint.is_some());
    }
    let empty = Options {
        base_path: PathBuf::new(),
        path: default_path(),
        fsync: Fsync::Flush,
        on_tombstone: OnTombstone::Reject,
    };
    let Err(CallError::Fatal(fault)) = FilesystemSink::new("log", &empty).connect().await else { panic!("empty") };
    assert_eq!(fault.message, "`sinks.filesystem.log.base_path` is empty");
}

/// S124: a directory in which nothing can be created is noticed at connect. `/proc` refuses root too.
#[tokio::test]
async fn s124_a_read_only_base_is_refused_at_connect() {
    let options = Options {
        base_path: "/proc/self".into(),
        path: default_path(),
        fsync: Fsync::Flush,
        on_tombstone: OnTombstone::Reject,
    };
    let Err(CallError::Fatal(fault)) = FilesystemSink::new("log", &options).connect().await else {
        panic!("connected")
    };
    assert_eq!(fault.owner, Owner::Destination);
    assert!(fault.message.starts_with("`sinks.filesystem.log.base_path` is not writable"), "{fault}");
}

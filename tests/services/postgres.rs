//! The PostgreSQL sink on a real server.

mod ends;
mod failover;
mod guard;
mod isolation;
mod partial;
mod plugin;
mod pooler;
mod rows;
mod start;
mod values;

use std::sync::Arc;

use tidegate::model::{Answer, Batch, CallError, Failure, FailureKind, Owner, TopicPartition};
use tidegate::sink::postgres::{Options, PostgresSink};
use tidegate::sink::{OnTombstone, Sink};

use super::help;
use crate::support::servers::Postgres;

/// A sink for a database of its own, whose tables `sql` makes.
struct Place {
    server: &'static Postgres,
    database: String,
}

impl Place {
    fn new(stem: &str, sql: &str) -> Self {
        let server = help::postgres();
        let database = server.database(stem);
        let place = Self { server, database };
        if !sql.is_empty() {
            place.sql(&format!("SET ROLE tidegate; {sql}"));
        }
        place
    }

    fn sql(&self, sql: &str) -> String {
        self.server.psql(&self.database, sql)
    }

    fn options(&self) -> Options {
        Options { dsn: self.server.dsn(&self.database), ..options() }
    }

    async fn sink(&self, options: Options) -> PostgresSink {
        let sink = PostgresSink::new("main", &options).unwrap();
        sink.connect().await.unwrap();
        sink
    }
}

fn options() -> Options {
    Options { table: "t".into(), min_connections: 0, max_connections: 4, ..Options::default() }
}

fn keyed(key: &[&str], options: Options) -> Options {
    Options { key: key.iter().map(|column| (*column).to_owned()).collect(), ..options }
}

fn deleting(options: Options) -> Options {
    Options { on_tombstone: OnTombstone::Delete, ..options }
}

/// Rows with a key, a value and a table.
fn batch(rows: &[(Option<&str>, Option<&str>, Option<&str>)]) -> Arc<Batch> {
    let mut batch = Batch::new(TopicPartition::new("orders", 0));
    for (offset, (key, value, table)) in rows.iter().enumerate() {
        batch.push(offset as i64, -1, key.map(str::as_bytes), value.map(str::as_bytes));
        batch.targets.push(table.map(str::as_bytes));
    }
    Arc::new(batch)
}

fn values<V: AsRef<str>>(values: &[V]) -> Arc<Batch> {
    batch(&values.iter().map(|value| (None, Some(value.as_ref()), None)).collect::<Vec<_>>())
}

/// The rows that were rejected, with their reasons; all others have to be written.
fn rejected(answer: Answer) -> Vec<(u32, String)> {
    let failures: Vec<Failure> = answer.unwrap();
    failures
        .into_iter()
        .map(|failure| {
            assert_eq!(failure.kind, FailureKind::Reject, "{failure:?}");
            (failure.index, failure.reason)
        })
        .collect()
}

/// The one reason why the one row was rejected.
fn refusal(answer: Answer) -> String {
    let mut rejected = rejected(answer);
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    rejected.remove(0).1
}

fn unavailable(answer: Answer) -> String {
    match answer {
        Err(CallError::Unavailable(fault)) => {
            assert_eq!(fault.owner, Owner::Destination);
            let told = fault.to_string();
            assert!(!told.contains("secret") && !told.contains("tidegate:"), "{told}");
            told
        }
        other => panic!("not unavailable: {other:?}"),
    }
}

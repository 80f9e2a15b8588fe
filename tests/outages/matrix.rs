//! What every sink is held to in every outage: the table that the tests run and that `docs/guarantees.md` prints.

use Expected::{All, Not, Once};

/// What happens to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    Killed,
    Stalled,
    Refused,
    HalfOpen,
    ResetOnReuse,
    FailedOver,
    ReadOnly,
    OutOfSpace,
    LoginRevoked,
    Slow,
}

impl Outage {
    pub const ALL: [Self; 10] = [
        Self::Killed,
        Self::Stalled,
        Self::Refused,
        Self::HalfOpen,
        Self::ResetOnReuse,
        Self::FailedOver,
        Self::ReadOnly,
        Self::OutOfSpace,
        Self::LoginRevoked,
        Self::Slow,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stalled => "stalled",
            Self::Refused => "refused",
            Self::HalfOpen => "half-open",
            Self::ResetOnReuse => "reset on reuse",
            Self::FailedOver => "failed over",
            Self::ReadOnly => "read-only",
            Self::OutOfSpace => "out of space",
            Self::LoginRevoked => "login revoked",
            Self::Slow => "slow by 100 ×",
        }
    }

    /// What is done, for every sink; a cell's note says where it differs.
    fn about(self) -> &'static str {
        match self {
            Self::Killed => "SIGKILL of the server, which comes back with its data",
            Self::Stalled => "connections stay open and nothing passes, for longer than a call may take",
            Self::Refused => "present connections are reset, new ones refused",
            Self::HalfOpen => "the server's side of every connection is gone and the client is not told",
            Self::ResetOnReuse => "a connection that was idle for a moment is reset when it is used again",
            Self::FailedOver => "another server takes over, new connections lead to it, the old one refuses writes",
            Self::ReadOnly => "the server answers and takes no writes",
            Self::OutOfSpace => "the server answers that there is no room",
            Self::LoginRevoked => "the user may not log in and its sessions are ended, later it may again",
            Self::Slow => "every answer takes 100 ms instead of 1, each connection passes 100 kB a second",
        }
    }
}

/// A sink with the options that the matrix gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Kafka,
    Postgres,
    Mongo,
    Redis,
    Http,
    Filesystem,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Kafka, Self::Postgres, Self::Mongo, Self::Redis, Self::Http, Self::Filesystem];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Mongo => "mongo",
            Self::Redis => "redis",
            Self::Http => "http",
            Self::Filesystem => "filesystem",
        }
    }
}

/// What a cell has to show. Lost rows, dead letters, early commits and rows of a key out of order are always none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every row stands there once. A note, where the outage is made in another way than [`Outage::about`] says.
    Once(&'static str),
    /// Every row is there; what had no answer may be there twice.
    All(&'static str),
    /// It cannot be had in this test, for this reason.
    Not(&'static str),
}

/// The cell of a sink and an outage.
pub fn expected(kind: Kind, outage: Outage) -> Expected {
    match (kind, outage) {
        (Kind::Kafka, Outage::FailedOver) => {
            All("of three brokers the partition's leader is killed and stays dead, another one leads")
        }
        (Kind::Kafka, Outage::ReadOnly) => {
            All("of three brokers one is dead, and the topic wants three replicas in sync")
        }
        (Kind::Kafka, Outage::OutOfSpace) => Not("a broker whose disk is full ends by itself, which is *killed*"),
        (Kind::Kafka, Outage::LoginRevoked) => {
            All("SASL over TLS; the broker comes back and knows another password, and later this one again")
        }
        (Kind::Kafka, _) => All(""),

        (Kind::Postgres, Outage::FailedOver) => Once("a synchronous standby is promoted"),
        (Kind::Postgres, Outage::ReadOnly) => Once("`default_transaction_read_only = on`"),
        (Kind::Postgres, Outage::OutOfSpace) => Once("SQLSTATE 53100, raised by a trigger"),
        (Kind::Postgres, _) => Once(""),

        (Kind::Mongo, Outage::FailedOver) => {
            Once("the server moves, with its data: this one knows no replica sets, so no old primary stays")
        }
        (Kind::Mongo, Outage::ReadOnly) => Once("code 10107 for every write, simulated"),
        (Kind::Mongo, Outage::OutOfSpace) => Once("code 14031 for every write, simulated"),
        (Kind::Mongo, Outage::LoginRevoked) => Once("code 13 for every write, simulated: this one has no users"),
        (Kind::Mongo, _) => Once(""),

        (Kind::Redis, Outage::Killed) => Once("with `appendonly`"),
        (Kind::Redis, Outage::FailedOver) => Once("`FAILOVER`: the old master becomes a replica"),
        (Kind::Redis, Outage::ReadOnly) => Once("the master becomes a replica of nobody"),
        (Kind::Redis, Outage::OutOfSpace) => Once("`maxmemory`"),
        (Kind::Redis, Outage::LoginRevoked) => Once("`ACL SETUSER … off`, `CLIENT KILL`"),
        (Kind::Redis, _) => Once(""),

        (Kind::Http, Outage::FailedOver) => Once("the old server answers 503"),
        (Kind::Http, Outage::ReadOnly) => Once("503, as by an endpoint under maintenance"),
        (Kind::Http, Outage::OutOfSpace) => Once("507"),
        (Kind::Http, Outage::LoginRevoked) => Once("401"),
        (Kind::Http, _) => Once(""),

        (Kind::Filesystem, Outage::Refused) => {
            All("the directory is deleted with its files, and made again: what it had held before counts as written")
        }
        (Kind::Filesystem, Outage::OutOfSpace) => Once("a `tmpfs` of 96 KiB"),
        (Kind::Filesystem, Outage::LoginRevoked) => {
            Once("the files are rotated away, and nobody may write to the directory until the permission is back")
        }
        (Kind::Filesystem, Outage::ReadOnly) => {
            Not("a file system with a file that is open for writing cannot be made read-only by hand")
        }
        (Kind::Filesystem, Outage::Slow | Outage::Stalled) => {
            Not("a file system that is slowed down or stopped needs a device of its own")
        }
        (Kind::Filesystem, _) => Not("there is no server and no connection"),
    }
}

/// The cells that are run.
pub fn cells() -> impl Iterator<Item = (Kind, Outage)> {
    let all = Kind::ALL.into_iter().flat_map(|kind| Outage::ALL.map(|outage| (kind, outage)));
    all.filter(|(kind, outage)| !matches!(expected(*kind, *outage), Not(_)))
}

/// The matrix as Markdown: an outage a line, a sink a column, and then the notes.
pub fn table() -> String {
    let mut table = format!("| Outage | {} |\n", Kind::ALL.map(|kind| format!("`{}`", kind.name())).join(" | "));
    table.push_str(&format!("|---|{}\n", "---|".repeat(Kind::ALL.len())));
    let mut notes: Vec<&str> = Vec::new();
    for outage in Outage::ALL {
        let cells = Kind::ALL.map(|kind| {
            let (word, note) = match expected(kind, outage) {
                Once(note) => ("once", note),
                All(note) => ("all", note),
                Not(note) => ("–", note),
            };
            if note.is_empty() {
                return word.to_owned();
            }
            let number = notes.iter().position(|known| *known == note).unwrap_or_else(|| {
                notes.push(note);
                notes.len() - 1
            });
            format!("{word} [{}]", number + 1)
        });
        table.push_str(&format!("| **{}**: {} | {} |\n", outage.name(), outage.about(), cells.join(" | ")));
    }
    table.push('\n');
    for (note, number) in notes.iter().zip(1..) {
        table.push_str(&format!("{number}. {note}\n"));
    }
    table
}

//! What happens to whom, drawn from the seed before anything runs.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::support::cluster::BROKERS;

/// How many processes of the binary there are at most.
pub const HOSTS: usize = 3;
/// What the group's members are told: who says nothing for this long is out.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// What a run shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Every kind of fault over every kind of sink, on short intervals.
    Faults,
    /// A steady rate on default options, one host that lives to the end, and others that are killed and leave.
    Steady,
}

/// How large a run is.
#[derive(Clone, Debug)]
pub struct Size {
    pub course: Course,
    /// Records to write.
    pub records: u64,
    /// Steps of the plan, each with one fault or two.
    pub steps: usize,
    /// How long the records take to be written if all keep up.
    pub feeding: Duration,
    /// No fault begins after this time.
    pub faults_until: Duration,
    /// The run fails after this time.
    pub all_until: Duration,
    /// Tell what happens while it does.
    pub live: bool,
}

impl Size {
    /// The short run, or the long one with so many records.
    pub fn of(records: Option<u64>) -> Self {
        let Some(records) = records else {
            return Self {
                course: Course::Faults,
                records: 60_000,
                steps: 9,
                feeding: Duration::from_secs(60),
                faults_until: Duration::from_secs(110),
                all_until: Duration::from_secs(175),
                live: false,
            };
        };
        let feeding = Duration::from_secs((records / 4_000).max(45));
        Self {
            course: Course::Faults,
            records,
            steps: usize::try_from(feeding.as_secs() / 9).unwrap(),
            feeding,
            faults_until: feeding * 3 + Duration::from_secs(60),
            all_until: feeding * 5 + Duration::from_secs(120),
            live: true,
        }
    }

    /// So many records a second for so long.
    pub fn steady(feeding: Duration, rate: u64) -> Self {
        Self {
            course: Course::Steady,
            records: feeding.as_secs() * rate,
            steps: 0,
            feeding,
            faults_until: feeding,
            all_until: feeding * 2 + Duration::from_secs(180),
            live: true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SIGKILL of a host; its next life starts at the end.
    HostKill,
    /// SIGTERM of a host, which has to end with code 0; its next life starts at the end.
    HostTerm,
    /// SIGSTOP of a host past its session timeout, SIGCONT at the end.
    HostStop,
    /// SIGTERM of a host that stays away for long enough that the group goes on without it.
    HostLeave,
    /// SIGKILL of a broker, restarted on its data at the end.
    BrokerKill,
    /// SIGKILL of PostgreSQL, restarted on its data at the end.
    PostgresKill,
    /// Somebody locks the table.
    PostgresLock,
    /// The database takes no writes.
    PostgresReadOnly,
    /// Nothing passes between hosts and PostgreSQL, and what was sent arrives at the end.
    ProxyStall,
    /// All connections between hosts and PostgreSQL are reset.
    ProxyReset,
    /// SIGKILL of the pooler in front of PostgreSQL, restarted at the end.
    PoolerKill,
    /// Redis' replica becomes the master and its name leads there; the old master stays up, as a replica.
    RedisFailover,
}

/// Every kind, once.
pub const KINDS: [Kind; 12] = [
    Kind::HostKill,
    Kind::HostTerm,
    Kind::HostStop,
    Kind::HostLeave,
    Kind::BrokerKill,
    Kind::PostgresKill,
    Kind::PostgresLock,
    Kind::PostgresReadOnly,
    Kind::ProxyStall,
    Kind::ProxyReset,
    Kind::PoolerKill,
    Kind::RedisFailover,
];

/// What two faults at a time must not have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Host(usize),
    Brokers,
    Database,
    Redis,
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// The host or broker.
    pub target: usize,
    /// From the step's beginning.
    pub after: Duration,
    pub lasts: Duration,
}

impl Fault {
    fn place(&self) -> Place {
        match self.kind {
            Kind::HostKill | Kind::HostTerm | Kind::HostStop | Kind::HostLeave => Place::Host(self.target),
            Kind::BrokerKill => Place::Brokers,
            Kind::RedisFailover => Place::Redis,
            _ => Place::Database,
        }
    }

    fn draw(kind: Kind, after: Duration, random: &mut Rng) -> Self {
        let (least, most) = match kind {
            Kind::HostKill => (200, 3_000),
            Kind::HostTerm => (0, 1_000),
            // Past the session timeout, and sometimes past `max.poll.interval.ms` as well.
            Kind::HostStop => (4_000, 12_000),
            Kind::HostLeave => (5_000, 9_000),
            Kind::BrokerKill => (500, 5_000),
            Kind::PostgresKill => (200, 4_000),
            Kind::PostgresLock | Kind::PostgresReadOnly | Kind::ProxyStall => (2_000, 6_000),
            Kind::PoolerKill => (200, 3_000),
            Kind::ProxyReset | Kind::RedisFailover => (0, 1),
        };
        let target = match kind {
            Kind::BrokerKill => random.usize(..BROKERS),
            _ => random.usize(..HOSTS),
        };
        Self { kind, target, after, lasts: Duration::from_millis(random.u64(least..most)) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Place::Host(host) => write!(f, "{:?} h{host} {:.1?}", self.kind, self.lasts),
            Place::Brokers => write!(f, "{:?} b{} {:.1?}", self.kind, self.target, self.lasts),
            Place::Database | Place::Redis => write!(f, "{:?} {:.1?}", self.kind, self.lasts),
        }
    }
}

/// Faults that overlap, and a pause in which all go on.
#[derive(Clone, Debug)]
pub struct Step {
    pub faults: Vec<Fault>,
    pub pause: Duration,
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// When each host first starts, from the beginning.
    pub joins: [Duration; HOSTS],
    pub steps: Vec<Step>,
}

impl Plan {
    /// Every kind comes once before any comes again.
    pub fn draw(steps: usize, random: &mut Rng) -> Self {
        let mut joins = [Duration::ZERO; HOSTS];
        for join in joins.iter_mut().skip(1) {
            *join = Duration::from_millis(random.u64(..8_000));
        }
        random.shuffle(&mut joins);
        let mut bag = Vec::new();
        let mut kind = |random: &mut Rng| {
            if bag.is_empty() {
                bag.extend(KINDS);
                random.shuffle(&mut bag);
            }
            bag.pop().unwrap_or(Kind::HostKill)
        };
        let steps = (0..steps).map(|_| {
            let first = Fault::draw(kind(random), Duration::ZERO, random);
            let mut faults = vec![first];
            if random.u8(..5) < 2 {
                let after = Duration::from_millis(random.u64(..2_500));
                let second = Fault::draw(kind(random), after, random);
                // Two faults of one host would be one; two of the brokers or of the database come one after the other.
                let second = match (first.place(), second.place()) {
                    (Place::Host(one), Place::Host(other)) if one == other => {
                        Fault { target: (other + 1) % HOSTS, ..second }
                    }
                    _ => second,
                };
                if second.place() == first.place() {
                    faults.push(Fault { after: first.lasts + Duration::from_secs(1), ..second });
                } else {
                    faults.push(second);
                }
            }
            Step { faults, pause: Duration::from_millis(random.u64(1_000..3_000)) }
        });
        Self { joins, steps: steps.collect() }
    }
}

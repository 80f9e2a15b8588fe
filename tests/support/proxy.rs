//! A TCP proxy that is told, while it runs, how to fail: it cuts, stalls, refuses, forgets, redirects and delays.
//!
//! All proxies of a test process run on one runtime of their own, so that they serve tests without a runtime as well. A
//! proxy ends, and resets its connections, when it is dropped.
#![allow(dead_code, reason = "not every test binary uses all of it")]

mod connection;

use std::collections::BTreeMap;
use std::net::TcpListener as Listener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

/// Kafka's numbers of requests.
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const OFFSET_FETCH: i16 = 9;

/// Most connections of one proxy at a time; more wait to be accepted.
const CONNECTIONS: usize = 1_000;
/// How long the listener may take to be closed, or to get its port back.
const APPLY_PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// With FIN, as by a server that shuts down.
    Close,
    /// With RST, as by a server that crashed or a firewall that forgot the connection.
    Reset,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// What every connection has to heed.
#[derive(Clone, Debug)]
struct Script {
    /// Where new connections lead.
    to: u16,
    /// No connection is accepted; the port is closed.
    is_refusing: bool,
    /// Nothing passes in either direction; what is read meanwhile passes later.
    is_stalled: bool,
    /// What the server sends takes so long.
    delay: Duration,
    /// Each direction of a connection passes no more than this.
    bytes_per_second: Option<u64>,
    /// Connections of earlier ages are cut, in this way.
    age: u64,
    cut: Cut,
    /// Connections of earlier ages lose their server, and their clients are not told.
    half_open_age: u64,
    cut_after: Option<CutAfter>,
    /// A connection that nothing has passed for so long is reset when its client uses it again.
    reset_on_reuse: Option<Duration>,
    /// Kafka's requests of this kind get no further, nor what comes after them on their connection.
    hangs: Option<i16>,
}

/// Each connection is cut once so many bytes have passed in one direction since this was ordered.
#[derive(Clone, Copy, Debug)]
struct CutAfter {
    order: u64,
    direction: Direction,
    bytes: u64,
    cut: Cut,
}

/// What passed a proxy, and what did not.
#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    cut: AtomicU64,
    half_open: AtomicU64,
    held: AtomicU64,
    delayed: AtomicU64,
    swallowed: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that the script ended.
    pub cut: u64,
    /// Connections that lost their server without a word.
    pub half_open: u64,
    /// Chunks that had to wait for the end of a stall.
    pub held: u64,
    /// Chunks that were passed on later or more slowly than they came.
    pub delayed: u64,
    /// Bytes that clients sent and no server got.
    pub swallowed: u64,
    /// Bytes that were passed on.
    pub to_server: u64,
    pub to_client: u64,
}

/// What the connections of one proxy share.
struct Shared {
    counters: Counters,
    /// Kafka's requests by kind; `None` where what is sent is not Kafka's and is not looked at.
    requests: Option<Mutex<BTreeMap<i16, usize>>>,
}

/// Forwards a port of this machine to another one, as its script says.
pub struct Proxy {
    port: u16,
    script: watch::Sender<Script>,
    /// Whether the port is open, as the script wants it.
    is_open: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("proxy").enable_all().build().unwrap()
    })
}

impl Proxy {
    /// On a port of its own in front of a Kafka broker, whose requests it counts.
    pub fn kafka(port: u16, to: u16) -> Self {
        Self::with(port, to, true)
    }

    /// On a port of its own in front of any server.
    pub fn at(port: u16, to: u16) -> Self {
        Self::with(port, to, false)
    }

    /// On a free port in front of any server.
    pub fn before(to: u16) -> Self {
        Self::with(0, to, false)
    }

    fn with(port: u16, to: u16, is_kafka: bool) -> Self {
        let listener = bind(port).unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Script {
            to,
            is_refusing: false,
            is_stalled: false,
            delay: Duration::ZERO,
            bytes_per_second: None,
            age: 0,
            cut: Cut::Reset,
            half_open_age: 0,
            cut_after: None,
            reset_on_reuse: None,
            hangs: None,
        };
        let (script, watched) = watch::channel(script);
        let (opened, is_open) = watch::channel(true);
        let shared = Arc::new(Shared { counters: Counters::default(), requests: is_kafka.then(Mutex::default) });
        runtime().spawn(accept(listener, watched, opened, Arc::clone(&shared)));
        Self { port, script, is_open, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What passed so far.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { connections, cut, half_open, held, delayed, swallowed, to_server, to_client } =
            &self.shared.counters;
        Counts {
            connections: of(connections),
            cut: of(cut),
            half_open: of(half_open),
            held: of(held),
            delayed: of(delayed),
            swallowed: of(swallowed),
            to_server: of(to_server),
            to_client: of(to_client),
        }
    }

    /// Forwards as at first, to the present server. What was held passes; what was cut or lost its server stays so.
    pub fn forward(&self) {
        self.change(|script| {
            (script.is_refusing, script.is_stalled) = (false, false);
            (script.delay, script.bytes_per_second) = (Duration::ZERO, None);
            (script.cut_after, script.reset_on_reuse, script.hangs) = (None, None, None);
        });
    }

    /// Ends every connection that there is now.
    pub fn cut(&self, how: Cut) {
        self.change(|script| (script.age, script.cut) = (script.age + 1, how));
    }

    /// Ends each connection, present and new, once so many bytes of it have passed in that direction from now on.
    pub fn cut_after(&self, direction: Direction, bytes: u64, cut: Cut) {
        self.change(|script| {
            let order = script.cut_after.map_or(0, |before| before.order + 1);
            script.cut_after = Some(CutAfter { order, direction, bytes, cut });
        });
    }

    /// Nothing passes, in either direction, and connections stay open, until [`Self::forward`].
    pub fn stall(&self) {
        self.change(|script| script.is_stalled = true);
    }

    /// Resets a connection on which nothing has passed for so long when its client uses it again.
    pub fn reset_on_reuse(&self, idle: Duration) {
        self.change(|script| script.reset_on_reuse = Some(idle));
    }

    /// The servers of all present connections are gone, and their clients are not told: what they send is swallowed.
    pub fn half_open(&self) {
        self.change(|script| script.half_open_age += 1);
    }

    /// The port is closed: new connections are refused, present ones stay.
    pub fn refuse(&self) {
        self.change(|script| script.is_refusing = true);
    }

    /// New connections lead to another server.
    pub fn redirect(&self, to: u16) {
        self.change(|script| script.to = to);
    }

    /// The same, and present connections are ended.
    pub fn redirect_all(&self, to: u16, how: Cut) {
        self.change(|script| (script.to, script.age, script.cut) = (to, script.age + 1, how));
    }

    /// What the server sends from now on takes so long. More of it may be under way at the same time.
    pub fn delay(&self, delay: Duration) {
        self.change(|script| script.delay = delay);
    }

    /// No more than this passes each direction of a connection.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.change(|script| script.bytes_per_second = Some(bytes_per_second.max(1)));
    }

    /// Kafka's requests of this kind get no further, nor what comes after them on their connection, until [`Self::forward`].
    pub fn hang(&self, kind: i16) {
        self.change(|script| script.hangs = Some(kind));
    }

    /// How many of Kafka's requests of this kind have come.
    pub fn requests(&self, kind: i16) -> usize {
        self.all_requests().get(&kind).copied().unwrap_or(0)
    }

    /// All of them, by kind.
    pub fn all_requests(&self) -> BTreeMap<i16, usize> {
        self.shared.requests.as_ref().map(|requests| requests.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Changes the script, and waits until the port is open or closed as it says.
    fn change(&self, change: impl FnOnce(&mut Script)) {
        self.script.send_modify(change);
        let wanted = !self.script.borrow().is_refusing;
        let started = Instant::now();
        while *self.is_open.borrow() != wanted {
            assert!(started.elapsed() < APPLY_PATIENCE, "port {} is not open={wanted}", self.port);
            std::thread::sleep(LOOK);
        }
    }
}

fn bind(port: u16) -> std::io::Result<Listener> {
    let listener = Listener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes connections until the proxy is dropped.
async fn accept(
    listener: Listener,
    mut script: watch::Receiver<Script>,
    is_open: watch::Sender<bool>,
    shared: Arc<Shared>,
) {
    let port = listener.local_addr().unwrap().port();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut listener = Some(TcpListener::from_std(listener).unwrap());
    loop {
        if script.borrow_and_update().is_refusing {
            listener = None;
        } else if listener.is_none() {
            // Something else may have the port for a moment: the proxy's change fails when that lasts.
            listener = bind(port).ok().map(|listener| TcpListener::from_std(listener).unwrap());
        }
        is_open.send_replace(listener.is_some());
        let accepted = async {
            let Some(listener) = &listener else {
                tokio::time::sleep(LOOK).await;
                return None;
            };
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await.ok()?.0, place))
        };
        tokio::select! {
            changed = script.changed() => if changed.is_err() { return },
            client = accepted => if let Some((client, place)) = client {
                let (script, shared) = (script.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    connection::serve(client, script, &shared).await;
                    drop(place);
                });
            },
        }
    }
}

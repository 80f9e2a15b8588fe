//! A TCP proxy that delays every answer of a server, lets requests of one kind hang, and counts Kafka's requests.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Kafka's numbers of requests.
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const OFFSET_FETCH: i16 = 9;

/// No request has this number.
const NONE: i16 = -1;
/// How often a request that hangs looks whether it may go on.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    delay_ms: AtomicU64,
    hangs: AtomicI16,
    requests: Mutex<BTreeMap<i16, usize>>,
    /// What is sent is not Kafka's and is not looked at.
    is_foreign: bool,
}

/// Forwards a port of this machine to another one until the process ends.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// In front of a Kafka broker.
    pub fn start(port: u16, to: u16) -> Self {
        Self::with(port, to, false)
    }

    /// In front of any other server.
    pub fn foreign(port: u16, to: u16) -> Self {
        Self::with(port, to, true)
    }

    fn with(port: u16, to: u16, is_foreign: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let state = Arc::new(State { hangs: AtomicI16::new(NONE), is_foreign, ..State::default() });
        std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                while let Ok((client, _)) = listener.accept() {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                        serve(&client, &server, &state);
                    }
                }
            }
        });
        Self { port, state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on every answer takes so long.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// From now on requests of this kind get no further, nor what comes after them on their connection.
    pub fn hang(&self, kind: i16) {
        self.state.hangs.store(kind, Ordering::Relaxed);
    }

    /// Nothing hangs any more.
    pub fn go_on(&self) {
        self.hang(NONE);
    }

    /// How many requests of this kind have come.
    pub fn requests(&self, kind: i16) -> usize {
        self.state.requests.lock().unwrap().get(&kind).copied().unwrap_or(0)
    }

    /// All of them, by kind.
    pub fn all_requests(&self) -> BTreeMap<i16, usize> {
        self.state.requests.lock().unwrap().clone()
    }
}

fn serve(client: &TcpStream, server: &TcpStream, state: &Arc<State>) {
    for socket in [client, server] {
        socket.set_nodelay(true).unwrap();
    }
    let [from, to] = [client, server].map(|socket| socket.try_clone().unwrap());
    let own = Arc::clone(state);
    std::thread::spawn(move || {
        let _ = if own.is_foreign { std::io::copy(&mut &from, &mut &to).map(drop) } else { requests(&from, &to, &own) };
        let _ = to.shutdown(Shutdown::Both);
    });
    let [to, from] = [client, server].map(|socket| socket.try_clone().unwrap());
    let (chunks, arriving) = mpsc::channel::<(Instant, Vec<u8>)>();
    let own = Arc::clone(state);
    std::thread::spawn(move || {
        let mut from = &from;
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let due = Instant::now() + Duration::from_millis(own.delay_ms.load(Ordering::Relaxed));
            if chunks.send((due, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut socket = &to;
        while let Ok((due, chunk)) = arriving.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if socket.write_all(&chunk).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Forwards request by request: a length of four bytes, and then the number of the request's kind.
fn requests(mut from: &TcpStream, mut to: &TcpStream, state: &State) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut request = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        from.read_exact(&mut request)?;
        let kind = i16::from_be_bytes([request[0], request[1]]);
        *state.requests.lock().unwrap().entry(kind).or_default() += 1;
        while state.hangs.load(Ordering::Relaxed) == kind {
            std::thread::sleep(LOOK);
        }
        to.write_all(&length)?;
        to.write_all(&request)?;
    }
}

//! One connection through a proxy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, tcp};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Cut, Direction, Script, Shared};

/// What is taken from one side at a time.
const BUFFER: usize = 64 << 10;
/// Chunks of one direction that have come and not been passed on. Beyond that nothing more is read.
const CHUNKS: usize = 256;
/// The longest of Kafka's requests that is passed on; the tests' brokers take none that is longer.
const REQUEST_BYTES: usize = 100 << 20;
/// A slow direction passes so many parts a second.
const PARTS_A_SECOND: u64 = 20;

/// Why a connection ends.
enum End {
    /// One side has ended it. The other one would wait for what never comes.
    Side,
    Cut(Cut),
    HalfOpen,
    /// The proxy is gone.
    Dropped,
}

type Watched = watch::Receiver<Script>;

/// Passes bytes both ways until one side or the script ends the connection.
pub async fn serve(client: TcpStream, mut script: Watched, shared: &Shared) {
    shared.counters.connections.fetch_add(1, Ordering::Relaxed);
    let (to, age, half_open_age) = {
        let script = script.borrow_and_update();
        (script.to, script.age, script.half_open_age)
    };
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    // When something passed last, on a clock that begins now.
    let (begun, last) = (Instant::now(), AtomicU64::new(0));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let end = {
        let pass = |direction| Pass { direction, script: script.clone(), shared, begun, last: &last };
        tokio::select! {
            end = ordered(script.clone(), age, half_open_age) => end,
            end = pass(Direction::ToServer).run(&mut from_client, &mut to_server) => end,
            end = pass(Direction::ToClient).run(&mut from_server, &mut to_client) => end,
        }
    };
    let counters = &shared.counters;
    let reset = match end {
        End::Side => return,
        End::Cut(cut) => {
            counters.cut.fetch_add(1, Ordering::Relaxed);
            cut == Cut::Reset
        }
        End::Dropped => true,
        End::HalfOpen => {
            counters.half_open.fetch_add(1, Ordering::Relaxed);
            drop((from_server, to_server));
            let mut buffer = vec![0; BUFFER];
            let cut = cut(script, age);
            tokio::pin!(cut);
            loop {
                tokio::select! {
                    read = from_client.read(&mut buffer) => match read {
                        Ok(length @ 1..) => counters.swallowed.fetch_add(length as u64, Ordering::Relaxed),
                        _ => return,
                    },
                    _ = &mut cut => break,
                };
            }
            let _ = from_client.as_ref().set_zero_linger();
            to_client.forget();
            return;
        }
    };
    if reset {
        for side in [from_client.as_ref(), from_server.as_ref()] {
            let _ = side.set_zero_linger();
        }
        // Dropped, they would say FIN first.
        to_client.forget();
        to_server.forget();
    }
}

/// Waits until the script ends this connection, or takes its server away.
async fn ordered(script: Watched, age: u64, half_open_age: u64) -> End {
    let mut half_open = script.clone();
    tokio::select! {
        end = cut(script, age) => end,
        _ = half_open.wait_for(|script| script.half_open_age != half_open_age) => End::HalfOpen,
    }
}

/// Waits until connections of this age are ended.
async fn cut(mut script: Watched, age: u64) -> End {
    match script.wait_for(|script| script.age != age).await {
        Ok(script) => End::Cut(script.cut),
        Err(_) => End::Dropped,
    }
}

/// One direction of a connection.
struct Pass<'a> {
    direction: Direction,
    script: Watched,
    shared: &'a Shared,
    begun: Instant,
    last: &'a AtomicU64,
}

impl Pass<'_> {
    /// Reads on while earlier chunks wait for their time, so that delays do not add up.
    async fn run(self, from: &mut tcp::OwnedReadHalf, to: &mut tcp::OwnedWriteHalf) -> End {
        let (chunks, arriving) = mpsc::channel(CHUNKS);
        tokio::select! {
            // What has come is still passed on when its sender has ended.
            biased;
            end = self.write(arriving, to) => end,
            end = async {
                let end = self.read(from, chunks).await;
                if matches!(end, End::Side) { std::future::pending().await } else { end }
            } => end,
        }
    }

    async fn read(&self, from: &mut tcp::OwnedReadHalf, chunks: mpsc::Sender<(Instant, Vec<u8>)>) -> End {
        let is_framed = self.direction == Direction::ToServer && self.shared.requests.is_some();
        loop {
            let chunk = if is_framed { request(from).await } else { chunk(from).await };
            let Some(chunk) = chunk else { return End::Side };
            if self.was_idle_for_too_long() {
                self.shared.counters.swallowed.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                return End::Cut(Cut::Reset);
            }
            self.touch();
            if is_framed {
                self.count(&chunk).await;
            }
            let delay = match self.direction {
                Direction::ToClient => self.script.borrow().delay,
                Direction::ToServer => Duration::ZERO,
            };
            if chunks.send((Instant::now() + delay, chunk)).await.is_err() {
                return End::Side;
            }
        }
    }

    /// Whether a connection that is to be reset on its reuse is used again.
    fn was_idle_for_too_long(&self) -> bool {
        let Some(idle) = self.script.borrow().reset_on_reuse else { return false };
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.direction == Direction::ToServer && self.begun.elapsed().saturating_sub(last) >= idle
    }

    fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Counts one of Kafka's requests, and waits as long as its kind hangs.
    async fn count(&self, request: &[u8]) {
        let kind = request.get(4..6).map_or(-1, |kind| i16::from_be_bytes([kind[0], kind[1]]));
        if let Some(requests) = &self.shared.requests {
            *requests.lock().unwrap().entry(kind).or_default() += 1;
        }
        let _ = self.script.clone().wait_for(|script| script.hangs != Some(kind)).await;
    }

    async fn write(&self, mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>, to: &mut tcp::OwnedWriteHalf) -> End {
        let counters = &self.shared.counters;
        let passed = match self.direction {
            Direction::ToServer => &counters.to_server,
            Direction::ToClient => &counters.to_client,
        };
        // Bytes since the last order to cut.
        let (mut order, mut since_order) = (None, 0);
        while let Some((due, chunk)) = arriving.recv().await {
            if due > Instant::now() {
                counters.delayed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep_until(due).await;
            }
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let mut script = self.script.clone();
                if script.borrow().is_stalled {
                    counters.held.fetch_add(1, Ordering::Relaxed);
                    if script.wait_for(|script| !script.is_stalled).await.is_err() {
                        return End::Dropped;
                    }
                }
                let (throttle, cut_after) = {
                    let script = script.borrow();
                    (script.bytes_per_second, script.cut_after.filter(|cut| cut.direction == self.direction))
                };
                let mut length = rest.len() as u64;
                if let Some(rate) = throttle {
                    length = length.min((rate / PARTS_A_SECOND).max(1));
                }
                if let Some(cut) = cut_after {
                    if order.replace(cut.order) != Some(cut.order) {
                        since_order = 0;
                    }
                    length = length.min(cut.bytes - since_order);
                }
                let (part, later) = rest.split_at(usize::try_from(length).unwrap_or(rest.len()));
                if to.write_all(part).await.is_err() {
                    return End::Side;
                }
                passed.fetch_add(length, Ordering::Relaxed);
                self.touch();
                rest = later;
                if let Some(cut) = cut_after {
                    since_order += length;
                    if since_order >= cut.bytes {
                        return End::Cut(cut.cut);
                    }
                }
                if let Some(rate) = throttle {
                    counters.delayed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs_f64(length as f64 / rate as f64)).await;
                }
            }
        }
        End::Side
    }
}

/// What one side has sent; `None` at its end.
async fn chunk(from: &mut tcp::OwnedReadHalf) -> Option<Vec<u8>> {
    let mut chunk = vec![0; BUFFER];
    match from.read(&mut chunk).await {
        Ok(length @ 1..) => chunk.truncate(length),
        _ => return None,
    }
    Some(chunk)
}

/// One of Kafka's requests: a length of four bytes, and then, first, the number of the request's kind.
async fn request(from: &mut tcp::OwnedReadHalf) -> Option<Vec<u8>> {
    let mut request = vec![0; 4];
    from.read_exact(&mut request).await.ok()?;
    let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]);
    let length = usize::try_from(length).ok().filter(|length| *length <= REQUEST_BYTES)?;
    request.resize(4 + length, 0);
    from.read_exact(&mut request[4..]).await.ok()?;
    Some(request)
}

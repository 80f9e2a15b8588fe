//! A small web server on this machine, whose paths name how it answers. Nothing that it says or reads goes through a library, so
//! that it can be as rude as it likes and sees the very bytes that arrive.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a connection that drips gets a byte.
const DRIP: Duration = Duration::from_millis(20);
/// Longest that a connection is kept, so that no test leaves a thread behind for good.
const LONGEST: Duration = Duration::from_secs(60);

/// What arrived.
#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    over: AtomicBool,
}

/// The server; it listens until it is let go of.
pub struct Web {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::SeqCst);
        // Whoever waits for a connection gets one, and sees that it was the last.
        let _ = TcpStream::connect(self.address);
    }
}

impl Web {
    /// A server on 127.0.0.1.
    pub fn start() -> Self {
        Self::at(IpAddr::from(Ipv4Addr::LOCALHOST), 0)
    }

    /// A server on `address`; 0 is any free port.
    pub fn at(address: IpAddr, port: u16) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let served = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.over.load(Ordering::SeqCst) {
                    return;
                }
                let seen = Arc::clone(&served);
                seen.connections.fetch_add(1, Ordering::SeqCst);
                seen.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let _ = serve(stream, &seen);
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:1234`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests so far, as they arrived.
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until no more than `most` connections are open; how many there are.
    pub fn open_at_most(&self, most: usize, patience: Duration) -> usize {
        let end = Instant::now() + patience;
        loop {
            let open = self.seen.open.load(Ordering::SeqCst);
            if open <= most || Instant::now() > end {
                return open;
            }
            std::thread::sleep(DRIP);
        }
    }
}

fn serve(stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LONGEST))?;
    stream.set_write_timeout(Some(LONGEST))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        seen.heads.lock().unwrap().push(head.clone());
        if !answer(&head, &mut reader, &stream)? {
            return Ok(());
        }
    }
}

/// Answers one request; whether the connection goes on.
fn answer(head: &str, reader: &mut BufReader<TcpStream>, mut out: &TcpStream) -> std::io::Result<bool> {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let (path, rest) = target.split_once('?').unwrap_or((target, ""));
    let number = || rest.parse::<usize>().unwrap_or_default();
    match path {
        "/head" => whole(out, head),
        "/echo" => {
            let length = body(head, reader)?;
            whole(out, &format!("{length} bytes came"))
        }
        "/redirect" => {
            write!(out, "HTTP/1.1 302 Found\r\nlocation: {rest}\r\ncontent-length: 0\r\n\r\n")?;
            Ok(true)
        }
        "/big" => {
            write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", number())?;
            out.write_all(&vec![b'y'; number()])?;
            Ok(true)
        }
        // No length is said, and there is no end.
        "/flood" => {
            write!(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            let chunk = format!("10000\r\n{}\r\n", "z".repeat(0x10000));
            let end = Instant::now() + LONGEST;
            while Instant::now() < end {
                out.write_all(chunk.as_bytes())?;
            }
            Ok(false)
        }
        "/flood-head" => drip(out, "HTTP/1.1 200 OK\r\n", &format!("x-{}: 1\r\n", "z".repeat(60_000)), Duration::ZERO),
        "/drip" => drip(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nz\r\n", DRIP),
        "/drip-head" => drip(out, "HTTP/1.1 200 OK\r\nx-slow: ", "z", DRIP),
        "/silent" => drip(out, "", "", DRIP),
        "/hang" => drip(out, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "", DRIP),
        "/short" => {
            write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")?;
            Ok(false)
        }
        "/close" => Ok(false),
        "/close-after" => {
            write!(out, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(false)
        }
        "/nonsense" => {
            out.write_all(b"\0\0\0 this is not HTTP\r\n\r\n")?;
            Ok(false)
        }
        "/cookie" => {
            write!(out, "HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(true)
        }
        "/gzip" => {
            write!(out, "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope")?;
            Ok(true)
        }
        _ => whole(out, "hello"),
    }
}

fn whole(mut out: &TcpStream, text: &str) -> std::io::Result<bool> {
    write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
    Ok(true)
}

/// Says `first`, and then `more` again and again until the other side goes.
fn drip(mut out: &TcpStream, first: &str, more: &str, pause: Duration) -> std::io::Result<bool> {
    out.write_all(first.as_bytes())?;
    out.set_read_timeout(Some(Duration::from_millis(1)))?;
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        out.write_all(more.as_bytes())?;
        std::thread::sleep(pause);
        if matches!(out.read(&mut [0]), Ok(0)) {
            break;
        }
    }
    Ok(false)
}

/// Bytes of the request's body.
fn body(head: &str, reader: &mut BufReader<TcpStream>) -> std::io::Result<usize> {
    let head = head.to_ascii_lowercase();
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.split('\r').next().and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        return reader.read_exact(&mut body).map(|()| length);
    }
    let mut total = 0;
    if !head.contains("transfer-encoding: chunked") {
        return Ok(total);
    }
    loop {
        let mut size = String::new();
        if reader.read_line(&mut size)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        total += size;
        if size == 0 {
            return Ok(total);
        }
    }
}

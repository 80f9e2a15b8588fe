//! Names that change what they stand for. The name service is made up here, as none on a test's machine changes its mind on
//! demand; servers and connections are real.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use serde_json::json;

use super::*;
use crate::plugin::report::Quota;

/// A name service that answers differently every time, and then as it did last.
struct Moving {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Lookup for Moving {
    fn lookup<'n>(&'n self, _: &'n str) -> BoxFuture<'n, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(std::future::ready(Ok(answer.unwrap_or_default())))
    }
}

/// A server that says its own address, and ends every connection after its answer.
struct Echo {
    connections: Arc<AtomicUsize>,
    port: u16,
}

impl Echo {
    fn at(last: u8, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 1024]);
                let _ = write!(stream, "HTTP/1.1 2{last:02} OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            }
        });
        Self { connections, port }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

struct World {
    lookup: Arc<Moving>,
    requests: Requests,
    origin: String,
}

impl World {
    /// A plugin that may ask `rebound.example` at `port`, and an instance of it.
    fn new(port: u16, named: &[&str], answers: &[&[&str]]) -> Self {
        let origin = format!("http://rebound.example:{port}");
        let grants = serde_json::from_value(json!({ "http": [origin], "http_addresses": named })).unwrap();
        let answers = answers.iter().map(|some| some.iter().map(|one| one.parse().unwrap()).collect());
        let lookup = Arc::new(Moving { answers: Mutex::new(answers.collect()), asked: AtomicUsize::new(0) });
        let asked: Arc<dyn Lookup> = lookup.clone();
        let limits = Limits { http_timeout_seconds: 5.0, ..Limits::default() };
        let client = Client::asking(asked, "collect", &grants, &limits).unwrap();
        let output = Output::new("collect".into(), Quota::new(&Arc::default(), &limits));
        Self { lookup, requests: Requests::new(&client, &output, &Spent::new(&Arc::default())), origin }
    }

    /// The answer's status, or what the guest is told.
    async fn ask(&mut self) -> String {
        let request = Request::get(format!("{}/", self.origin)).body(WasiBody::new(Nothing)).unwrap();
        match Pin::from(self.requests.send_request(request, None, Box::new(std::future::ready(Ok(()))))).await {
            Ok((response, _)) => response.status().as_u16().to_string(),
            Err(error) => format!("{error:?}"),
        }
    }

    fn asked(&self) -> usize {
        self.lookup.asked.load(Ordering::SeqCst)
    }
}

/// S129: a name that stood for a fine address when it was checked and for another one a moment later gains nothing: every
/// connection asks once, checks that answer, and goes to no other address.
#[tokio::test]
async fn s129_a_rebound_name_reaches_only_what_was_checked() {
    let public = Echo::at(2, 0);
    let private = Echo::at(1, public.port);
    let mut world = World::new(public.port, &["127.0.0.2"], &[&["127.0.0.2"], &["127.0.0.1"]]);
    assert_eq!((world.ask().await.as_str(), world.asked()), ("202", 1));
    assert_eq!((world.ask().await.as_str(), world.asked()), ("DestinationIpProhibited", 2));
    assert_eq!((public.connections(), private.connections()), (1, 0));
}

#[tokio::test]
async fn s129_of_several_addresses_only_the_fine_ones_are_tried() {
    let fine = Echo::at(4, 0);
    let other = Echo::at(3, fine.port);
    let answer: &[&str] = &["127.0.0.3", "::ffff:127.0.0.3", "169.254.169.254", "127.0.0.4", "::1"];
    let mut world = World::new(fine.port, &["127.0.0.4"], &[answer]);
    assert_eq!(world.ask().await, "204");
    assert_eq!((fine.connections(), other.connections()), (1, 0));
    // Not even when the fine one does not answer.
    let mut world = World::new(other.port, &["127.0.0.5"], &[&["127.0.0.5", "127.0.0.3"]]);
    assert_eq!(world.ask().await, "ConnectionRefused");
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn s129_no_spelling_of_a_forbidden_address_passes_for_a_names() {
    for address in [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fd00:ec2::254",
        "fe80::1",
    ] {
        let mut world = World::new(80, &["192.168.0.0/16"], &[&[address]]);
        assert_eq!(world.ask().await, "DestinationIpProhibited", "{address}");
    }
    let mut world = World::new(80, &[], &[&[]]);
    assert!(world.ask().await.starts_with("DnsError"));
}

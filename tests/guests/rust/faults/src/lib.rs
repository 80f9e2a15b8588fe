//! What the guests of the fault tests have in common: the ways to misbehave, and the words in a record's value that ask for
//! them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use serde::Deserialize;

/// What a guest may be told to do, in a value or for a whole call. The words are the options' and the values' alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Nothing special.
    #[default]
    Ok,
    /// Panic.
    Poison,
    /// Loop without end.
    Spin,
    /// Take memory until there is none.
    Hog,
    /// Recurse until the stack is full.
    Recurse,
    /// Wait for a minute inside the host, where no guest deadline reaches.
    Sleep,
    /// End the process, which a component must not.
    Exit,
    /// Print 20,000 lines of 100 bytes, then go on.
    Flood,
    /// Answer that the row is never taken.
    Reject,
    /// Answer that the row may be taken later.
    Retry,
    /// Answer that the call is refused, without saying which row is to blame.
    RejectCall,
    /// Answer that the destination cannot be used for now.
    Unavailable,
    /// Answer that no call can succeed.
    Fatal,
    /// Answer that the destination takes no more for now.
    Backpressure,
    /// Name a row that is not in the batch.
    WrongIndex,
    /// Name one row twice.
    Twice,
    /// Collector: address a sink that is not there.
    UnknownSink,
    /// Collector: a payload whose data is no JSON.
    BadJson,
    /// Collector: reject the row and yield payloads for it.
    Both,
    /// Collector: 100,000 payloads for one record.
    Many,
    /// Collector: no payload.
    Nothing,
    /// Try to reach the network, and panic with what came of it.
    Dial,
    /// Panic with the environment and the arguments.
    Look,
}

/// Longer words before those that they begin with.
const WORDS: [(&str, Act); 22] = [
    ("poison", Act::Poison),
    ("spin", Act::Spin),
    ("hog", Act::Hog),
    ("recurse", Act::Recurse),
    ("sleep", Act::Sleep),
    ("exit", Act::Exit),
    ("flood", Act::Flood),
    ("reject-call", Act::RejectCall),
    ("reject", Act::Reject),
    ("unavailable", Act::Unavailable),
    ("retry", Act::Retry),
    ("fatal", Act::Fatal),
    ("backpressure", Act::Backpressure),
    ("wrong-index", Act::WrongIndex),
    ("twice", Act::Twice),
    ("unknown-sink", Act::UnknownSink),
    ("bad-json", Act::BadJson),
    ("both", Act::Both),
    ("many", Act::Many),
    ("nothing", Act::Nothing),
    ("dial", Act::Dial),
    ("look", Act::Look),
];

/// What a value asks for: the first of the words that it contains. With `once`, the path of a file in a granted directory, only
/// until that file exists; it is made here, so that the next instance behaves.
pub fn asked(value: Option<&[u8]>, once: Option<&str>) -> Act {
    let text = String::from_utf8_lossy(value.unwrap_or_default());
    let act = WORDS.iter().find(|(word, _)| text.contains(word)).map_or(Act::Ok, |(_, act)| *act);
    match once {
        Some(path) if act != Act::Ok && OpenOptions::new().write(true).create_new(true).open(path).is_err() => Act::Ok,
        _ => act,
    }
}

/// Does what needs no answer: most of it never comes back. `place` stands in the panic's text.
pub fn misbehave(act: Act, place: &str) {
    match act {
        Act::Poison => panic!("poison in {place}"),
        Act::Spin => loop {
            std::hint::black_box(place);
        },
        Act::Hog => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        Act::Recurse => {
            std::hint::black_box(recurse(1));
        }
        Act::Sleep => std::thread::sleep(Duration::from_secs(60)),
        Act::Exit => std::process::exit(7),
        Act::Flood => {
            // The host may close its end: that is its answer, and no reason to panic.
            let mut out = std::io::stdout();
            for line in 0..20_000 {
                let _ = writeln!(out, "flood {line:093}");
            }
        }
        Act::Dial => {
            let dialled = TcpStream::connect((Ipv4Addr::LOCALHOST, 9)).map(drop);
            let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(drop);
            let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop);
            let resolved = ("localhost", 9).to_socket_addrs().map(drop);
            panic!("tcp {dialled:?}; udp {bound:?}; listen {listening:?}; name {resolved:?}")
        }
        Act::Look => {
            let (variables, arguments): (Vec<_>, Vec<_>) = (std::env::vars().collect(), std::env::args().collect());
            panic!("variables {variables:?}; arguments {arguments:?}")
        }
        _ => {}
    }
}

#[allow(unconditional_recursion, reason = "the point of it")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box([depth; 64]);
    std::hint::black_box(recurse(depth + 1)) + 1
}

/// Appends a line to a log in a granted directory, which tests read.
pub fn log(path: Option<&str>, line: &str) {
    let Some(path) = path else { return };
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        panic!("the log `{path}` cannot be written: {error}");
    }
}

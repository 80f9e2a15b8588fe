//! Servers that were replaced, and proxies in front of them.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// R1: after a failover the server that was the master stays up and refuses; the next call finds the one that its name
/// leads to.
#[tokio::test]
async fn s79a_a_server_that_is_no_master_any_more_is_connected_to_anew() {
    let (old, new) = (Redis::start(), Redis::start());
    let port = Arc::new(AtomicU16::new(old.port()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    let leads_to = Arc::clone(&port);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::SeqCst))).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let sink = connected(json!({ "url": url })).await;
    assert_eq!(sink.deliver(&batch(&[set("a", "1")])).await.unwrap(), []);
    old.cli(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    port.store(new.port(), Ordering::SeqCst);
    let rows = batch(&[set("b", "1"), set("c", "1")]);
    let failures = sink.deliver(&rows).await.unwrap();
    assert_eq!(kinds(&failures), [(0, FailureKind::Unavailable), (1, FailureKind::Unavailable)]);
    assert!(failures[0].reason.starts_with("READONLY"), "{failures:?}");
    assert_eq!(sink.deliver(&rows).await.unwrap(), []);
    assert_eq!(new.cli(&["GET", "c"]), "1");
}

/// A proxy that answers each command with what `answer` says, and hangs up where that is nothing. Its URL.
async fn proxy(answer: impl Fn(&[Vec<u8>]) -> Option<&'static str> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                while let Some(command) = command(&mut client).await {
                    let Some(line) = answer(&command) else { return };
                    client.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

/// A command's words, as clients send them.
async fn command(client: &mut BufReader<TcpStream>) -> Option<Vec<Vec<u8>>> {
    let number = async |client: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        client.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
        line.get(1..)?.trim().parse::<usize>().ok()
    };
    let mut words = Vec::new();
    for _ in 0..number(client).await? {
        let mut word = vec![0; number(client).await? + 2];
        client.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Some(words)
}

/// R2: a proxy that knows nothing but what it passes on hangs up on everything else.
#[tokio::test]
async fn a_proxy_that_hangs_up_on_client_is_worked_with() {
    let url = proxy(|command| match command[0].as_slice() {
        b"PING" => Some("+PONG"),
        b"SET" => Some("+OK"),
        _ => None,
    })
    .await;
    let sink = connected(json!({ "url": url })).await;
    for _ in 0..2 {
        assert_eq!(sink.deliver(&batch(&[set("a", "1"), set("b", "1")])).await.unwrap(), []);
    }
}

/// R1: a server that says that it may have been replaced is left for a new connection, whatever it says.
#[tokio::test]
async fn s79a_whoever_may_have_been_replaced_is_connected_to_anew() {
    for line in [
        "-READONLY You can't write against a read only replica.",
        "-MISCONF Redis is configured to save RDB snapshots",
        "-LOADING Redis is loading the dataset in memory",
        "-MASTERDOWN Link with MASTER is down",
        "-CLUSTERDOWN The cluster is down",
        "-MOVED 866 127.0.0.1:7001",
        "-ASK 866 127.0.0.1:7001",
        "-REDIRECT 127.0.0.1:7001",
        "-NOAUTH Authentication required.",
    ] {
        // Each connection is as the server was when it began.
        let outage = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/0", listener.local_addr().unwrap());
        let began = Arc::clone(&outage);
        tokio::spawn(async move {
            let mut connections = 0;
            while let Ok((client, _)) = listener.accept().await {
                connections += 1;
                let (first, began) = (connections == 1, Arc::clone(&began));
                tokio::spawn(async move {
                    let mut client = BufReader::new(client);
                    while let Some(command) = command(&mut client).await {
                        let refuses = first && command[0] == b"SET" && began.load(Ordering::SeqCst);
                        let answer = if refuses { line } else { "+OK" };
                        client.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                    }
                });
            }
        });
        let sink = connected(json!({ "url": url })).await;
        outage.store(true, Ordering::SeqCst);
        let rows = batch(&[set("a", "1"), set("b", "1")]);
        let failures = sink.deliver(&rows).await.unwrap();
        assert_eq!(kinds(&failures), [(0, FailureKind::Unavailable), (1, FailureKind::Unavailable)], "{line}");
        assert_eq!(sink.deliver(&rows).await.unwrap(), [], "{line}");
    }
}

/// R2: what a proxy says of the server behind it keeps rows waiting; what nobody knows does where no row is written.
#[tokio::test]
async fn s79a_a_proxy_that_does_not_reach_its_server_is_unavailable() {
    for line in [
        "-upstream failure",
        "-no upstream host",
        "-ERR Connection refused",
        "-ERR backend conn reset",
        "-ERR max number of clients reached",
    ] {
        let outage = Arc::new(AtomicBool::new(false));
        let away = Arc::clone(&outage);
        let url = proxy(move |command| match command[0].as_slice() {
            b"SET" if away.load(Ordering::SeqCst) => Some(line),
            _ => Some("+OK"),
        })
        .await;
        let sink = connected(json!({ "url": url })).await;
        let rows = batch(&[set("a", "1"), set("b", "1")]);
        assert_eq!(sink.deliver(&rows).await.unwrap(), [], "{line}");
        outage.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            let failures = sink.deliver(&rows).await.unwrap();
            assert_eq!(
                kinds(&failures),
                [(0, FailureKind::Unavailable), (1, FailureKind::Unavailable)],
                "{failures:?}"
            );
            assert_eq!(failures[0].reason, line[1..]);
        }
        outage.store(false, Ordering::SeqCst);
        assert_eq!(sink.deliver(&rows).await.unwrap(), [], "{line}");
    }
    let url = proxy(|command| match command[0].as_slice() {
        b"SET" if command[1] == b"odd" => Some("-invalid request"),
        _ => Some("+OK"),
    })
    .await;
    let sink = connected(json!({ "url": url })).await;
    let failures = sink.deliver(&batch(&[set("a", "1"), set("odd", "1")])).await.unwrap();
    assert_eq!(kinds(&failures), [(1, FailureKind::Retry)], "{failures:?}");
    let alone = sink.deliver(&batch(&[set("odd", "1")])).await;
    assert!(
        matches!(&alone, Err(CallError::Unknown(fault)) if fault.to_string().contains("invalid request")),
        "{alone:?}"
    );
}

/// S79b: a server that can be reached and hangs up on the same rows each time may do so because of one of them.
#[tokio::test]
async fn s79b_a_server_that_hangs_up_each_time_is_unknown() {
    let url = proxy(|command| match command[0].as_slice() {
        b"SET" if command[1] == b"odd" => None,
        _ => Some("+OK"),
    })
    .await;
    let sink = connected(json!({ "url": url })).await;
    let rows = batch(&[set("a", "1"), set("odd", "1"), set("b", "1")]);
    assert!(matches!(sink.deliver(&rows).await, Err(CallError::Unknown(_))));
    assert_eq!(sink.deliver(&Arc::new(rows.select(&[0, 2]))).await.unwrap(), []);
}

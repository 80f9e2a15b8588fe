//! The scripted proxy does what its script says, between a client and a server of this process.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::child::listens;
use crate::support::proxy::{Counts, Cut, Direction, Proxy};

/// Longer than anything here takes that happens at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for what should not happen.
const MOMENT: Duration = Duration::from_millis(200);

/// A server that answers each connection's bytes with the same bytes, behind its own letter.
async fn echo(letter: u8) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = socket.read(&mut buffer).await {
                    let answer = [&[letter], &buffer[..length]].concat();
                    if socket.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

async fn client(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

/// Sends a word and returns what answers it.
async fn ask(client: &mut TcpStream, word: &str) -> std::io::Result<String> {
    client.write_all(word.as_bytes()).await?;
    answer(client).await
}

async fn answer(client: &mut TcpStream) -> std::io::Result<String> {
    let mut buffer = vec![0; 1 << 16];
    let length = tokio::time::timeout(PATIENCE, client.read(&mut buffer)).await.expect("no answer came")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Nothing comes, and the connection is open.
async fn is_silent(client: &mut TcpStream) -> bool {
    tokio::time::timeout(MOMENT, answer(client)).await.is_err()
}

async fn until(proxy: &Proxy, holds: impl Fn(Counts) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds(proxy.counts()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{:?}", proxy.counts()));
}

#[tokio::test]
async fn it_forwards_and_counts() {
    let proxy = Proxy::before(echo(b'a').await);
    let mut one = client(&proxy).await;
    assert_eq!(ask(&mut one, "one").await.unwrap(), "aone");
    assert_eq!(ask(&mut one, "more").await.unwrap(), "amore");
    let expected = Counts { connections: 1, to_server: 7, to_client: 9, ..Counts::default() };
    assert_eq!(proxy.counts(), expected);
    drop(proxy);
    assert_eq!(ask(&mut one, "late").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn it_cuts_now_with_fin_or_reset() {
    let proxy = Proxy::before(echo(b'a').await);
    for (cut, expected) in [(Cut::Close, Ok(String::new())), (Cut::Reset, Err(ErrorKind::ConnectionReset))] {
        let mut one = client(&proxy).await;
        assert_eq!(ask(&mut one, "one").await.unwrap(), "aone");
        proxy.cut(cut);
        assert_eq!(answer(&mut one).await.map_err(|error| error.kind()), expected, "{cut:?}");
        assert_eq!(ask(&mut client(&proxy).await, "new").await.unwrap(), "anew");
    }
    assert_eq!(proxy.counts().cut, 2);
}

#[tokio::test]
async fn it_cuts_each_connection_after_so_many_bytes() {
    let proxy = Proxy::before(echo(b'a').await);
    let mut one = client(&proxy).await;
    assert_eq!(ask(&mut one, "before").await.unwrap(), "abefore");
    proxy.cut_after(Direction::ToClient, 3, Cut::Close);
    for _ in 0..2 {
        assert_eq!(ask(&mut one, "1234").await.unwrap(), "a12");
        assert_eq!(answer(&mut one).await.unwrap(), "");
        one = client(&proxy).await;
    }
    proxy.cut_after(Direction::ToServer, 2, Cut::Reset);
    let mut two = client(&proxy).await;
    let answered = ask(&mut two, "5678").await;
    assert!(answered.is_err() || answered.unwrap().len() <= 3);
    proxy.forward();
    assert_eq!(ask(&mut client(&proxy).await, "after").await.unwrap(), "aafter");
}

#[tokio::test]
async fn it_stalls_and_passes_on_what_it_held() {
    let proxy = Proxy::before(echo(b'a').await);
    let mut one = client(&proxy).await;
    assert_eq!(ask(&mut one, "one").await.unwrap(), "aone");
    proxy.stall();
    one.write_all(b"held").await.unwrap();
    assert!(is_silent(&mut one).await);
    assert_eq!(proxy.counts().held, 1);
    // New connections are taken, and get no further.
    let mut two = client(&proxy).await;
    two.write_all(b"new").await.unwrap();
    assert!(is_silent(&mut two).await);
    proxy.forward();
    assert_eq!(answer(&mut one).await.unwrap(), "aheld");
    assert_eq!(answer(&mut two).await.unwrap(), "anew");
}

#[tokio::test]
async fn it_resets_an_idle_connection_when_it_is_used_again() {
    let proxy = Proxy::before(echo(b'a').await);
    let mut one = client(&proxy).await;
    assert_eq!(ask(&mut one, "one").await.unwrap(), "aone");
    proxy.reset_on_reuse(MOMENT);
    assert!(is_silent(&mut one).await, "it is open as long as nobody uses it");
    tokio::time::sleep(MOMENT).await;
    assert_eq!(ask(&mut one, "two").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((proxy.counts().swallowed, proxy.counts().to_server), (3, 3), "the server did not get it");
    assert_eq!(ask(&mut client(&proxy).await, "new").await.unwrap(), "anew");
}

#[tokio::test]
async fn it_takes_the_server_away_and_tells_no_client() {
    let proxy = Proxy::before(echo(b'a').await);
    let mut one = client(&proxy).await;
    assert_eq!(ask(&mut one, "one").await.unwrap(), "aone");
    proxy.half_open();
    until(&proxy, |counts| counts.half_open == 1).await;
    one.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut one).await);
    until(&proxy, |counts| counts.swallowed == 4).await;
    assert_eq!(ask(&mut client(&proxy).await, "new").await.unwrap(), "anew");
    proxy.forward();
    assert!(is_silent(&mut one).await, "what was lost stays lost");
    proxy.cut(Cut::Reset);
    assert_eq!(answer(&mut one).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn it_refuses_and_listens_again_on_its_port() {
    let proxy = Proxy::before(echo(b'a').await);
    let mut one = client(&proxy).await;
    assert_eq!(ask(&mut one, "one").await.unwrap(), "aone");
    for _ in 0..3 {
        proxy.refuse();
        assert!(!listens(proxy.port()));
        assert_eq!(ask(&mut one, "one").await.unwrap(), "aone", "what is connected stays so");
        proxy.forward();
        assert_eq!(ask(&mut client(&proxy).await, "new").await.unwrap(), "anew");
    }
}

#[tokio::test]
async fn it_redirects_new_connections_or_all() {
    let (a, b) = (echo(b'a').await, echo(b'b').await);
    let proxy = Proxy::before(a);
    let mut old = client(&proxy).await;
    assert_eq!(ask(&mut old, "one").await.unwrap(), "aone");
    proxy.redirect(b);
    assert_eq!(ask(&mut old, "two").await.unwrap(), "atwo");
    let mut new = client(&proxy).await;
    assert_eq!(ask(&mut new, "two").await.unwrap(), "btwo");
    proxy.redirect_all(a, Cut::Close);
    assert_eq!((answer(&mut old).await.unwrap(), answer(&mut new).await.unwrap()), (String::new(), String::new()));
    assert_eq!(ask(&mut client(&proxy).await, "three").await.unwrap(), "athree");
    // A server that is gone ends what leads to it.
    proxy.redirect(crate::support::child::free_port());
    let gone = ask(&mut client(&proxy).await, "four").await;
    assert!(gone.is_err() || gone.unwrap().is_empty());
}

#[tokio::test]
async fn it_is_slow_and_loses_nothing() {
    let proxy = Proxy::before(echo(b'a').await);
    proxy.delay(Duration::from_millis(50));
    proxy.throttle(20_000);
    let mut one = client(&proxy).await;
    let word = "0123456789".repeat(500);
    one.write_all(word.as_bytes()).await.unwrap();
    let mut found = String::new();
    while found.replace('a', "").len() < word.len() {
        found.push_str(&answer(&mut one).await.unwrap());
    }
    assert_eq!(found.replace('a', ""), word);
    assert!(proxy.counts().delayed > 5, "{:?}", proxy.counts());
}

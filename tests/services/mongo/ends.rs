//! Connections that break off or stay silent.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What becomes of a client whose message holds the word.
#[derive(Clone, Copy, Debug)]
enum Fate {
    HangUp,
    Silence,
}

/// A server in front of another one that passes everything on until a message holds `odd`. Its URI.
async fn relay(server: &'static Mongo, fate: Fate) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = server.uri().replace(&server.port().to_string(), &listener.local_addr().unwrap().port().to_string());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let behind = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
            tokio::spawn(pass_on(client, behind, fate));
        }
    });
    uri
}

async fn pass_on(client: TcpStream, server: TcpStream, fate: Fate) {
    let ((mut asking, mut asked), (mut answering, mut answered)) = (client.into_split(), server.into_split());
    let back = tokio::spawn(async move { tokio::io::copy(&mut answering, &mut asked).await });
    let mut message = vec![0; 1 << 16];
    while let Ok(length @ 1..) = asking.read(&mut message).await {
        if message[..length].windows(3).any(|word| word == b"odd") {
            match fate {
                Fate::HangUp => break,
                Fate::Silence => continue,
            }
        }
        answered.write_all(&message[..length]).await.unwrap();
    }
    back.abort();
}

/// S79b: a connection that breaks off while the server can be reached may have broken off because of what a row holds.
#[tokio::test]
async fn s79b_a_connection_that_breaks_off_is_unknown() {
    let server = help::mongo();
    let uri = relay(server, Fate::HangUp).await;
    for key in [json!([]), json!(["n"])] {
        let database = server.database("broken");
        let sink = sink(json!({ "uri": uri, "database": database, "collection": "rows", "key": key }));
        sink.connect().await.unwrap();
        let rows = values(0, &[r#"{"n":1}"#, r#"{"n":2,"t":"odd"}"#, r#"{"n":3}"#]);
        let alone = Arc::new(rows.select(&[1]));
        assert!(matches!(sink.deliver(&alone).await, Err(CallError::Unknown(_))));
        // Rows with a key are written one by one: the others pass, and from then on the row is known to be the cause.
        let keyed = key != json!([]);
        for rows in [&rows, &alone] {
            match sink.deliver(rows).await {
                Ok(failures) => {
                    assert!(keyed && failures.len() == 1 && failures[0].kind == FailureKind::Retry, "{failures:?}");
                    assert_eq!(failures[0].index as usize, rows.len() / 2);
                }
                Err(error) => assert!(!keyed && matches!(error, CallError::Unknown(_)), "{error:?}"),
            }
        }
        assert_eq!(sink.deliver(&Arc::new(rows.select(&[0, 2]))).await.unwrap(), []);
    }
}

/// S79b: a server that stays silent costs a timeout, after which calls shrink.
#[tokio::test]
async fn s79b_a_server_that_does_not_answer_is_a_timeout() {
    let server = help::mongo();
    let uri = relay(server, Fate::Silence).await;
    let sink = sink(json!({ "uri": uri, "database": server.database("silent"), "collection": "rows" }));
    sink.connect().await.unwrap();
    let answer = sink.deliver(&values(0, &[r#"{"t":"odd"}"#])).await;
    assert!(matches!(answer, Err(CallError::Timeout(_))), "{answer:?}");
    assert_eq!(sink.deliver(&values(1, &[r#"{"n":1}"#])).await.unwrap(), []);
}

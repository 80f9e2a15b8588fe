//! What is said at the start of the configured collection (S124a).
//!
//! The server here knows no users, views, time series or replica sets: where it would have to, a relay in front of it
//! answers in its place, as MongoDB 7 does.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// The number of messages that carry commands and their answers.
const OP_MSG: u32 = 2013;
/// A message's head, the flags, and the kind of its first section; the command follows.
const BEFORE_COMMAND: usize = 16 + 4 + 1;

/// A server in front of another one that answers these commands to this database itself. Its URI.
async fn answering(server: &'static Mongo, database: &str, answers: Vec<(&'static str, Document)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = server.uri().replace(&server.port().to_string(), &listener.local_addr().unwrap().port().to_string());
    let (database, answers) = (database.to_owned(), Arc::new(answers));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let behind = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
            tokio::spawn(relay(client, behind, database.clone(), Arc::clone(&answers)));
        }
    });
    uri
}

/// A whole message; `None` at the end.
async fn message(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_le_bytes(message[..4].try_into().unwrap()) as usize;
    message.resize(length, 0);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

async fn relay(mut client: TcpStream, mut server: TcpStream, database: String, answers: Arc<Vec<(&str, Document)>>) {
    while let Some(asked) = message(&mut client).await {
        let number = |at: usize| u32::from_le_bytes(asked[at..at + 4].try_into().unwrap());
        let command = (number(12) == OP_MSG).then(|| Document::from_reader(&asked[BEFORE_COMMAND..]).unwrap());
        let own =
            command.filter(|command| command.get_str("$db").is_ok_and(|name| name == database)).and_then(|command| {
                let name = command.keys().next().cloned()?;
                answers.iter().find(|(known, _)| *known == name).map(|(_, answer)| answer.clone())
            });
        let answer = match own {
            Some(mut answer) => {
                answer.insert("ok", 1.0);
                let body = answer.to_vec().unwrap();
                let length = u32::try_from(BEFORE_COMMAND + body.len()).unwrap();
                let head = [length, 1, number(4), OP_MSG, 0].map(u32::to_le_bytes).concat();
                [head, vec![0], body].concat()
            }
            None => {
                server.write_all(&asked).await.unwrap();
                let Some(answer) = message(&mut server).await else { return };
                answer
            }
        };
        if client.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn privileges(actions: &[&str]) -> (&'static str, Document) {
    let of = doc! { "resource": { "db": "", "collection": "rows" }, "actions": actions.to_vec() };
    let login = doc! { "authenticatedUsers": [{ "user": "app", "db": "admin" }], "authenticatedUserPrivileges": [of] };
    ("connectionStatus", doc! { "authInfo": login })
}

fn listed(found: Document) -> (&'static str, Document) {
    ("listCollections", doc! { "cursor": { "id": 0_i64, "ns": "x.$cmd.listCollections", "firstBatch": [found] } })
}

/// S124a: what refuses every row ends the start, and nothing else does.
#[tokio::test]
async fn s124a_what_refuses_every_row_is_said_at_the_start() {
    let server = help::mongo();
    let view = || listed(doc! { "name": "rows", "type": "view", "options": { "viewOn": "all", "pipeline": [] } });
    let series =
        || listed(doc! { "name": "rows", "type": "timeseries", "options": { "timeseries": { "timeField": "t" } } });
    let strict = || listed(doc! { "name": "rows", "type": "collection", "options": { "validator": { "a": 1 } } });
    let set =
        |writable: bool| ("hello", doc! { "isWritablePrimary": writable, "setName": "s", "hosts": ["a:1", "b:1"] });
    for (answers, options, words) in [
        (vec![privileges(&["find", "listIndexes"])], json!({}), "does not let its user `insert` in `rows`"),
        (vec![privileges(&["insert"])], json!({ "key": ["a"] }), "`update`"),
        (vec![privileges(&["insert", "update"])], json!({ "key": ["a"], "on_tombstone": "delete" }), "`remove`"),
        (vec![view()], json!({}), "a view named `rows`"),
        (vec![series()], json!({ "key": ["a"] }), "a time series named `rows`"),
        (vec![set(false)], json!({}), "takes no writes"),
        (vec![set(true)], json!({ "w": "3" }), "`w=3`"),
        (vec![privileges(&["insert", "find"]), series(), set(true)], json!({ "w": "2" }), ""),
        (
            vec![privileges(&["insert", "update", "remove"]), strict()],
            json!({ "key": ["a"], "on_tombstone": "delete" }),
            "",
        ),
        (vec![], json!({}), ""),
    ] {
        let database = server.database("start");
        let mut options = options.clone();
        let w = options.as_object_mut().unwrap().remove("w");
        let uri = answering(server, &database, answers).await;
        let uri = w.map_or_else(|| uri.clone(), |w| format!("{uri}?w={}", w.as_str().unwrap()));
        let more = json!({ "uri": uri, "database": database, "collection": "rows" });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let sink = sink(options);
        match sink.connect().await {
            Ok(()) => assert_eq!(words, "", "connected"),
            Err(CallError::Fatal(fault) | CallError::Unavailable(fault)) => {
                assert!(!words.is_empty() && fault.message.contains(words) && fault.hint.is_some(), "{words}: {fault}");
                // S78: still unconnected.
                assert!(matches!(sink.deliver(&values(0, &["{}"])).await, Err(CallError::Fatal(_))));
            }
            Err(error) => panic!("{words}: {error:?}"),
        }
    }
}

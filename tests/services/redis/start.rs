//! What is said at the start, and what a server says that cannot write (S124a).

use super::*;

/// R3: a user who may ask whether the server is there, and not write, is refused at the start, and nothing is written.
#[tokio::test]
async fn s124a_a_user_who_may_not_write_is_said_at_the_start() {
    let server = Redis::start();
    let url = |user: &str| server.url(0).replace("redis://", &format!("redis://{user}:hunter2@"));
    let user = |name: &str, rules: &[&str]| {
        let all = [&["ACL", "SETUSER", name, "on", ">hunter2"], rules].concat();
        assert_eq!(server.cli(&all), "OK");
    };
    user("reader", &["~*", "+@connection", "+@read"]);
    user("setter", &["~*", "+@connection", "+set"]);
    user("pinger", &["~*", "+ping", "+select"]);
    user("writer", &["~*", "+set", "+del", "+ping", "+select"]);
    for (name, tombstones, refused) in [
        ("reader", "reject", Some("'set'")),
        ("pinger", "skip", Some("'set'")),
        ("setter", "reject", None),
        ("setter", "delete", Some("'del'")),
        ("writer", "delete", None),
    ] {
        let sink = sink(json!({ "url": url(name), "on_tombstone": tombstones }));
        match (sink.connect().await, refused) {
            (Ok(()), None) => assert_eq!(sink.deliver(&batch(&[set("a", "1")])).await.unwrap(), [], "{name}"),
            (Err(CallError::Fatal(fault)), Some(command)) => {
                assert!(fault.owner == Owner::Config && fault.hint.is_some(), "{fault}");
                assert!(fault.causes[0].contains("NOPERM") && fault.causes[0].contains(command), "{fault}");
                assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
                // S78: still unconnected.
                assert!(matches!(sink.deliver(&batch(&[set("a", "1")])).await, Err(CallError::Fatal(_))));
            }
            (answer, _) => panic!("{name}: {answer:?}"),
        }
    }
    assert_eq!(server.cli(&["DBSIZE"]), "1", "the start has written");
    // Which keys come, the start does not know: it says what it found, and the rows decide.
    user("narrow", &["~app:*", "+@all"]);
    for (prefix, kind) in [("app:", None), ("web:", Some(FailureKind::Reject))] {
        let sink = connected(json!({ "url": url("narrow"), "key_prefix": prefix })).await;
        let failures = sink.deliver(&batch(&[set("b", "1")])).await.unwrap();
        assert_eq!(failures.first().map(|failure| failure.kind), kind, "{prefix}");
    }
}

type Step<'s> = &'s dyn Fn();

/// A server that takes no writes says so at the start, and when it turns up later, and rows wait for it.
#[tokio::test]
async fn s79a_a_server_that_cannot_write_keeps_rows_waiting() {
    let server = Redis::configured(&["--enable-protected-configs", "yes"]);
    let sink = connected(json!({ "url": server.url(0) })).await;
    let row = batch(&[set("a", "1")]);
    let set_to = |name: &str, value: &str| assert_eq!(server.cli(&["CONFIG", "SET", name, value]), "OK");
    // Saving to disk fails, as where the disk is full.
    let nowhere = server.dir().join("gone");
    std::fs::create_dir(&nowhere).unwrap();
    set_to("dir", nowhere.to_str().unwrap());
    std::fs::remove_dir(&nowhere).unwrap();
    let failing = || {
        server.cli(&["BGSAVE"]);
        let start = Instant::now();
        while !server.cli(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err") {
            assert!(start.elapsed() < Duration::from_secs(10), "the server saves");
            std::thread::sleep(Duration::from_millis(50));
        }
        set_to("save", "3600 1");
    };
    let sound = || set_to("save", "");
    let steps: [(&str, Step<'_>, Step<'_>); 4] = [
        ("MISCONF", &failing, &sound),
        ("OOM", &|| set_to("maxmemory", "1"), &|| set_to("maxmemory", "0")),
        ("NOREPLICAS", &|| set_to("min-replicas-to-write", "1"), &|| set_to("min-replicas-to-write", "0")),
        ("READONLY", &|| assert_eq!(server.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK"), &|| {
            assert_eq!(server.cli(&["REPLICAOF", "NO", "ONE"]), "OK")
        }),
    ];
    for (word, begin, end) in steps {
        begin();
        for _ in 0..2 {
            let failures = sink.deliver(&row).await.unwrap();
            assert_eq!(kinds(&failures), [(0, FailureKind::Unavailable)], "{word}: {failures:?}");
            assert!(failures[0].reason.starts_with(word), "{failures:?}");
        }
        let Err(CallError::Unavailable(fault)) = self::sink(json!({ "url": server.url(0) })).connect().await else {
            panic!("{word}: connected")
        };
        assert!(fault.causes[0].starts_with(word) && fault.hint.is_some(), "{fault}");
        end();
        assert_eq!(sink.deliver(&row).await.unwrap(), [], "{word}");
    }
}

/// Two servers that are a cluster, each with half of the keys; with one of them taken in, all keys are the first one's.
struct Cluster {
    first: Redis,
    second: Redis,
}

impl Cluster {
    fn start(slots_of_first: &str, slots_of_second: &str) -> Self {
        let node = || {
            let bus = crate::support::child::free_port().to_string();
            let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
            (Redis::configured(&[&options[..], &["--databases", "1"]].concat()), bus)
        };
        let ((first, _), (second, bus)) = (node(), node());
        for (node, slots) in [(&first, slots_of_first), (&second, slots_of_second)] {
            if let Some((from, to)) = slots.split_once('-') {
                assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", from, to]), "OK");
            }
        }
        first.cli(&["CLUSTER", "MEET", "127.0.0.1", &second.port().to_string(), &bus]);
        let cluster = Self { first, second };
        cluster.until("cluster_state:ok");
        cluster
    }

    fn until(&self, state: &str) {
        let start = Instant::now();
        let known = |node: &Redis| {
            let info = node.cli(&["CLUSTER", "INFO"]);
            info.contains(state) && info.contains("cluster_known_nodes:2")
        };
        while !known(&self.first) || !known(&self.second) {
            assert!(start.elapsed() < Duration::from_secs(20), "no cluster: {}", self.first.cli(&["CLUSTER", "INFO"]));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// S124a: a node that holds a part of the keys is refused at the start. One that holds them all is written to, and when
/// another one takes them over, rows wait for a connection to that one.
#[tokio::test]
async fn s124a_a_part_of_a_cluster_is_refused_and_the_whole_of_it_is_followed() {
    let parts = Cluster::start("0-8191", "8192-16383");
    for node in [&parts.first, &parts.second] {
        let Err(CallError::Fatal(fault)) = sink(json!({ "url": node.url(0) })).connect().await else {
            panic!("half of a cluster was connected to")
        };
        assert!(fault.message.contains("cluster") && fault.causes[0].starts_with("MOVED"), "{fault}");
    }
    drop(parts);
    let whole = Cluster::start("0-16383", "");
    let sink = connected(json!({ "url": whole.first.url(0) })).await;
    let rows = batch(&[set("a", "1"), set("b", "1"), set("c", "1")]);
    assert_eq!(sink.deliver(&rows).await.unwrap(), []);
    // The keys go to the other one, as the name would in front of a real cluster.
    whole.first.cli(&["FLUSHALL"]);
    let second = whole.second.cli(&["CLUSTER", "MYID"]);
    for node in [&whole.second, &whole.first] {
        for slot in ["15495", "3300", "7365"] {
            assert_eq!(node.cli(&["CLUSTER", "SETSLOT", slot, "NODE", &second]), "OK");
        }
    }
    for _ in 0..2 {
        let failures = sink.deliver(&rows).await.unwrap();
        assert!(failures.iter().all(|failure| failure.kind == FailureKind::Unavailable), "{failures:?}");
        assert_eq!(failures.len(), 3);
        assert!(failures[0].reason.starts_with("MOVED"), "{failures:?}");
    }
    // Some rows here and some there: that does not pass.
    let mixed = batch(&[set("a", "1"), set("d", "1")]);
    assert!(matches!(sink.deliver(&mixed).await, Err(CallError::Fatal(_))));
}

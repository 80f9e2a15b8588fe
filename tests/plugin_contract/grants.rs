//! A guest reaches what it was granted, and nothing beside it (S129).

use tidegate::model::CallError;
use tidegate::sink::Sink;

use super::*;

async fn csv(path: &str, grants: Value) -> Result<PluginSink, Fault> {
    let more = json!({ "options": { "path": path }, "grants": grants });
    let options = configured(&guest("csv"), more);
    PluginSink::start(loaded("sinks.plugin.csv", &options).await?, "csv", &options, &Queries::new()).await
}

async fn written(sink: &PluginSink) {
    sink.connect().await.unwrap();
    assert_eq!(sink.add(&records(0, 5, &["a", "b"])).await, Ok(vec![]));
    assert_eq!(sink.flush(&orders(0)).await, Ok(vec![]));
}

#[tokio::test]
async fn a_granted_directory_is_written() {
    let folder = Folder::new();
    written(&csv("/out/{topic}-{partition}.csv", folder.grants("write")).await.unwrap()).await;
    let rows = folder.lines("orders-0.csv");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(rows[1], "key,a,1700000000000,orders,0,5");
}

async fn refused(path: &str, grants: Value) {
    let sink = csv(path, grants).await.unwrap();
    let answer = sink.connect().await;
    assert!(
        matches!(&answer, Err(CallError::Fatal(fault)) if fault.to_string().contains("cannot write to")),
        "{path}: {answer:?}"
    );
}

#[tokio::test]
async fn nothing_beside_the_granted_directory_is_reached() {
    let (folder, other) = (Folder::new(), Folder::new());
    std::fs::create_dir(folder.path().join("granted")).unwrap();
    std::os::unix::fs::symlink(other.path(), folder.path().join("granted/link")).unwrap();
    std::os::unix::fs::symlink("..", folder.path().join("granted/up")).unwrap();
    let host = folder.path().join("granted");
    let grants = json!({ "directories": [{ "host": host, "guest": "/out", "access": "write" }] });

    refused("/out/rows.csv", json!({})).await;
    refused("/out/rows.csv", folder.grants("read")).await;
    refused(&format!("{}/rows.csv", other.path().display()), grants.clone()).await;
    for path in ["/out/../rows.csv", "/out/link/rows.csv", "/out/up/rows.csv", "/out/link/../../rows.csv"] {
        refused(path, grants.clone()).await;
    }
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// S129: where the configuration names no number, there are as many instances as cores, up to four; a plugin that may write to a
/// directory is one, and so is one whose `setup` refuses to be one of several. A number that is named stands.
#[tokio::test]
async fn s129_instances_follow_the_cores_where_nothing_is_shared() {
    let folder = Folder::new();
    let instances = async |path: &str, access: &str, instances: u64| {
        let grants = folder.grants(access);
        let more = json!({ "options": { "path": path }, "grants": grants, "limits": { "instances": instances } });
        let options = configured(&guest("csv"), more);
        let artifact = loaded("sinks.plugin.csv", &options).await.unwrap();
        let sink = PluginSink::start(artifact, "csv", &options, &Queries::new()).await?;
        let limits = (0..64).map(|partition| sink.buffer_limit(&orders(partition)).unwrap().instance);
        Ok::<_, Fault>(limits.collect::<std::collections::BTreeSet<_>>().len())
    };
    let cores = std::thread::available_parallelism().unwrap().get().min(4);
    assert_eq!(instances("/out/{topic}-{partition}.csv", "read", 0).await, Ok(cores));
    assert_eq!(instances("/out/{topic}-{partition}.csv", "write", 0).await, Ok(1), "two might write to one file");
    assert_eq!(instances("/out/rows.csv", "read", 0).await, Ok(1), "its setup refuses to be one of two");
    assert_eq!(instances("/out/{topic}-{partition}.csv", "write", 3).await, Ok(3));
    assert!(
        instances("/out/rows.csv", "write", 3).await.unwrap_err().to_string().contains("must not write to one file")
    );
}

/// What a guest says when it is told to look around.
async fn told(act: &str, grants: Value) -> String {
    let sink = faulty_sink(json!({ "options": { "direct": true }, "grants": grants })).await.unwrap();
    sink.connect().await.unwrap();
    let Err(CallError::Trap(fault)) = sink.deliver(&records(0, 0, &[act])).await else { panic!("it did not panic") };
    fault.causes[0].clone()
}

/// No address is reached, bound or resolved, on this machine either.
#[tokio::test]
async fn the_network_is_out_of_reach() {
    let told = told("dial", json!({})).await;
    for way in ["tcp", "udp", "listen", "name"] {
        assert!(told.contains(&format!("{way} Err(")), "{told}");
    }
    assert!(!told.contains("ConnectionRefused"), "the machine was asked: {told}");
}

#[tokio::test]
async fn only_granted_variables_are_seen() {
    let nothing = told("look", json!({})).await;
    assert!(nothing.contains("variables []; arguments []"), "{nothing}");
    let granted = told("look", json!({ "environment": ["PATH"] })).await;
    assert!(granted.contains("variables [(\"PATH\", ") && !granted.contains("HOME"), "{granted}");
}

#[tokio::test]
async fn a_grant_that_cannot_be_given_is_the_configurations_fault() {
    let fault = csv("/out/rows.csv", json!({ "environment": ["TIDEGATE_NEVER_SET"] })).await.err().unwrap();
    assert!(fault.message.contains("`sinks.plugin.csv.grants.environment` names `TIDEGATE_NEVER_SET`"), "{fault}");
    let directories = json!({ "directories": [{ "host": "/tidegate/nowhere", "guest": "/out" }] });
    let fault = csv("/out/rows.csv", directories).await.err().unwrap();
    assert!(fault.message.contains("`sinks.plugin.csv.grants.directories[0].host`"), "{fault}");
}

#[tokio::test]
async fn options_that_the_plugin_refuses_are_the_configurations_fault() {
    let fault = csv("rows.csv", json!({})).await.err().unwrap();
    assert_eq!(fault.message, "`plugin/csv` does not accept its options");
    assert_eq!(fault.owner, tidegate::model::Owner::Config);
    assert!(fault.to_string().contains("`path` must name a file"), "{fault}");
    assert!(fault.hint.unwrap().contains("`sinks.plugin.csv.options`"));
}

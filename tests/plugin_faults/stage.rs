//! One attack at a time beside a well-behaved plugin, in one runtime and one process.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tidegate::collect::Collect;
use tidegate::model::{Batch, CallError, Fault, Owner, TopicPartition};
use tidegate::plugin::{Artifact, Compiler, Options, PluginCollector, PluginSink, Plugins};
use tidegate::sink::{Queries, Sink};

use crate::beside::Beside;
use crate::wat::Wat;
use crate::{Attack, journal};

/// A call's deadline where no test says another, in seconds: short, because many attacks last until it is over.
const CALL_SECONDS: f64 = 0.3;

/// A guest that `tests/guests/build.sh` has built.
pub(crate) fn guest(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/guests/{name}.wasm"));
    assert!(path.exists(), "`{}` is missing: run `make setup`", path.display());
    path
}

/// A plugin's options with whatever stands in `more`.
pub(crate) fn configured(component: &Path, more: Value) -> Options {
    let mut all = json!({ "component": component });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    // One instance where a test names no number, so that what happens to it can be told whatever the machine.
    let limits = all.as_object_mut().unwrap().entry("limits").or_insert_with(|| json!({}));
    limits.as_object_mut().unwrap().entry("instances").or_insert(json!(1));
    serde_json::from_value(all).unwrap()
}

/// The one runtime of all attacks, with a cache that outlives the tests, so that a guest is compiled once.
pub(crate) fn plugins() -> &'static Arc<Plugins> {
    static PLUGINS: OnceLock<Arc<Plugins>> = OnceLock::new();
    PLUGINS
        .get_or_init(|| Plugins::new(Some(compiled()), Compiler::Child(env!("CARGO_BIN_EXE_tidegate").into())).unwrap())
}

/// The cache of compiled components, apart from the one of other tests, whose entries so many attackers would push out.
pub(crate) fn compiled() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("attackers")
}

/// What an attack has at hand.
pub(crate) struct Stage {
    name: &'static str,
    folder: tempfile::TempDir,
    /// The directory of the plugin beside it.
    pub(crate) other: PathBuf,
    components: AtomicU32,
}

/// Plays the attack while a well-behaved plugin works, before, during and after it; then a fresh plugin works as well.
pub(crate) async fn play(attack: &Attack) {
    journal::start();
    let mut beside = Beside::start(plugins()).await;
    beside.round().await;
    let stage = Stage::new(attack.name, beside.folder());
    let running = beside.run();
    (attack.run)(&stage).await;
    let (mut beside, _) = running.end().await;
    beside.round().await;
    beside.delivered_all();
    let mut fresh = Beside::start(plugins()).await;
    fresh.round().await;
    fresh.delivered_all();
}

impl Stage {
    /// A stage of that name, in whose log nothing stands yet; `other` is the directory of the plugin beside it.
    pub(crate) fn new(name: &'static str, other: &Path) -> Self {
        journal::forget(name);
        Self { name, folder: tempfile::tempdir().unwrap(), other: other.to_owned(), components: AtomicU32::new(0) }
    }

    /// What the attacker is called in messages.
    pub(crate) fn label(&self) -> String {
        format!("plugin/{}", self.name)
    }

    /// Where the attacker stands in the configuration, be it a sink or a collector.
    pub(crate) fn place(&self) -> String {
        format!("sinks.plugin.{}", self.name)
    }

    /// A directory of this attack's own on the host's side; nothing of it is granted by itself.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A subdirectory of [`Self::folder`], made if it is not there.
    pub(crate) fn made(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A component's bytes as a file.
    pub(crate) fn component(&self, bytes: &[u8]) -> PathBuf {
        let number = self.components.fetch_add(1, Ordering::Relaxed);
        let path = self.folder().join(format!("component-{number}.wasm"));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Its options: `more`, and a short deadline unless `more` says another.
    pub(crate) fn configured(&self, component: &Path, mut more: Value) -> Options {
        let limits = more.as_object_mut().unwrap().entry("limits").or_insert_with(|| json!({}));
        for key in ["call_timeout_seconds", "setup_timeout_seconds"] {
            limits.as_object_mut().unwrap().entry(key).or_insert_with(|| json!(CALL_SECONDS));
        }
        configured(component, more)
    }

    pub(crate) async fn load(&self, options: &Options) -> Result<Artifact, Fault> {
        plugins().load(&self.place(), options, Path::new("/")).await
    }

    /// The attacker as a sink.
    pub(crate) async fn sink(&self, component: &Path, more: Value) -> Result<PluginSink, Fault> {
        let options = self.configured(component, more);
        PluginSink::start(self.load(&options).await?, self.name, &options, &Queries::new()).await
    }

    /// The attacker as the collector.
    pub(crate) async fn collector(&self, component: &Path, more: Value) -> Result<PluginCollector, Fault> {
        let options = self.configured(component, more);
        PluginCollector::start(self.load(&options).await?, &options, &Queries::new()).await
    }

    /// A partition that only this attack has.
    pub(crate) fn source(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(self.name, partition)
    }

    /// Records with those values, from offset 0 on.
    pub(crate) fn records(&self, values: &[&str]) -> Arc<Batch> {
        let mut batch = Batch::new(self.source(0));
        for (offset, value) in (0..).zip(values) {
            batch.push(offset, 1_700_000_000_000, Some(b"key"), Some(value.as_bytes()));
        }
        Arc::new(batch)
    }

    /// What the log says of the attacker: every line that names it, without the time.
    pub(crate) fn log(&self) -> Vec<String> {
        journal::of(self.name)
    }

    /// A fault's message and hint, with the attacker's label and place left out: `{}` and `<place>`.
    pub(crate) fn words(&self, fault: &Fault) -> (String, String) {
        let plain = |text: &str| text.replace(&self.place(), "<place>").replace(&self.label(), "{}");
        (plain(&fault.message), plain(fault.hint.as_deref().unwrap_or_default()))
    }
}

/// The guest was stopped, and that is its own fault. A limit that it met is told from a trap, and the hint names the
/// limit.
#[track_caller]
pub(crate) fn stopped<T: Debug>(answer: Result<T, CallError>) -> Fault {
    let (met_limit, fault) = match answer {
        Err(CallError::Trap(fault)) => (false, fault),
        Err(CallError::LimitExceeded(fault)) => (true, fault),
        other => panic!("not stopped: {other:?}"),
    };
    assert_eq!(fault.owner, Owner::Plugin, "{fault}");
    let names_limit = fault.hint.as_ref().is_some_and(|hint| hint.starts_with("if that is legitimate, raise `"));
    assert_eq!(met_limit, names_limit, "S15a: {fault:?}");
    fault
}

/// The guest was stopped while it waited, and that is not its fault: no row may be suspected (S63).
#[track_caller]
pub(crate) fn waited<T: Debug>(answer: Result<T, CallError>) -> Fault {
    match answer {
        Err(CallError::Timeout(fault)) => {
            assert_eq!(fault.owner, Owner::Destination, "{fault}");
            fault
        }
        other => panic!("not a timeout: {other:?}"),
    }
}

/// No row was shown to the guest, so none is suspected.
#[track_caller]
pub(crate) fn not_started<T: Debug>(answer: Result<T, CallError>) -> Fault {
    match answer {
        Err(CallError::Unavailable(fault)) => fault,
        other => panic!("not unavailable: {other:?}"),
    }
}

impl Stage {
    /// Starts the guest as the collector, sees it stopped in `collect`, and the next call find a harmless instance: why it was stopped.
    pub(crate) async fn stopped_in_collect(&self, guest: &Wat, more: Value) -> Fault {
        let collector = self.collector(&self.component(&guest.build()), more).await.unwrap();
        collector.ready().await.unwrap();
        let fault = stopped(collector.collect(&self.records(&["!"])).await);
        let fine = collector.collect(&self.records(&["fine"])).await;
        assert!(fine.is_ok(), "{fine:?}");
        fault
    }

    /// The same as a sink in `deliver`.
    pub(crate) async fn stopped_in_deliver(&self, guest: &Wat, more: Value) -> Fault {
        let sink = self.sink(&self.component(&guest.build()), more).await.unwrap();
        sink.connect().await.unwrap();
        let fault = stopped(sink.deliver(&self.records(&["!"])).await);
        assert_eq!(sink.deliver(&self.records(&["fine"])).await, Ok(vec![]));
        fault
    }

    /// The message and the hint are these, with `{}` for the attacker's label and `<place>` for its place.
    #[track_caller]
    pub(crate) fn said(&self, fault: &Fault, message: &str, hint: &str) {
        assert_eq!(self.words(fault), (message.to_owned(), hint.to_owned()), "{fault}");
    }

    /// The log says nothing of the attacker: what became of it is the fault's to tell.
    #[track_caller]
    pub(crate) fn is_silent(&self) {
        assert_eq!(self.log(), [""; 0]);
    }
}

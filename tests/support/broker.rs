//! A real Apache Kafka broker as a child of the test process, gone with it whatever happens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// How long a broker may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// What to run when something that tests need is missing.
const REMEDY: &str = "run `make setup` first";
/// Ends the broker when its standard input is closed, which happens when the test process ends, in whatever way.
const WATCHDOG: &str = r#"log=$1; shift; exec 3<&0
"$@" </dev/null >>"$log" 2>&1 3<&- &
pid=$!; echo $pid
{ cat <&3 >/dev/null; kill -KILL $pid; } 2>/dev/null &
exec 3<&- >&- 2>/dev/null; wait $pid"#;

/// One broker with a data directory of its own, on free ports.
pub struct Broker {
    dir: PathBuf,
    port: u16,
    running: Option<Running>,
}

struct Running {
    shell: Child,
    /// Held open: its end is the broker's.
    _lifeline: ChildStdin,
    pid: u32,
}

impl Broker {
    /// Formats a data directory, starts a broker on it and waits until it answers.
    ///
    /// # Panics
    /// When Java or the broker's files are missing, naming the command to run, and when the broker does not come up.
    pub fn start() -> Self {
        clear_leftovers();
        let (port, controller) = (free_port(), free_port());
        let dir = run_dir().join(format!("{}-{port}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let shared = fs::read_to_string(services_dir().join("kafka/server.properties")).unwrap();
        let own = format!(
            "node.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\n",
            dir.join("data").display()
        );
        fs::write(dir.join("server.properties"), own + &shared).unwrap();
        let format = java(&dir, "128m", "1")
            .args(["kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config"])
            .arg(dir.join("server.properties"))
            .output()
            .unwrap_or_else(|error| panic!("`java` cannot be started ({error}): {REMEDY}"));
        assert!(format.status.success(), "the broker's directory cannot be formatted: {format:?}; {REMEDY}");
        let mut broker = Self { dir, port, running: None };
        broker.restart();
        broker
    }

    /// Starts the broker again on its data and ports, and waits until it answers.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "the broker runs already");
        let java = java(&self.dir, "256m", "4");
        let mut shell = Command::new("sh")
            .args(["-c", WATCHDOG, "broker"])
            .arg(self.dir.join("kafka.log"))
            .arg(java.get_program())
            .args(java.get_args())
            .arg("kafka.Kafka")
            .arg(self.dir.join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = shell.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap();
        self.running = Some(Running { shell, _lifeline: lifeline, pid });
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).set("log_level", "0").create().unwrap();
        let started = Instant::now();
        loop {
            if client.fetch_metadata(None, Duration::from_millis(500)).is_ok_and(|found| !found.brokers().is_empty()) {
                return;
            }
            let ended = self.running.as_mut().and_then(|running| running.shell.try_wait().unwrap());
            assert!(
                ended.is_none() && started.elapsed() < START_PATIENCE,
                "the broker did not come up ({ended:?}):\n{}",
                self.log_end()
            );
        }
    }

    /// Ends the broker as a crash would.
    pub fn kill(&mut self) {
        let Some(Running { mut shell, _lifeline, .. }) = self.running.take() else { return };
        drop(_lifeline);
        shell.wait().unwrap();
    }

    /// Ends the broker as an operator would.
    pub fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        Command::new("kill").args(["-TERM", &running.pid.to_string()]).status().unwrap();
        running.shell.wait().unwrap();
    }

    /// Where clients connect.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Creates a topic and waits until the broker knows it.
    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        for result in admin.create_topics([&topic], &options).await.unwrap() {
            result.unwrap();
        }
        for _ in 0..100 {
            let metadata = admin.inner().fetch_metadata(Some(name), Duration::from_secs(5)).unwrap();
            if metadata.topics().iter().any(|topic| topic.partitions().len() == usize::try_from(partitions).unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("topic `{name}` did not appear");
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.dir.join("kafka.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn java(dir: &Path, heap: &str, tier: &str) -> Command {
    let jars = target_dir().join("services/kafka/libs");
    assert!(jars.is_dir(), "the broker's files are not in {}: {REMEDY}", jars.display());
    let log_options = services_dir().join("kafka/log4j2.properties");
    let mut java = Command::new("java");
    java.current_dir(dir)
        .args([&format!("-Xmx{heap}"), &format!("-XX:TieredStopAtLevel={tier}"), "-XX:+UseSerialGC", "-Xshare:auto"])
        .args(["-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true"])
        .arg(format!("-Dlog4j2.configurationFile=file:{}", log_options.display()))
        .arg("-cp")
        .arg(format!("{}/*", jars.display()));
    java
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What earlier test processes left behind: a shared broker lives in a static, which nothing drops.
fn clear_leftovers() {
    let Ok(entries) = fs::read_dir(run_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn services_dir() -> PathBuf {
    root().join("tests/services")
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn run_dir() -> PathBuf {
    let dir = target_dir().join("services/run");
    fs::create_dir_all(&dir).unwrap();
    dir
}

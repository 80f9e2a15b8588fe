//! A real Apache Kafka broker as a child of the test process, gone with it whatever happens.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::certificates::Certificates;
use super::child::{REMEDY, Server, free_port, services_dir, target_dir};
use super::proxy::Proxy;

/// One broker with a data directory of its own, on free ports.
pub struct Broker {
    server: Server,
    port: u16,
    secure_port: Option<u16>,
    proxied: Vec<Proxied>,
    /// How many of them are taken.
    taken: AtomicUsize,
    /// What Java may take for objects, as its option `-Xmx` wants it.
    heap: &'static str,
}

/// A listener that tells its clients to come through a proxy.
struct Proxied {
    /// Where the broker listens.
    port: u16,
    /// Where the proxy has to.
    proxy: u16,
}

/// What Java may take for objects, enough for the topics of a test.
pub(super) const HEAP: &str = "256m";
/// So many proxies there can be in front of one broker.
const PROXIES: usize = 6;
/// Who may log in.
const LOGIN: &str = "listener.name.sasl_ssl.plain.sasl.jaas.config";

impl Broker {
    /// Formats a data directory, starts a broker on it and waits until it answers.
    ///
    /// # Panics
    /// When Java or the broker's files are missing, naming the command to run, and when the broker does not come up.
    pub fn start() -> Self {
        Self::with(None, &[])
    }

    /// The same with memory for ten thousand partitions.
    pub fn large() -> Self {
        let mut broker = Self::with(None, &[]);
        broker.stop();
        broker.heap = "3g";
        broker.restart();
        broker
    }

    /// The same with a second listener, [`Self::secure_bootstrap`], that wants TLS and this user's password.
    pub fn secured(user: &str, password: &str) -> Self {
        Self::with(Some((user, password)), &[])
    }

    /// The same as [`Self::start`] with properties of its own.
    pub fn configured(properties: &[(&str, &str)]) -> Self {
        Self::with(None, properties)
    }

    fn with(login: Option<(&str, &str)>, properties: &[(&str, &str)]) -> Self {
        let (port, controller) = (free_port(), free_port());
        let server = Server::new("kafka");
        let dir = server.dir();
        let shared = fs::read_to_string(services_dir().join("kafka/server.properties")).unwrap();
        let secure_port = login.map(|_| free_port());
        let listener = secure_port.map(|port| format!(",SASL_SSL://127.0.0.1:{port}")).unwrap_or_default();
        let proxied: Vec<Proxied> = (0..PROXIES).map(|_| Proxied { port: free_port(), proxy: free_port() }).collect();
        let behind = |port: fn(&Proxied) -> u16| -> String {
            proxied.iter().zip(0..).map(|(one, n)| format!(",PROXIED{n}://127.0.0.1:{}", port(one))).collect()
        };
        let protocols: String = (0..PROXIES).map(|n| format!(",PROXIED{n}:PLAINTEXT")).collect();
        let own = format!(
            "node.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listener}{}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listener}{}\nlog.dirs={}\n",
            behind(|one| one.port),
            behind(|one| one.proxy),
            dir.join("data").display()
        );
        let more: String = properties.iter().map(|(name, value)| format!("\n{name}={value}")).collect();
        let protocols = format!(
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL{protocols}\n"
        );
        let secure = login.map(|(user, password)| secure_listener(dir, user, password)).unwrap_or_default();
        fs::write(dir.join("server.properties"), own + &shared + &protocols + &secure + &more).unwrap();
        format_data(dir);
        let mut broker = Self { server, port, secure_port, proxied, taken: AtomicUsize::new(0), heap: HEAP };
        broker.restart();
        broker
    }

    /// Whether it has a listener with TLS and SASL.
    pub fn is_secured(&self) -> bool {
        self.secure_port.is_some()
    }

    /// From its next start on it knows this user with this password, and no other.
    pub fn knows(&self, user: &str, password: &str) {
        let file = self.server.dir().join("server.properties");
        let properties = fs::read_to_string(&file).unwrap();
        let others = properties.lines().filter(|line| !line.starts_with(LOGIN));
        let properties: String = others.map(|line| format!("{line}\n")).collect();
        fs::write(&file, properties + &login(user, password)).unwrap();
    }

    /// Starts the broker again on its data and ports, and waits until it answers.
    pub fn restart(&mut self) {
        start(&mut self.server, &format!("127.0.0.1:{}", self.port), self.heap);
    }

    /// Ends the broker as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Ends the broker as an operator would.
    pub fn stop(&mut self) {
        self.server.stop("-TERM");
    }

    /// Sends the broker a signal, such as `-STOP` and `-CONT`.
    pub fn signal(&self, signal: &str) {
        self.server.signal(signal);
    }

    /// Where it keeps a partition's log.
    pub fn log_dir(&self, topic: &str, partition: i32) -> PathBuf {
        self.server.dir().join(format!("data/{topic}-{partition}"))
    }

    /// Where clients connect.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A proxy of one's own in front of the broker: who connects to it goes through it with everything.
    pub fn proxy(&self) -> Proxy {
        let next = self.taken.fetch_add(1, Ordering::Relaxed);
        let Proxied { port, proxy } = self.proxied.get(next).expect("more proxies than the broker has listeners for");
        Proxy::kafka(*proxy, *port)
    }

    /// Where clients connect that speak TLS and can log in; its authority is that of [`Certificates::shared`].
    pub fn secure_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.secure_port.unwrap())
    }

    /// Creates a topic and waits until the broker knows it.
    pub async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        create_topic(&self.bootstrap(), name, partitions, 1, config).await;
    }
}

/// Creates a topic and waits until the brokers know it.
pub async fn create_topic(bootstrap: &str, name: &str, partitions: i32, replicas: i32, config: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
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

/// Makes the folder's `server.properties` and data belong together.
pub(super) fn format_data(dir: &Path) {
    let format = java(dir, "128m", "1")
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config"])
        .arg(dir.join("server.properties"))
        .output()
        .unwrap_or_else(|error| panic!("`java` cannot be started ({error}): {REMEDY}"));
    assert!(format.status.success(), "the broker's directory cannot be formatted: {format:?}; {REMEDY}");
}

/// Starts a broker on its data and ports, and waits until it answers.
pub(super) fn start(server: &mut Server, bootstrap: &str, heap: &str) {
    let mut java = java(server.dir(), heap, "4");
    java.arg("kafka.Kafka").arg(server.dir().join("server.properties"));
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("log_level", "0").create().unwrap();
    let wait = Duration::from_millis(500);
    server.start(&java, || client.fetch_metadata(None, wait).is_ok_and(|found| !found.brokers().is_empty()));
}

/// The properties of a listener with TLS and SASL.
fn secure_listener(dir: &Path, user: &str, password: &str) -> String {
    let certificates = Certificates::shared();
    let store = dir.join("server-with-key.pem");
    let parts = [certificates.key(), certificates.certificate()].map(|file| fs::read_to_string(file).unwrap());
    fs::write(&store, parts.concat()).unwrap();
    let store = store.display();
    format!("ssl.keystore.type=PEM\nssl.keystore.location={store}\nsasl.enabled.mechanisms=PLAIN\n")
        + &login(user, password)
}

/// The property with the one user who may log in.
fn login(user: &str, password: &str) -> String {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    format!("{LOGIN}={module} user_{user}=\"{password}\";\n")
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

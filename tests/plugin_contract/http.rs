//! HTTP goes where it was granted and nowhere else, within its limits, and says so (S129).

use std::io::Write;
use std::sync::{Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use tidegate::model::{Failure, FailureKind};
use tidegate::sink::Sink;

use super::web::Web;
use super::*;

/// Longest that something which ends soon may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Everything that this process writes to its log.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        log().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log() -> MutexGuard<'static, Vec<u8>> {
    LOG.lock().unwrap()
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init());
}

/// A sink of the guest that sends what it is told, under a name of its own, so that its lines are told from others'.
struct Dialler {
    name: &'static str,
    sink: PluginSink,
}

impl Dialler {
    async fn new(name: &'static str, http: &[&str], mut limits: Value) -> Self {
        let addresses: &[&str] = &[];
        limits["call_timeout_seconds"] = json!(60);
        Self::with(name, json!({ "http": http, "http_addresses": addresses }), limits).await
    }

    async fn with(name: &'static str, grants: Value, limits: Value) -> Self {
        listen();
        let options = configured(&guest("dialler"), json!({ "grants": grants, "limits": limits }));
        let artifact = loaded(&format!("sinks.plugin.{name}"), &options).await.unwrap();
        let sink = PluginSink::start(artifact, name, &options, &Queries::new()).await.unwrap();
        sink.connect().await.unwrap();
        Self { name, sink }
    }

    /// What the guest saw of each of those requests, made in one call.
    async fn seen(&self, asked: &[Value]) -> Vec<String> {
        let rows: Vec<_> = asked.iter().map(Value::to_string).collect();
        let rows: Vec<_> = rows.iter().map(String::as_str).collect();
        let failures = self.sink.deliver(&records(0, 0, &rows)).await.unwrap();
        let said = |Failure { kind, reason, .. }: Failure| (kind == FailureKind::Reject).then_some(reason);
        failures.into_iter().map(|failure| said(failure).unwrap()).collect()
    }

    async fn saw(&self, asked: Value) -> String {
        self.seen(&[asked]).await.remove(0)
    }

    /// The log's lines about it.
    fn lines(&self) -> Vec<String> {
        let log = String::from_utf8(log().clone()).unwrap();
        let mine = format!("`plugin/{}`", self.name);
        let mine = log.lines().filter(|line| line.contains(&mine));
        mine.map(|line| line.rsplit_once(" plugin=").map_or(line, |(line, _)| line).to_owned()).collect()
    }

    /// The only line about it, from its first backtick on.
    fn line(&self) -> String {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines[0].split_once('`').map(|(_, line)| format!("`{line}")).unwrap()
    }
}

fn get(web: &Web, path: &str) -> Value {
    json!({ "authority": web.address.to_string(), "path": path })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_a_granted_origin_is_reached_and_its_answer_arrives() {
    let web = Web::start();
    let dialler = Dialler::new("granted", &[&web.origin()], json!({})).await;
    assert_eq!(dialler.saw(get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
    // What the guest sends goes through as it is, and nothing is added that could tell on the host.
    let head = dialler
        .saw(json!({ "authority": web.address.to_string(), "path": "/head?a=%2e%2E&b=c", "headers": [["x-own", "1"], ["cookie", "c=d"]] }))
        .await;
    assert!(head.contains("GET /head?a=%2e%2E&b=c HTTP/1.1"), "{head}");
    assert!(
        head.contains(&format!("host: {}", web.address)) && head.contains("x-own: 1") && head.contains("c=d"),
        "{head}"
    );
    assert!(!head.contains("user-agent") && !head.contains("referer") && !head.contains("accept-encoding"), "{head}");
    assert_eq!(dialler.lines(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_bodies_go_up_and_come_down() {
    let web = Web::start();
    let dialler = Dialler::new("bodies", &[&web.origin()], json!({})).await;
    let up =
        |bytes: u64| json!({ "method": "POST", "authority": web.address.to_string(), "path": "/echo", "body": bytes });
    assert_eq!(dialler.saw(up(0)).await, "status 200, 12 bytes \"0 bytes came\"");
    assert_eq!(dialler.saw(up(3_000_000)).await, "status 200, 18 bytes \"3000000 bytes came\"");
    let mut with_length = up(1000);
    with_length["headers"] = json!([["content-length", "1000"]]);
    assert_eq!(dialler.saw(with_length).await, "status 200, 15 bytes \"1000 bytes came\"");
    let down = dialler.saw(get(&web, "/big?5000000")).await;
    assert!(down.starts_with("status 200, 5000000 bytes \"yyy"), "{down}");
    // It is the guest that would unpack it.
    assert_eq!(dialler.saw(get(&web, "/gzip")).await, "status 200, 4 bytes \"nope\"");
    assert_eq!(dialler.lines(), [""; 0]);
}

/// The client keeps connections, and no cookies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_requests_share_connections_and_nothing_else() {
    let web = Web::start();
    let dialler = Dialler::new("cookies", &[&web.origin()], json!({})).await;
    assert_eq!(dialler.saw(get(&web, "/cookie")).await, "status 200, 2 bytes \"ok\"");
    assert!(!dialler.saw(get(&web, "/head")).await.contains("cookie"));
    assert_eq!(web.connections(), 1);
    // Another plugin has connections of its own.
    let other = Dialler::new("cookies-other", &[&web.origin()], json!({})).await;
    assert_eq!(other.saw(get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
    assert_eq!(web.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_without_a_grant_the_log_has_the_line_that_would_be_one() {
    let web = Web::start();
    let dialler = Dialler::new("ungranted", &[], json!({})).await;
    let seen = dialler.saw(get(&web, "/secret?token=hidden")).await;
    assert_eq!(seen, "error ErrorCode::HttpRequestDenied");
    let origin = web.origin();
    assert_eq!(
        dialler.line(),
        format!(
            "`plugin/ungranted` was refused: HTTP to `{origin}`: no grant covers it; add \"{origin}\" to `sinks.plugin.ungranted.grants.http`"
        )
    );
    assert_eq!(web.connections(), 0);
    // That line, and it works.
    let dialler = Dialler::new("then-granted", &[&origin], json!({})).await;
    assert_eq!(dialler.saw(get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_another_port_scheme_or_host_is_another_origin() {
    let (web, other) = (Web::start(), Web::start());
    let dialler = Dialler::new("origins", &[&web.origin()], json!({})).await;
    let port = web.port();
    for (scheme, authority) in [
        ("http", other.address.to_string()),
        ("https", web.address.to_string()),
        ("http", "127.0.0.1".into()),
        ("http", format!("127.0.0.2:{port}")),
        ("http", format!("localhost:{port}")),
        ("http", format!("[::1]:{port}")),
        ("http", format!("[::ffff:127.0.0.1]:{port}")),
    ] {
        let seen = dialler.saw(json!({ "scheme": scheme, "authority": authority })).await;
        assert_eq!(seen, "error ErrorCode::HttpRequestDenied", "{scheme}://{authority}");
    }
    assert_eq!((web.connections(), other.connections()), (0, 0));
    // The same place under another spelling.
    for authority in [format!("127.1:{port}"), format!("2130706433:{port}"), format!("0x7f.0.0.1:{port}")] {
        let seen = dialler.saw(json!({ "authority": authority, "path": "/head" })).await;
        assert!(seen.contains(&format!("host: 127.0.0.1:{port}")), "{authority}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_a_redirect_is_an_answer_and_leads_nowhere_by_itself() {
    let (web, other) = (Web::start(), Web::start());
    let dialler = Dialler::new("redirect", &[&web.origin()], json!({})).await;
    let there = format!("/redirect?{}/there", other.origin());
    let seen = dialler.saw(get(&web, &there)).await;
    assert_eq!(seen, format!("status 302 to {}/there, 0 bytes \"\"", other.origin()));
    let mut follow = get(&web, &there);
    follow["follow"] = json!(true);
    let seen = dialler.saw(follow).await;
    assert!(seen.ends_with("; followed: error ErrorCode::HttpRequestDenied"), "{seen}");
    assert!(dialler.line().contains(&other.origin()));
    assert_eq!(other.connections(), 0);
    // To a place that is granted it may go.
    let mut back = get(&web, &format!("/redirect?{}/here", web.origin()));
    back["follow"] = json!(true);
    assert!(dialler.saw(back).await.ends_with("; followed: status 200, 5 bytes \"hello\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_the_hosts_own_headers_cannot_be_forged_and_no_header_injected() {
    let web = Web::start();
    let dialler = Dialler::new("headers", &[&web.origin()], json!({})).await;
    let with = |name: &str, value: &str| json!({ "authority": web.address.to_string(), "path": "/head", "headers": [[name, value]] });
    for name in ["host", "Host", "HOST", "connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"]
    {
        assert_eq!(dialler.saw(with(name, "evil.example")).await, "header HeaderError::Forbidden", "{name}");
    }
    for (name, value) in [
        ("x-a", "1\r\nhost: evil.example"),
        ("x-a", "1\nhost: evil.example"),
        ("x-a", "1\r\n\r\nGET /second HTTP/1.1"),
        ("x-a", "1\0"),
        ("x-a: 1\r\nhost", "evil.example"),
        ("x-a\r\n", "1"),
        ("host ", "evil.example"),
        (" host", "evil.example"),
        ("", "1"),
    ] {
        assert_eq!(dialler.saw(with(name, value)).await, "header HeaderError::InvalidSyntax", "{name:?}");
    }
    for path in ["/ HTTP/1.1\r\nx-a: 1", "/a b", "/\r\n", "http://evil.example/", "evil", "@evil.example/"] {
        assert_eq!(dialler.saw(get(&web, path)).await, "path refused", "{path:?}");
    }
    let smuggled = json!({ "method": "GET / HTTP/1.1\r\nx-a: 1\r\n\r\nGET", "authority": web.address.to_string() });
    assert_eq!(dialler.saw(smuggled).await, "method refused");
    let two_lengths = json!({ "method": "POST", "authority": web.address.to_string(), "path": "/echo", "body": 5,
        "headers": [["content-length", "5"], ["content-length", "50"]] });
    assert_eq!(dialler.saw(two_lengths).await, "header HeaderError::InvalidSyntax");
    assert_eq!(web.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_a_request_body_beyond_its_limit_is_an_error() {
    let web = Web::start();
    let dialler = Dialler::new("upload", &[&web.origin()], json!({ "http_request_mebibytes": 1 })).await;
    let up =
        |bytes: u64| json!({ "method": "POST", "authority": web.address.to_string(), "path": "/echo", "body": bytes });
    assert_eq!(dialler.saw(up(1 << 20)).await, "status 200, 18 bytes \"1048576 bytes came\"");
    assert_eq!(dialler.saw(up((1 << 20) + 1)).await, "error ErrorCode::HttpRequestBodySize(Some(1048576))");
    assert!(
        dialler
            .line()
            .ends_with("the request's body is longer than `sinks.plugin.upload.limits.http_request_mebibytes` allows")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_a_response_body_beyond_its_limit_is_an_error() {
    let web = Web::start();
    let dialler = Dialler::new("download", &[&web.origin()], json!({ "http_response_mebibytes": 1 })).await;
    let down = dialler.saw(get(&web, "/big?1048576")).await;
    assert!(down.starts_with("status 200, 1048576 bytes") && down.ends_with('"'), "{down}");
    let down = dialler.saw(get(&web, "/big?1048577")).await;
    assert!(down.ends_with("then HTTP response body size exceeds limit: 1048576 bytes"), "{down}");
    assert!(
        dialler.line().ends_with(
            "the response's body is longer than `sinks.plugin.download.limits.http_response_mebibytes` allows"
        )
    );
    assert_eq!(web.open_at_most(1, SOON), 1, "the connection is kept although the rest is not read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_a_request_that_takes_too_long_is_ended() {
    let web = Web::start();
    let dialler = Dialler::new("slow", &[&web.origin()], json!({ "http_timeout_seconds": 0.3 })).await;
    let started = Instant::now();
    for path in ["/silent", "/drip-head"] {
        assert_eq!(dialler.saw(get(&web, path)).await, "error ErrorCode::HttpResponseTimeout", "{path}");
    }
    for path in ["/drip", "/hang"] {
        let seen = dialler.saw(get(&web, path)).await;
        assert!(seen.ends_with("then HTTP response timeout"), "{path}: {seen}");
    }
    // Nor is one that the guest does not end itself.
    let unfinished = json!({ "method": "POST", "authority": web.address.to_string(), "path": "/echo", "body": 5, "unfinished": true });
    assert_eq!(dialler.saw(unfinished).await, "error ErrorCode::HttpResponseTimeout");
    assert!(started.elapsed() < SOON + SOON);
    let lines = dialler.lines();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(
        lines
            .iter()
            .all(|line| line.ends_with("it took longer than `sinks.plugin.slow.limits.http_timeout_seconds` allows"))
    );
    assert_eq!(web.open_at_most(0, SOON), 0);
}

/// Shorter than the limit is the guest's own business; longer it does not get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_the_guests_own_timeouts_only_shorten() {
    let web = Web::start();
    let dialler = Dialler::new("wishes", &[&web.origin()], json!({ "http_timeout_seconds": 0.5 })).await;
    let wish = |path: &str, key: &str, milliseconds: u64| {
        let mut asked = get(&web, path);
        asked[key] = json!(milliseconds);
        asked
    };
    let first = "first_byte_milliseconds";
    assert_eq!(dialler.saw(wish("/silent", first, 50)).await, "error ErrorCode::ConnectionReadTimeout");
    let seen = dialler.saw(wish("/hang", "between_bytes_milliseconds", 50)).await;
    assert!(seen.ends_with("then connection read timeout"), "{seen}");
    assert_eq!(dialler.lines(), [""; 0]);
    assert_eq!(dialler.saw(wish("/silent", first, 60_000)).await, "error ErrorCode::HttpResponseTimeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_requests_in_flight_are_limited_and_given_back() {
    let web = Web::start();
    let limits = json!({ "http_requests_in_flight": 3, "http_timeout_seconds": 1 });
    let dialler = Dialler::new("flights", &[&web.origin()], limits).await;
    // Two answers lie there unread, one request waits for its answer.
    let mut kept = get(&web, "/big?900000");
    kept["keep"] = json!(true);
    kept["times"] = json!(2);
    let mut left = get(&web, "/silent");
    left["leave"] = json!(true);
    let seen = dialler.seen(&[kept, left, get(&web, "/"), get(&web, "/")]).await;
    assert_eq!(seen[0], "2 times status 200, kept");
    assert_eq!(seen[1], "left");
    assert_eq!(seen[2..], ["error ErrorCode::ConnectionLimitReached"; 2]);
    let lines = dialler.lines();
    assert!(
        lines[0].ends_with(
            "3 requests are in flight, the most that `sinks.plugin.flights.limits.http_requests_in_flight` allows"
        ),
        "{lines:#?}"
    );
    // Their time ends them although nobody looks, and their places are free again.
    assert_eq!(web.open_at_most(0, SOON), 0);
    let again: Vec<_> = (0..5).map(|_| get(&web, "/")).collect();
    assert_eq!(dialler.seen(&again).await, ["status 200, 5 bytes \"hello\""; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_requests_of_one_call_are_limited() {
    let web = Web::start();
    let dialler = Dialler::new("calls", &[&web.origin()], json!({ "http_requests_per_call": 5 })).await;
    let mut many = get(&web, "/");
    many["times"] = json!(7);
    let expected = "5 times status 200, 5 bytes \"hello\"; 2 times error ErrorCode::HttpRequestDenied";
    assert_eq!(dialler.saw(many.clone()).await, expected);
    assert!(dialler.lines()[0].ends_with(
        "it is beyond 5 requests in one call, the most that `sinks.plugin.calls.limits.http_requests_per_call` allows"
    ));
    // The next call begins anew.
    assert_eq!(dialler.saw(many).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_nothing_outlives_the_instance() {
    let web = Web::start();
    let dialler = Dialler::new("outlived", &[&web.origin()], json!({ "http_timeout_seconds": 60 })).await;
    let mut kept = get(&web, "/drip");
    kept["keep"] = json!(true);
    let mut left = get(&web, "/silent");
    left["leave"] = json!(true);
    let unfinished = json!({ "method": "POST", "authority": web.address.to_string(), "path": "/echo", "body": 5,
        "unfinished": true, "leave": true });
    dialler.seen(&[kept, left, unfinished]).await;
    let patience = Instant::now() + SOON;
    while web.heads().len() < 3 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((web.heads().len(), web.open_at_most(0, Duration::ZERO)), (3, 3));
    dialler.sink.close().await.unwrap();
    drop(dialler);
    assert_eq!(web.open_at_most(0, SOON), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_what_goes_wrong_has_a_name() {
    let web = Web::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("http://{closed}");
    let unknown = "http://no-such-host.invalid";
    let secure = format!("https://{}", web.address);
    let dialler = Dialler::new("errors", &[&web.origin(), &refused, unknown, &secure], json!({})).await;
    assert_eq!(dialler.saw(json!({ "authority": closed.to_string() })).await, "error ErrorCode::ConnectionRefused");
    let seen = dialler.saw(json!({ "authority": "no-such-host.invalid" })).await;
    assert!(seen.starts_with("error ErrorCode::DnsError"), "{seen}");
    // Who speaks no TLS does not get the request in clear.
    let seen = dialler.saw(json!({ "scheme": "https", "authority": web.address.to_string(), "path": "/secret" })).await;
    assert!(seen.starts_with("error ErrorCode::"), "{seen}");
    let seen = dialler.saw(get(&web, "/short")).await;
    assert_eq!(seen, "status 200, 3 bytes \"abc\", then incomplete HTTP response");
    for path in ["/close", "/nonsense", "/flood-head"] {
        let seen = dialler.saw(get(&web, path)).await;
        assert!(seen.starts_with("error ErrorCode::"), "{path}: {seen}");
    }
    assert_eq!(dialler.lines(), [""; 0]);
}

/// A process of its own for a test whose environment differs, told where to go.
const CHILD: &str = "TIDEGATE_TEST_CHILD";

/// Runs `test` again, in a child process that is told `told` and has those variables.
fn again(test: &str, told: &str, variables: &[(&str, String)]) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("http::{test}"), "--nocapture"]).env(CHILD, told);
    for name in ["NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        child.env_remove(name);
    }
    let output = child.envs(variables.iter().cloned()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A proxy would resolve names by itself, past every check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_the_environments_proxies_are_not_used() {
    if let Ok(address) = std::env::var(CHILD) {
        let dialler = Dialler::new("proxied", &[&format!("http://{address}")], json!({})).await;
        assert_eq!(dialler.saw(json!({ "authority": address })).await, "status 200, 5 bytes \"hello\"");
        return;
    }
    let (web, proxy) = (Web::start(), Web::start());
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let variables = names.map(|name| (name, proxy.origin()));
    again("s129_the_environments_proxies_are_not_used", &web.address.to_string(), &variables);
    assert_eq!((web.connections(), proxy.connections()), (1, 0));
}

/// A server with the tests' certificate, which only they who are told believe.
fn secure_server() -> u16 {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    let files = super::certificates::Certificates::shared();
    let certificates = CertificateDer::pem_file_iter(files.certificate()).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(files.key()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(certificates, key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nsecure");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

/// TLS believes whom the system believes, for the very name that was granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s129_tls_is_checked_by_the_systems_authorities() {
    let told = std::env::var(CHILD);
    let port = told.as_ref().map_or_else(|_| secure_server(), |told| told.parse().unwrap());
    let dialler = Dialler::new("secure", &[&format!("https://localhost:{port}")], json!({})).await;
    let seen = dialler.saw(json!({ "scheme": "https", "authority": format!("localhost:{port}") })).await;
    if told.is_ok() {
        assert_eq!(seen, "status 200, 6 bytes \"secure\"");
        return;
    }
    assert_eq!(seen, "error ErrorCode::TlsCertificateError");
    let authority = super::certificates::Certificates::shared().authority().display().to_string();
    again("s129_tls_is_checked_by_the_systems_authorities", &port.to_string(), &[("SSL_CERT_FILE", authority)]);
}

//! Requests that no grant covers however they are spelt, and answers that are too much.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::plugin::PluginSink;
use tidegate::sink::Sink;

use crate::stage::{Stage, guest, stopped, waited};
use crate::web::Web;

attacks! {
    loopback_dotted = ungranted("http", "127.0.0.1:{port}", "127.0.0.1"),
    loopback_decimal = ungranted("http", "2130706433:{port}", "127.0.0.1"),
    loopback_octal = ungranted("http", "0177.0.0.01:{port}", "127.0.0.1"),
    loopback_hexadecimal = ungranted("http", "0x7F000001:{port}", "127.0.0.1"),
    loopback_short = ungranted("http", "127.1:{port}", "127.0.0.1"),
    loopback_escaped = malformed(json!({ "authority": "%31%32%37%2e0.0.1" }), "authority refused"),
    loopback_in_other_digits = malformed(json!({ "authority": "\u{ff11}27.0.0.1" }), "authority refused"),
    loopback_with_a_dot_behind_it = ungranted("http", "127.0.0.1.:{port}", "127.0.0.1"),
    loopback_by_name = ungranted("http", "localhost:{port}", "localhost"),
    loopback_by_name_in_capitals = ungranted("http", "LocalHost.:{port}", "localhost"),
    loopback_in_ipv6 = ungranted("http", "[::1]:{port}", "[::1]"),
    loopback_mapped = ungranted("http", "[::ffff:127.0.0.1]:{port}", "[::ffff:7f00:1]"),
    loopback_compatible = ungranted("http", "[::127.0.0.1]:{port}", "[::7f00:1]"),
    loopback_translated = ungranted("http", "[64:ff9b::127.0.0.1]:{port}", "[64:ff9b::7f00:1]"),
    every_address = ungranted("http", "0:{port}", "0.0.0.0"),
    every_address_in_ipv6 = ungranted("http", "[::]:{port}", "[::]"),
    metadata_dotted = ungranted("http", "169.254.169.254:{port}", "169.254.169.254"),
    metadata_decimal = ungranted("http", "2852039166:{port}", "169.254.169.254"),
    metadata_octal = ungranted("http", "0251.0376.0251.0376:{port}", "169.254.169.254"),
    metadata_hexadecimal = ungranted("http", "0xa9fea9fe:{port}", "169.254.169.254"),
    metadata_mapped = ungranted("http", "[::ffff:a9fe:a9fe]:{port}", "[::ffff:a9fe:a9fe]"),
    metadata_in_ipv6 = ungranted("http", "[fd00:ec2::254]:{port}", "[fd00:ec2::254]"),
    metadata_by_name = ungranted("http", "metadata.google.internal:{port}", "metadata.google.internal"),
    another_scheme = ungranted("https", "granted.example:{port}", "granted.example"),
    another_name_below = ungranted("http", "granted.example.evil.example:{port}", "granted.example.evil.example"),
    another_name_above = ungranted("http", "example:{port}", "example"),
    another_port = another_port_of_the_same_host(),
    a_granted_user = user("granted.example@127.0.0.1:{port}"),
    a_granted_user_and_port = user("granted.example:{port}@127.0.0.1:{port}"),
    a_granted_user_twice = user("granted.example@granted.example@127.0.0.1:{port}"),
    a_scheme_without_limits = scheme(),
    no_authority = malformed(json!({ "authority": null }), "error ErrorCode::HttpRequestUriInvalid"),
    a_backslash_in_the_authority = malformed(json!({ "authority": "granted.example\\@127.0.0.1" }), "authority refused"),
    a_fragment_in_the_authority = malformed(json!({ "authority": "granted.example#@127.0.0.1" }), "authority refused"),
    a_path_in_the_authority = malformed(json!({ "authority": "granted.example/@127.0.0.1" }), "authority refused"),
    a_line_in_the_authority = malformed(json!({ "authority": "granted.example\r\nhost: x" }), "authority refused"),
    a_line_in_the_path = malformed(json!({ "authority": "granted.example", "path": "/ HTTP/1.1\r\nhost: x" }), "path refused"),
    an_absolute_path = malformed(json!({ "authority": "granted.example", "path": "http://127.0.0.1/" }), "path refused"),
    a_line_in_a_header =
        malformed(json!({ "headers": [["x-a", "1\r\nhost: evil"]] }), "header HeaderError::InvalidSyntax"),
    a_forged_host = malformed(json!({ "headers": [["HoSt", "evil"]] }), "header HeaderError::Forbidden"),
    a_request_in_a_request = smuggled(),
    a_tunnel = tunnel(),
    a_name_for_this_machine = resolved(),
    a_redirect_to_metadata = redirected("http://169.254.169.254/latest/meta-data/"),
    a_redirect_to_this_machine = redirected("http://localhost:1/"),
    a_server_that_never_answers = silent("/silent"),
    a_slow_loris_of_a_server = silent("/drip-head"),
    a_response_without_end = silent("/drip"),
    a_response_that_breaks_off = silent("/hang"),
    asleep_over_a_response = asleep("/"),
    asleep_beside_a_response_that_breaks_off = asleep("/hang"),
    a_response_without_end_that_nobody_reads = unread(),
    a_flood_for_a_response = flood(),
    a_flood_of_response_headers = rude("/flood-head"),
    nonsense_for_a_response = rude("/nonsense"),
    a_flood_of_requests = requests(),
    a_flood_of_refusals = refusals(),
    a_flood_of_errors_in_the_hosts_own_words = pathless(),
    a_flood_of_parallel_requests = parallel(),
    a_hoard_of_unsent_bodies = hoard(),
    a_hoard_of_answers = answers(),
    a_hoard_of_methods = hoard_of("method"),
    a_hoard_of_authorities = hoard_of("authority"),
    a_hoard_of_paths = hoard_of("path"),
    a_hoard_of_headers = headers(),
}

/// Longest that something which ends soon may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// The guest that sends what it is told, with grants and limits; its calls may take long unless `limits` says another.
async fn dialler(stage: &Stage, http: &[&str], mut limits: Value) -> PluginSink {
    for (key, value) in [("call_timeout_seconds", 30), ("setup_timeout_seconds", 30)] {
        limits.as_object_mut().unwrap().entry(key).or_insert_with(|| json!(value));
    }
    let sink = stage.sink(&guest("dialler"), json!({ "grants": { "http": http }, "limits": limits })).await.unwrap();
    sink.connect().await.unwrap();
    sink
}

/// What the guest saw of a request.
async fn saw(stage: &Stage, sink: &PluginSink, asked: &Value) -> String {
    sink.deliver(&stage.records(&[&asked.to_string()])).await.unwrap().remove(0).reason
}

fn get(web: &Web, path: &str) -> Value {
    json!({ "authority": web.address.to_string(), "path": path })
}

/// The only line of the log.
fn line(stage: &Stage) -> String {
    let lines = stage.log();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0].clone()
}

/// `spelt` leads to a server here, or to where nobody may; `granted.example` is granted and nothing else.
async fn ungranted(stage: &Stage, scheme: &str, spelt: &str, host: &str) {
    let web = Web::start();
    let port = web.port();
    let sink = dialler(stage, &[&format!("http://granted.example:{port}")], json!({})).await;
    let asked =
        json!({ "scheme": scheme, "authority": spelt.replace("{port}", &port.to_string()), "path": "/s?token=hidden" });
    assert_eq!(saw(stage, &sink, &asked).await, "error ErrorCode::HttpRequestDenied");
    let (line, scheme) = (line(stage), scheme.to_lowercase());
    let grant = format!("{scheme}://{host}:{port}");
    assert!(
        line.contains(&format!("`{}` was refused: HTTP to `{grant}`: no grant covers it", stage.label())),
        "{line}"
    );
    assert!(line.contains(&format!("; add \"{grant}\" to `{}.grants.http`", stage.place())), "{line}");
    assert!(!line.contains("hidden"), "{line}");
    assert_eq!(web.connections(), 0);
}

async fn another_port_of_the_same_host(stage: &Stage) {
    let (web, other) = (Web::start(), Web::start());
    let sink = dialler(stage, &[&web.origin()], json!({})).await;
    assert_eq!(saw(stage, &sink, &get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
    assert_eq!(saw(stage, &sink, &get(&other, "/")).await, "error ErrorCode::HttpRequestDenied");
    assert_eq!(saw(stage, &sink, &json!({ "authority": "127.0.0.1" })).await, "error ErrorCode::HttpRequestDenied");
    assert_eq!((stage.log().len(), other.connections()), (2, 0));
}

/// A name before `@` is no host, and a password has no place in the log.
async fn user(stage: &Stage, spelt: &str) {
    let web = Web::start();
    let port = web.port().to_string();
    let granted = [format!("http://granted.example:{port}"), web.origin()];
    let sink = dialler(stage, &[&granted[0], &granted[1]], json!({})).await;
    let seen = saw(stage, &sink, &json!({ "authority": spelt.replace("{port}", &port) })).await;
    if seen != "authority refused" {
        assert_eq!(seen, "error ErrorCode::HttpRequestDenied");
        let line = line(stage);
        assert!(line.contains("it has to be an address without user and password"), "{line}");
        assert!(!line.contains("granted.example"), "{line}");
    }
    assert_eq!(web.connections(), 0);
}

async fn scheme(stage: &Stage) {
    let sink = dialler(stage, &["http://granted.example"], json!({})).await;
    let seen = saw(stage, &sink, &json!({ "scheme": "gopher", "authority": "granted.example" })).await;
    assert_eq!(seen, "error ErrorCode::HttpProtocolError");
    let line = line(stage);
    assert!(line.contains("was refused: HTTP by the scheme `gopher`: it has to be `http` or `https`"), "{line}");
}

/// What is no request at all does not come so far that it could be refused.
async fn malformed(stage: &Stage, asked: Value, expected: &str) {
    let web = Web::start();
    let sink = dialler(stage, &["http://granted.example", &web.origin()], json!({})).await;
    assert_eq!(saw(stage, &sink, &asked).await, expected);
    assert_eq!((stage.log(), web.connections()), (vec![], 0));
}

/// A body that is itself a request stays a body: the client counts it, and the guest can neither unsay nor double its length.
async fn smuggled(stage: &Stage) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({})).await;
    let with = |headers: Value| json!({ "method": "POST", "authority": web.address.to_string(), "path": "/echo", "body": 50, "headers": headers });
    for (headers, seen) in [
        (json!([["transfer-encoding", "chunked"]]), "header HeaderError::Forbidden"),
        (json!([["Transfer-Encoding", "identity"], ["content-length", "5"]]), "header HeaderError::Forbidden"),
        (json!([["content-length", "5"], ["content-length", "50"]]), "header HeaderError::InvalidSyntax"),
        (json!([["content-length", "+50"]]), "header HeaderError::InvalidSyntax"),
        (json!([["content-length", "50, 5"]]), "header HeaderError::InvalidSyntax"),
    ] {
        assert_eq!(saw(stage, &sink, &with(headers.clone())).await, seen, "{headers}");
    }
    assert_eq!(web.connections(), 0);
    let seen = saw(stage, &sink, &with(json!([["content-length", "5"]]))).await;
    // It may be sent before the guest is caught, and then as long as it said.
    let is_cut = seen == "status 200, 12 bytes \"5 bytes came\"";
    assert!(is_cut || seen.starts_with("error ErrorCode::"), "{seen}");
    assert_eq!(saw(stage, &sink, &get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
    assert!(
        web.heads().iter().all(|head| head.starts_with("POST /echo ") || head.starts_with("GET / ")),
        "{:?}",
        web.heads()
    );
}

async fn tunnel(stage: &Stage) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({})).await;
    let mut asked = get(&web, "/");
    asked["method"] = json!("CONNECT");
    assert_eq!(saw(stage, &sink, &asked).await, "error ErrorCode::HttpRequestMethodInvalid");
    let line = line(stage);
    assert!(line.contains("`CONNECT` asks for a tunnel; no plugin gets sockets"), "{line}");
    assert_eq!(web.connections(), 0);
}

/// A name other than `localhost` by which this machine reaches itself.
fn own_name() -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let names = hosts.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace().skip(1));
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let reaches = |name: &&str| {
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(*name, 0)).map(Iterator::collect::<Vec<_>>);
        *name != "localhost" && found.is_ok_and(|all| all.iter().all(|one| one.ip().is_loopback()))
    };
    let name = names.chain([own.trim()]).find(reaches);
    name.expect("/etc/hosts has a name for a loopback address besides `localhost`").to_owned()
}

/// The name is granted; what it stands for is not, and that is said with the line that would allow it.
async fn resolved(stage: &Stage) {
    let (web, name) = (Web::start(), own_name());
    let granted = format!("http://{name}:{}", web.port());
    let sink = dialler(stage, &[&granted], json!({})).await;
    let asked = json!({ "authority": format!("{name}.:{}", web.port()) });
    assert_eq!(saw(stage, &sink, &asked).await, "error ErrorCode::DestinationIpProhibited");
    let line = line(stage);
    let start = format!("`{}` was refused: HTTP to `{granted}`: `{name}` is `", stage.label());
    let address = line.split_once(&start).unwrap_or_else(|| panic!("{line}")).1.split('`').next().unwrap();
    let end =
        format!("`, which is not a public address; add \"{address}\" to `{}.grants.http_addresses`", stage.place());
    assert!(line.contains(&end), "{line}");
    assert_eq!(web.connections(), 0);
    // That line, and it is reached.
    let grants = json!({ "http": [granted], "http_addresses": [address] });
    let sink = stage
        .sink(&guest("dialler"), json!({ "grants": grants, "limits": { "call_timeout_seconds": 30 } }))
        .await
        .unwrap();
    sink.connect().await.unwrap();
    let seen = saw(stage, &sink, &asked).await;
    assert!(seen.starts_with("status 200") || address == "::1" && seen.contains("ConnectionRefused"), "{seen}");
}

async fn redirected(stage: &Stage, place: &str) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({})).await;
    let mut asked = get(&web, &format!("/redirect?{place}"));
    asked["follow"] = json!(true);
    let seen = saw(stage, &sink, &asked).await;
    assert_eq!(seen, format!("status 302 to {place}, 0 bytes \"\"; followed: error ErrorCode::HttpRequestDenied"));
    let line = line(stage);
    assert!(line.contains("no grant covers it"), "{line}");
    assert_eq!(web.heads().len(), 1);
}

/// The guest waits for longer than its call may take: that is not its fault, and ends with its instance.
async fn silent(stage: &Stage, path: &str) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({ "call_timeout_seconds": 0.3 })).await;
    let started = Instant::now();
    let fault = waited(sink.deliver(&stage.records(&[&get(&web, path).to_string()])).await);
    assert!(fault.message.contains("was still waiting in `deliver` when its 0.3 s were over"), "{fault}");
    assert_eq!(fault.causes[0], "for an HTTP request or a statement");
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(web.open_at_most(0, SOON), 0);
    assert_eq!(saw(stage, &sink, &get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
}

/// The server has answered, and the guest sleeps: that is its own time, however much of the answer it has not asked
/// for.
async fn asleep(stage: &Stage, path: &str) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({ "call_timeout_seconds": 0.3 })).await;
    let mut asked = get(&web, path);
    asked["pause_milliseconds"] = json!(60_000);
    let fault = stopped(sink.deliver(&stage.records(&[&asked.to_string()])).await);
    assert!(fault.message.contains("was still waiting in `deliver` when its 0.3 s were over"), "{fault}");
    assert_eq!(fault.causes[0], "for a clock or a file, not for a request");
    assert_eq!(web.open_at_most(0, SOON), 0);
    assert_eq!(saw(stage, &sink, &get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
}

/// The answer's time is over though nobody looks at it, and its connection is closed while the instance lives on.
async fn unread(stage: &Stage) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({ "http_timeout_seconds": 0.3 })).await;
    let mut asked = get(&web, "/drip");
    asked["keep"] = json!(true);
    assert_eq!(saw(stage, &sink, &asked).await, "status 200, kept");
    assert_eq!(web.open_at_most(0, SOON), 0);
    let line = line(stage);
    assert!(
        line.contains(&format!("it took longer than `{}.limits.http_timeout_seconds` allows", stage.place())),
        "{line}"
    );
}

async fn flood(stage: &Stage) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({ "http_response_mebibytes": 2 })).await;
    let seen = saw(stage, &sink, &get(&web, "/flood")).await;
    assert!(seen.ends_with("then HTTP response body size exceeds limit: 2097152 bytes"), "{seen}");
    let line = line(stage);
    assert!(line.contains(&format!("`{}.limits.http_response_mebibytes`", stage.place())), "{line}");
    assert_eq!(web.open_at_most(0, SOON), 0);
}

async fn rude(stage: &Stage, path: &str) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({})).await;
    let seen = saw(stage, &sink, &get(&web, path)).await;
    assert_eq!(seen, "error ErrorCode::HttpProtocolError");
    assert_eq!(web.open_at_most(0, SOON), 0);
    assert_eq!(saw(stage, &sink, &get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
}

async fn requests(stage: &Stage) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({ "http_requests_per_call": 20 })).await;
    let mut asked = get(&web, "/");
    asked["times"] = json!(100);
    let seen = saw(stage, &sink, &asked).await;
    assert_eq!(seen, "20 times status 200, 5 bytes \"hello\"; 80 times error ErrorCode::HttpRequestDenied");
    assert_eq!(web.heads().len(), 20);
    assert!(stage.log()[0].contains(&format!("`{}.limits.http_requests_per_call`", stage.place())));
}

/// Refusals are told, and not all of them.
async fn refusals(stage: &Stage) {
    let sink = dialler(stage, &[], json!({})).await;
    let asked = json!({ "authority": "10.0.0.5:8080", "times": 5000 });
    let started = Instant::now();
    assert_eq!(saw(stage, &sink, &asked).await, "5000 times error ErrorCode::HttpRequestDenied");
    let (lines, seconds) = (stage.log().len(), started.elapsed().as_secs_f64().ceil() + 1.0);
    assert!(lines > 0 && (lines as f64) < 50.0 * seconds, "{lines} lines in {seconds} s");
}

/// A request without a path would fail in a library, whose own words about it are neither counted nor under the plugin's name.
async fn pathless(stage: &Stage) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({})).await;
    let asked = json!({ "authority": web.address.to_string(), "path": null, "times": 300 });
    assert_eq!(saw(stage, &sink, &asked).await, "300 times status 200, 5 bytes \"hello\"");
    let asked = json!({ "authority": null, "path": null, "times": 300 });
    assert_eq!(saw(stage, &sink, &asked).await, "300 times error ErrorCode::HttpRequestUriInvalid");
    assert_eq!(crate::journal::of("wasmtime_wasi_http"), [""; 0]);
    assert_eq!(stage.log(), [""; 0]);
}

async fn parallel(stage: &Stage) {
    let web = Web::start();
    let sink = dialler(stage, &[&web.origin()], json!({ "http_requests_in_flight": 4 })).await;
    let mut asked = get(&web, "/silent");
    (asked["leave"], asked["times"]) = (json!(true), json!(50));
    let seen = sink.deliver(&stage.records(&[&asked.to_string(), &get(&web, "/").to_string()])).await.unwrap();
    assert_eq!(seen[0].reason, "50 times left");
    assert_eq!(seen[1].reason, "error ErrorCode::ConnectionLimitReached");
    assert!(stage.log()[0].contains(&format!("`{}.limits.http_requests_in_flight`", stage.place())));
    assert!(web.connections() <= 4);
    drop(sink);
    assert_eq!(web.open_at_most(0, SOON), 0);
}

/// Bodies that are written and never sent lie on the host's side, where no limit of memory counts them: few handles and short
/// writes keep them small.
async fn hoard(stage: &Stage) {
    let sink = dialler(stage, &[], json!({ "handles": 64 })).await;
    let mut asked = json!({ "method": "POST", "authority": "granted.example", "unsent": true, "body": 1 << 20 });
    let held = saw(stage, &sink, &asked).await;
    let held: usize = held.strip_prefix("held ").and_then(|held| held.parse().ok()).unwrap_or_else(|| panic!("{held}"));
    assert!((1..=256 << 10).contains(&held), "{held} bytes of one body");
    asked["times"] = json!(1000);
    exhausted(stage, &sink, &asked).await;
}

async fn answers(stage: &Stage) {
    let web = Web::start();
    let limits = json!({ "handles": 64, "http_requests_in_flight": 1000 });
    let sink = dialler(stage, &[&web.origin()], limits).await;
    let mut asked = get(&web, "/big?100000");
    (asked["keep"], asked["times"]) = (json!(true), json!(1000));
    exhausted(stage, &sink, &asked).await;
    assert!(web.connections() <= 64, "{}", web.connections());
    assert_eq!(web.open_at_most(0, SOON), 0);
    assert_eq!(saw(stage, &sink, &get(&web, "/")).await, "status 200, 5 bytes \"hello\"");
}

/// Text of any length would lie on the host's side, too, once per request.
async fn hoard_of(stage: &Stage, part: &str) {
    let sink = dialler(stage, &[], json!({})).await;
    let mut asked = json!({ "method": "GET", "authority": "granted.example", "path": "/", "unsent": true });
    asked[part] = json!(format!("{}{}", if part == "path" { "/" } else { "" }, "A".repeat(100_000)));
    assert_eq!(saw(stage, &sink, &asked).await, format!("{part} refused"));
}

async fn headers(stage: &Stage) {
    let sink = dialler(stage, &[], json!({})).await;
    let asked = json!({ "authority": "granted.example", "unsent": true, "headers": [["x-a", "A".repeat(1 << 20)]] });
    let fault = stopped(sink.deliver(&stage.records(&[&asked.to_string()])).await);
    assert!(fault.to_string().contains("size"), "{fault}");
}

/// More handles than there may be end the guest, and the limit is named.
async fn exhausted(stage: &Stage, sink: &PluginSink, asked: &Value) {
    let fault = stopped(sink.deliver(&stage.records(&[&asked.to_string()])).await);
    let (_, hint) = stage.words(&fault);
    assert!(hint.contains("`<place>.limits.handles`"), "{fault}\n{hint}");
}

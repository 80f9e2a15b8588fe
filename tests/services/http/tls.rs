//! Certificates of both sides.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

#[tokio::test]
async fn tls_believes_the_named_authority_and_no_other() {
    let http = http();
    let url = http.https_url("tls", "ok");
    let believing = |file: &Path| json!({ "tls": { "ca_file": file } });
    assert_eq!(deliver(&sink(&url, believing(&http.ca_file())), numbers(1)).await, []);
    assert!(http.requests("tls").await[0].tls);
    let (stranger, _) = self_signed("stranger");
    for options in [believing(&stranger), json!({})] {
        let failure = failure(&url, options).await;
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure:?}");
        assert!(failure.reason.contains("certificate"), "{failure:?}");
    }
    assert_eq!(http.requests("tls").await.len(), 1);
    let named = url.replace("127.0.0.1", "localhost");
    assert_eq!(deliver(&sink(&named, believing(&http.ca_file())), numbers(1)).await, []);
    let empty = stranger.with_file_name("empty.pem");
    fs::write(&empty, "nothing").unwrap();
    assert!(made(&url, believing(&empty)).unwrap_err().message.contains("holds no certificate"));
}

#[tokio::test]
async fn tls_shows_the_configured_certificate() {
    let (certificate, key) = self_signed("client");
    let (server, port) = demanding(&certificate);
    let url = format!("https://127.0.0.1:{port}/");
    let mut tls = json!({ "ca_file": http().ca_file(), "certificate_file": certificate, "key_file": key });
    assert_eq!(deliver(&sink(&url, json!({ "tls": tls })), numbers(1)).await, []);
    let without = json!({ "tls": { "ca_file": http().ca_file() } });
    let refused = failure(&url, without).await;
    assert!(matches!(refused.kind, FailureKind::Retry | FailureKind::Unavailable), "{refused:?}");
    tls["key_file"] = json!(certificate);
    let fault = made(&url, json!({ "tls": tls })).unwrap_err();
    assert!(fault.message.contains("cannot be read as such"), "{fault}");
    drop(server);
}

/// A certificate that signs itself, and its key.
fn self_signed(name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let dir = own_dir(&run_dir(), name);
    let arguments =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 -keyout key.pem -out own.pem";
    output(
        Command::new("openssl").current_dir(&dir).args(arguments.split(' ')).args(["-subj", &format!("/CN={name}")]),
    );
    (dir.join("own.pem"), dir.join("key.pem"))
}

/// Ends with its owner.
struct Demanding(Child);

impl Drop for Demanding {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A service that answers 200 to whoever shows this certificate, and its port.
fn demanding(client: &Path) -> (Demanding, u16) {
    let program = r#"
import http.server, ssl, sys
class Taken(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=sys.argv[1])
secure.load_cert_chain(sys.argv[2], sys.argv[3])
secure.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taken)
server.socket = secure.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.handle_error = lambda *_: None
print(server.server_port, flush=True)
server.serve_forever()
"#;
    let own = crate::support::certificates::Certificates::shared();
    let mut child = Command::new("python3")
        .args(["-c", program])
        .args([client.to_path_buf(), own.certificate(), own.key()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Demanding(child), line.trim().parse().unwrap())
}

//! A recording HTTP service; `tests/services/http/server.py` tells how it can be asked to behave.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer};

use super::super::certificates::Certificates;
use super::super::child::{Server, free_port, listens, services_dir};

/// A service whose paths name the test and the behaviour. What it recorded ends with it.
pub struct Http {
    server: Server,
    port: u16,
    tls_port: u16,
}

/// A request as it arrived.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// Its place among the requests of its test, from 0.
    pub order: u64,
    /// Such as `POST`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The whole body, no longer chunked.
    #[serde(deserialize_with = "bytes")]
    pub body: Vec<u8>,
    /// The client's port: the same for requests on one connection.
    pub client_port: u16,
    /// Whether it came through TLS.
    pub tls: bool,
    /// When it had arrived whole, on the machine's clock since its start.
    #[serde(deserialize_with = "moment")]
    pub arrived: Duration,
    /// When it had been answered whole, if it was.
    #[serde(deserialize_with = "maybe_moment")]
    pub answered: Option<Duration>,
}

common!(Http, "-TERM");

impl Http {
    /// Starts a service and waits until it listens.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start() -> Self {
        let mut http = Self { server: Server::new("http"), port: free_port(), tls_port: free_port() };
        http.restart();
        http
    }

    /// Starts the service again on its ports, with nothing recorded, and waits until it listens.
    pub fn restart(&mut self) {
        let certificates = Certificates::shared();
        let mut python = Command::new("python3");
        python
            .arg(services_dir().join("http/server.py"))
            .args([self.port.to_string(), self.tls_port.to_string()])
            .args([certificates.certificate(), certificates.key()]);
        let (port, tls_port) = (self.port, self.tls_port);
        self.server.start(&python, || listens(port) && listens(tls_port));
    }

    /// Its folder, where it keeps what `kept` takes.
    pub fn dir(&self) -> &Path {
        self.server.dir()
    }

    /// Where a test's requests meet a behaviour, such as `ok` or `status/503`.
    pub fn url(&self, test: &str, behaviour: &str) -> String {
        format!("http://127.0.0.1:{}/t/{test}/{behaviour}", self.port)
    }

    /// The same with TLS.
    pub fn https_url(&self, test: &str, behaviour: &str) -> String {
        format!("https://127.0.0.1:{}/t/{test}/{behaviour}", self.tls_port)
    }

    /// The authority behind the service's certificate.
    pub fn ca_file(&self) -> PathBuf {
        Certificates::shared().authority()
    }

    /// A test's requests, in the order in which they arrived whole.
    pub async fn requests(&self, test: &str) -> Vec<Request> {
        crypto();
        let log = reqwest::get(format!("http://127.0.0.1:{}/log/{test}", self.port)).await.unwrap();
        serde_json::from_slice(&log.bytes().await.unwrap()).unwrap()
    }
}

impl Request {
    /// The first value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Gives TLS its cryptography, without which no HTTP client can be built; again changes nothing.
pub fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn bytes<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<u8>, D::Error> {
    BASE64_STANDARD.decode(String::deserialize(source)?).map_err(serde::de::Error::custom)
}

fn moment<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    f64::deserialize(source).map(Duration::from_secs_f64)
}

fn maybe_moment<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<f64>::deserialize(source)?.map(Duration::from_secs_f64))
}

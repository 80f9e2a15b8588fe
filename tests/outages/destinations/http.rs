//! An endpoint that takes a request of the same `Idempotency-Key` once.

use std::fs;

use serde_json::{Value, json};

use super::Destination;
use crate::outages::matrix::Outage;
use crate::outages::process::Process;
use crate::outages::rows::Written;
use crate::support::proxy::{Cut, Proxy};
use crate::support::servers::Http;

/// What `tests/services/http/server.py` calls them.
const KEPT: &str = "kept.jsonl";
const ANSWER: &str = "answer";

pub struct Endpoint {
    server: Http,
    successor: Option<Http>,
    has_failed_over: bool,
    proxy: Proxy,
}

impl Endpoint {
    pub fn start(outage: Outage) -> Self {
        let server = Http::start();
        let successor = (outage == Outage::FailedOver).then(Http::start);
        let proxy = Proxy::before(server.port());
        Self { server, successor, has_failed_over: false, proxy }
    }

    fn present(&self) -> &Http {
        self.successor.as_ref().filter(|_| self.has_failed_over).unwrap_or(&self.server)
    }

    fn answer(&self, code: u16) {
        fs::write(self.server.dir().join(ANSWER), code.to_string()).unwrap();
    }
}

impl Destination for Endpoint {
    fn sinks(&self) -> Value {
        let url = format!("http://{}/t/outages/kept", self.proxy.address());
        json!({ "http": { "webhook": { "url": url, "idempotency_key": true } } })
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn begin(&mut self, outage: Outage, _: &Process) {
        match outage {
            Outage::Killed => {
                self.server.kill();
                self.proxy.cut(Cut::Reset);
            }
            Outage::ReadOnly => self.answer(503),
            Outage::OutOfSpace => self.answer(507),
            Outage::LoginRevoked => self.answer(401),
            Outage::FailedOver => {
                self.answer(503);
                // What was taken before it answered so is written.
                std::thread::sleep(std::time::Duration::from_millis(200));
                let successor = self.successor.as_mut().unwrap();
                successor.kill();
                fs::copy(self.server.dir().join(KEPT), successor.dir().join(KEPT)).unwrap();
                successor.restart();
                self.proxy.redirect(successor.port());
                self.has_failed_over = true;
            }
            other => panic!("{other:?} is the proxy's"),
        }
    }

    fn end(&mut self, outage: Outage, _: &Process) {
        match outage {
            Outage::Killed => self.server.restart(),
            Outage::ReadOnly | Outage::OutOfSpace | Outage::LoginRevoked => {
                fs::remove_file(self.server.dir().join(ANSWER)).unwrap();
            }
            _ => {}
        }
    }

    fn written(&self) -> Vec<Written> {
        let kept = fs::read_to_string(self.present().dir().join(KEPT)).unwrap_or_default();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["body"]["id"].as_i64().unwrap();
        vec![Written::Rows(kept.lines().map(id).collect())]
    }
}

//! HTTP to the outside: to the origins that the configuration names, at addresses that are everybody's or named, and within
//! limits (S129).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{Method, Request, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use self::resolve::{Filtered, Lookup, System};
use self::send::Sending;
use crate::model::Fault;
use crate::plugin::instance::Spent;
use crate::plugin::limits::{bytes, count};
use crate::plugin::report::{Output, printable};
use crate::plugin::{Grants, Limits};
use crate::sink::tls;

mod address;
mod body;
mod link;
mod origin;
mod resolve;
mod send;
#[cfg(test)]
mod tests;

pub use address::Network;
pub(crate) use link::add_to_linker;
pub use origin::Origin;

/// Most bytes of an address that a refusal names.
const ADDRESS_BYTES: usize = 300;
/// Longest that a connection may take to be ready.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses. Shorter than servers do, of which some wait 5 s.
const IDLE: Duration = Duration::from_secs(4);
/// Most bytes of a request's body that are taken from the guest at once, so that bodies which are written to and never sent
/// hold little of the host's memory.
const CHUNK_BYTES: usize = 64 << 10;

type Sent<T> = Box<dyn Future<Output = Result<T, Error>> + Send>;
/// An answer, and the work behind it that ends with it.
type Answered = (Response<WasiBody>, Sent<()>);

/// What a plugin's instances share: whom they may ask, and the connections. No two plugins share one.
pub(crate) struct Client {
    place: String,
    origins: Vec<Origin>,
    /// None without a grant.
    client: Option<reqwest::Client>,
    limits: Limits,
}

impl Client {
    /// A plugin's client. `place` is where the plugin stands in the configuration.
    ///
    /// # Errors
    /// When TLS cannot be had on this machine.
    pub(crate) fn new(place: &str, grants: &Grants, limits: &Limits) -> Result<Arc<Self>, Fault> {
        Self::asking(Arc::new(System), place, grants, limits)
    }

    fn asking(lookup: Arc<dyn Lookup>, place: &str, grants: &Grants, limits: &Limits) -> Result<Arc<Self>, Fault> {
        let time = Duration::from_secs_f64(limits.http_timeout_seconds);
        let client = match grants.http.is_empty() {
            true => None,
            false => Some(client(place, lookup, &grants.http_addresses, time)?),
        };
        Ok(Arc::new(Self { place: place.to_owned(), origins: grants.http.clone(), client, limits: limits.clone() }))
    }
}

/// Redirects are answers like any other: where they lead to the guest has to ask for itself, and is checked again. Every
/// answer has a connection of its own, so that one which an instance does not read holds up no other's.
fn client(place: &str, lookup: Arc<dyn Lookup>, named: &[Network], time: Duration) -> Result<reqwest::Client, Fault> {
    tls::provide();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // A proxy from the environment would resolve the names itself, past the check of what they stand for.
        .no_proxy()
        .dns_resolver(Filtered { lookup, named: named.into() })
        .http1_only()
        .connect_timeout(LONGEST_CONNECT.min(time))
        .pool_idle_timeout(IDLE)
        .build()
        .map_err(|error| {
            let error = error.without_url();
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Fault::host(format!("`{place}.grants.http` cannot be served")).because(cause)
        })
}

/// Sends what one instance asks for, as far as it is granted.
pub(crate) struct Requests {
    client: Arc<Client>,
    output: Arc<Output>,
    in_flight: Arc<Semaphore>,
    spent: Arc<Spent>,
    /// Requests of the present call.
    asked: u64,
}

impl Requests {
    /// An instance's requests, of which there are none yet.
    pub(crate) fn new(client: &Arc<Client>, output: &Arc<Output>, spent: &Arc<Spent>) -> Self {
        let most = count(client.limits.http_requests_in_flight).min(Semaphore::MAX_PERMITS);
        Self {
            client: Arc::clone(client),
            output: Arc::clone(output),
            in_flight: Arc::new(Semaphore::new(most)),
            spent: Arc::clone(spent),
            asked: 0,
        }
    }

    /// A call begins: what is asked for from now on belongs to it.
    pub(crate) fn begin_call(&mut self) {
        self.asked = 0;
    }

    /// Everything that is known before anything is sent.
    fn admitted(&mut self, request: &Request<WasiBody>, options: Option<RequestOptions>) -> Result<Sending, Error> {
        let uri = request.uri();
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let origin = Origin::new(scheme, authority);
        let shown = match &origin {
            Ok(origin) => origin.to_string(),
            // Whoever writes a password where none belongs need not find it in the log.
            Err(_) => format!("{scheme}://{}", authority.rsplit_once('@').map_or(authority, |(_, host)| host)),
        };
        let Client { place, origins, client, limits } = &*self.client;
        let reported = Reported {
            shown: printable(&shown, ADDRESS_BYTES),
            place: place.clone(),
            output: Arc::clone(&self.output),
        };
        self.asked = self.asked.saturating_add(1);
        if self.asked > limits.http_requests_per_call {
            let most = limits.http_requests_per_call;
            reported.beyond(&format!("it is beyond {most} requests in one call"), "http_requests_per_call");
            return Err(Error::HttpRequestDenied);
        }
        let origin = origin.map_err(|wanted| {
            reported.refused(&format!("it has to be {wanted}"));
            Error::HttpRequestDenied
        })?;
        let Some(client) = client.as_ref().filter(|_| origins.contains(&origin)) else {
            reported.refused(&format!("no grant covers it; add \"{origin}\" to `{place}.grants.http`"));
            return Err(Error::HttpRequestDenied);
        };
        if request.method() == Method::CONNECT {
            reported.refused("`CONNECT` asks for a tunnel; no plugin gets sockets");
            return Err(Error::HttpRequestMethodInvalid);
        }
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            let most = limits.http_requests_in_flight;
            reported.beyond(&format!("{most} requests are in flight"), "http_requests_in_flight");
            return Err(Error::ConnectionLimitReached);
        };
        Ok(Sending {
            client: client.clone(),
            origin,
            reported: Arc::new(reported),
            permit,
            spent: Arc::clone(&self.spent),
            options: options.unwrap_or_default(),
            deadline: Instant::now() + Duration::from_secs_f64(limits.http_timeout_seconds),
            request_bytes: bytes(limits.http_request_mebibytes) as u64,
            response_bytes: bytes(limits.http_response_mebibytes) as u64,
        })
    }
}

impl WasiHttpHooks for Requests {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Sent<()>,
    ) -> Sent<Answered> {
        match self.admitted(&request, options) {
            Ok(sending) => Box::new(sending.send(request)),
            Err(error) => Box::new(std::future::ready(Err(error))),
        }
    }

    fn is_supported_scheme(&mut self, scheme: &Scheme) -> bool {
        let is_supported = *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
        if !is_supported {
            let shown = printable(scheme.as_str(), ADDRESS_BYTES);
            self.output.refused(&format!("HTTP by the scheme `{shown}`: it has to be `http` or `https`"));
        }
        is_supported
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

/// Tells the operator what became of a request, without its path, query and headers.
struct Reported {
    /// The origin, printable.
    shown: String,
    place: String,
    output: Arc<Output>,
}

impl Reported {
    fn refused(&self, why: &str) {
        self.output.refused(&format!("HTTP to `{}`: {why}", self.shown));
    }

    fn beyond(&self, what: &str, key: &str) {
        self.refused(&format!("{what}, the most that `{}.limits.{key}` allows", self.place));
    }

    fn too_long(&self, is_request: bool) {
        let (what, key) = match is_request {
            true => ("the request's", "http_request_mebibytes"),
            false => ("the response's", "http_response_mebibytes"),
        };
        self.refused(&format!("{what} body is longer than `{}.limits.{key}` allows", self.place));
    }

    fn late(&self) {
        self.refused(&format!("it took longer than `{}.limits.http_timeout_seconds` allows", self.place));
    }

    fn prohibited(&self, name: &str, address: IpAddr) {
        let (name, place) = (printable(name, ADDRESS_BYTES), &self.place);
        self.refused(&match name.as_str() {
            "localhost" => format!("`localhost` is `{address}`, which is not this machine"),
            _ => format!(
                "`{name}` is `{address}`, which is not a public address; add \"{address}\" to `{place}.grants.http_addresses`"
            ),
        });
    }
}

//! One request on its way, and what becomes of it in the guest's words.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use http::Request;
use http::header::HOST;
use http_body::Body;
use rustls::Error as TlsError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use url::Url;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::body::{Held, Incoming, Outgoing};
use super::resolve::Unresolved;
use super::{Answered, Origin, Reported};
use crate::plugin::instance::Spent;

/// What a request needs besides itself.
pub(super) struct Sending {
    pub(super) client: reqwest::Client,
    pub(super) origin: Origin,
    pub(super) reported: Arc<Reported>,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) spent: Arc<Spent>,
    pub(super) options: RequestOptions,
    /// When the last byte of the answer has to be there.
    pub(super) deadline: Instant,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl Sending {
    /// Sends the request. The future and what it returns hold everything that the request uses; whoever lets go of them ends
    /// it.
    pub(super) async fn send(self, request: Request<WasiBody>) -> Result<Answered, Error> {
        let under_way = self.spent.request();
        let request = self.translated(request)?;
        let RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout } = self.options;
        // The client does not tell connecting from waiting, so the guest's time for the first byte includes its time for
        // connecting.
        let wish = first_byte_timeout.map(|wait| wait.saturating_add(connect_timeout.unwrap_or_default()));
        let soonest = wish.and_then(|wait| Instant::now().checked_add(wait)).filter(|wish| *wish < self.deadline);
        let response = match timeout_at(soonest.unwrap_or(self.deadline), self.client.execute(request)).await {
            Ok(Ok(response)) => http::Response::<reqwest::Body>::from(response),
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(_) if soonest.is_some() => return Err(Error::ConnectionReadTimeout),
            Err(_) => {
                self.reported.late();
                return Err(Error::HttpResponseTimeout);
            }
        };
        drop(under_way);
        let Self { permit, spent, reported, deadline, response_bytes, .. } = self;
        let response = response.map(|body| {
            let held = Held::new(body, response_bytes, permit);
            (
                Arc::clone(&held),
                Incoming::new(held, spent, Arc::clone(&reported), response_bytes, deadline, between_bytes_timeout),
            )
        });
        let (parts, (held, body)) = response.into_parts();
        let clock = async move {
            held.cut(deadline, &reported).await;
            Ok(())
        };
        Ok((http::Response::from_parts(parts, WasiBody::new(body)), Box::new(clock)))
    }

    /// The request as the client takes it: to the very origin that was checked.
    fn translated(&self, request: Request<WasiBody>) -> Result<reqwest::Request, Error> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = Url::parse(&format!("{}{slash}{path}", self.origin)).map_err(|_| Error::HttpRequestUriInvalid)?;
        if Origin::of(&url).as_ref() != Some(&self.origin) || !url.username().is_empty() || url.password().is_some() {
            return Err(Error::HttpRequestUriInvalid);
        }
        let mut translated = reqwest::Request::new(parts.method, url);
        *translated.headers_mut() = parts.headers;
        // The client makes it from the origin.
        translated.headers_mut().remove(HOST);
        if !body.is_end_stream() {
            *translated.body_mut() = Some(reqwest::Body::wrap(Outgoing::new(body, self.request_bytes)));
        }
        Ok(translated)
    }

    /// What the guest is told of a request without an answer, and the operator where it is the operator's to decide.
    fn failed(&self, error: &reqwest::Error) -> Error {
        for cause in causes(error) {
            if let Some(unresolved) = cause.downcast_ref::<Unresolved>() {
                return match unresolved {
                    Unresolved::Failed(error) => Error::DnsError { rcode: Some(error.to_string()), info_code: None },
                    Unresolved::Prohibited { name, address } => {
                        self.reported.prohibited(name, *address);
                        Error::DestinationIpProhibited
                    }
                };
            }
            // Its own body's.
            if let Some(Error::HttpRequestBodySize(limit)) = cause.downcast_ref() {
                self.reported.too_long(true);
                return Error::HttpRequestBodySize(*limit);
            }
        }
        if error.is_timeout() {
            return Error::ConnectionTimeout;
        }
        lower(error).unwrap_or(if error.is_connect() {
            Error::DestinationUnavailable
        } else {
            Error::HttpProtocolError
        })
    }
}

/// What the guest is told of an answer that breaks off.
pub(super) fn broken(error: &reqwest::Error) -> Error {
    match lower(error) {
        None | Some(Error::ConnectionTerminated) => Error::HttpResponseIncomplete,
        Some(error) => error,
    }
}

/// What the connection or TLS has against it.
fn lower(error: &reqwest::Error) -> Option<Error> {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        TimedOut, UnexpectedEof,
    };
    causes(error).find_map(|cause| {
        let mut cause = cause;
        // An error of input and output does not name what it was made of among its causes.
        while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && (inner.is::<io::Error>() || inner.is::<TlsError>())
        {
            cause = inner;
        }
        if let Some(error) = cause.downcast_ref::<TlsError>() {
            return Some(tls(error));
        }
        match cause.downcast_ref::<io::Error>()?.kind() {
            ConnectionRefused => Some(Error::ConnectionRefused),
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => Some(Error::ConnectionTerminated),
            HostUnreachable | NetworkUnreachable => Some(Error::DestinationUnavailable),
            TimedOut => Some(Error::ConnectionTimeout),
            _ => None,
        }
    })
}

fn tls(error: &TlsError) -> Error {
    match error {
        TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented => Error::TlsCertificateError,
        TlsError::AlertReceived(alert) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::TlsProtocolError,
    }
}

fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

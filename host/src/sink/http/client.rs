//! The client and the request that is repeated with every row's body.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity, Method, Request, Url, redirect};

use super::Options;
use super::address::Guarded;
use crate::model::Fault;
use crate::sink::tls::{self, Tls};

/// The longest time that a connection may take to be ready.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses. Shorter than servers do, of which some wait 5 s: a request that
/// meets a
/// connection which the server is just closing has an unknown outcome.
const IDLE: Duration = Duration::from_secs(4);
/// Most connections kept that nobody uses.
pub(super) const MOST_IDLE: usize = 64;
/// Most headers of an answer, over HTTP/1. curl takes 5,000, browsers a few hundred; the client would take 100.
const MAX_HEADERS: usize = 1_000;
/// Most bytes of an answer's headers, over HTTP/2. The client would take 16 KiB; over HTTP/1 it takes about 400 KiB.
const MAX_HEADER_BYTES: u32 = 400 << 10;
/// The header of [`Options::idempotency_key`].
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Headers that belong to the connection or to the body, of which the client alone knows what is true.
const NOT_CONFIGURABLE: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A client for one endpoint, which keeps up to `idle` connections that nobody uses. `place` is where the sink stands
/// in the
/// configuration.
///
/// # Errors
/// When TLS is not as configured.
pub(super) fn client(place: &str, url: &Url, tls: &Tls, timeout: Duration, idle: usize) -> Result<Client, Fault> {
    tls::provide();
    let mut builder = Client::builder()
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        // Where requests go is said in the configuration alone. A proxy from the environment would also resolve the
        // names
        // itself, past the check of what they stand for (S113).
        .no_proxy()
        .dns_resolver(Guarded)
        .timeout(timeout)
        // Less than the whole, so that a request that runs out of time while connecting is known not to have been sent.
        .connect_timeout(LONGEST_CONNECT.min(timeout / 2))
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle)
        // The status alone decides. A header that is not as the standard has it must not keep a delivery from being
        // seen, or the row would be sent again, and given up in the end although it arrived.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(MAX_HEADER_BYTES);
    if tls.is_given() && url.scheme() != "https" {
        return Err(Fault::config(format!("`{place}.tls` has no meaning for an `http://` address"))
            .hint("begin the address with `https://`, or leave `tls` out"));
    }
    if let Some(file) = &tls.ca_file {
        let authorities = Certificate::from_pem_bundle(&Tls::read(place, "ca_file", file)?).unwrap_or_default();
        if authorities.is_empty() {
            let message = format!("`{place}.tls.ca_file` names `{}`, which holds no certificate", file.display());
            return Err(Fault::config(message).hint("it has to be in PEM"));
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Some((certificate_file, key_file)) = tls.identity(place)? {
        let mut both = Tls::read(place, "certificate_file", certificate_file)?;
        both.push(b'\n');
        both.extend(Tls::read(place, "key_file", key_file)?);
        let identity = Identity::from_pem(&both).map_err(|_| {
            Fault::config(format!("`{place}.tls` names a certificate and a key that cannot be read as such"))
                .hint("both have to be in PEM, one key and its certificate")
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| {
        let error = error.without_url();
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Fault::config(format!("`{place}` cannot speak TLS as configured")).because(cause)
    })
}

/// The request without a body: method, address, credentials and headers.
///
/// # Errors
/// When one of them cannot be right.
pub(super) fn template(place: &str, client: &Client, url: &Url, options: &Options) -> Result<Request, Fault> {
    let method = match options.method.as_str() {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        other => {
            return Err(Fault::config(format!("`{place}.method` is `{other}`"))
                .hint("it has to be `POST`, `PUT` or `PATCH`, in capitals"));
        }
    };
    let mut headers = configured(place, options)?;
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    if has_credentials && headers.contains_key(AUTHORIZATION) {
        return Err(
            Fault::config(format!("`{place}` has credentials in `url` and in `headers`")).hint("leave one of them out")
        );
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    // The builder turns the address's credentials into a header.
    let request = client.request(method, url.clone()).headers(headers).build();
    let request = request.ok().filter(|request| request.url().username().is_empty());
    request.ok_or_else(|| Fault::config(format!("`{place}.url` has credentials that are not UTF-8")))
}

/// The configured headers, whose values are never shown (S85).
fn configured(place: &str, options: &Options) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    for (name, value) in &options.headers {
        let wrong = |why: &str| Fault::config(format!("`{place}.headers.{name}` {why}"));
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            wrong("is not a header's name")
                .hint("letters, digits and `-`, such as `X-Source`; the value goes behind `:`")
        })?;
        if NOT_CONFIGURABLE.contains(&parsed.as_str()) {
            return Err(
                wrong("is not for the configuration to set").hint("leave it out: the client sets it as it must")
            );
        }
        if options.idempotency_key && parsed == IDEMPOTENCY_KEY {
            return Err(wrong("is what `idempotency_key` sets").hint("leave one of them out"));
        }
        let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            wrong("has a value with a control character")
                .hint("usually the line break at the end of the file that it was read from")
        })?;
        value.set_sensitive(true);
        if headers.insert(parsed, value).is_some() {
            return Err(wrong("stands twice, in different spellings").hint("capitals make no difference in headers"));
        }
    }
    Ok(headers)
}

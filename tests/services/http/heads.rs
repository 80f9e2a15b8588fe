//! Answers whose heads are not as the standard has them (H2).

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::support::certificates::Certificates;

/// A service that keeps its connections and gives each request this answer. Its address.
async fn keeping(text: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let text = text.clone();
            tokio::spawn(async move {
                // The head and the small body of one request arrive together or right behind each other.
                let (mut request, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut part).await {
                    request.extend_from_slice(&part[..length]);
                    let Some(end) = request.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
                    if request.len() > end + 4 {
                        request.clear();
                        stream.write_all(text.as_bytes()).await.ok();
                    }
                }
            });
        }
    });
    format!("http://{address}/")
}

/// Whatever stands around a 200 and is taken by curl and browsers, the row is delivered, also on a kept connection.
#[tokio::test]
async fn s79b_a_delivery_is_seen_whatever_its_headers_are() {
    let many: String = (0..150).map(|number| format!("X-{number}: {number}\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "x".repeat(100 << 10));
    for (what, head) in [
        ("a name that is no token", "Bad Name(: x\r\n"),
        ("a name with a quote", "\"quoted\": x\r\n"),
        ("a space before the colon", "X-Source : x\r\n"),
        ("no colon", "HTTP says hello\r\n"),
        ("no name", ": x\r\n"),
        ("a control character in a value", "X-Bell: a\u{7}b\u{1b}[31m\r\n"),
        ("bytes past ASCII", "X-Umlaut: \u{e4}\r\n"),
        ("obsolete folding", "X-Folded: a\r\n b\r\n\tc\r\n"),
        ("lines that end without a carriage return", "X-A: 1\nX-B: 2\n"),
        ("150 headers", many.as_str()),
        ("a header of 100 KiB", long.as_str()),
    ] {
        let url = keeping(format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nok")).await;
        let sink = sink(&url, json!({ "concurrency": 1 }));
        for _ in 0..2 {
            assert_eq!(deliver(&sink, numbers(1)).await, [], "{what}");
        }
    }
    for (what, text) in [
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        ("an odd reason", "HTTP/1.1 200 \u{e4} is fine\r\nContent-Length: 0\r\n\r\n"),
        ("100", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            "100, 102 and 103",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "chunks with an extension, and trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2;a=b\r\nok\r\n0\r\nX-Sum: 1\r\nBad Name: 2\r\n\r\n",
        ),
        ("a body where there is none", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"),
        ("more body than was said", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"),
        ("a body that is no gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"),
        ("the older protocol", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("chunks that break off", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n"),
    ] {
        let sink = sink(&keeping(text.to_owned()).await, json!({ "concurrency": 1 }));
        for _ in 0..3 {
            assert_eq!(deliver(&sink, numbers(1)).await, [], "{what}");
        }
    }
    for (what, text) in [
        ("more body than was said, and the end", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"),
        ("an interim answer and the end", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let sink = sink(&answering(text).await, json!({ "concurrency": 1 }));
        for _ in 0..3 {
            assert_eq!(deliver(&sink, numbers(1)).await, [], "{what}");
        }
    }
}

/// What says of a refusal how long to wait is understood beside headers that are not.
#[tokio::test]
async fn s113_a_wait_is_understood_beside_headers_that_are_not() {
    let url = keeping("HTTP/1.1 503 Busy\r\nBad Name: x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".into()).await;
    assert_eq!(failure(&url, json!({})).await.kind, FailureKind::Backpressure(Duration::from_secs(7)));
}

/// What nobody can read says nothing of its row: whether that arrived is unknown.
#[tokio::test]
async fn s79b_an_answer_that_nobody_can_read_is_unknown() {
    let many: String = (0..1_001).map(|number| format!("X-{number}: {number}\r\n")).collect();
    for (what, text) in [
        ("a NUL character", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok".to_owned()),
        ("1,001 headers", format!("HTTP/1.1 200 OK\r\n{many}\r\n")),
        ("a control character in the reason", "HTTP/1.1 200 \u{7}\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("another protocol", "ICY 200 OK\r\n\r\n".to_owned()),
    ] {
        let failure = failure(&keeping(text).await, json!({})).await;
        assert_eq!(failure.kind, FailureKind::Unavailable, "{what}: {failure:?}");
        assert!(failure.reason.contains("whether the request arrived is unknown"), "{what}: {failure:?}");
    }
}

/// A service that speaks HTTP/2 and answers with so many headers of so many bytes. Its address, with TLS.
async fn over_http2(headers: usize, bytes: usize) -> String {
    let certificates = Certificates::shared();
    let chain = CertificateDer::pem_file_iter(certificates.certificate()).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.key()).unwrap();
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let value = "x".repeat(bytes);
                    let answer = (0..headers).fold(::http::Response::builder().status(200), |answer, number| {
                        answer.header(format!("x-{number}"), &value)
                    });
                    respond.send_response(answer.body(()).unwrap(), true).ok();
                }
            });
        }
    });
    format!("https://{address}/")
}

/// H2 over HTTP/2, where the client by itself takes 16 KiB of headers.
#[tokio::test]
async fn s79b_a_delivery_is_seen_whatever_its_headers_are_over_http2() {
    crate::support::servers::crypto();
    let options = || json!({ "tls": { "ca_file": Certificates::shared().authority() } });
    for (headers, bytes) in [(150, 10), (150, 1_000), (3, 30_000)] {
        let sink = sink(&over_http2(headers, bytes).await, options());
        for _ in 0..2 {
            assert_eq!(deliver(&sink, numbers(3)).await, [], "{headers} headers of {bytes} bytes");
        }
    }
    let failures = deliver(&sink(&over_http2(500, 1_000).await, options()), numbers(1)).await;
    assert_eq!(kinds(&failures), [(0, FailureKind::Unavailable)], "{failures:?}");
    assert!(failures[0].reason.contains("whether the request arrived is unknown"), "{failures:?}");
}

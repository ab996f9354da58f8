//! HTTP routes.

use std::cell::RefCell;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tracing::error;

use crate::daemon::core::Core;

/// An answer's body.
pub type Body = Full<Bytes>;

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Answers a request.
pub fn answer(request: &Request<Incoming>, metrics: &str, core: &RefCell<Core>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are answered\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        path if path == metrics => scrape(request.headers(), core),
        "/-/healthy" => page(StatusCode::OK, TEXT, "pinwatch is healthy\n"),
        "/-/ready" => match core.borrow().ready() {
            Ok(()) => page(StatusCode::OK, TEXT, "pinwatch is ready\n"),
            Err(reason) => {
                page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("pinwatch is not ready: {reason}\n"))
            }
        },
        "/" => page(StatusCode::OK, HTML, landing(metrics)),
        _ => page(StatusCode::NOT_FOUND, TEXT, format!("no such page; the metrics are at {metrics}\n")),
    }
}

/// The reply to a request without the right password.
pub fn unauthorized() -> Response<Body> {
    let mut response = page(StatusCode::UNAUTHORIZED, TEXT, "Unauthorized\n");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    response
}

/// The reply while too many passwords are being checked.
pub fn later() -> Response<Body> {
    let mut response =
        page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many passwords are being checked; try again\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn scrape(headers: &HeaderMap, core: &RefCell<Core>) -> Response<Body> {
    let text = match core.borrow_mut().scrape() {
        Ok(text) => text,
        Err(error) => {
            error!(%error, "a defect");
            return page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n"));
        }
    };
    let compressed = if takes_gzip(headers) { gzip(text.as_bytes()) } else { None };
    let is_compressed = compressed.is_some();
    let mut response = page(StatusCode::OK, METRICS, compressed.unwrap_or_else(|| text.as_bytes().to_vec()));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_compressed {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// Whether the client takes gzip (RFC 9110, 12.5.3): `gzip` or `*`, not with the quality 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = None;
    for coding in offered.flat_map(|value| value.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_refused = parts
            .filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .any(|quality| quality.trim().parse::<f32>() == Ok(0.0));
        if name.eq_ignore_ascii_case("gzip") {
            return !is_refused;
        }
        if name == "*" {
            any = Some(!is_refused);
        }
    }
    any.unwrap_or(false)
}

fn landing(metrics: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>pinwatch</title></head>\n<body>\n\
         <h1>pinwatch {version}</h1>\n\
         <p>Who has pinned which memory, on which file, and does a lease cover it? Run <code>lspins</code> on this machine for the list; \
         here are the totals.</p>\n\
         <ul>\n<li><a href=\"{metrics}\">Metrics</a></li>\n<li><a href=\"/-/ready\">Ready?</a></li>\n\
         <li><a href=\"/-/healthy\">Healthy?</a></li>\n</ul>\n</body>\n</html>\n"
    )
}

/// Why the metrics cannot be at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It would not be safe in HTML or in a request.
    #[error("write a path like /metrics, with letters, digits and /-._~ only")]
    Form,
    /// Another page is there.
    #[error("another page is at this path; choose another one")]
    Taken,
}

/// Whether a path can be where the metrics are: it is put into HTML and compared with what clients ask for.
///
/// # Errors
/// [`PathError`]
pub fn check_path(path: &str) -> Result<String, PathError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !path.starts_with('/') || !path.chars().all(plain) {
        return Err(PathError::Form);
    }
    match path {
        "/" | "/-/healthy" | "/-/ready" => Err(PathError::Taken),
        _ => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_only_where_it_is_wanted() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            takes_gzip(&headers)
        };
        for value in ["gzip", "deflate, GZIP;q=0.5", "*", "br;q=1, *;q=0.1"] {
            assert!(takes(value), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip; q=0.0, *", "*;q=0", "xgzip"] {
            assert!(!takes(value), "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn paths() {
        assert_eq!(check_path("/metrics").as_deref(), Ok("/metrics"));
        for path in ["metrics", "", "/", "/-/ready", "/a\"b", "/a b", "/a?b"] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }
}

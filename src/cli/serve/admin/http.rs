//! The little of HTTP/1.1 (RFC 9112) that a health check and a scrape need: GET and HEAD, one request a connection.

use crate::net::{Address, Endpoint, UnixName};
use httparse::{EMPTY_HEADER, Error, Request, Status};
use std::str::FromStr;

/// Headers of a request.
const HEADERS_MAX: usize = 32;

/// The value of `--admin`: where to listen.
#[derive(Clone, Debug)]
pub(in crate::cli) struct AdminUrl(pub(in crate::cli::serve) Address);

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{why}; write for example http://127.0.0.1:9090 or unix:///run/echo-admin.sock")
        };
        let address = match text.strip_prefix("http://") {
            Some(host) => format!("tcp://{}", host.strip_suffix('/').unwrap_or(host)),
            None if text.starts_with("unix://") => text.to_owned(),
            None => return Err(wrong("it begins neither with http:// nor with unix://")),
        };
        let address = address.parse::<Address>();
        address.map(Self).map_err(|error| wrong(&error.to_string()))
    }
}

/// An address as a client writes it.
pub(super) fn url(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp(address) => format!("http://{address}"),
        Endpoint::Unix(UnixName::Path(path)) => format!("unix://{}", path.display()),
        other => other.to_string(),
    }
}

/// What the bytes of a request are so far.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    /// The beginning of a request.
    Partial,
    /// A request for this path; to HEAD the response has no body.
    Get { path: &'a str, has_body: bool },
    /// No request that is served, and the answer to it.
    Wrong(Response),
}

pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Partial) => return Parsed::Partial,
        Ok(Status::Complete(_)) => {}
        Err(Error::TooManyHeaders) => return Parsed::Wrong(Response::too_large()),
        Err(_) => return Parsed::Wrong(Response::bad("this is no request of HTTP/1.1\n")),
    }
    let is_host = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("host");
    let hosts = request.headers.iter().filter(is_host).count();
    if hosts > 1 || (hosts == 0 && request.version == Some(1)) {
        return Parsed::Wrong(Response::bad("the request needs one Host header\n"));
    }
    let has_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Parsed::Wrong(Response::no_such_method()),
    };
    let target = request.path.unwrap_or_default();
    // A proxy is asked by the whole URL, and RFC 9112 wants every server to take it.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |place| &rest[place..]),
        None => target,
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Parsed::Get { path, has_body }
}

/// A response.
#[derive(Debug)]
pub(super) struct Response {
    status: &'static str,
    /// Further header lines.
    headers: &'static str,
    content_type: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    fn new(status: &'static str, body: &str) -> Self {
        Self {
            status,
            headers: "",
            content_type: TEXT,
            body: body.to_owned(),
        }
    }

    pub(super) fn ok(body: &str) -> Self {
        Self::new("200 OK", body)
    }

    /// The exposition format of Prometheus, version 0.0.4.
    pub(super) fn metrics(body: String) -> Self {
        Self {
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body,
            ..Self::ok("")
        }
    }

    pub(super) fn unavailable(body: &str) -> Self {
        Self::new("503 Service Unavailable", body)
    }

    pub(super) fn not_found() -> Self {
        let body = "there is /livez, /readyz and /metrics\n";
        Self::new("404 Not Found", body)
    }

    fn bad(why: &str) -> Self {
        Self::new("400 Bad Request", why)
    }

    fn no_such_method() -> Self {
        Self {
            headers: "Allow: GET, HEAD\r\n",
            ..Self::new("405 Method Not Allowed", "there is GET and HEAD\n")
        }
    }

    pub(super) fn too_large() -> Self {
        let status = "431 Request Header Fields Too Large";
        Self::new(status, "the request is too long\n")
    }

    pub(super) fn to_bytes(&self, has_body: bool) -> Vec<u8> {
        let Self {
            status,
            headers,
            content_type,
            body,
        } = self;
        let length = body.len();
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{headers}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        if has_body {
            text += body;
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(request: &str, expected: &str) {
        let told = match parse(request.as_bytes()) {
            Parsed::Partial => "partial".to_owned(),
            Parsed::Get { path, has_body } => format!("{path} {has_body}"),
            Parsed::Wrong(response) => response.status[..3].to_owned(),
        };
        assert_eq!(told, expected, "{request:?}");
    }

    #[test]
    fn requests_are_complete_partial_or_wrong() {
        let host = "HTTP/1.1\r\nHost: x\r\n\r\n";
        is(&format!("GET /livez {host}"), "/livez true");
        is(&format!("HEAD /readyz?verbose=1 {host}"), "/readyz false");
        is(&format!("GET http://x:9/metrics {host}"), "/metrics true");
        is(&format!("GET http://x {host}"), "/ true");
        is(&format!("POST /livez {host}"), "405");
        is("GET /livez HTTP/1.0\r\n\r\n", "/livez true");
        is("GET /livez HTTP/1.1\r\n\r\n", "400");
        is("GET /livez HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", "400");
        is("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400");
        is("\u{16}\u{3}\u{1}", "400");
        let request = format!("GET /livez {host}");
        for length in 0..request.len() {
            is(&request[..length], "partial");
        }
        let headers = "X: y\r\n".repeat(HEADERS_MAX + 1);
        is(&format!("GET / HTTP/1.1\r\n{headers}\r\n"), "431");
    }

    #[test]
    fn the_place_is_a_url() {
        let parsed = |text: &str| text.parse::<AdminUrl>().map(|url| url.0.to_string());
        assert_eq!(
            parsed("http://127.0.0.1:9090/").unwrap(),
            "tcp://127.0.0.1:9090"
        );
        assert_eq!(parsed("http://[::1]:9090").unwrap(), "tcp://[::1]:9090");
        assert_eq!(parsed("unix:///run/a").unwrap(), "unix:///run/a");
        for wrong in [
            "127.0.0.1:9090",
            "https://x:1",
            "http://",
            "http://x",
            "http://x:1/livez",
            "",
        ] {
            let error = parsed(wrong).unwrap_err();
            assert!(error.contains("http://127.0.0.1:9090"), "{wrong}: {error}");
        }
    }
}

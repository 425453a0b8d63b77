//! A connection to Tidings as a browser has it: through whatever stands in front, with TLS, over HTTP/1.1 or HTTP/2,
//! and with the times that each step took.
//!
//! Unlike `client` it tries nothing twice: a try that fails is what is to be found out. **Invariant**: a certificate is
//! always checked; there is no way around it but to name the authority.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderName, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error as TlsError};
use tokio_util::task::AbortOnDropHandle;

use crate::cli::Usage;
use crate::tls;

/// How long connecting and TLS may take each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer at most that is read whole.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Who asks, for the access log of what stands in front.
const AGENT: &str = concat!("tidings-doctor/", env!("CARGO_PKG_VERSION"));

/// The address that browsers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    tls: bool,
    host: String,
    port: u16,
    /// The host, and the port where it is not the usual one: what browsers send as `Host`.
    authority: String,
    /// Empty, or begins with a slash and ends with none.
    pub(super) base_path: String,
}

/// The address, and whom we trust for its certificate.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) address: Address,
    trusted: Option<Arc<ClientConfig>>,
}

/// Which versions of HTTP are offered where there is a choice, which is over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2 and HTTP/1.1, as browsers do for pages and streams.
    Newest,
    /// HTTP/1.1 alone, as browsers do for a WebSocket.
    First,
}

/// How a connection came to be.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Opened {
    pub(super) connect_ms: f64,
    /// `None` without TLS.
    pub(super) tls_ms: Option<f64>,
    /// Such as `TLSv1_3`.
    pub(super) tls: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub(super) http: String,
}

/// An open connection, which ends when this is dropped.
pub(super) struct Line {
    sender: Sender,
    address: Address,
    pub(super) opened: Opened,
    _driver: AbortOnDropHandle<()>,
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// A request without a body.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// Below the base path, with the query.
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, &'a str)>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("nobody accepts connections at {0}: {1}")]
    Connect(String, io::Error),
    #[error("{0} shows a certificate that is not trusted: {1}")]
    Certificate(String, TlsError),
    #[error("{0} speaks no TLS that we understand: {1}")]
    Tls(String, io::Error),
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("nothing came within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
}

/// A socket, with TLS or without.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Milliseconds with one digit behind the point.
pub(super) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Address {
    /// Reads `https://host:port/base`.
    ///
    /// # Errors
    /// [`Usage`].
    pub(super) fn parse(url: &str) -> Result<Self, Usage> {
        let wrong = |why| {
            Usage(format!(
                "--via {url} {why}; it is the address that browsers use, such as https://app.example/tidings"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("must begin with https:// or http://")),
        };
        if uri.query().is_some() {
            return Err(wrong("must have no query"));
        }
        let host = uri.host().ok_or_else(|| wrong("must name a host"))?;
        let usual = if tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        Ok(Self {
            tls,
            authority: if port == usual { host.to_owned() } else { format!("{host}:{port}") },
            // An IPv6 address stands in brackets in a URL and without them elsewhere.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// As a page's `Origin`.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is this machine, where nobody listens in.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    fn uri(&self, path: &str, version: Version) -> Result<Uri, http::Error> {
        let target: PathAndQuery = format!("{}{path}", self.base_path).parse()?;
        if version == Version::HTTP_2 {
            let scheme = if self.tls { "https" } else { "http" };
            return Uri::builder().scheme(scheme).authority(self.authority.as_str()).path_and_query(target).build();
        }
        Ok(target.into())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.origin(), self.base_path)
    }
}

impl Way {
    /// `authority` is a file with certificates that are trusted besides those of this machine.
    ///
    /// # Errors
    /// Where the file holds none.
    pub(super) fn new(address: Address, authority: Option<&Path>) -> anyhow::Result<Self> {
        let trusted = if address.tls { Some(Arc::new(tls::client(authority)?)) } else { None };
        Ok(Self { address, trusted })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`LineError`].
    pub(super) async fn open(&self, offer: Offer) -> Result<Line, LineError> {
        let Address { host, port, authority, .. } = &self.address;
        let begun = Instant::now();
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port))).await;
        let tcp = connecting
            .map_err(|_| LineError::TimedOut(CONNECT_TIMEOUT))?
            .map_err(|e| LineError::Connect(authority.clone(), e))?;
        // What is written is a request, which should not wait for the one before to be acknowledged.
        let _ = tcp.set_nodelay(true);
        let mut opened =
            Opened { connect_ms: ms(begun.elapsed()), tls_ms: None, tls: None, http: "HTTP/1.1".to_owned() };
        let Some(trusted) = &self.trusted else { return self.speak(Box::new(tcp), opened).await };
        let begun = Instant::now();
        let mut config = ClientConfig::clone(trusted);
        config.alpn_protocols = match offer {
            Offer::Newest => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Offer::First => vec![b"http/1.1".to_vec()],
        };
        let name = ServerName::try_from(host.clone())
            .map_err(|e| LineError::Tls(authority.clone(), io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        let shaking = timeout(CONNECT_TIMEOUT, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await;
        let tls = shaking.map_err(|_| LineError::TimedOut(CONNECT_TIMEOUT))?.map_err(|e| tls_error(authority, e))?;
        let (_, session) = tls.get_ref();
        opened.tls_ms = Some(ms(begun.elapsed()));
        opened.tls = session.protocol_version().and_then(|version| version.as_str()).map(str::to_owned);
        if session.alpn_protocol() == Some(b"h2") {
            "HTTP/2.0".clone_into(&mut opened.http);
        }
        self.speak(Box::new(tls), opened).await
    }

    async fn speak(&self, socket: Box<dyn Socket>, opened: Opened) -> Result<Line, LineError> {
        let io = TokioIo::new(socket);
        // A connection's own end tells nothing that the answer does not.
        let (sender, driver) = if opened.http == "HTTP/2.0" {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            (Sender::Two(sender), spawn_local(async { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            (Sender::One(sender), spawn_local(async { drop(connection.with_upgrades().await) }))
        };
        Ok(Line { sender, address: self.address.clone(), opened, _driver: AbortOnDropHandle::new(driver) })
    }
}

fn tls_error(authority: &str, error: io::Error) -> LineError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(refused @ TlsError::InvalidCertificate(_)) => {
            LineError::Certificate(authority.to_owned(), refused.clone())
        }
        _ => LineError::Tls(authority.to_owned(), error),
    }
}

impl<'a> Question<'a> {
    /// A `GET` of a path below the base path.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new() }
    }

    /// With one more header.
    pub(super) fn with(mut self, name: HeaderName, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Line {
    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`LineError`].
    pub(super) async fn ask(
        &mut self,
        question: Question<'_>,
        within: Duration,
    ) -> Result<Response<Incoming>, LineError> {
        let request = self.request(question).map_err(|e| LineError::BrokenOff(e.to_string()))?;
        let answer = async {
            match &mut self.sender {
                Sender::One(sender) => sender.send_request(request).await,
                Sender::Two(sender) => sender.send_request(request).await,
            }
        };
        Ok(timeout(within, answer).await.map_err(|_| LineError::TimedOut(within))??)
    }

    fn request(&self, question: Question<'_>) -> Result<Request<Empty<Bytes>>, http::Error> {
        let version = match self.sender {
            Sender::One(_) => Version::HTTP_11,
            Sender::Two(_) => Version::HTTP_2,
        };
        let mut request =
            Request::builder().method(question.method).uri(self.address.uri(&question.path, version)?).version(version);
        if version == Version::HTTP_11 {
            request = request.header(HOST, &self.address.authority);
        }
        if !question.headers.iter().any(|(name, _)| *name == ACCEPT) {
            request = request.header(ACCEPT, "*/*");
        }
        request = request.header(USER_AGENT, AGENT);
        for (name, value) in question.headers {
            request = request.header(name, value);
        }
        request.body(Empty::new())
    }
}

/// The rest of an answer.
///
/// # Errors
/// Where it does not come whole, or not in time.
pub(super) async fn whole(body: Incoming, within: Duration) -> Result<Bytes, LineError> {
    let collecting = timeout(within, Limited::new(body, MAX_ANSWER_BYTES).collect()).await;
    let collected = collecting.map_err(|_| LineError::TimedOut(within))?;
    Ok(collected.map_err(|e| LineError::BrokenOff(e.to_string()))?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_browsers_use() {
        let address = Address::parse("https://app.example/tidings/").expect("an address");
        assert_eq!((address.port, address.base_path.as_str()), (443, "/tidings"));
        assert_eq!(
            (address.origin(), address.to_string()),
            ("https://app.example".into(), "https://app.example/tidings".into())
        );
        let address = Address::parse("http://[::1]:8080").expect("an address");
        assert_eq!((address.host.as_str(), address.authority.as_str()), ("::1", "[::1]:8080"));
        assert!(address.is_loopback() && !address.is_tls());
        for wrong in ["", "app.example", "/tidings", "ftp://app.example", "https://", "https://app.example/?a=b"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_names_its_target_as_its_version_of_http_wants_it() {
        let address = Address::parse("https://app.example/tidings").expect("an address");
        let uri = |version| address.uri("/v1/poll?wait=1", version).expect("a target").to_string();
        assert_eq!(uri(Version::HTTP_11), "/tidings/v1/poll?wait=1");
        assert_eq!(uri(Version::HTTP_2), "https://app.example/tidings/v1/poll?wait=1");
    }
}

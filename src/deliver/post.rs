//! A POST to another service, and its answer: one connection for each, so that none is found closed when the next begins.
//!
//! **Invariants**: a redirect is an answer like any other and is never followed; without TLS nobody is spoken to but this
//! machine; no proxy is asked; an answer is read up to a named limit, and all of it takes a named time.
//!
//! Deliberately not here: what an answer means, and whose addresses may be spoken to: they come from the operator's
//! settings.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, DATE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error as TlsError};

use crate::broker::MAX_RETRY_AFTER;

/// Bytes of an answer at most.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Who asks, for the other side's access log.
const AGENT: &str = concat!("tidings/", env!("CARGO_PKG_VERSION"));

/// Where is posted to. Its path and query may hold a secret, so that neither is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

/// What is wrong with an address, in words for the one who wrote it. It repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    #[error("is no address such as https://oapi.dingtalk.com/robot/send?access_token=…")]
    NoAddress,
    #[error(
        "must begin with https://: what is sent, and the token, would pass in the clear (http:// is for this machine alone)"
    )]
    InTheClear,
    #[error("must name no user before the host")]
    User,
}

/// An answer, whatever it says.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("nobody accepts connections at {0}: {1}")]
    Connect(String, io::Error),
    #[error("{0} shows a certificate that is not trusted: {1}")]
    Certificate(String, TlsError),
    #[error("{0} speaks no TLS that we understand: {1}")]
    Tls(String, io::Error),
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the answer has more than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
    #[error("the connection failed: {0}")]
    Broken(hyper::Error),
}

/// Posts. Cheap to clone.
#[derive(Clone)]
pub(super) struct Poster {
    pub(super) trusted: Arc<ClientConfig>,
    /// How long everything may take, from connecting to the last byte of the answer.
    pub(super) patience: Duration,
}

/// A socket, with TLS or without.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`AddressFault`].
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let uri: Uri = text.parse().map_err(|_| AddressFault::NoAddress)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(AddressFault::NoAddress),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(AddressFault::User);
        }
        let written = uri.host().filter(|host| !host.is_empty()).ok_or(AddressFault::NoAddress)?;
        // An IPv6 address stands in brackets in a URL and without them elsewhere.
        let host = written.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !tls && !is_this_machine(&host) {
            return Err(AddressFault::InTheClear);
        }
        let usual = if tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        let authority = if port == usual { written.to_owned() } else { format!("{written}:{port}") };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port, authority, path })
    }

    /// The value of a parameter of its query, as it is written there.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).filter(|value| !value.is_empty())
    }

    /// The same with more behind its query, which begins with an `&`.
    pub(super) fn with(&self, more: &str) -> Self {
        Self { path: format!("{}{more}", self.path), ..self.clone() }
    }
}

/// Only host and port: the rest may be a secret.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.authority)
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Poster {
    /// Posts JSON and reads the answer.
    ///
    /// # Errors
    /// [`PostError`]. The other side may have taken it all the same, where it was reached.
    pub(super) async fn post(&self, to: &Address, body: Bytes) -> Result<Reply, PostError> {
        let all = async {
            let socket = self.connect(to).await?;
            ask(to, socket, body).await
        };
        timeout(self.patience, all).await.unwrap_or(Err(PostError::TimedOut(self.patience)))
    }

    async fn connect(&self, to: &Address) -> Result<Box<dyn Socket>, PostError> {
        let refused = |e| PostError::Connect(to.authority.clone(), e);
        let tcp = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(refused)?;
        // One request, which should not wait for anything; without it, it is only slower.
        let _ = tcp.set_nodelay(true);
        if !to.tls {
            return Ok(Box::new(tcp));
        }
        let of_name = |e| PostError::Tls(to.authority.clone(), io::Error::new(io::ErrorKind::InvalidInput, e));
        let name = ServerName::try_from(to.host.clone()).map_err(of_name)?;
        let shaken = TlsConnector::from(self.trusted.clone()).connect(name, tcp).await;
        Ok(Box::new(shaken.map_err(|e| tls_error(&to.authority, e))?))
    }
}

async fn ask(to: &Address, socket: Box<dyn Socket>, body: Bytes) -> Result<Reply, PostError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(PostError::Broken)?;
    let mut asking = pin!(async move {
        let response = sender.send_request(request(to, body)).await.map_err(PostError::Broken)?;
        let (head, body) = response.into_parts();
        let whole = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(broken_off)?;
        let retry_after = retry_after(&head.headers);
        Ok(Reply { status: head.status.as_u16(), body: whole.to_bytes(), retry_after })
    });
    tokio::select! {
        answered = &mut asking => answered,
        // It drives the exchange. When it ends first, what came is still to be read.
        _ = connection => asking.await,
    }
}

fn request(to: &Address, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(to.path.as_str())
        .header(HOST, to.authority.as_str())
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Full::new(body))
        .expect("path and host were parts of a URI, and what is added is percent-encoded")
}

fn broken_off(error: Box<dyn std::error::Error + Send + Sync>) -> PostError {
    if error.is::<LengthLimitError>() {
        return PostError::TooLong;
    }
    let error = error.downcast::<hyper::Error>().expect("a bounded body fails by its bound or as its body does");
    PostError::Broken(*error)
}

fn tls_error(authority: &str, error: io::Error) -> PostError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(refused @ TlsError::InvalidCertificate(_)) => {
            PostError::Certificate(authority.to_owned(), refused.clone())
        }
        _ => PostError::Tls(authority.to_owned(), error),
    }
}

/// How long the other side wants to be left alone, up to [`MAX_RETRY_AFTER`]. It may say so in seconds or as a date (RFC 9110,
/// 10.2.3); a date counts from the answer's own `Date`, so that nobody's clock has to agree with anybody's. Without that it is not
/// read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match said.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = httpdate::parse_http_date(said).ok()?;
            // A moment that has passed asks for nothing.
            until.duration_since(date(headers, DATE)?).ok()?
        }
    };
    Some(asked.min(MAX_RETRY_AFTER))
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_this_machine() {
        let address = Address::parse("https://oapi.dingtalk.com/robot/send?access_token=abc").expect("an address");
        assert_eq!((address.tls, address.port, address.authority.as_str()), (true, 443, "oapi.dingtalk.com"));
        assert_eq!((address.parameter("access_token"), address.parameter("sign")), (Some("abc"), None));
        assert_eq!(address.with("&sign=x").path, "/robot/send?access_token=abc&sign=x");
        for good in ["http://127.0.0.1:8025/robot/send", "http://[::1]:8025/", "http://localhost/x"] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        assert_eq!(Address::parse("http://[::1]:8025/").map(|a| a.host), Ok("::1".to_owned()));
        for (bad, why) in [
            ("", AddressFault::NoAddress),
            ("oapi.dingtalk.com", AddressFault::NoAddress),
            ("/robot/send", AddressFault::NoAddress),
            ("ftp://oapi.dingtalk.com/", AddressFault::NoAddress),
            ("https://a b/", AddressFault::NoAddress),
            ("http://oapi.dingtalk.com/robot/send?access_token=abc", AddressFault::InTheClear),
            ("http://127.0.0.1.example/", AddressFault::InTheClear),
            ("http://127.0.0.1@example.com/", AddressFault::User),
            ("https://a:b@example.com/", AddressFault::User),
        ] {
            assert_eq!(Address::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let address = Address::parse("https://oapi.dingtalk.com/robot/send?access_token=abc").expect("an address");
        assert_eq!(format!("{address:?}"), "Address(oapi.dingtalk.com)");
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_and_has_a_bound() {
        let after = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))])).map(|d| d.as_secs())
        };
        let most = MAX_RETRY_AFTER.as_secs();
        assert_eq!((after("7"), after("7200"), after("soon"), after("-1")), (Some(7), Some(7_200), None, None));
        assert_eq!((after("99999999"), after("99999999999999999999")), (Some(most), None));
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_pause_until_a_date_counts_from_the_date_of_the_answer() {
        let text = HeaderValue::from_static;
        let until = |said: &'static str, date: Option<&'static str>| {
            let date = date.map(|date| (DATE, text(date)));
            retry_after(&[(RETRY_AFTER, text(said))].into_iter().chain(date).collect()).map(|d| d.as_secs())
        };
        let (now, later) = ("Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:15:20 GMT");
        assert_eq!(until(later, Some(now)), Some(120));
        assert_eq!(until("Mon, 14 Nov 2033 22:13:20 GMT", Some(now)), Some(MAX_RETRY_AFTER.as_secs()));
        assert_eq!((until(now, Some(later)), until(later, None), until(later, Some("today"))), (None, None, None));
    }
}

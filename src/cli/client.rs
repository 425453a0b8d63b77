//! The HTTP client of the command line: one request a connection, over TCP or a unix socket, tried again where the
//! server asks for it or could not be reached.
//!
//! **Invariant**: what is sent again is harmless to send twice: a publish has its idempotency key, and the other
//! requests change nothing the second time.
//!
//! It deliberately speaks no TLS: it is for the machine that Tidings runs on.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Usage;
use crate::server::state::{self, Endpoint};

/// How long one try may take, the answer included.
const TRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Pauses before the second, third and fourth try.
const PAUSES: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];
/// The longest `Retry-After` that is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of an answer at most.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `base_path` is empty or begins with a slash and ends with none.
    Tcp {
        host: String,
        port: u16,
        base_path: String,
    },
    Unix {
        path: PathBuf,
        base_path: String,
    },
}

/// A server, and what we show it.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    /// An API key or the operator's credential.
    credential: String,
}

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Below the base path.
    pub(super) path: &'a str,
    pub(super) content_type: &'static str,
    pub(super) headers: &'a [(HeaderName, &'a str)],
    pub(super) body: Bytes,
}

/// Why a try brought no answer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("the connection failed: {0}")]
    Exchange(String),
    #[error("no answer within {} s", TRY_TIMEOUT.as_secs())]
    TimedOut,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Target {
    /// Reads `http://host:port/base`.
    ///
    /// # Errors
    /// [`Usage`].
    pub(super) fn parse(url: &str) -> Result<Self, Usage> {
        let wrong =
            |why: &str| Usage(format!("{url} is not an address of a server: {why}, such as http://127.0.0.1:8383"));
        let uri: Uri = url.parse().map_err(|_| wrong("it must be a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong(
                    "this command speaks no TLS; go to the server itself, by --data, --socket or a plain address",
                ));
            }
            _ => return Err(wrong("it must begin with http://")),
        }
        let host = uri.host().ok_or_else(|| wrong("it must name a host"))?;
        Ok(Self::Tcp {
            // An IPv6 address stands in brackets in a URL and without them elsewhere.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(80),
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The unix socket of the server that runs on a state directory.
    pub(super) fn running_on(data: &Path) -> Self {
        let Endpoint { socket, base_path } = state::endpoint(data);
        Self::Unix { path: socket, base_path }
    }

    fn base_path(&self) -> &str {
        match self {
            Self::Tcp { base_path, .. } | Self::Unix { base_path, .. } => base_path,
        }
    }

    fn host(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix { .. } => "localhost".to_owned(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { base_path, .. } => write!(f, "http://{}{base_path}", self.host()),
            Self::Unix { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl Client {
    pub(super) fn new(target: Target, credential: String) -> Self {
        Self { target, credential }
    }

    /// The operator's client of the server that runs on a state directory.
    ///
    /// # Errors
    /// Where the directory can't be read.
    pub(super) fn of_operator(data: &Path) -> anyhow::Result<Self> {
        let credential = state::operator_credential(data)
            .context("--data is the state directory of a server on this machine that has been started")?;
        Ok(Self::new(Target::running_on(data), credential))
    }

    /// Asks until there is an answer that does not say "later"; the body of a 2xx.
    ///
    /// # Errors
    /// What the server refused and why, or that it can't be reached.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> anyhow::Result<Bytes> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let outcome = self.attempt(ask).await;
            let (pause, why) = match (&outcome, pauses.next()) {
                (Ok(answer), Some(pause)) if answer.asks_for_later() => {
                    (answer.retry_after().unwrap_or(pause), answer.status.to_string())
                }
                (Err(trouble), Some(pause)) => (pause, trouble.to_string()),
                _ => break self.settle(outcome),
            };
            if io::stderr().is_terminal() {
                eprintln!("{}: {why}; trying again in {} ms", self.target, pause.as_millis());
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn settle(&self, outcome: Result<Answer, Trouble>) -> anyhow::Result<Bytes> {
        match outcome {
            Ok(answer) if answer.status.is_success() => Ok(answer.body),
            Ok(answer) => bail!("{}", answer.refusal()),
            Err(trouble @ Trouble::Connect(_)) => {
                Err(trouble).with_context(|| format!("no server at {} (is it running? `tidings serve` starts one)", self.target))
            }
            Err(trouble) => Err(trouble).with_context(|| {
                format!("{} gave no answer, so whether this was done is unknown; it is safe to repeat with the same --idempotency-key", self.target)
            }),
        }
    }

    async fn attempt(&self, ask: &Ask<'_>) -> Result<Answer, Trouble> {
        let exchange = async {
            match &self.target {
                Target::Tcp { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(Trouble::Connect)?;
                    self.exchange(stream, ask).await
                }
                Target::Unix { path, .. } => {
                    let stream = UnixStream::connect(path).await.map_err(Trouble::Connect)?;
                    self.exchange(stream, ask).await
                }
            }
        };
        tokio::time::timeout(TRY_TIMEOUT, exchange).await.unwrap_or(Err(Trouble::TimedOut))
    }

    async fn exchange<S>(&self, stream: S, ask: &Ask<'_>) -> Result<Answer, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |e: hyper::Error| Trouble::Exchange(e.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = self.request(ask).map_err(|e| Trouble::Exchange(e.to_string()))?;
        let answer = async move {
            let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| Trouble::Exchange(e.to_string()))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        // The connection's own end tells nothing that the answer does not.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("{}{}", self.target.base_path(), ask.path))
            .header(HOST, self.target.host())
            .header(CONNECTION, "close")
            .header(AUTHORIZATION, format!("Bearer {}", self.credential))
            .header(CONTENT_TYPE, ask.content_type);
        for (name, value) in ask.headers {
            request = request.header(name, *value);
        }
        request.body(Full::new(ask.body.clone()))
    }
}

impl Answer {
    /// Whether the same request may do better in a moment.
    fn asks_for_later(&self) -> bool {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => true,
            // The first try with this idempotency key still runs.
            StatusCode::CONFLICT => self.headers.contains_key(RETRY_AFTER),
            _ => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
    }

    /// The problem in words, a line for each broken field.
    fn refusal(&self) -> String {
        let status = self.status.as_u16();
        match serde_json::from_slice::<Refusal>(&self.body) {
            Ok(refusal) => refusal.text(status),
            Err(_) => format!("the server answered {}, which is not Tidings' way: is the address right?", self.status),
        }
    }
}

/// A problem document, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Field {
    pointer: String,
    detail: String,
}

impl Refusal {
    pub(super) fn text(&self, status: u16) -> String {
        let mut text = format!("the server refused it ({status} {}): {}", self.code, self.detail);
        // One broken field stands in the detail already.
        for field in self.errors.iter().filter(|_| self.errors.len() > 1) {
            let _ = write!(text, "\n  {}: {}", field.pointer, field.detail);
        }
        if status == 401 {
            text.push_str("\n  (make a key with `tidings key create`, and give it with --key-file or TIDINGS_KEY)");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |host: &str, port, base: &str| Target::Tcp { host: host.into(), port, base_path: base.into() };
        assert_eq!(Target::parse("http://127.0.0.1:8383").expect("valid"), tcp("127.0.0.1", 8383, ""));
        assert_eq!(Target::parse("http://localhost/tidings/").expect("valid"), tcp("localhost", 80, "/tidings"));
        let six = Target::parse("http://[::1]:8383/a").expect("valid");
        assert_eq!(six, tcp("::1", 8383, "/a"));
        assert_eq!(six.to_string(), "http://[::1]:8383/a");
        for bad in ["", "127.0.0.1:8383", "https://x", "ftp://x", "http://"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    fn answer(status: u16, retry_after: Option<&'static str>, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, http::HeaderValue::from_static(seconds));
        }
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn only_passing_trouble_is_tried_again() {
        for (status, retry_after, later) in [
            (503, None, true),
            (429, Some("1"), true),
            (409, Some("1"), true),
            (409, None, false),
            (422, None, false),
            (500, None, false),
            (507, None, false),
        ] {
            assert_eq!(answer(status, retry_after, "").asks_for_later(), later, "{status}");
        }
        assert_eq!(answer(503, Some("86400"), "").retry_after(), Some(LONGEST_PAUSE));
        assert_eq!(answer(503, Some("Wed, 21 Oct"), "").retry_after(), None);
    }

    #[test]
    fn a_refusal_tells_every_field() {
        let problem = r#"{"type":"/problems/invalid","status":422,"code":"invalid","detail":"2 fields are not as they must be","errors":[{"pointer":"/to","detail":"is missing"},{"pointer":"/title","detail":"must be a string"}]}"#;
        assert_eq!(
            answer(422, None, problem).refusal(),
            "the server refused it (422 invalid): 2 fields are not as they must be\n  /to: is missing\n  /title: must be a string"
        );
        assert!(answer(404, None, "<html>").refusal().contains("is the address right?"));
    }
}

//! The HTTP client of the command line: one request a connection, over TCP or a unix socket, tried again where the
//! server asks for it or could not be reached.
//!
//! **Invariant**: what is sent again is harmless to send twice: a publish has its idempotency key, other requests change
//! nothing the second time, and what would ([`Ask::once`]) is sent again only where it reached nobody.
//!
//! It deliberately speaks no TLS: it is for the machine that Tidings runs on.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Usage;
use super::local::Directory;
use crate::server::state::Endpoint;

/// How long one try may take, the answer included, unless what is asked takes longer by its nature.
const TRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Pauses before the second, third and fourth try.
const PAUSES: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];
/// The longest `Retry-After` that is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a state directory may be held by somebody who does not answer: a server that starts or leaves, or a command.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(20);
/// How often such a directory is looked at.
const HANDOVER_LOOK: Duration = Duration::from_millis(50);
/// Bytes of an answer at most, where it is not passed on as it comes.
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

/// A server, and what we show it: an API key or the operator's credential.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) target: Target,
    pub(super) credential: String,
}

/// Who answers.
#[derive(Debug)]
pub(super) enum Client {
    /// The server at an address.
    Server(Door),
    /// Whoever holds a state directory; this process, where nobody else does.
    Directory(Directory),
}

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Below the base path.
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) headers: &'a [(HeaderName, &'a str)],
    pub(super) body: Bytes,
    /// How long one try may take.
    pub(super) patience: Duration,
    /// What would be done twice if the first answer was lost: tried again only where no server was reached.
    pub(super) once: bool,
}

/// Why a try brought no answer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("the connection failed: {0}")]
    Exchange(String),
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// What was passed on already can't be asked for again.
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
    #[error("cannot write: {0}")]
    Write(io::Error),
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// Empty where it was passed on.
    body: Bytes,
}

/// Where a long answer goes.
pub(super) trait Receive: Write {
    /// Told before the first byte, where the server says how many there will be.
    fn expect(&mut self, _bytes: u64) {}
}

/// A socket of either kind.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

impl Ask<'static> {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            content_type: "application/json",
            headers: &[],
            body: Bytes::new(),
            patience: TRY_TIMEOUT,
            once: false,
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// With lines of JSON as its body.
    pub(super) fn ndjson(path: impl Into<String>, lines: Vec<u8>) -> Self {
        Self { content_type: "application/x-ndjson", body: lines.into(), ..Self::new(Method::POST, path) }
    }

    /// With a value as its body.
    pub(super) fn json(self, body: &impl Serialize) -> anyhow::Result<Self> {
        Ok(Self { body: serde_json::to_vec(body)?.into(), ..self })
    }

    /// For what must not be done twice.
    pub(super) fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// For what takes long by its nature.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl<'a> Ask<'a> {
    pub(super) fn with_headers<'b>(self, headers: &'b [(HeaderName, &'b str)]) -> Ask<'b>
    where
        'a: 'b,
    {
        Ask { headers, ..self }
    }
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

    /// The unix socket of whoever holds a state directory.
    pub(super) fn at(endpoint: Endpoint) -> Self {
        Self::Unix { path: endpoint.socket, base_path: endpoint.base_path }
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
    /// Asks until there is an answer that does not say "later"; the body of a 2xx.
    ///
    /// # Errors
    /// What the server refused and why, or that it can't be reached.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> anyhow::Result<Bytes> {
        self.insist(ask, async |door: Door| door.attempt(ask).await).await
    }

    /// The same; the answer as a value.
    ///
    /// # Errors
    /// As [`Client::ask`], or that the answer is not such a value.
    pub(super) async fn read<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> anyhow::Result<T> {
        read(&self.ask(ask).await?)
    }

    /// The same, but the body of a 2xx is passed on as it comes, however long it is and takes; a try ends after as much
    /// silence as the question has patience.
    ///
    /// # Errors
    /// As [`Client::ask`]; after the first byte nothing is tried again.
    pub(super) async fn pass_on(&self, ask: &Ask<'_>, to: &mut impl Receive) -> anyhow::Result<()> {
        self.insist(ask, async |door: Door| door.pass_on(ask, to).await).await.map(drop)
    }

    /// Whether this process is the server, since no other holds the state directory.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Directory(directory) if directory.is_own())
    }

    /// Lets go of the state directory, where this process holds it.
    pub(super) async fn close(self) {
        if let Self::Directory(directory) = self {
            directory.close().await;
        }
    }

    async fn insist(
        &self,
        ask: &Ask<'_>,
        mut attempt: impl AsyncFnMut(Door) -> Result<Answer, Trouble>,
    ) -> anyhow::Result<Bytes> {
        let mut pauses = PAUSES.into_iter();
        let begun = Instant::now();
        loop {
            // Each time anew: who holds a directory may change meanwhile.
            let door = match self {
                Self::Server(door) => door.clone(),
                Self::Directory(directory) => directory.door().await?,
            };
            let target = door.target.clone();
            let outcome = attempt(door).await;
            if self.is_handed_over(&outcome) && begun.elapsed() < HANDOVER_DEADLINE {
                tokio::time::sleep(HANDOVER_LOOK).await;
                continue;
            }
            let (pause, why) = match (&outcome, pauses.next()) {
                (Ok(answer), Some(pause)) if answer.asks_for_later() => {
                    (answer.retry_after().unwrap_or(pause), answer.status.to_string())
                }
                (Err(trouble), Some(pause)) if trouble.may_pass() && (!ask.once || trouble.is_unreached()) => {
                    (pause, trouble.to_string())
                }
                _ => break settle(&target, ask, outcome),
            };
            if io::stderr().is_terminal() {
                eprintln!("{target}: {why}; trying again in {} ms", pause.as_millis());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether a state directory is changing hands: nobody listens there yet or any more, or the credential was another
    /// run's, since it is made anew with each.
    fn is_handed_over(&self, outcome: &Result<Answer, Trouble>) -> bool {
        let Self::Directory(directory) = self else { return false };
        match outcome {
            Ok(answer) => answer.status == StatusCode::UNAUTHORIZED && directory.is_operator(),
            Err(trouble) => matches!(trouble, Trouble::Connect(_)),
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// Where it is not such a value.
pub(super) fn read<T: DeserializeOwned>(answer: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(answer).context("the server's answer can't be read")
}

fn settle(target: &Target, ask: &Ask<'_>, outcome: Result<Answer, Trouble>) -> anyhow::Result<Bytes> {
    match outcome {
        Ok(answer) if answer.status.is_success() => Ok(answer.body),
        Ok(answer) => bail!("{}", answer.refusal()),
        Err(Trouble::Write(error)) => Err(error).context("cannot write what came"),
        Err(trouble @ Trouble::Connect(_)) => {
            Err(trouble).with_context(|| format!("no server at {target} (is it running? `tidings serve` starts one)"))
        }
        Err(trouble) if ask.method.is_safe() => Err(trouble).with_context(|| format!("{target} gave no whole answer")),
        Err(trouble) => {
            let next = if ask.headers.is_empty() {
                "look before you repeat it"
            } else {
                "it is safe to repeat with the same --idempotency-key"
            };
            Err(trouble)
                .with_context(|| format!("{target} gave no answer, so whether this was done is unknown; {next}"))
        }
    }
}

impl Trouble {
    /// Whether nobody can have got the question.
    const fn is_unreached(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// Whether another try may do better.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Exchange(_) | Self::TimedOut(_))
    }
}

impl Door {
    async fn attempt(&self, ask: &Ask<'_>) -> Result<Answer, Trouble> {
        let exchange = async { self.exchange(self.connect().await?, ask, collect).await };
        tokio::time::timeout(ask.patience, exchange).await.unwrap_or(Err(Trouble::TimedOut(ask.patience)))
    }

    async fn pass_on(&self, ask: &Ask<'_>, to: &mut impl Receive) -> Result<Answer, Trouble> {
        let stream = tokio::time::timeout(ask.patience, self.connect()).await;
        let stream = stream.unwrap_or(Err(Trouble::TimedOut(ask.patience)))?;
        self.exchange(stream, ask, async |response: Response<Incoming>| {
            if !response.status().is_success() {
                return collect(response).await;
            }
            let (head, mut body) = response.into_parts();
            if let Some(bytes) = body.size_hint().exact() {
                to.expect(bytes);
            }
            loop {
                match tokio::time::timeout(ask.patience, body.frame()).await {
                    Err(_) => return Err(Trouble::BrokenOff(format!("silence for {} s", ask.patience.as_secs()))),
                    Ok(Some(Err(e))) => return Err(Trouble::BrokenOff(e.to_string())),
                    Ok(Some(Ok(frame))) => {
                        to.write_all(frame.data_ref().map_or(&[], |data| data)).map_err(Trouble::Write)?;
                    }
                    Ok(None) => break,
                }
            }
            Ok(Answer { status: head.status, headers: head.headers, body: Bytes::new() })
        })
        .await
    }

    async fn connect(&self) -> Result<Box<dyn Socket>, Trouble> {
        match &self.target {
            Target::Tcp { host, port, .. } => {
                TcpStream::connect((host.as_str(), *port)).await.map(|stream| Box::new(stream) as Box<dyn Socket>)
            }
            Target::Unix { path, .. } => {
                UnixStream::connect(path).await.map(|stream| Box::new(stream) as Box<dyn Socket>)
            }
        }
        .map_err(Trouble::Connect)
    }

    async fn exchange(
        &self,
        stream: Box<dyn Socket>,
        ask: &Ask<'_>,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<Answer, Trouble>,
    ) -> Result<Answer, Trouble> {
        let broken = |e: hyper::Error| Trouble::Exchange(e.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = self.request(ask).map_err(|e| Trouble::Exchange(e.to_string()))?;
        let answer = async move {
            let head = tokio::time::timeout(ask.patience, sender.send_request(request)).await;
            read(head.map_err(|_| Trouble::TimedOut(ask.patience))?.map_err(broken)?).await
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

async fn collect(response: Response<Incoming>) -> Result<Answer, Trouble> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|e| Trouble::Exchange(e.to_string()))?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
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
        match serde_json::from_slice::<Refusal>(&self.body) {
            Ok(refusal) => refusal.text(),
            Err(_) => format!("the server answered {}, which is not Tidings' way: is the address right?", self.status),
        }
    }
}

/// A problem document, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    status: u16,
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
    pub(super) fn text(&self) -> String {
        let mut text = format!("the server refused it ({} {}): {}", self.status, self.code, self.detail);
        // One broken field stands in the detail already.
        for field in self.errors.iter().filter(|_| self.errors.len() > 1) {
            let _ = write!(text, "\n  {}: {}", field.pointer, field.detail);
        }
        // It may repeat what was sent, which must not move a terminal's cursor.
        text = text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
        if self.status == 401 {
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

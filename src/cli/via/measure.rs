//! The measurements, one after the other: a stream, five publishes, the small questions, a WebSocket, then silence.
//!
//! Tickets and publishes go to the server directly; everything else goes the way of a browser. What fails on that way
//! becomes a figure; only what fails at the server itself ends the measuring.
//!
//! **Invariant**: each connection has a ticket of its own, so that none ends another. What was published is taken back
//! at the end, and is over by itself after [`LIFETIME`] where this process does not come so far.

use std::collections::HashMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::StreamExt as _;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderName, Method, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use super::answer::{Bye, Hello, proxy, read};
use super::events::{Arrival, Events};
use super::figures::{Answer, Figures, Head, Publish, Resumed, SocketStart, StreamStart};
use super::line::{Line, LineError, Offer, Question, Way, ms};
use super::silence::{self, Open, Socket};
use crate::cli::client::{Ask, Client};
use crate::cli::{notification, progress, segment};

/// The user whose stream is watched. Nobody else should bear this name.
const USER: &str = "tidings-doctor";
/// How long what is published lives, where it is not taken back before.
const LIFETIME: &str = "2m";
/// Publishes that are timed, and how far apart they are.
const PUBLISHES: usize = 5;
const BETWEEN_PUBLISHES: Duration = Duration::from_millis(200);
/// How long events are waited for after the last publish.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(3);
/// How long `hello` is waited for; after as much, pages with `tidings.js` give the stream up.
const HELLO_DEADLINE: Duration = Duration::from_secs(3);
/// How long any other answer is waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// What browsers take.
const ENCODINGS: &str = "gzip, deflate, br, zstd";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where the measuring has come to.
pub(super) struct Measuring<'a> {
    client: &'a Client,
    way: &'a Way,
    pub(super) figures: Figures,
    published: Vec<Published>,
}

#[derive(Deserialize)]
struct Ticket {
    ticket: String,
}

#[derive(Deserialize)]
struct Published {
    id: String,
    cursor: String,
}

/// What is read of a notification.
#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// What came of asking for a stream.
enum Sought {
    /// None.
    Nothing,
    /// One that can't be read: it comes when it is over, or compressed.
    Unreadable,
    Open(Box<Open>),
}

/// What is read of a WebSocket's first message.
#[derive(Deserialize)]
struct First {
    event: String,
}

impl<'a> Measuring<'a> {
    pub(super) fn new(client: &'a Client, way: &'a Way) -> Self {
        Self { client, way, figures: Figures::default(), published: Vec::new() }
    }

    /// Measures; `idle` is how long silence is watched, and zero leaves that out. What was measured stands in
    /// `figures`, also after an error.
    ///
    /// # Errors
    /// Where the server itself, not what stands in front, can't be asked.
    pub(super) async fn run(&mut self, idle: Duration) -> anyhow::Result<()> {
        let spinner = progress::spinner("Opening a stream");
        let mut stream = match self.open_stream().await? {
            Sought::Nothing => return Ok(()),
            Sought::Unreadable => None,
            Sought::Open(stream) => Some(stream),
        };
        if let Some(stream) = &mut stream {
            spinner.set_message("Publishing, and looking when it comes");
            self.burst(&mut stream.events).await?;
        }
        spinner.set_message("Asking for what proxies like to change");
        self.small_questions().await?;
        spinner.set_message("Opening a WebSocket");
        let socket = self.open_socket().await?;
        spinner.finish_and_clear();
        if !idle.is_zero() {
            let mut polls = Vec::new();
            for wait in silence::waits(idle) {
                polls.push((wait, self.ticket().await?));
            }
            self.figures.silence = Some(silence::watch(self.way, stream.map(|open| *open), socket, polls, idle).await);
        }
        Ok(())
    }

    /// Takes back what was published, and forgets the user where the credential is good for that.
    pub(super) async fn clean_up(&mut self) {
        let erase = Ask::new(Method::DELETE, format!("/v1/users/{USER}"));
        if self.client.ask(&erase).await.is_ok() {
            return;
        }
        for published in &self.published {
            let retract = Ask::new(Method::DELETE, notification::path(&published.id));
            if let Err(error) = self.client.ask(&retract).await {
                self.figures.left_behind = Some(error.to_string());
            }
        }
    }

    /// A ticket, as it stands in an address.
    async fn ticket(&self) -> anyhow::Result<String> {
        let ask = Ask::new(Method::POST, "/v1/tickets").json(&json!({ "user": USER }))?;
        let minted: Ticket = self.client.read(&ask).await?;
        Ok(segment(minted.ticket))
    }

    /// Opens the stream that is watched, as a browser does; a second time without compression where it came
    /// compressed.
    async fn open_stream(&mut self) -> anyhow::Result<Sought> {
        // Asked for first, so that a server that does not run is not taken for an address where nobody listens.
        let ticket = self.ticket().await?;
        ensure!(
            !self.client.is_own(),
            "no server runs on this directory, so there is none to go to; start it (`tidings serve`) and ask again"
        );
        let line = match self.way.open(Offer::Newest).await {
            Ok(line) => line,
            Err(error) => {
                self.figures.unreachable = Some(error.to_string());
                return Ok(Sought::Nothing);
            }
        };
        self.figures.connection = Some(line.opened.clone());
        let (start, sought) = self.begin(line, &ticket, ENCODINGS).await;
        let is_compressed = start.is_compressed();
        self.figures.stream = Some(start);
        if !is_compressed {
            return Ok(sought);
        }
        let ticket = self.ticket().await?;
        let Ok(line) = self.way.open(Offer::Newest).await else { return Ok(sought) };
        let (start, sought) = self.begin(line, &ticket, "identity").await;
        self.figures.stream_uncompressed = Some(start);
        Ok(sought)
    }

    /// Asks for a stream and waits for its `hello`.
    async fn begin(&mut self, mut line: Line, ticket: &str, encodings: &str) -> (StreamStart, Sought) {
        let asked = Instant::now();
        let response = match self.head_of_stream(&mut line, ticket, encodings).await {
            Ok(response) => response,
            Err(error) => return (StreamStart::new(Answer::from(error)), Sought::Nothing),
        };
        self.figures.proxy = self.figures.proxy.take().or_else(|| proxy(response.headers()));
        let head = Head::of(&response, asked);
        if !head.is_stream() {
            let answer = Answer::Came(head.with_code(response.into_body()).await);
            return (StreamStart::new(answer), Sought::Nothing);
        }
        let is_late = head.took_ms > ms(HELLO_DEADLINE);
        let mut start = StreamStart::new(Answer::Came(head));
        if start.is_compressed() {
            return (start, Sought::Unreadable);
        }
        let mut events = Events::new(response.into_body());
        let first = timeout(HELLO_DEADLINE, events.next()).await;
        start.first_byte_ms = events.first_byte.map(|at| ms(at - asked));
        let sought = match first {
            Ok(Ok(Arrival { at, name, data })) if name.as_deref() == Some("hello") => {
                start.hello_ms = Some(ms(at - asked));
                start.heartbeat_s = read::<Hello>(&data).map(|hello| hello.heartbeat);
                if is_late { Sought::Unreadable } else { Sought::Open(Box::new(Open { events, _line: line })) }
            }
            Ok(Ok(Arrival { data, .. })) => {
                start.bye = read::<Bye>(&data).map(|bye| bye.reason);
                Sought::Nothing
            }
            Ok(Err(_)) => Sought::Nothing,
            // It is read on: what is held back may come with what is published.
            Err(_) => Sought::Open(Box::new(Open { events, _line: line })),
        };
        (start, sought)
    }

    /// Asks for a stream. Where no answer begins, the stream is ended by a second use of its ticket: a proxy that holds
    /// back until the end shows itself so, and is told from one that does not answer.
    async fn head_of_stream(
        &self,
        line: &mut Line,
        ticket: &str,
        encodings: &str,
    ) -> Result<Response<Incoming>, LineError> {
        let path = format!("/v1/stream?cursor=now&ticket={ticket}");
        let ask = || Question::get(&path).with(ACCEPT, "text/event-stream");
        let mut answer = pin!(line.ask(ask().with(ACCEPT_ENCODING, encodings), ANSWER_DEADLINE));
        if let Ok(came) = timeout(HELLO_DEADLINE, &mut answer).await {
            return came;
        }
        let mut second = self.way.open(Offer::Newest).await?;
        tokio::select! {
            came = &mut answer => came,
            // This one is held back as well.
            Err(error) = second.ask(ask(), ANSWER_DEADLINE) => Err(error),
        }
    }

    /// Publishes, and looks when each event comes.
    async fn burst(&mut self, events: &mut Events) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut arrived: HashMap<String, Instant> = HashMap::new();
        let mut sent: Option<Vec<(Published, Instant)>> = None;
        let mut deadline = tokio::time::Instant::now();
        let mut is_open = true;
        let mut publishing = pin!(publish(self.client));
        loop {
            let is_complete = |sent: &Vec<(Published, Instant)>| sent.iter().all(|(p, _)| arrived.contains_key(&p.id));
            if sent.as_ref().is_some_and(|sent| !is_open || is_complete(sent)) {
                break;
            }
            tokio::select! {
                all = &mut publishing, if sent.is_none() => {
                    sent = Some(all?);
                    deadline = tokio::time::Instant::now() + ARRIVAL_DEADLINE;
                }
                next = events.next(), if is_open => match next {
                    Ok(Arrival { at, data, .. }) => {
                        if let Some(entry) = read::<Entry>(&data) {
                            arrived.entry(entry.id).or_insert(at);
                        }
                    }
                    Err(_) => is_open = false,
                },
                () = sleep_until(deadline), if sent.is_some() => break,
            }
        }
        let since = |at: Instant| ms(at.saturating_duration_since(begun));
        for (published, answered) in sent.unwrap_or_default() {
            let arrived_ms = arrived.get(&published.id).copied().map(since);
            self.figures.publishes.push(Publish { answered_ms: since(answered), arrived_ms });
            self.published.push(published);
        }
        Ok(())
    }

    /// What takes one question and one answer each.
    async fn small_questions(&mut self) -> anyhow::Result<()> {
        self.figures.resumed = self.resume().await?;
        let path = format!("/v1/stream?cursor=now&ticket={}", self.ticket().await?);
        let nobody = Question::get(path).with(ACCEPT, "text/event-stream").with(AUTHORIZATION, "Bearer nobody");
        self.figures.authorization = Some(self.once(nobody).await);
        self.figures.unknown_path = Some(self.once(Question::get("/v1/tidings-doctor")).await);
        let sign_out = Question { method: Method::DELETE, ..Question::get("/v1/session") };
        self.figures.cookie = Some(self.once(sign_out).await);
        self.figures.metrics = Some(self.once(Question::get("/metrics")).await);
        Ok(())
    }

    /// Goes on after the first publish, as a browser's `EventSource` does.
    async fn resume(&self) -> anyhow::Result<Option<Resumed>> {
        let Some(first) = self.published.first() else { return Ok(None) };
        let path = format!("/v1/stream?ticket={}", self.ticket().await?);
        let question = Question::get(path).with(ACCEPT, "text/event-stream").with(LAST_EVENT_ID, &first.cursor);
        let asked = Instant::now();
        let answered = async {
            let mut line = self.way.open(Offer::Newest).await?;
            let response = line.ask(question, ANSWER_DEADLINE).await?;
            let head = Head::of(&response, asked);
            let mut events = Events::new(response.into_body());
            let first = timeout(HELLO_DEADLINE, events.next()).await;
            let hello = first.ok().and_then(Result::ok).and_then(|arrival| read::<Hello>(&arrival.data));
            Ok((head, hello.map(|hello| hello.recovered)))
        };
        Ok(Some(match answered.await {
            Ok((head, recovered)) => Resumed { answer: Answer::Came(head), recovered },
            Err::<_, LineError>(error) => Resumed { answer: Answer::from(error), recovered: None },
        }))
    }

    /// Asks on a connection of its own. Of a stream only the head is read.
    async fn once(&self, question: Question<'_>) -> Answer {
        let asked = Instant::now();
        let answered = async {
            let mut line = self.way.open(Offer::Newest).await?;
            let response = line.ask(question, ANSWER_DEADLINE).await?;
            let head = Head::of(&response, asked);
            Ok(if head.is_stream() { head } else { head.with_code(response.into_body()).await })
        };
        answered.await.map_or_else(|error: LineError| Answer::from(error), Answer::Came)
    }

    /// Opens a WebSocket as a page of the address itself, and without saying whose page where that is refused.
    async fn open_socket(&mut self) -> anyhow::Result<Option<Socket>> {
        let origin = self.way.address.origin();
        let (mut start, mut socket) = self.upgrade(Some(&origin)).await?;
        if start.answer.head().is_some_and(|head| head.code.as_deref() == Some("cross-site")) {
            (start, socket) = self.upgrade(None).await?;
            start.origin_refused = true;
        }
        self.figures.websocket = Some(start);
        Ok(socket)
    }

    async fn upgrade(&self, origin: Option<&str>) -> anyhow::Result<(SocketStart, Option<Socket>)> {
        let path = format!("/v1/ws?cursor=now&ticket={}", self.ticket().await?);
        let key = generate_key();
        let mut question = Question::get(path)
            .with(UPGRADE, "websocket")
            .with(CONNECTION, "Upgrade")
            .with(SEC_WEBSOCKET_VERSION, "13")
            .with(SEC_WEBSOCKET_PROTOCOL, "tidings.v1")
            .with(SEC_WEBSOCKET_KEY, &key);
        if let Some(origin) = origin {
            question = question.with(ORIGIN, origin);
        }
        let asked = Instant::now();
        let answered = async {
            let mut line = self.way.open(Offer::First).await?;
            let response = line.ask(question, ANSWER_DEADLINE).await?;
            let head = Head::of(&response, asked);
            if head.status != 101 {
                return Ok((head.with_code(response.into_body()).await, None));
            }
            let upgraded = TokioIo::new(hyper::upgrade::on(response).await?);
            Ok((head, Some(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)))
        };
        let (answer, mut socket) = match answered.await {
            Ok((head, socket)) => (Answer::Came(head), socket),
            Err::<_, LineError>(error) => (Answer::from(error), None),
        };
        let hello = match &mut socket {
            Some(socket) => timeout(HELLO_DEADLINE, socket.next()).await.ok().flatten(),
            None => None,
        };
        let is_hello = |text: &str| read::<First>(text).is_some_and(|first| first.event == "hello");
        let came = matches!(hello, Some(Ok(Message::Text(text))) if is_hello(&text));
        let hello_ms = came.then(|| ms(asked.elapsed()));
        Ok((SocketStart { answer, hello_ms, origin_refused: false }, socket))
    }
}

/// Publishes to the user, directly at the server, and says when each was acknowledged.
async fn publish(client: &Client) -> anyhow::Result<Vec<(Published, Instant)>> {
    let mut published = Vec::with_capacity(PUBLISHES);
    let mut ticks = interval(BETWEEN_PUBLISHES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1..=PUBLISHES {
        ticks.tick().await;
        let key = Uuid::now_v7().to_string();
        let headers = [(IDEMPOTENCY_KEY, key.as_str())];
        let ask = Ask::new(Method::POST, "/v1/notifications").json(&json!({
            "to": { "user": USER },
            "title": format!("tidings doctor --via, {number} of {PUBLISHES}"),
            "expires_in": LIFETIME,
        }))?;
        let one = client.read(&ask.with_headers(&headers)).await?;
        published.push((one, Instant::now()));
    }
    Ok(published)
}

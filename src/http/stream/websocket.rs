//! `GET /v1/ws`: a feed's events as text messages, and a client's operations with their replies.
//!
//! One task holds the socket and does one thing at a time: it says what the feed brings, or does what the client asks
//! and answers it. A client that asks and never reads stops its own task at the next write, and nobody else's.
//!
//! **Invariant**: nothing of a user is said before the credential was judged, and nothing after `bye` but the close.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::Response;
use http::request::Parts;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::StreamExt as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::live::LiveStream;
use super::options::Options;
use super::refusal;
use super::sse::Heartbeat;
use crate::broker::{AuthError, Broker, BrokerError, Feed, FeedItem, FeedRequest, Mute};
use crate::http::auth::{Caller, Denied};
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::limits::Sole;
use crate::http::network::Address;
use crate::http::problem;
use crate::http::query::Query;
use crate::http::socket::Metered;
use crate::http::upgrade::{Handover, Heard, Parting, WebSocket, accept};
use crate::http::{App, answer};
use crate::model::{Identity, StreamId, TopicName, UserIdentity};
use crate::wire::event::ByeReason;
use crate::wire::frame::{Frame, SharedFrame};
use crate::wire::inbox::MarkedBody;
use crate::wire::manage::RefreshedBody;
use crate::wire::operation::{self, Done, Failed, Operation, Refused, Request};
use crate::wire::problem::{Problem, ProblemBody};
use crate::wire::topic::{FollowBody, MuteBody};

/// The subprotocol.
const PROTOCOL: &str = "tidings.v1";
/// Bytes of a client's message at most.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// How long a client that brought no credential has to send one.
const AUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a ping may go unanswered.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that a client may send in the long run, a second, and at once. Pings count too.
const MESSAGES_A_SECOND: NonZeroU32 = NonZeroU32::new(50).expect("it is not zero");
const MESSAGES_AT_ONCE: NonZeroU32 = NonZeroU32::new(200).expect("it is not zero");

/// Answers the handshake, and leaves what is to be said on the socket after it.
///
/// # Errors
/// 400 or 426 for a handshake or a filter that can't be read.
pub fn open(call: &Call) -> Result<Response<Body>, Problem> {
    let options = Options::read(call.headers(), &call.query)?;
    let caller = match &call.caller {
        Caller::Known(Identity::User(user)) => Standing::Known(user.clone()),
        Caller::Anyone => Standing::Unknown,
        Caller::Known(_) => return Err(problem::FORBIDDEN.because("this needs a user's token")),
    };
    upgrade(&call.head, Session { app: call.app.clone(), standing: caller, options, address: call.address })
}

/// Answers a caller who was not let in: with `bye` on the socket where an error status would tell a browser nothing.
///
/// # Errors
/// 401 or 403 for a credential that never was good or is another's; 403 for a page of another origin.
pub fn turn_away(app: &App, head: &Parts, query: &Query, denied: Denied) -> Result<Response<Body>, Problem> {
    let reason = match denied {
        // A browser can't read the status of a handshake; the close code tells it not to come back.
        Denied::Unauthenticated(AuthError::Revoked) => ByeReason::Revoked,
        denied => refusal(denied)?,
    };
    let options = Options::read(&head.headers, query)?;
    upgrade(head, Session { app: app.clone(), standing: Standing::Refused(reason), options, address: None })
}

fn upgrade(head: &Parts, session: Session) -> Result<Response<Body>, Problem> {
    let response = accept(head, &[PROTOCOL])?;
    let handover = head.extensions.get::<Handover>().expect("the connection adds it to each request with `Upgrade`");
    handover.leave(session);
    Ok(response)
}

/// What is to be said on a socket that is about to become a WebSocket.
pub struct Session {
    app: App,
    standing: Standing,
    options: Options,
    address: Option<Address>,
}

/// How a client stands when its socket opens.
enum Standing {
    Known(UserIdentity),
    /// The first message is to bear the credential.
    Unknown,
    Refused(ByeReason),
}

/// How a conversation came to its end.
enum End {
    /// Told by a `bye` that was sent.
    Bye(ByeReason),
    /// To be told by a `bye`.
    Refused(ByeReason),
    Close(CloseCode, &'static str),
    /// The client closed, or there is nobody left to be told.
    Gone,
    Slow,
}

impl From<Parting> for End {
    fn from(parting: Parting) -> Self {
        match parting {
            Parting::Closed | Parting::Gone => Self::Gone,
            Parting::Fault(code, reason) => Self::Close(code, reason),
            Parting::Slow => Self::Slow,
        }
    }
}

/// The close code that goes with a `bye`: below 4100 a client comes back by itself, with backoff.
fn close_code(reason: ByeReason) -> CloseCode {
    CloseCode::from(match reason {
        ByeReason::Shutdown | ByeReason::Rotate => 4001,
        ByeReason::Slow => 4008,
        ByeReason::Overloaded => 4029,
        ByeReason::Expired => 4101,
        ByeReason::Revoked => 4103,
        ByeReason::Replaced => 4109,
    })
}

impl Session {
    /// Talks until either side ends it.
    pub async fn run<IO: AsyncRead + AsyncWrite + Unpin>(self, io: IO, read_ahead: bytes::Bytes) {
        let app = self.app.clone();
        let mut socket = WebSocket::open(Metered::new(io), read_ahead, MAX_MESSAGE_BYTES).await;
        match self.talk(&mut socket).await {
            End::Bye(reason) => Box::pin(socket.close(close_code(reason), reason.as_str())).await,
            End::Refused(reason) => {
                if socket.send(vec![text(&Frame::bye(reason, app.broker().retry_ms(reason)))]).await.is_ok() {
                    Box::pin(socket.close(close_code(reason), reason.as_str())).await;
                }
            }
            End::Close(code, reason) => Box::pin(socket.close(code, reason)).await,
            End::Slow => count(&app, ByeReason::Slow),
            End::Gone => Box::pin(socket.leave()).await,
        }
    }

    async fn talk<IO: AsyncRead + AsyncWrite + Unpin>(self, socket: &mut WebSocket<IO>) -> End {
        let Self { app, standing, options, address } = self;
        let allowance = RateLimiter::direct(Quota::per_second(MESSAGES_A_SECOND).allow_burst(MESSAGES_AT_ONCE));
        let mut talk = Talk { app: &app, socket, allowance };
        let who = match standing {
            Standing::Known(who) => who,
            Standing::Refused(reason) => return End::Refused(reason),
            Standing::Unknown => match Box::pin(talk.authenticate()).await {
                Ok(who) => who,
                Err(end) => return end,
            },
        };
        let Options { resume, snapshot, filter, heartbeat, .. } = options;
        let Ok(seat) = app.meters().seat(&app.config().limits, &who.user, Sole::of(&who), address) else {
            count(&app, ByeReason::Overloaded);
            return End::Refused(ByeReason::Overloaded);
        };
        match app.broker().open_feed(who.clone(), FeedRequest { resume, snapshot, filter }) {
            Ok(feed) => {
                let live = LiveStream::new("ws", Some(seat), app.metrics());
                talk.serve(who, feed, heartbeat, &live).await
            }
            Err(reason) => End::Refused(reason),
        }
    }
}

struct Talk<'t, IO> {
    app: &'t App,
    socket: &'t mut WebSocket<IO>,
    /// What the client may still send.
    allowance: DefaultDirectRateLimiter,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Talk<'_, IO> {
    /// Waits for the credential.
    async fn authenticate(&mut self) -> Result<UserIdentity, End> {
        let deadline = Instant::now() + AUTH_TIMEOUT;
        loop {
            let app = self.app;
            let heard = tokio::select! {
                biased;
                heard = timeout_at(deadline, self.hear()) => match heard {
                    Ok(heard) => heard?,
                    Err(_) => return Err(End::Close(close_code(ByeReason::Expired), "no credential came in time")),
                },
                () = app.lifecycle().draining() => return Err(End::Refused(ByeReason::Shutdown)),
            };
            let Heard::Text(text) = heard else { continue };
            let Request { reference, operation } = operation::parse(&text);
            match operation {
                Ok(Operation::Auth { token }) => match self.app.broker().check_user_token(&token) {
                    Ok(who) => {
                        self.reply(reference, Ok(AuthBody { user: who.user.as_str() })).await?;
                        return Ok(who);
                    }
                    Err(error) => {
                        let reason = if error == AuthError::Revoked { ByeReason::Revoked } else { ByeReason::Expired };
                        self.reply(reference, Err::<Nothing, _>(error.into())).await?;
                        return Err(End::Close(close_code(reason), "the token is not good"));
                    }
                },
                Ok(_) => {
                    let problem = problem::UNAUTHENTICATED.because("send {\"op\":\"auth\",\"token\":…} first");
                    self.reply(reference, Err::<Nothing, _>(problem)).await?;
                }
                Err(refused) => self.reply(reference, Err::<Nothing, _>(refused.into())).await?,
            }
        }
    }

    /// Says what the feed brings and does what the client asks, until one of them ends.
    async fn serve(&mut self, mut who: UserIdentity, mut feed: Feed, heartbeat: Heartbeat, live: &LiveStream) -> End {
        let mut pulse = Pulse::new(self.app.broker().config().heartbeat);
        loop {
            let step = tokio::select! {
                biased;
                heard = self.hear() => match heard {
                    Err(end) => return end,
                    Ok(heard) => {
                        pulse.heard();
                        // Boxed: an idle socket keeps the room of its largest moment.
                        Box::pin(self.obey(heard, &mut who, feed.stream_id())).await
                    }
                },
                item = feed.next() => match item {
                    Some(FeedItem::Frames(frames)) => {
                        live.delivered(&frames, frames.iter().map(|frame| frame.object().len()).sum());
                        self.say(&frames).await
                    }
                    Some(FeedItem::Bye(reason, bye)) => {
                        live.delivered(std::slice::from_ref(&bye), bye.object().len());
                        return self.say(&[bye]).await.err().unwrap_or(End::Bye(reason));
                    }
                    None => return End::Gone,
                },
                () = sleep_until(pulse.next) => match pulse.beat() {
                    Beat::Ping => self.ping(heartbeat).await,
                    Beat::Dead => {
                        count(self.app, ByeReason::Slow);
                        return End::Close(close_code(ByeReason::Slow), "no pong came in time");
                    }
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// What the client says next, as far as it may. Dropping the future loses nothing.
    async fn hear(&mut self) -> Result<Heard, End> {
        let heard = self.socket.hear().await?;
        if self.allowance.check().is_err() {
            count(self.app, ByeReason::Overloaded);
            return Err(End::Refused(ByeReason::Overloaded));
        }
        match heard {
            Heard::Binary(_) => Err(End::Close(CloseCode::Unsupported, "operations are text")),
            heard => Ok(heard),
        }
    }

    async fn obey(&mut self, heard: Heard, who: &mut UserIdentity, stream: StreamId) -> Result<(), End> {
        let Heard::Text(text) = heard else { return Ok(()) };
        let Request { reference, operation } = operation::parse(&text);
        let broker = self.app.broker();
        match operation {
            Ok(Operation::Ping) => self.reply(reference, Ok(Nothing {})).await,
            Ok(Operation::Mark(body)) => {
                let marked = match self.app.meters().mark(&who.user) {
                    Ok(()) => broker.mark(who, body).await.map_err(Problem::from),
                    Err(limited) => Err(limited.into()),
                };
                self.reply(reference, marked.as_ref().map(MarkedBody::new).map_err(Problem::clone)).await
            }
            Ok(Operation::Refresh { token }) => {
                let refreshed = refresh(broker, &token, who, stream).await;
                self.reply(reference, refreshed).await
            }
            Ok(Operation::Follow { topic, last }) => {
                let changed = broker.follow_own(who, &topic, last).await;
                self.reply(reference, followed(&topic, true, changed)).await
            }
            Ok(Operation::Unfollow { topic }) => {
                let changed = broker.unfollow_own(who, &topic).await;
                self.reply(reference, followed(&topic, false, changed)).await
            }
            Ok(Operation::Mute { topic }) => {
                let changed = broker.mute(who, &topic, Mute::On).await;
                self.reply(reference, muted(&topic, true, changed)).await
            }
            Ok(Operation::Unmute { topic }) => {
                let changed = broker.mute(who, &topic, Mute::Off).await;
                self.reply(reference, muted(&topic, false, changed)).await
            }
            Ok(Operation::Auth { .. }) => {
                let problem = problem::BAD_OPERATION
                    .because("this connection has its credential; `refresh` takes a new token of the same user");
                self.reply(reference, Err::<Nothing, _>(problem)).await
            }
            Err(refused) => self.reply(reference, Err::<Nothing, _>(refused.into())).await,
        }
    }

    async fn reply<T: Serialize>(&mut self, to: Option<&RawValue>, result: Result<T, Problem>) -> Result<(), End> {
        let body = match result {
            Ok(result) => answer::to_json(&Done { reference: to, ok: true, result }),
            Err(problem) => {
                problem::count(&problem, self.app.metrics());
                let problem = ProblemBody { problem: &problem, base_path: &self.app.config().base_path };
                answer::to_json(&Failed { reference: to, ok: false, problem })
            }
        };
        let text = Utf8Bytes::try_from(body).expect("JSON is UTF-8");
        Ok(self.socket.send(vec![Message::Text(text)]).await?)
    }

    async fn say(&mut self, frames: &[SharedFrame]) -> Result<(), End> {
        Ok(self.socket.send(frames.iter().map(|frame| text(frame)).collect()).await?)
    }

    /// A sign of life that the client's library answers, and one that a page can see, where it asked for that.
    async fn ping(&mut self, heartbeat: Heartbeat) -> Result<(), End> {
        let visible = (heartbeat == Heartbeat::Event).then(|| text(&Frame::heartbeat()));
        let ping = Message::Ping(bytes::Bytes::new());
        Ok(self.socket.send(visible.into_iter().chain([ping]).collect()).await?)
    }
}

fn text(frame: &Frame) -> Message {
    Message::Text(Utf8Bytes::try_from(frame.object().clone()).expect("an event is UTF-8"))
}

fn count(app: &App, reason: ByeReason) {
    app.metrics().byes.get_or_create(&[("reason", reason.as_str())]).inc();
}

async fn refresh(
    broker: &Broker,
    token: &str,
    who: &mut UserIdentity,
    stream: StreamId,
) -> Result<RefreshedBody, Problem> {
    let fresh = broker.check_user_token(token)?;
    let expires = broker.refresh(stream, &fresh).await?;
    *who = fresh;
    Ok(expires.into())
}

fn followed(topic: &TopicName, following: bool, changed: Result<bool, BrokerError>) -> Result<FollowBody<'_>, Problem> {
    Ok(FollowBody { topic: topic.as_str(), user: None, following, changed: changed? })
}

fn muted(topic: &TopicName, muted: bool, changed: Result<bool, BrokerError>) -> Result<MuteBody<'_>, Problem> {
    Ok(MuteBody { topic: topic.as_str(), user: None, muted, changed: changed? })
}

#[derive(Serialize)]
struct AuthBody<'a> {
    user: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Body(error) => error.into(),
            Refused::Unknown(name) => problem::BAD_OPERATION.because(format!(
                "there is no operation `{}`; there are {}",
                name.escape_debug(),
                Operation::NAMES.join(", ")
            )),
        }
    }
}

/// When to ping, and when to give up.
struct Pulse {
    every: Duration,
    next: Instant,
    /// Whether a ping is out and nothing was heard since.
    waits: bool,
}

enum Beat {
    Ping,
    Dead,
}

impl Pulse {
    fn new(every: Duration) -> Self {
        Self { every, next: Instant::now() + every, waits: false }
    }

    /// Whatever a client says shows that it lives.
    fn heard(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.next = self.next - PONG_TIMEOUT + self.every;
        }
    }

    /// What is due at `next`.
    fn beat(&mut self) -> Beat {
        if self.waits {
            return Beat::Dead;
        }
        self.waits = true;
        self.next = Instant::now() + PONG_TIMEOUT;
        Beat::Ping
    }
}

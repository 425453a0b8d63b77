//! Connections that are kept while nothing happens: how long each lives, and what still came.
//!
//! Proxies count silence, and each cuts after a time of its own. What must live on is a stream, which has its
//! heartbeats; a WebSocket, which has its pings; and a long poll, which is silent for all of its `wait`.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{interval, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::answer::{Bye, read};
use super::events::Events;
use super::figures::{Answer, Head, Life, Poll, Silence};
use super::line::{Line, LineError, Offer, Question, Way, whole};
use crate::cli::progress;

/// Seconds that long polls wait: what clients ask for by default, and the most they may.
const POLL_WAITS: [u64; 2] = [25, 60];
/// How much longer than its `wait` a poll may take.
const POLL_GRACE: Duration = Duration::from_secs(10);

/// A stream that is read, and the connection it came on.
pub(super) struct Open {
    pub(super) events: Events,
    /// The stream ends with it.
    pub(super) _line: Line,
}

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// An event on a WebSocket, as far as it is read.
#[derive(Deserialize)]
struct SocketEvent {
    event: String,
    data: Option<Bye>,
}

/// What makes a poll's answer whole.
#[derive(Deserialize)]
struct Polled {
    #[serde(rename = "events")]
    _events: Vec<IgnoredAny>,
}

/// The waits of the polls that such a silence has room for.
pub(super) fn waits(idle: Duration) -> Vec<u64> {
    let fitting: Vec<u64> = POLL_WAITS.into_iter().filter(|wait| *wait <= idle.as_secs()).collect();
    if fitting.is_empty() { vec![idle.as_secs().max(1)] } else { fitting }
}

/// Watches for as long as `idle` and, for polls, until they are answered. `polls` have their waits and tickets.
pub(super) async fn watch(
    way: &Way,
    stream: Option<Open>,
    socket: Option<Socket>,
    polls: Vec<(u64, String)>,
    idle: Duration,
) -> Silence {
    let until = tokio::time::Instant::now() + idle;
    let stream = join_all(stream.map(|stream| life_of_stream(stream, until)));
    let socket = join_all(socket.map(|socket| life_of_socket(socket, until)));
    let polls = join_all(polls.into_iter().map(|(wait, ticket)| poll(way, wait, ticket)));
    let bar = progress::bar("seconds of silence");
    bar.set_length(idle.as_secs());
    let (mut stream, mut websocket, polls) = tokio::select! {
        watched = async { tokio::join!(stream, socket, polls) } => watched,
        never = count_seconds(&bar) => match never {},
    };
    bar.finish_and_clear();
    Silence { watched_s: idle.as_secs_f64(), stream: stream.pop(), websocket: websocket.pop(), polls }
}

async fn count_seconds(bar: &ProgressBar) -> Infallible {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        seconds.tick().await;
        bar.inc(1);
    }
}

async fn life_of_stream(mut stream: Open, until: tokio::time::Instant) -> Life {
    let begun = Instant::now();
    let mut life = Life::default();
    while let Ok(next) = timeout_at(until, stream.events.next()).await {
        match next {
            Ok(arrival) if arrival.name.is_none() => life.heartbeats += 1,
            Ok(arrival) if arrival.name.as_deref() == Some("bye") => {
                life.bye = read::<Bye>(&arrival.data).map(|bye| bye.reason);
            }
            Ok(_) => {}
            Err(ended) => {
                life.ended = Some(ended.0);
                break;
            }
        }
    }
    life.after(begun, stream.events.last_byte)
}

/// The library answers pings while we wait for messages.
async fn life_of_socket(mut socket: Socket, until: tokio::time::Instant) -> Life {
    let begun = Instant::now();
    let mut last = None;
    let mut life = Life::default();
    while let Ok(next) = timeout_at(until, socket.next()).await {
        match next {
            Some(Ok(message)) => {
                last = Some(Instant::now());
                match message {
                    Message::Ping(_) => life.heartbeats += 1,
                    Message::Text(text) => {
                        let bye = read::<SocketEvent>(&text).filter(|message| message.event == "bye");
                        life.bye = bye.and_then(|message| message.data).map(|bye| bye.reason).or(life.bye);
                    }
                    _ => {}
                }
                continue;
            }
            Some(Err(error)) => life.ended = Some(error.to_string()),
            None => life.ended = Some("the connection was closed".to_owned()),
        }
        break;
    }
    life.after(begun, last)
}

async fn poll(way: &Way, wait_s: u64, ticket: String) -> Poll {
    let asked = Instant::now();
    let question = Question::get(format!("/v1/poll?cursor=now&wait={wait_s}&ticket={ticket}"));
    let answered = async {
        let mut line = way.open(Offer::Newest).await?;
        let response = line.ask(question, Duration::from_secs(wait_s) + POLL_GRACE).await?;
        let head = Head::of(&response, asked);
        if head.status != 200 {
            return Ok((head.with_code(response.into_body()).await, false));
        }
        let text = whole(response.into_body(), POLL_GRACE).await?;
        Ok((head, read::<Polled>(&String::from_utf8_lossy(&text)).is_some()))
    };
    let (answer, whole) = match answered.await {
        Ok((head, whole)) => (Answer::Came(head), whole),
        Err::<_, LineError>(error) => (Answer::from(error), false),
    };
    Poll { wait_s, took_s: seconds(asked.elapsed()), answer, whole }
}

impl Life {
    fn after(self, begun: Instant, last: Option<Instant>) -> Self {
        let silent = last.unwrap_or(begun).max(begun).elapsed();
        Self { lived_s: seconds(begun.elapsed()), silent_s: seconds(silent), ..self }
    }
}

/// Seconds with one digit behind the point.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_wait_as_long_as_the_silence_has_room_for() {
        let of = |seconds| waits(Duration::from_secs(seconds));
        assert_eq!((of(75), of(60), of(59), of(24)), (vec![25, 60], vec![25, 60], vec![25], vec![24]));
        assert_eq!(waits(Duration::from_millis(300)), [1]);
    }
}

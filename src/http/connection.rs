//! One connection: hyper on one socket, from the first byte to the last; or to the `101` of a WebSocket, for which hyper
//! gives the socket up.
//!
//! Limits of time and size are set here; what is refused before there is a request gets its problem document here too.
//! `half_close` stays off: a client that closes its sending side is gone, which is how a closed stream is noticed
//! although nothing is written to it.
//!
//! It deliberately does not end streams when the server drains: the broker says `bye` on each, and hyper's graceful
//! shutdown only waits.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::UPGRADE;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};
use tower::{Layer as _, ServiceExt as _};

use super::body::Body;
use super::service::{MAX_HEAD_BYTES, headers_too_large};
use super::socket::{self, Socket};
use super::upgrade::Handover;
use super::{App, Config, Peer, answer, problem};
use crate::lifecycle::Lifecycle;
use crate::wire::event::ByeReason;
use crate::wire::problem::{Problem, ProblemBody};

/// How long a connection that has not asked anything yet may still do so when the server drains. Its client was let
/// in; closing at once would lose the request that is on its way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How long one that has been answered before is kept. A proxy that keeps connections may send the next request just as
/// we close, and must not send it again by itself if it is a POST; within this time it is answered, with the word that the
/// connection ends.
const KEPT_GRACE: Duration = Duration::from_millis(250);
/// How long, and for how many bytes, a client may go on sending what nobody reads after its last answer. Closing with
/// unread bytes makes the kernel reset the connection, and the answer is lost with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// How long the head of a watcher's request may take, and its connection be idle.
const WATCHER_PATIENCE: Duration = Duration::from_secs(2);

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Serves one connection until either side ends it. A panic ends this connection only.
pub async fn serve_connection<IO>(app: &App, io: IO, peer: Peer)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let metrics = app.metrics();
    metrics.sockets.inc();
    if AssertUnwindSafe(serve(app, io, peer)).catch_unwind().await.is_err() {
        tracing::error!("a connection panicked");
        metrics.panics.inc();
    }
    metrics.sockets.dec();
}

async fn serve<IO>(app: &App, io: IO, peer: Peer)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let asked = AtomicBool::new(false);
    let drain = drained(app.lifecycle(), &asked);
    let answering = app.clone();
    let answer = tower::service_fn(move |request| {
        let app = answering.clone();
        async move { Ok::<_, Infallible>(app.answer(peer, request).await) }
    });
    let handover = Handover::default();
    // Boxed, since hyper keeps room for a whole future in every idle connection.
    let service = service_fn(|mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(handover.clone());
        }
        match app.cors() {
            Some(cors) => Box::pin(cors.layer(answer.clone()).oneshot(request)) as Answering,
            None => Box::pin(answer.clone().oneshot(request)),
        }
    });
    let config = app.config();
    // There are few places for those who watch, and they ask at once.
    let patience =
        if peer == Peer::Watcher { config.header_timeout.min(WATCHER_PATIENCE) } else { config.header_timeout };
    if let Err(e) = drive(&config, patience, io, service, drain, &handover).await {
        if is_slow(&e) {
            app.metrics().byes.get_or_create(&[("reason", ByeReason::Slow.as_str())]).inc();
        }
        tracing::debug!(cause = %e, "a connection ended early");
    }
}

/// Resolves when the connection should end: a little after the drain begins, later where nothing was asked yet.
async fn drained(lifecycle: &Lifecycle, asked: &AtomicBool) {
    lifecycle.draining().await;
    sleep(if asked.load(Ordering::Relaxed) { KEPT_GRACE } else { FIRST_REQUEST_GRACE }).await;
}

/// Runs hyper on a socket until the connection is done or `drain` resolves and what is in flight is answered. Where a
/// session was left in `handover`, it has the socket from there on.
async fn drive<IO, S>(
    config: &Config,
    patience: Duration,
    io: IO,
    service: S,
    drain: impl Future<Output = ()>,
    handover: &Handover,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible> + Unpin,
    S::Future: Unpin,
{
    let io = TokioIo::new(Socket::new(io, config.write_timeout));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(io, service);

    let mut drain = pin!(drain.fuse());
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = &mut drain => Pin::new(&mut connection).graceful_shutdown(),
        }
    };
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    match &ended {
        Ok(()) => match handover.take() {
            Some(session) => Box::pin(session.run(io, parts.read_buf)).await,
            None => linger(&mut io).await,
        },
        Err(e) => {
            if let Some(problem) = refusal(e, !parts.read_buf.is_empty()) {
                refuse(&mut io, &problem, &config.base_path).await;
            }
        }
    }
    ended
}

/// The problem to tell for a request that hyper could not read.
fn refusal(error: &hyper::Error, begun: bool) -> Option<Problem> {
    if error.is_parse_too_large() {
        Some(headers_too_large())
    } else if error.is_parse() {
        Some(problem::BAD_REQUEST.because("these bytes are no request"))
    } else if error.is_timeout() && begun {
        Some(problem::TIMEOUT.because("the head of the request did not come in time"))
    } else {
        None // The client is gone, or was only keeping the connection.
    }
}

/// Writes a whole answer by hand, where there is no request that hyper could answer.
async fn refuse(io: &mut (impl AsyncRead + AsyncWrite + Unpin), problem: &Problem, base_path: &str) {
    let body = answer::to_json(&ProblemBody { problem, base_path });
    let reason = http::StatusCode::from_u16(problem.status).ok().and_then(|status| status.canonical_reason());
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
        problem.status,
        reason.unwrap_or_default(),
        body.len(),
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    if io.write_all(&bytes).await.is_ok() {
        linger(io).await;
    }
}

/// Closes the sending side, then reads and drops what still comes until the client closes too.
pub async fn linger(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = timeout(LINGER, async {
        io.shutdown().await?;
        let mut dropped = 0;
        // On the heap, since every connection keeps room for its whole future from the beginning.
        let mut buffer = vec![0; 4096];
        while dropped < LINGER_BYTES {
            match io.read(&mut buffer).await? {
                0 => break,
                read => dropped += read,
            }
        }
        io::Result::Ok(())
    })
    .await;
}

/// Whether the connection was cut because the client took nothing.
fn is_slow(error: &hyper::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).is_some_and(socket::is_slow)
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// Sends bytes to a server that answers "hello", and reads what comes until it closes.
    async fn exchange(sent: &[u8], drain: impl Future<Output = ()>) -> String {
        let (near, mut far): (DuplexStream, DuplexStream) = tokio::io::duplex(1024 * 1024);
        far.write_all(sent).await.expect("room for all of it");
        let config = Config::default();
        let service = service_fn(|_| std::future::ready(Ok(Response::new(Body::Full("hello".into())))));
        let (mut answered, handover) = (String::new(), Handover::default());
        let (_, read) = tokio::join!(
            drive(&config, config.header_timeout, near, service, drain, &handover),
            far.read_to_string(&mut answered)
        );
        read.expect("the server closes");
        answered
    }

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn what_hyper_refuses_is_a_problem_document() {
        let endless = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &b"x".repeat(100_000)].concat();
        let many = [b"GET / HTTP/1.1\r\n".as_slice(), &b"x: y\r\n".repeat(200), b"\r\n"].concat();
        for (sent, status, code) in [
            (endless.as_slice(), "431 ", "headers-too-large"),
            (many.as_slice(), "431 ", "headers-too-large"),
            (b"nonsense\r\n\r\n".as_slice(), "400 ", "bad-request"),
            (b"GET / HTTP/1.1\r\nhos".as_slice(), "408 ", "timeout"),
        ] {
            let answered = exchange(sent, std::future::pending()).await;
            assert!(answered.starts_with(&format!("HTTP/1.1 {status}")), "{answered}");
            assert!(answered.contains(&format!("\"code\":\"{code}\"")), "{answered}");
            assert_eq!(answered.matches("HTTP/1.1").count(), 1, "{answered}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_without_a_word() {
        assert_eq!(exchange(b"", std::future::pending()).await, "");
        let answered = exchange(ASK, std::future::pending()).await;
        assert!(answered.starts_with("HTTP/1.1 200 OK") && answered.ends_with("hello"), "{answered}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_told_from_one_that_left() {
        let config = Config::default();
        let endless = service_fn(|_| {
            let chunks = futures_util::stream::repeat(bytes::Bytes::from_static(&[b'x'; 1024]));
            std::future::ready(Ok(Response::new(Body::Stream(Box::pin(chunks)))))
        });
        let (near, mut far) = tokio::io::duplex(4096);
        far.write_all(ASK).await.expect("room for all of it");
        let cut = drive(&config, config.header_timeout, near, endless, std::future::pending(), &Handover::default())
            .await
            .expect_err("nobody reads");
        assert!(is_slow(&cut), "{cut:?}");
        let (near, mut far) = tokio::io::duplex(4096);
        far.write_all(ASK).await.expect("room for all of it");
        drop(far);
        let left =
            drive(&config, config.header_timeout, near, endless, std::future::pending(), &Handover::default()).await;
        assert!(!left.is_err_and(|e| is_slow(&e)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_let_in_may_still_ask_when_the_drain_begins() {
        let lifecycle = Lifecycle::default();
        lifecycle.drain();
        let started = tokio::time::Instant::now();
        drained(&lifecycle, &AtomicBool::new(true)).await;
        assert_eq!(started.elapsed(), KEPT_GRACE);
        drained(&lifecycle, &AtomicBool::new(false)).await;
        assert_eq!(started.elapsed(), KEPT_GRACE + FIRST_REQUEST_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drained_connection_answers_what_was_asked() {
        let answered = exchange(ASK, sleep(Duration::from_millis(10))).await;
        assert!(answered.ends_with("hello"), "{answered}");
    }
}

//! An echo over the WebSocket set-up of `/v1/ws`, for protocol test suites to be pointed at:
//!
//! ```sh
//! cargo run --release --example ws_echo -- --listen 127.0.0.1:9001
//! ```
//!
//! Text and binary messages come back as they are; what breaks the standard is closed with the code that says why. The
//! handshake, the framing, the limits and the closing are the server's own (`tidings::http::upgrade`), on hyper driven as
//! the server drives it. It differs in what is over and below that: any path opens a WebSocket, binary is taken, nothing is
//! limited in time, and a message may have 64 MiB, since suites send 16 MiB; `/v1/ws` passes 64 KiB there.

#![allow(clippy::print_stdout, reason = "the line that says where it listens is for who started it")]

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidings::http::Body;
use tidings::http::upgrade::{Heard, Parting, WebSocket, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

/// Echoes WebSocket messages, on the same set-up as Tidings' own.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Bytes of a message at most, and of each frame.
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    max_message: usize,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen).await?;
    println!("echoing on ws://{}", listener.local_addr()?);
    echo_all(listener, args.max_message).await
}

/// Echoes on every connection that comes.
///
/// # Errors
/// Where no connection can be accepted any more.
pub async fn echo_all(listener: TcpListener, max_message: usize) -> std::io::Result<()> {
    let connections = TaskTracker::new();
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        connections.spawn(serve(tcp, max_message));
    }
}

/// HTTP up to the `101`, then the echo on what hyper gives up.
async fn serve(tcp: TcpStream, max_message: usize) {
    let is_open = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = accept(&request.into_parts().0, &[]).unwrap_or_else(|problem| {
            let mut refusal = Response::new(Body::Full(problem.detail.into()));
            *refusal.status_mut() = StatusCode::from_u16(problem.status).expect("every problem has a valid status");
            refusal
        });
        is_open.store(answer.status() == StatusCode::SWITCHING_PROTOCOLS, Ordering::Relaxed);
        ready(Ok::<_, Infallible>(answer))
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
    let ended = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    if ended.is_ok() && is_open.load(Ordering::Relaxed) {
        echo(WebSocket::open(parts.io.into_inner(), parts.read_buf, max_message).await).await;
    }
}

async fn echo(mut socket: WebSocket<TcpStream>) {
    match echo_until_parting(&mut socket).await {
        Parting::Fault(code, reason) => socket.close(code, reason).await,
        Parting::Closed | Parting::Gone => socket.leave().await,
        Parting::Slow => {}
    }
}

async fn echo_until_parting(socket: &mut WebSocket<TcpStream>) -> Parting {
    loop {
        let message = match socket.hear().await {
            Ok(Heard::Text(text)) => Message::Text(text),
            Ok(Heard::Binary(bytes)) => Message::Binary(bytes),
            Ok(Heard::Alive) => continue,
            Err(parting) => return parting,
        };
        if let Err(parting) = socket.send(vec![message]).await {
            return parting;
        }
    }
}

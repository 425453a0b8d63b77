//! From HTTP to a WebSocket (RFC 6455): the opening handshake, the limits of every socket, and a proper end.
//!
//! hyper reads the request and writes the `101`; then the connection gives the socket up, and it is framed here. Nothing
//! of hyper is kept for as long as the WebSocket lives.
//!
//! **Invariant**: whatever a client sends, it costs its own connection only, and it is told why by a close code where
//! the standard has one.
//!
//! `examples/ws_echo.rs` serves exactly this to protocol test suites; what Tidings says over it is in `stream::websocket`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::body::Body;
use super::connection::linger;
use super::problem;
use super::socket::is_slow;
use super::stream::Session;
use crate::wire::problem::Problem;

/// What a socket reads in one go. The library's default would cost every idle connection 128 KiB.
const READ_BUFFER: usize = 1024;
/// What is collected before it is written; a flush writes it in any case.
const WRITE_BUFFER: usize = 4 * 1024;
/// How long the other side has to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a handler leaves what is to run on the socket once the `101` is written. One a connection.
#[derive(Clone, Default)]
pub(super) struct Handover(Arc<Mutex<Option<Session>>>);

impl Handover {
    pub(super) fn leave(&self, session: Session) {
        *self.0.lock() = Some(session);
    }

    pub(super) fn take(&self) -> Option<Session> {
        self.0.lock().take()
    }
}

/// Answers the opening handshake (RFC 6455, 4.2) with a `101`. Of the subprotocols that the client offers the first that
/// is also ours is taken; a client that offers none gets none.
///
/// # Errors
/// 426 for a request that is no upgrade to a WebSocket of version 13; 400 for one that is broken.
pub fn accept(head: &Parts, protocols: &[&'static str]) -> Result<Response<Body>, Problem> {
    let headers = &head.headers;
    if head.version != Version::HTTP_11 {
        return Err(problem::UPGRADE_REQUIRED.because("a WebSocket begins with a request in HTTP/1.1"));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(problem::UPGRADE_REQUIRED.because("the request lacks `Upgrade: websocket`"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(problem::UPGRADE_REQUIRED
            .because("the request lacks `Connection: Upgrade`; a proxy in between may have dropped it"));
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(problem::UPGRADE_REQUIRED.because("only version 13 is spoken: `Sec-WebSocket-Version: 13`"));
    }
    let key = single(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or_else(|| {
        problem::BAD_HANDSHAKE.because("`Sec-WebSocket-Key` must stand once and be 16 bytes in base64")
    })?;
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if has_body {
        return Err(problem::BAD_HANDSHAKE.because("a request that opens a WebSocket has no body"));
    }

    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answered = response.headers_mut();
    answered.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answered.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is ASCII");
    answered.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    let offered: Vec<_> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    // Compared exactly: a client fails at a name that it did not offer (4.1).
    if let Some(protocol) = protocols.iter().find(|protocol| offered.contains(protocol)) {
        answered.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(response)
}

/// Whether a header that is a list of tokens names this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|part| part.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).map(str::trim)
}

/// The value of a header that stands exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

fn is_key(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 16)
}

/// What a client sent.
#[derive(Debug)]
pub enum Heard {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A ping, which has been answered, or a pong.
    Alive,
}

/// Why nothing more will be heard.
#[derive(Debug)]
pub enum Parting {
    /// The client closed, and its close has been answered.
    Closed,
    /// The client broke the standard or a limit: it is to be told by this code.
    Fault(CloseCode, &'static str),
    /// The connection is gone.
    Gone,
    /// The client has accepted no byte for as long as a write may take.
    Slow,
}

impl From<Error> for Parting {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Closed,
            Error::Capacity(_) => Self::Fault(CloseCode::Size, "the message is too big"),
            Error::Utf8(_) => Self::Fault(CloseCode::Invalid, "the text is not UTF-8"),
            Error::Io(error) if is_slow(&error) => Self::Slow,
            Error::Protocol(error) if is_loss(&error) => Self::Gone,
            Error::Protocol(_) => Self::Fault(CloseCode::Protocol, "RFC 6455 has it otherwise"),
            _ => Self::Gone,
        }
    }
}

fn is_loss(error: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    matches!(error, tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)
}

/// One WebSocket, the server's end.
pub struct WebSocket<IO>(WebSocketStream<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> WebSocket<IO> {
    /// Frames a socket on which the `101` was written. `read_ahead` is what the client has sent behind its request;
    /// `max_message` bounds a message, and each frame of it, in bytes.
    pub async fn open(io: IO, read_ahead: Bytes, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        Self(WebSocketStream::from_partially_read(io, read_ahead.into(), Role::Server, Some(config)).await)
    }

    /// Waits for what the client says next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Parting`], after which only [`WebSocket::close`] makes sense.
    pub async fn hear(&mut self) -> Result<Heard, Parting> {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => Ok(Heard::Text(text)),
                Some(Ok(Message::Binary(bytes))) => Ok(Heard::Binary(bytes)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Heard::Alive),
                // The library has made the answer; going on reading sends it and comes to the end.
                Some(Ok(Message::Close(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => Err(error.into()),
                None => Err(Parting::Closed),
            };
        }
    }

    /// Writes messages in one go.
    ///
    /// # Errors
    /// [`Parting`].
    pub async fn send(&mut self, messages: Vec<Message>) -> Result<(), Parting> {
        for message in messages {
            self.0.feed(message).await?;
        }
        Ok(self.0.flush().await?)
    }

    /// Closes with a code, and waits a little for the client's answer, so that the code is not lost on the way.
    pub async fn close(mut self, code: CloseCode, reason: &'static str) {
        let close = CloseFrame { code, reason: reason.into() };
        let _ = timeout(CLOSE_TIMEOUT, async {
            if self.0.close(Some(close)).await.is_ok() {
                while let Some(Ok(_)) = self.0.next().await {}
            }
        })
        .await;
        self.leave().await;
    }

    /// Ends the connection below, without another word.
    pub async fn leave(self) {
        linger(&mut self.0.into_inner()).await;
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn answer(headers: &[(&str, &str)]) -> Result<Response<Body>, u16> {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        let (head, ()) = request.body(()).expect("a valid head").into_parts();
        accept(&head, &["tidings.v1"]).map_err(|problem| problem.status)
    }

    fn with(name: &str, value: &str) -> Result<Response<Body>, u16> {
        let others = GOOD.iter().filter(|(known, _)| *known != name).copied();
        answer(&others.chain([(name, value)]).collect::<Vec<_>>())
    }

    #[test]
    fn the_key_of_the_standard_gets_the_answer_of_the_standard() {
        let answered = answer(&GOOD).expect("a good handshake");
        assert_eq!(answered.status(), 101);
        assert_eq!(answered.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answered.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn our_subprotocol_is_taken_wherever_it_stands() {
        let answered = answer(&[&GOOD[..], &[("sec-websocket-protocol", "chat, tidings.v1")]].concat());
        assert_eq!(answered.expect("a good handshake").headers()["sec-websocket-protocol"], "tidings.v1");
        for other in ["tidings.v2", "TIDINGS.v1"] {
            let answered = answer(&[&GOOD[..], &[("sec-websocket-protocol", other)]].concat());
            assert!(!answered.expect("a good handshake").headers().contains_key("sec-websocket-protocol"), "{other}");
        }
    }

    #[test]
    fn half_an_upgrade_is_told_what_it_lacks() {
        for missing in ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"] {
            let rest: Vec<_> = GOOD.into_iter().filter(|(name, _)| *name != missing).collect();
            let expected = if missing == "sec-websocket-key" { 400 } else { 426 };
            assert_eq!(answer(&rest).err(), Some(expected), "without {missing}");
        }
        for (name, value, status) in [
            ("upgrade", "h2c", 426),
            ("connection", "close", 426),
            ("sec-websocket-version", "8", 426),
            ("sec-websocket-key", "c2hvcnQ=", 400),
            ("sec-websocket-key", "not base64 at all!", 400),
            ("content-length", "5", 400),
            ("transfer-encoding", "chunked", 400),
        ] {
            assert_eq!(with(name, value).err(), Some(status), "{name}: {value}");
        }
        let twice = [&GOOD[..], &GOOD[3..]].concat();
        assert_eq!(answer(&twice).err(), Some(400), "two keys");
    }
}

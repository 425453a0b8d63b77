//! Bodies: the one type that every answer bears, and reading a request's body under its limits.

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::problem;
use crate::wire::problem::Problem;

/// The body of every answer.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Full(Bytes),
    /// Chunks as they come, for as long as they come.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(chunks) => {
                chunks.as_mut().poll_next(cx).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// How much of a body is taken, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes at most.
    pub bytes: usize,
    /// Silence at most.
    pub idle: Duration,
}

/// Refuses a body by its headers, before a byte of it is read (and before `100 Continue` is sent).
///
/// # Errors
/// 415 where it is encoded, 413 where its length is over the limit.
pub fn check_headers(headers: &HeaderMap, max_bytes: usize) -> Result<(), Problem> {
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err(problem::CONTENT_ENCODING.because("send the body without Content-Encoding"));
    }
    // Hyper has refused what is no number.
    let length =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    Ok(())
}

/// Reads a whole body.
///
/// # Errors
/// 413 over `limits.bytes`; 408 after `limits.idle` of silence or after `deadline`; 400 where the client went away.
pub async fn read_whole<B>(
    headers: &HeaderMap,
    body: &mut B,
    limits: Limits,
    deadline: Duration,
) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    check_headers(headers, limits.bytes)?;
    let deadline = Instant::now() + deadline;
    let mut whole = BytesMut::new();
    loop {
        let chunk = timeout_at(deadline, next_chunk(body, limits.idle)).await.unwrap_or_else(|_| Err(late()))?;
        match chunk {
            None => return Ok(whole.freeze()),
            Some(chunk) if whole.len() + chunk.len() > limits.bytes => return Err(too_large(limits.bytes)),
            Some(chunk) => whole.extend_from_slice(&chunk),
        }
    }
}

/// The next bytes of a body; `None` at its end. Dropping the future loses nothing.
///
/// # Errors
/// 408 after `idle` of silence; 400 where the client went away or its chunks are malformed.
pub async fn next_chunk<B>(body: &mut B, idle: Duration) -> Result<Option<Bytes>, Problem>
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    loop {
        match timeout(idle, body.frame()).await {
            Err(_) => return Err(late()),
            Ok(None) => return Ok(None),
            Ok(Some(Err(e))) => {
                return Err(problem::BROKEN_BODY.because(format!("the body could not be read to its end: {e}")));
            }
            // Trailers say nothing that is used here.
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

pub fn too_large(max_bytes: usize) -> Problem {
    problem::BODY_TOO_LARGE.because(format!("the body is longer than the {max_bytes} bytes that are taken here"))
}

fn late() -> Problem {
    problem::TIMEOUT.because("the body did not come in time")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_body_is_refused_by_its_headers() {
        let code = |headers: &HeaderMap| check_headers(headers, 10).err().map(|p| p.code);
        assert_eq!(code(&HeaderMap::new()), None);
        assert_eq!(code(&headers(CONTENT_LENGTH, "10")), None);
        assert_eq!(code(&headers(CONTENT_LENGTH, "11")), Some("body-too-large"));
        assert_eq!(code(&headers(CONTENT_LENGTH, "18446744073709551615")), Some("body-too-large"));
        assert_eq!(code(&headers(CONTENT_ENCODING, "Identity")), None);
        assert_eq!(code(&headers(CONTENT_ENCODING, "gzip")), Some("content-encoding"));
    }

    fn endless(chunk: &'static [u8]) -> Body {
        Body::Stream(Box::pin(futures_util::stream::repeat(Bytes::from_static(chunk))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_refused() {
        let limits = Limits { bytes: 10, idle: Duration::from_secs(30) };
        let deadline = Duration::from_mins(2);
        let headers = HeaderMap::new();
        let read = async |body: &mut Body| read_whole(&headers, body, limits, deadline).await.map_err(|p| p.code);
        assert_eq!(read(&mut Body::Full("0123456789".into())).await, Ok(Bytes::from_static(b"0123456789")));
        assert_eq!(read(&mut endless(b"abc")).await, Err("body-too-large"));
        let silent = &mut Body::Stream(Box::pin(futures_util::stream::pending()));
        let started = Instant::now();
        assert_eq!(read(silent).await, Err("timeout"));
        assert_eq!(started.elapsed(), limits.idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_only_trickles_is_given_up() {
        let trickle = futures_util::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Some((Bytes::from_static(b"x"), ()))
        });
        let limits = Limits { bytes: 1_000, idle: Duration::from_secs(30) };
        let mut body = Body::Stream(Box::pin(trickle));
        let read = read_whole(&HeaderMap::new(), &mut body, limits, Duration::from_mins(2)).await;
        assert_eq!(read.map_err(|p| p.code), Err("timeout"));
    }

    #[test]
    fn a_body_knows_its_length_unless_it_is_a_stream() {
        use http_body::Body as _;
        assert_eq!(Body::Full(Bytes::from_static(b"abc")).size_hint().exact(), Some(3));
        assert!(Body::Empty.is_end_stream());
        let stream = Body::Stream(Box::pin(futures_util::stream::empty()));
        assert_eq!(stream.size_hint().exact(), None);
        assert!(!stream.is_end_stream());
    }
}

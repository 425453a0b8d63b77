//! The socket below hyper: cuts a reader that takes nothing, and keeps hyper's own bare refusals off the wire. And what
//! lies below a WebSocket: a meter on what it sends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A socket on which a write must move at least one byte within a time.
pub struct Socket<IO> {
    io: IO,
    write_timeout: Duration,
    /// Set while a write is pending. It is made then, so that a socket that never stalls pays nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Bytes that one write hands to the kernel at most. The kernel holds little of a connection unsent (`server::accept`) and
/// asks for more when half of that has gone; a large write on top would make a reader of 1 kB/s look as if it took nothing.
const AT_ONCE: usize = 8 * 1024;

/// The first of these slices that come to no more than that, and one at least.
fn at_once<'s, 'b>(slices: &'s [io::IoSlice<'b>]) -> &'s [io::IoSlice<'b>] {
    let fits = slices.iter().scan(0, |sum, slice| {
        *sum += slice.len();
        Some(*sum)
    });
    let count = fits.take_while(|sum| *sum <= AT_ONCE).count();
    &slices[..count.max(1).min(slices.len())]
}

impl<IO> Socket<IO> {
    pub const fn new(io: IO, write_timeout: Duration) -> Self {
        Self { io, write_timeout, stalled: None }
    }

    /// Passes on what a write came to, or fails it when it has been pending for too long.
    fn watch(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, Slow)))
    }
}

/// No byte was accepted for as long as a write may be pending.
#[derive(Debug, thiserror::Error)]
#[error("the client accepted no byte in time")]
pub struct Slow;

/// Whether an error of a write is that one.
pub fn is_slow(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Slow>())
}

/// Whether this is the start of an answer that hyper made for a request it could not read: an error without a body.
/// `connection` writes a problem document in its place. Our own errors always have a body.
fn is_bare_refusal(bytes: &[u8]) -> bool {
    const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";
    bytes.starts_with(b"HTTP/1.1 4") && bytes.windows(EMPTY.len()).any(|window| window == EMPTY)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Socket<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Socket<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if is_bare_refusal(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, &bytes[..bytes.len().min(AT_ONCE)]);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = slices.first().filter(|first| is_bare_refusal(first)) {
            return Poll::Ready(Ok(first.len()));
        }
        let written = match slices.iter().find(|slice| !slice.is_empty()) {
            Some(large) if large.len() > AT_ONCE => Pin::new(&mut self.io).poll_write(cx, &large[..AT_ONCE]),
            _ => Pin::new(&mut self.io).poll_write_vectored(cx, at_once(slices)),
        };
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes a second that a client of ours has reason to send over a WebSocket, and at once.
const METER_RATE: u32 = 256 * 1024;
const METER_BURST: u32 = 1024 * 1024;

/// A socket that is read no faster than there is reason to send.
///
/// A message may come in any number of frames, and empty ones cost a processor more than a network: counting messages
/// alone would not hold back who sends a million of them a second. Who is too fast waits in the kernel's buffers.
pub struct Metered<IO> {
    io: IO,
    /// Bytes that may be read now. The last read may overdraw it.
    credit: i64,
    counted: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<IO> Metered<IO> {
    pub fn new(io: IO) -> Self {
        Self { io, credit: i64::from(METER_BURST), counted: Instant::now(), pause: None }
    }

    /// Waits until there is credit.
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.credit > 0 {
                return Poll::Ready(());
            }
            let now = Instant::now();
            let earned = now.duration_since(self.counted).as_millis().saturating_mul(u128::from(METER_RATE)) / 1_000;
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.credit = self.credit.saturating_add(earned).min(i64::from(METER_BURST));
            self.counted = now;
            if self.credit <= 0 {
                self.pause = Some(Box::pin(sleep(METER_PAUSE)));
            }
        }
    }
}

/// How long one who is too fast waits at least, so that it is not woken for every byte.
const METER_PAUSE: Duration = Duration::from_millis(50);

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_credit(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.credit -= i64::try_from(buf.filled().len() - before).unwrap_or(i64::MAX);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_write_hands_over_little_at_once_and_at_least_something() {
        let (near, _far) = tokio::io::duplex(1024 * 1024);
        let mut socket = Socket::new(near, TIMEOUT);
        let (large, small) = (vec![b'x'; 3 * AT_ONCE], vec![b'x'; AT_ONCE / 2]);
        assert_eq!(socket.write(&large).await.expect("there is room"), AT_ONCE);
        for (slices, expected) in [
            (vec![&[][..], &large, &small], AT_ONCE),
            (vec![&small[..], &small, &small], AT_ONCE),
            (vec![&small[..], &large], AT_ONCE / 2),
            (vec![&[][..], &[]], 0),
        ] {
            let slices: Vec<io::IoSlice<'_>> = slices.iter().map(|slice| io::IoSlice::new(slice)).collect();
            let total: usize = at_once(&slices).iter().map(|slice| slice.len()).sum();
            let written = socket.write_vectored(&slices).await.expect("there is room");
            assert_eq!(written, expected, "{total} of them fit");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_cut() {
        let (near, _far) = tokio::io::duplex(16);
        let started = Instant::now();
        let failed = Socket::new(near, TIMEOUT).write_all(&[b'x'; 17]).await.expect_err("nobody reads");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_kept_as_long_as_it_takes_something() {
        let (near, mut far) = tokio::io::duplex(1);
        let reader = async {
            let mut read = Vec::new();
            while read.len() < 5 {
                sleep(TIMEOUT * 9 / 10).await;
                read.push(far.read_u8().await.expect("a byte"));
            }
            read
        };
        let mut socket = Socket::new(near, TIMEOUT);
        let (written, read) = tokio::join!(socket.write_all(b"hello"), reader);
        assert!(written.is_ok());
        assert_eq!(read, b"hello");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_too_fast_is_read_later() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let sent = usize::try_from(METER_BURST + 2 * METER_RATE).unwrap_or_default();
        let started = Instant::now();
        let sending = async { far.write_all(&vec![b'x'; sent]).await };
        let mut metered = Metered::new(near);
        let reading = async {
            let mut buffer = vec![0; sent];
            metered.read_exact(&mut buffer).await
        };
        let (written, read) = tokio::join!(sending, reading);
        assert!(written.is_ok() && read.is_ok());
        let took = started.elapsed();
        assert!((Duration::from_millis(1_500)..Duration::from_millis(2_500)).contains(&took), "{took:?}");
    }

    #[test]
    fn only_errors_without_a_body_are_hypers() {
        assert!(is_bare_refusal(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        ));
        assert!(!is_bare_refusal(b"HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n"));
        assert!(!is_bare_refusal(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!is_bare_refusal(b"data: HTTP/1.1 4"));
    }
}

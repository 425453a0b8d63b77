//! Server-sent events: a feed's items as the chunks that go to the socket.
//!
//! The driver does not know what is underneath: hyper's body today, the bare socket later. It owns what every
//! stream needs besides its events: heartbeats, the gauge of live streams, and the count and latency of deliveries.
//!
//! **Invariant**: the frames of one item go out in one chunk, whole. The first item is `hello` alone, and what follows
//! waits until it is flushed. After `bye` nothing follows.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep, sleep_until};

use super::live::LiveStream;
use crate::broker::FeedItem;
use crate::wire::frame::{Frame, Framing, HEARTBEAT_COMMENT, SharedFrame};

/// How a heartbeat is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// A comment, which clients skip.
    Comment,
    /// An event, which a watchdog in a page can see.
    Event,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `hello` is still to come.
    Opening,
    /// `hello` was handed over and must be flushed before anything else is: Caddy's compression holds back a stream
    /// whose first write is large.
    Greeted,
    Running,
    Ended,
}

/// A feed as chunks of `text/event-stream`.
pub struct SseChunks<F> {
    feed: F,
    framing: Framing,
    heartbeat: Bytes,
    /// Silence after which a heartbeat is written.
    silence: Duration,
    written: Instant,
    /// Not moved at every chunk, which would cost more than writing it: when it fires too early, it is set anew.
    alarm: Pin<Box<Sleep>>,
    phase: Phase,
    live: LiveStream,
}

impl<F> SseChunks<F> {
    /// Counts as a live stream until it is dropped.
    pub fn new(feed: F, framing: Framing, heartbeat: Heartbeat, silence: Duration, live: LiveStream) -> Self {
        let written = Instant::now();
        Self {
            feed,
            framing,
            heartbeat: match heartbeat {
                Heartbeat::Comment => HEARTBEAT_COMMENT,
                Heartbeat::Event => Frame::heartbeat().sse(framing).clone(),
            },
            silence,
            written,
            alarm: Box::pin(sleep_until(written + silence)),
            phase: Phase::Opening,
            live,
        }
    }

    fn chunk(&mut self, frames: &[SharedFrame]) -> Bytes {
        self.written = Instant::now();
        let chunk = join(frames, self.framing);
        self.live.delivered(frames, chunk.len());
        chunk
    }

    /// The heartbeat, if it is due.
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = self.written + self.silence;
            if due <= now {
                self.written = now;
                self.alarm.as_mut().reset(now + self.silence);
                return Poll::Ready(self.heartbeat.clone());
            }
            self.alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// One frame is shared as it is; several are copied together, which is cheaper than a write for each.
fn join(frames: &[SharedFrame], framing: Framing) -> Bytes {
    if let [frame] = frames {
        return frame.sse(framing).clone();
    }
    let mut whole = BytesMut::with_capacity(frames.iter().map(|frame| frame.sse(framing).len()).sum());
    for frame in frames {
        whole.extend_from_slice(frame.sse(framing));
    }
    whole.freeze()
}

impl<F: Stream<Item = FeedItem> + Unpin> Stream for SseChunks<F> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = &mut *self;
        if this.phase == Phase::Greeted {
            this.phase = Phase::Running;
            // Whoever writes chunks flushes when there is none for now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while this.phase != Phase::Ended {
            match this.feed.poll_next_unpin(cx) {
                // Nothing to write is nothing to wake the socket for.
                Poll::Ready(Some(FeedItem::Frames(frames))) if frames.is_empty() => {}
                Poll::Ready(Some(FeedItem::Frames(frames))) => {
                    if this.phase == Phase::Opening {
                        this.phase = Phase::Greeted;
                    }
                    return Poll::Ready(Some(this.chunk(&frames)));
                }
                Poll::Ready(Some(FeedItem::Bye(_, frame))) => {
                    this.phase = Phase::Ended;
                    return Poll::Ready(Some(this.chunk(&[frame])));
                }
                Poll::Ready(None) => this.phase = Phase::Ended,
                Poll::Pending => return this.poll_heartbeat(cx).map(Some),
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::metrics::Metrics;
    use crate::wire::event::ByeReason;

    const SILENCE: Duration = Duration::from_secs(15);

    fn frame(seconds: u64) -> SharedFrame {
        Arc::new(Frame::token(seconds))
    }

    fn chunks<F>(feed: F, heartbeat: Heartbeat, metrics: &Arc<Metrics>) -> SseChunks<F> {
        SseChunks::new(feed, Framing::Named, heartbeat, SILENCE, LiveStream::new("sse", None, metrics))
    }

    #[tokio::test]
    async fn the_frames_of_an_item_are_one_chunk_and_bye_is_the_last() {
        let metrics = Arc::new(Metrics::default());
        let first = frame(1);
        let shared = first.sse(Framing::Named).clone();
        let feed = stream::iter([
            FeedItem::Frames(vec![first]),
            FeedItem::Frames(Vec::new()),
            FeedItem::Frames(vec![frame(2), frame(3)]),
            FeedItem::Bye(ByeReason::Shutdown, Arc::new(Frame::bye(ByeReason::Shutdown, 2_000))),
            FeedItem::Frames(vec![frame(4)]),
        ]);
        let got: Vec<Bytes> = chunks(feed, Heartbeat::Comment, &metrics).collect().await;
        assert_eq!(got[0].as_ptr(), shared.as_ptr(), "a single frame is shared, not copied");
        assert_eq!(got[1], [frame(2).sse(Framing::Named).as_ref(), frame(3).sse(Framing::Named)].concat());
        assert!(got[2].windows(10).any(|w| w == b"event: bye"));
        assert_eq!(got.len(), 3);
        assert!(metrics.text().contains("tidings_deliveries_total{transport=\"sse\"} 4"), "{}", metrics.text());
    }

    #[tokio::test]
    async fn nothing_follows_hello_before_it_is_flushed() {
        let metrics = Arc::new(Metrics::default());
        let feed = stream::iter([frame(1), frame(2), frame(3)].map(|frame| FeedItem::Frames(vec![frame])));
        let mut chunks = chunks(feed, Heartbeat::Comment, &metrics);
        let mut ready = Vec::new();
        std::future::poll_fn(|cx| {
            ready.extend((0..4).map(|_| chunks.poll_next_unpin(cx).is_ready()));
            Poll::Ready(())
        })
        .await;
        assert_eq!(ready, [true, false, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_heartbeats_and_by_nothing_sooner() {
        let metrics = Arc::new(Metrics::default());
        let (send, mut receive) = mpsc::unbounded_channel();
        let feed = stream::poll_fn(move |cx| receive.poll_recv(cx));
        let mut chunks = chunks(feed, Heartbeat::Comment, &metrics);
        let started = Instant::now();
        assert_eq!(chunks.next().await, Some(HEARTBEAT_COMMENT));
        assert_eq!(started.elapsed(), SILENCE);

        tokio::time::advance(SILENCE * 9 / 10).await;
        send.send(FeedItem::Frames(vec![frame(1)])).expect("the stream listens");
        assert_eq!(chunks.next().await.as_ref(), Some(frame(1).sse(Framing::Named)));
        let spoke = Instant::now();
        assert_eq!(chunks.next().await, Some(HEARTBEAT_COMMENT));
        assert_eq!(spoke.elapsed(), SILENCE);
        assert_eq!(chunks.next().await, Some(HEARTBEAT_COMMENT));
        assert_eq!(spoke.elapsed(), SILENCE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watchdog_sees_heartbeats_as_events() {
        let metrics = Arc::new(Metrics::default());
        let mut chunks = chunks(stream::pending(), Heartbeat::Event, &metrics);
        assert_eq!(chunks.next().await.as_deref(), Some(&b"event: heartbeat\ndata: {}\n\n"[..]));
    }

    #[tokio::test]
    async fn a_stream_is_counted_while_it_lives() {
        let metrics = Arc::new(Metrics::default());
        let chunks = chunks(stream::pending::<FeedItem>(), Heartbeat::Comment, &metrics);
        assert!(metrics.text().contains("tidings_connections{transport=\"sse\"} 1"));
        drop(chunks);
        assert!(metrics.text().contains("tidings_connections{transport=\"sse\"} 0"));
    }
}

//! One subscriber's events: hello, replay, live, and back to replay after lag. The same for every transport.
//!
//! **Invariant**: durable events leave in seq order, none at or below the last one sent, none left out: live events
//! are taken from the queue only above the head that replay has reached, and a queue that overran sends the feed back
//! to the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use uuid::Uuid;

use super::admission::Opener;
use super::ending::{Ending, Turn, retry_ms, unannounced_retry_ms};
use super::live::{Live, Stay};
use super::opening::Opening;
use super::{Broker, BrokerError, Inner};
use crate::hub::{Ended, Filter};
#[cfg(test)]
use crate::interleave;
use crate::model::{StreamId, Timestamp, UserIdentity};
use crate::wire::cursor::Resume;
use crate::wire::event::ByeReason;
use crate::wire::frame::{Frame, SharedFrame};

/// Entries of a snapshot at most.
pub const MAX_SNAPSHOT: usize = 100;

/// What a client asks of its stream.
#[derive(Clone, Debug)]
pub struct FeedRequest {
    pub resume: Resume,
    /// Entries of the snapshot, where there is one: 0 to [`MAX_SNAPSHOT`].
    pub snapshot: usize,
    pub filter: Filter,
}

/// What a feed hands to its transport.
#[derive(Debug)]
pub enum FeedItem {
    /// To be written in one go. `hello` comes alone, in the first item.
    Frames(Vec<SharedFrame>),
    /// The last item, and why.
    Bye(ByeReason, SharedFrame),
}

/// One subscriber's events.
pub struct Feed {
    id: StreamId,
    events: Pin<Box<dyn Stream<Item = FeedItem> + Send>>,
}

impl Feed {
    /// Names the stream, as `hello` does.
    pub fn stream_id(&self) -> StreamId {
        self.id
    }
}

impl Stream for Feed {
    type Item = FeedItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedItem>> {
        // The generator keeps its place for what it yields in the thread, of which coroutines share one.
        #[cfg(test)]
        let _whole = interleave::Whole::begin();
        self.events.as_mut().poll_next(cx)
    }
}

impl Broker {
    /// Opens a feed. It attaches and reads when it is first polled.
    ///
    /// # Errors
    /// The reason to refuse the stream with, as a single `bye`.
    pub fn open_feed(&self, who: UserIdentity, request: FeedRequest) -> Result<Feed, ByeReason> {
        let opener = self.admit(&request.resume)?;
        let id = StreamId(Uuid::now_v7().as_u128());
        Ok(Feed { id, events: Box::pin(events(self.clone(), id, who, request, opener)) })
    }

    /// A place among those who open, for one who goes on from here.
    pub(super) fn admit(&self, resume: &Resume) -> Result<Opener, ByeReason> {
        let refusal = if self.inner.lifecycle.is_draining() {
            ByeReason::Shutdown
        } else if self.inner.hub.len() >= self.inner.config().hub.max_subscribers {
            ByeReason::Overloaded
        } else if let Some(opener) = self.inner.admission.opener(resume, &self.head()) {
            return Ok(opener);
        } else {
            ByeReason::Overloaded
        };
        self.inner.metrics.byes.get_or_create(&[("reason", refusal.as_str())]).inc();
        Err(refusal)
    }

    /// Lets a stream live on with a new token of the same user. Returns the stream's new end.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a stream that is not there or is another user's, [`BrokerError::Forbidden`] for a
    /// token that sees other topics: replay must be authorised anew then.
    pub async fn refresh(&self, stream: StreamId, fresh: &UserIdentity) -> Result<Option<Timestamp>, BrokerError> {
        let subscriber = self.inner.hub.stream(stream).ok_or(BrokerError::NotFound("stream"))?;
        let name = fresh.user.clone();
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.user(&name)));
        if read.await? != Some(subscriber.user) {
            return Err(BrokerError::NotFound("stream"));
        }
        if subscriber.topics() != fresh.topics.as_ref() {
            return Err(BrokerError::Forbidden("the new token sees other topics; open a new stream with it"));
        }
        subscriber.renew(fresh.expires);
        Ok(fresh.expires)
    }
}

fn events(
    broker: Broker,
    id: StreamId,
    who: UserIdentity,
    request: FeedRequest,
    opener: Opener,
) -> impl Stream<Item = FeedItem> + Send {
    async_stream::stream! {
        // Boxed, as all that a feed does now and then: idle it keeps the room of its largest moment.
        let (live, opening) = match Box::pin(Live::open(&broker, id, who, request, Stay::Stream, &opener)).await {
            Ok(opened) => opened,
            Err(reason) => {
                drop(opener);
                let ended = broker.inner.ended(reason);
                yield FeedItem::Bye(reason, bye(&broker.inner, ended));
                return;
            }
        };
        drop(opener);
        let Opening { hello, first, mut backlog, .. } = opening;
        yield FeedItem::Frames(vec![Arc::new(Frame::hello(&hello, unannounced_retry_ms()))]);
        if !first.is_empty() {
            yield FeedItem::Frames(first);
        }
        let mut ending = Ending::new(&live, &broker.inner.clock, broker.inner.config().max_age);
        // Counts that belong behind what is still to be replayed.
        let mut counts_behind: Option<SharedFrame> = None;
        loop {
            while let Some(page) = Box::pin(live.replay(&mut backlog)).await {
                match page {
                    Ok(frames) if frames.is_empty() => {}
                    Ok(frames) => yield FeedItem::Frames(frames),
                    Err(reason) => {
                        yield FeedItem::Bye(reason, bye(&broker.inner, Ended::alone(reason)));
                        return;
                    }
                }
                if let Some(ended) = ending.due(&live) {
                    // What waits in the queue lies behind what was not replayed: nobody may go on from there.
                    yield FeedItem::Bye(ended.reason, bye(&broker.inner, ended));
                    return;
                }
            }
            if let Some(counts) = counts_behind.take() {
                yield FeedItem::Frames(vec![counts]);
            }
            if let Some(ended) = ending.own() {
                yield FeedItem::Bye(ended.reason, bye(&broker.inner, ended));
                return;
            }
            let taken = tokio::select! {
                biased;
                taken = live.take() => taken,
                turn = ending.next() => match turn {
                    Turn::Warn(seconds) => {
                        yield FeedItem::Frames(vec![Arc::new(Frame::token(seconds))]);
                        continue;
                    }
                    Turn::End(ended) => {
                        yield FeedItem::Bye(ended.reason, bye(&broker.inner, ended));
                        return;
                    }
                },
            };
            if taken.expiry_moved {
                ending.renewed(&live);
            }
            let (end, lagged) = (taken.end, taken.lagged);
            let fresh = backlog.unsent(taken);
            if !fresh.is_empty() {
                yield FeedItem::Frames(fresh);
            }
            if let Some(ended) = end {
                yield FeedItem::Bye(ended.reason, bye(&broker.inner, ended));
                return;
            }
            if lagged {
                match Box::pin(live.resync(&mut backlog)).await {
                    Ok(counts) => counts_behind = counts,
                    Err(reason) => {
                        yield FeedItem::Bye(reason, bye(&broker.inner, Ended::alone(reason)));
                        return;
                    }
                }
            }
        }
    }
}

/// The last frame of a subscriber; counted.
pub(super) fn bye(inner: &Inner, ended: Ended) -> SharedFrame {
    inner.metrics.byes.get_or_create(&[("reason", ended.reason.as_str())]).inc();
    Arc::new(Frame::bye(ended.reason, retry_ms(ended)))
}

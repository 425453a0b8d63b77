//! One subscriber's events: hello, replay, live, and back to replay after lag. The same for every transport.
//!
//! **Invariant**: durable events leave in seq order, none at or below the last one sent, none left out: live events
//! are taken from the queue only above the head that replay has reached, and a queue that overran sends the feed back
//! to the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use uuid::Uuid;

use super::inbox::may_see;
use super::opening::{Backlog, Begin, Greeting, Opening, Plan, join, kinds, shown};
use super::tally::Tallies;
use super::{Broker, BrokerError, Inner};
use crate::hub::{Attach, Attachment, Filter, Subscriber, Taken};
use crate::model::{Credential, StreamId, Timestamp, UserIdentity, UserKey};
use crate::store::StoreError;
use crate::wire::cursor::Resume;
use crate::wire::event::{ByeReason, EventKind};
use crate::wire::frame::{Frame, SharedFrame};

/// How long before its end a token's end is told.
const TOKEN_WARNING: Duration = Duration::from_mins(1);
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
    /// The last item.
    Bye(SharedFrame),
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
        self.events.as_mut().poll_next(cx)
    }
}

/// When a client should come back: spread, so that those who were cut together do not return together.
pub fn retry_ms() -> u32 {
    let mut bytes = [0u8; 2];
    // Without randomness the middle of the range is as good as any.
    let drawn = aws_lc_rs::rand::fill(&mut bytes).map_or(2_000, |()| u32::from(u16::from_le_bytes(bytes)) % 4_001);
    2_000 + drawn
}

impl Broker {
    /// Opens a feed. It attaches and reads when it is first polled.
    ///
    /// # Errors
    /// The reason to refuse the stream with, as a single `bye`.
    pub fn open_feed(&self, who: UserIdentity, request: FeedRequest) -> Result<Feed, ByeReason> {
        let refusal = if self.inner.lifecycle.is_draining() {
            Some(ByeReason::Shutdown)
        } else if self.inner.hub.len() >= self.inner.config.hub.max_subscribers {
            Some(ByeReason::Overloaded)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.inner.metrics.byes.get_or_create(&[("reason", reason.as_str())]).inc();
            return Err(reason);
        }
        let id = StreamId(Uuid::now_v7().as_u128());
        let request = FeedRequest { snapshot: request.snapshot.min(MAX_SNAPSHOT), ..request };
        Ok(Feed { id, events: Box::pin(events(self.clone(), id, who, request)) })
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
) -> impl Stream<Item = FeedItem> + Send {
    async_stream::stream! {
        let (live, Opening { hello, first, mut backlog }) = match Live::open(&broker, id, who, request).await {
            Ok(opened) => opened,
            Err(reason) => {
                yield bye(&broker.inner, reason);
                return;
            }
        };
        yield FeedItem::Frames(vec![hello]);
        if !first.is_empty() {
            yield FeedItem::Frames(first);
        }
        let mut expiry = Expiry::new(&live);
        // Counts that belong behind what is still to be replayed.
        let mut counts_behind: Option<SharedFrame> = None;
        loop {
            while let Some(page) = live.replay(&mut backlog).await {
                match page {
                    Ok(frames) if frames.is_empty() => {}
                    Ok(frames) => yield FeedItem::Frames(frames),
                    Err(reason) => {
                        yield bye(&broker.inner, reason);
                        return;
                    }
                }
                if expiry.is_over(&live) {
                    yield bye(&broker.inner, ByeReason::Expired);
                    return;
                }
                if let Some(reason) = live.subscriber().ending() {
                    // What waits in the queue lies behind what was not replayed: nobody may go on from there.
                    yield bye(&broker.inner, reason);
                    return;
                }
            }
            if let Some(counts) = counts_behind.take() {
                yield FeedItem::Frames(vec![counts]);
            }
            // Asked for as well as waited for: a reader that is never idle would outlive its token otherwise.
            if expiry.is_over(&live) {
                yield bye(&broker.inner, ByeReason::Expired);
                return;
            }
            let taken = tokio::select! {
                biased;
                taken = live.take() => taken,
                event = expiry.next(&live) => match event {
                    ExpiryEvent::Warn(seconds) => {
                        yield FeedItem::Frames(vec![Arc::new(Frame::token(seconds))]);
                        continue;
                    }
                    ExpiryEvent::End => {
                        yield bye(&broker.inner, ByeReason::Expired);
                        return;
                    }
                },
            };
            if taken.expiry_moved {
                expiry = Expiry::new(&live);
            }
            let (end, lagged) = (taken.end, taken.lagged);
            let fresh = backlog.unsent(taken);
            if !fresh.is_empty() {
                yield FeedItem::Frames(fresh);
            }
            if let Some(reason) = end {
                yield bye(&broker.inner, reason);
                return;
            }
            if lagged {
                match live.resync(&mut backlog).await {
                    Ok(counts) => counts_behind = counts,
                    Err(reason) => {
                        yield bye(&broker.inner, reason);
                        return;
                    }
                }
            }
        }
    }
}

fn bye(inner: &Inner, reason: ByeReason) -> FeedItem {
    inner.metrics.byes.get_or_create(&[("reason", reason.as_str())]).inc();
    FeedItem::Bye(Arc::new(Frame::bye(reason, retry_ms())))
}

/// The log can't be read just now: the client comes back, with backoff.
fn unreadable(stream: StreamId, error: &StoreError) -> ByeReason {
    tracing::warn!(%error, %stream, "a stream ends because the log can't be read");
    ByeReason::Overloaded
}

/// A subscriber that is attached: to the hub, and to the tallies that its counts are made of.
struct Live {
    broker: Broker,
    who: Arc<UserIdentity>,
    request: Arc<FeedRequest>,
    attachment: Attachment,
    _tally: TallyGuard,
}

/// What an attempt to attach found.
enum Attempt {
    /// The user has not appeared yet.
    UnknownUser,
    Full,
    Attached(Attachment, TallyGuard, Opening),
}

struct TallyGuard {
    tallies: Arc<Mutex<Tallies>>,
    user: UserKey,
}

impl TallyGuard {
    fn attach(tallies: &Arc<Mutex<Tallies>>, user: UserKey) -> Self {
        tallies.lock().attach(user);
        Self { tallies: tallies.clone(), user }
    }
}

impl Drop for TallyGuard {
    fn drop(&mut self) {
        self.tallies.lock().detach(self.user);
    }
}

impl Live {
    async fn open(
        broker: &Broker,
        stream: StreamId,
        who: UserIdentity,
        request: FeedRequest,
    ) -> Result<(Self, Opening), ByeReason> {
        let (who, request) = (Arc::new(who), Arc::new(request));
        let mut attempt = attempt(broker, stream, &who, &request).await?;
        if matches!(attempt, Attempt::UnknownUser) {
            broker.appear(&who.user).await.map_err(|error| {
                tracing::warn!(%error, %stream, "a new user could not be written down");
                ByeReason::Overloaded
            })?;
            attempt = self::attempt(broker, stream, &who, &request).await?;
        }
        let Attempt::Attached(attachment, tally, opening) = attempt else { return Err(ByeReason::Overloaded) };
        if broker.inner.lifecycle.is_draining() {
            // The drain may have walked the hub just before this one came.
            attachment.subscriber().end(ByeReason::Shutdown);
        }
        Ok((Self { broker: broker.clone(), who, request, attachment, _tally: tally }, opening))
    }

    fn subscriber(&self) -> &Arc<Subscriber> {
        self.attachment.subscriber()
    }

    /// The next page of the backlog; `None` when there is none left.
    async fn replay(&self, backlog: &mut Backlog) -> Option<Result<Vec<SharedFrame>, ByeReason>> {
        if backlog.last >= backlog.head {
            return None;
        }
        let (who, request) = (self.who.clone(), self.request.clone());
        let (user, last, head) = (self.subscriber().user, backlog.last, backlog.head);
        let mut plan = std::mem::take(&mut backlog.plan);
        let read = self.broker.inner.store.read(move |session| {
            session.snapshot(|reader| {
                if plan.is_empty() {
                    let sight = shown(&reader.sight(user)?, &who, &request.filter);
                    plan = Plan::gather(reader, &sight, kinds(&request.filter), last, head)?;
                }
                let (frames, reached) = plan.page(reader, user, head)?;
                Ok((frames, plan, reached))
            })
        });
        let page = read.await.map(|(frames, plan, reached)| {
            backlog.plan = plan;
            backlog.last = reached;
            frames
        });
        Some(page.map_err(|error| unreadable(self.subscriber().stream, &error)))
    }

    /// Goes back to the log after the queue overran: a new head, and the counts as of it.
    async fn resync(&self, backlog: &mut Backlog) -> Result<Option<SharedFrame>, ByeReason> {
        let (who, user) = (self.who.clone(), self.subscriber().user);
        let read = self.broker.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let counts = reader.sight(user)?.counts(|span| may_see(&who, span));
                Ok((reader.head(), Frame::unread(reader.epoch(), &counts, reader.head())))
            })
        });
        let (head, counts) = read.await.map_err(|error| unreadable(self.subscriber().stream, &error))?;
        backlog.head = head;
        backlog.plan = Plan::default();
        Ok(self.request.filter.wants(EventKind::Unread).then(|| Arc::new(counts)))
    }

    async fn take(&self) -> Taken {
        std::future::poll_fn(|cx| self.subscriber().poll_take(cx)).await
    }
}

/// Attaches and reads in one hop to a reading connection: ten thousand clients that come back at once wait for that
/// many hops.
async fn attempt(
    broker: &Broker,
    stream: StreamId,
    who: &Arc<UserIdentity>,
    request: &Arc<FeedRequest>,
) -> Result<Attempt, ByeReason> {
    let (inner, who, request) = (broker.inner.clone(), who.clone(), request.clone());
    let read = broker.inner.store.read(move |session| {
        let Some(user) = session.snapshot(|reader| reader.user(&who.user))? else { return Ok(Attempt::UnknownUser) };
        let tally = TallyGuard::attach(&inner.tallies, user);
        let ticket = match &who.credential {
            Credential::Ticket(id) => Some(id.clone()),
            Credential::Bearer | Credential::Cookie => None,
        };
        let attach = Attach {
            user,
            stream,
            filter: request.filter.clone(),
            topics: who.topics.clone(),
            expires: who.expires,
            ticket,
        };
        let Ok(attachment) = inner.hub.attach(attach) else { return Ok(Attempt::Full) };
        join(session, &attachment, &who)?;
        let greeting =
            Greeting { heartbeat: inner.config.heartbeat.as_secs(), stream: stream.to_string(), retry_ms: retry_ms() };
        let begin = Begin { who: &who, request: &request, greeting, tallies: &inner.tallies, metrics: &inner.metrics };
        let opening = session.snapshot(|reader| begin.run(reader, user))?;
        Ok(Attempt::Attached(attachment, tally, opening))
    });
    read.await.map_err(|error| unreadable(stream, &error))
}

/// The end of the credential, told a minute before.
struct Expiry {
    ends: Option<Timestamp>,
    warned: bool,
    /// Outlives a call of `next`, which each delivery interrupts: to make and drop a timer takes the wheel's lock twice.
    pause: Option<Pin<Box<Sleep>>>,
}

enum ExpiryEvent {
    Warn(u64),
    End,
}

impl Expiry {
    fn new(live: &Live) -> Self {
        Self { ends: live.subscriber().expires(), warned: false, pause: None }
    }

    fn is_over(&self, live: &Live) -> bool {
        self.ends.is_some_and(|ends| ends <= live.broker.inner.clock.now())
    }

    /// Waits for what comes next. May be dropped and called again.
    async fn next(&mut self, live: &Live) -> ExpiryEvent {
        let Some(ends) = self.ends else { return std::future::pending().await };
        loop {
            if let Some(pause) = &mut self.pause {
                pause.await;
                self.pause = None;
            }
            let left = ends.since(live.broker.inner.clock.now());
            if left.is_zero() {
                return ExpiryEvent::End;
            }
            if left <= TOKEN_WARNING && !self.warned {
                self.warned = true;
                return ExpiryEvent::Warn(left.as_secs());
            }
            let wait = if self.warned { left } else { left.saturating_sub(TOKEN_WARNING) };
            // Short waits, since the wall clock that decides may be stepped meanwhile.
            self.pause = Some(Box::pin(sleep(wait.min(Duration::from_mins(5)))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_spread_over_the_range_of_the_contract() {
        let drawn: Vec<u32> = (0..1_000).map(|_| retry_ms()).collect();
        assert!(drawn.iter().all(|ms| (2_000..=6_000).contains(ms)));
        assert!(drawn.iter().any(|ms| *ms < 3_000) && drawn.iter().any(|ms| *ms > 5_000));
    }
}

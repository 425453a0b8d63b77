//! One live subscriber: a bounded queue that the fan-out fills and one feed empties.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Attach, Config, Filter, Seat};
use crate::model::{Locale, Seq, StreamId, Timestamp, TopicKey, TopicName, TopicPattern, UserKey};
use crate::wire::event::{ByeReason, EventKind};
use crate::wire::frame::SharedFrame;

/// A live subscriber.
pub struct Subscriber {
    pub user: UserKey,
    pub stream: StreamId,
    pub filter: Filter,
    pub(super) seats: Vec<Seat>,
    topics: Option<Arc<[TopicPattern]>>,
    limits: Config,
    /// Already on the fan-out's list of whom to wake after this commit.
    touched: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<SharedFrame>,
    bytes: usize,
    /// The newest counts and the position they are as of. One slot: counts are absolute, so older ones are worth
    /// nothing.
    counts: Option<(Seq, SharedFrame)>,
    counts_sent: Option<Instant>,
    counts_due: bool,
    lagged: bool,
    end: Option<Ended>,
    expires: Option<Timestamp>,
    expiry_moved: bool,
    joined: Vec<TopicKey>,
    left: Vec<(TopicKey, Seq)>,
    /// The reader's language; the outer `None` where nobody has looked yet.
    locale: Option<Option<Locale>>,
    waker: Option<Waker>,
}

/// What a feed took from its queue.
#[derive(Debug)]
pub struct Taken {
    /// Oldest first.
    pub frames: Vec<SharedFrame>,
    /// Belongs behind the frames.
    pub counts: Option<(Seq, SharedFrame)>,
    /// The queue overran: what is missing stands in the log.
    pub lagged: bool,
    /// The stream is to end.
    pub end: Option<Ended>,
    /// The credential was renewed.
    pub expiry_moved: bool,
}

/// Why a subscriber must end, and how many end with it, itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub reason: ByeReason,
    pub together: usize,
}

impl Ended {
    /// An end that nobody shares.
    pub const fn alone(reason: ByeReason) -> Self {
        Self { reason, together: 1 }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// Not wanted, or the subscriber is lagging or ending.
    Skipped,
    /// The queue was full just now.
    Overran,
}

impl Subscriber {
    pub(super) fn new(attach: Attach, limits: Config) -> Self {
        let Attach { user, stream, filter, topics, expires, seats } = attach;
        let queue = Mutex::new(Queue { expires, ..Queue::default() });
        Self { user, stream, filter, seats, topics, limits, touched: AtomicBool::new(false), queue }
    }

    /// Whether the token may see this topic.
    pub fn may_see(&self, topic: &TopicName) -> bool {
        topic.is_everyone() || self.topics.as_ref().is_none_or(|patterns| patterns.iter().any(|p| p.matches(topic)))
    }

    /// The token's patterns.
    pub fn topics(&self) -> Option<&Arc<[TopicPattern]>> {
        self.topics.as_ref()
    }

    /// Puts a frame into the queue. Wakes nobody: the fan-out wakes once, after the commit's last frame.
    pub fn push(&self, frame: &SharedFrame) -> Pushed {
        if !self.filter.admits(frame) {
            return Pushed::Skipped;
        }
        let mut queue = self.queue.lock();
        if queue.lagged || queue.end.is_some() {
            return Pushed::Skipped;
        }
        let bytes = queue.bytes + frame.weight();
        if queue.frames.len() >= self.limits.queue_frames || bytes > self.limits.queue_bytes {
            #[cfg(test)]
            if crate::interleave::has_fault(crate::interleave::Fault::QueueDrops) {
                return Pushed::Skipped;
            }
            queue.frames = VecDeque::new();
            queue.bytes = 0;
            queue.lagged = true;
            return Pushed::Overran;
        }
        queue.bytes = bytes;
        queue.frames.push_back(frame.clone());
        Pushed::Queued
    }

    /// The reader's language from here on.
    pub fn listen(&self, locale: Option<Locale>) {
        self.queue.lock().locale = Some(locale);
    }

    /// The reader's language as it was read. What was learned meanwhile wins.
    pub fn listen_first(&self, locale: Option<Locale>) {
        self.queue.lock().locale.get_or_insert(locale);
    }

    /// The reader's language; the outer `None` where nobody has looked yet.
    pub fn locale(&self) -> Option<Option<Locale>> {
        self.queue.lock().locale.clone()
    }

    /// Sends the feed back to the log, as if the queue had overrun.
    pub fn lag(&self) {
        let mut queue = self.queue.lock();
        queue.frames = VecDeque::new();
        queue.bytes = 0;
        queue.lagged = true;
    }

    /// Whether counts may be sent now; if not, they are due at the returned moment. `None` where they are already due
    /// or not wanted.
    pub fn counts_slot(&self, now: Instant, every: std::time::Duration) -> Option<Result<(), Instant>> {
        if !self.filter.wants(EventKind::Unread) {
            return None;
        }
        let mut queue = self.queue.lock();
        if queue.counts_due || queue.end.is_some() {
            return None;
        }
        match queue.counts_sent.map(|sent| sent + every) {
            Some(due) if due > now => {
                queue.counts_due = true;
                Some(Err(due))
            }
            _ => Some(Ok(())),
        }
    }

    /// Counts are due although none could be made yet.
    pub fn owe_counts(&self) {
        self.queue.lock().counts_due = true;
    }

    /// Puts counts into their slot.
    pub fn push_counts(&self, as_of: Seq, frame: SharedFrame, now: Instant) {
        let mut queue = self.queue.lock();
        queue.counts = Some((as_of, frame));
        queue.counts_sent = Some(now);
        queue.counts_due = false;
    }

    /// Whether this is the first touch since the last wake.
    pub fn touch(&self) -> bool {
        !self.touched.swap(true, Ordering::AcqRel)
    }

    /// Wakes the feed, if there is something to take.
    pub fn wake(&self) {
        self.touched.store(false, Ordering::Release);
        let mut queue = self.queue.lock();
        if queue.has_news()
            && let Some(waker) = queue.waker.take()
        {
            drop(queue);
            waker.wake();
        }
    }

    /// Bytes of frames that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Asks the feed to end. The first reason stays.
    pub fn end(&self, ended: Ended) {
        self.queue.lock().end.get_or_insert(ended);
        self.wake();
    }

    /// Why the stream is to end, where it is.
    pub fn ending(&self) -> Option<Ended> {
        self.queue.lock().end
    }

    /// When the credential runs out.
    pub fn expires(&self) -> Option<Timestamp> {
        self.queue.lock().expires
    }

    /// A fresh credential moves the end of the stream.
    pub fn renew(&self, expires: Option<Timestamp>) {
        let mut queue = self.queue.lock();
        queue.expires = expires;
        queue.expiry_moved = true;
        drop(queue);
        self.wake();
    }

    /// Takes everything that waits, or leaves a waker.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut queue = self.queue.lock();
        if !queue.has_news() {
            // One feed polls, so one waker is enough.
            if !queue.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                queue.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        queue.bytes = 0;
        Poll::Ready(Taken {
            // An idle queue keeps no buffer: ten thousand of them would.
            frames: std::mem::take(&mut queue.frames).into(),
            counts: queue.counts.take(),
            lagged: std::mem::take(&mut queue.lagged),
            end: queue.end,
            expiry_moved: std::mem::take(&mut queue.expiry_moved),
        })
    }

    pub(super) fn joins(&self, topic: TopicKey, as_of: Seq) -> bool {
        let mut queue = self.queue.lock();
        // One that ends is about to leave every topic; joining now would outlive it.
        if queue.end.is_some() {
            return false;
        }
        if queue.joined.contains(&topic) || queue.left.iter().any(|(left, seq)| *left == topic && *seq > as_of) {
            return false;
        }
        queue.left.retain(|(left, _)| *left != topic);
        queue.joined.push(topic);
        true
    }

    pub(super) fn left(&self, topic: TopicKey, seq: Seq) {
        let mut queue = self.queue.lock();
        queue.joined.retain(|joined| *joined != topic);
        queue.left.retain(|(left, _)| *left != topic);
        queue.left.push((topic, seq));
    }

    /// Takes the topics it was in, for the end.
    pub(super) fn detached(&self) -> Vec<TopicKey> {
        let mut queue = self.queue.lock();
        queue.end.get_or_insert(Ended::alone(ByeReason::Shutdown));
        queue.frames = VecDeque::new();
        std::mem::take(&mut queue.joined)
    }
}

impl Queue {
    fn has_news(&self) -> bool {
        !self.frames.is_empty() || self.counts.is_some() || self.lagged || self.end.is_some() || self.expiry_moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Frame;
    use futures_util::task::noop_waker;

    fn subscriber(limits: Config) -> Subscriber {
        let attach = Attach {
            user: UserKey(1),
            stream: StreamId(1),
            filter: Filter::default(),
            topics: None,
            expires: None,
            seats: Vec::new(),
        };
        Subscriber::new(attach, limits)
    }

    fn take(subscriber: &Subscriber) -> Option<Taken> {
        match subscriber.poll_take(&mut Context::from_waker(&noop_waker())) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_full_queue_is_emptied_and_says_so_once() {
        let subscriber = subscriber(Config { queue_frames: 2, ..Config::default() });
        let frame = Arc::new(Frame::heartbeat());
        let pushed: Vec<_> = (0..4).map(|_| subscriber.push(&frame)).collect();
        assert_eq!(pushed, [Pushed::Queued, Pushed::Queued, Pushed::Overran, Pushed::Skipped]);
        let taken = take(&subscriber).expect("has news");
        assert!(taken.lagged && taken.frames.is_empty());
        assert!(take(&subscriber).is_none());
        assert_eq!(subscriber.push(&frame), Pushed::Queued);
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_too() {
        let subscriber = subscriber(Config { queue_bytes: 150, ..Config::default() });
        let frame = Arc::new(Frame::heartbeat());
        assert_eq!(subscriber.push(&frame), Pushed::Queued);
        assert_eq!(subscriber.push(&frame), Pushed::Overran);
    }

    #[test]
    fn counts_are_sent_at_once_and_then_not_more_often_than_allowed() {
        let subscriber = subscriber(Config::default());
        let (now, every) = (Instant::now(), std::time::Duration::from_millis(50));
        assert_eq!(subscriber.counts_slot(now, every), Some(Ok(())));
        subscriber.push_counts(Seq(1), Arc::new(Frame::heartbeat()), now);
        assert_eq!(subscriber.counts_slot(now, every), Some(Err(now + every)));
        assert_eq!(subscriber.counts_slot(now, every), None, "already due");
    }
}

//! Long poll: one subscriber for as long as one request takes, and what it brought as one answer.
//!
//! It attaches and reads as a feed does, so nothing falls between one answer and the next request: what was committed
//! meanwhile lies above the answer's cursor and is replayed. **Invariant**: the answer's cursor stands at or behind the
//! last durable event in it, and its counts are as of that cursor or later, so that a client which waits for the next
//! answer waits with the right badge. An answer that tells anything ends with them as an `unread`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::Broker;
use super::ending::{Ending, Turn};
use super::feed::{FeedRequest, bye};
use super::live::{Live, Stay};
use super::opening::{Backlog, Opening};
use crate::hub::{Ended, Taken};
use crate::model::{Counts, Cursor, Seq, StreamId, UserIdentity};
use crate::wire::event::{ByeReason, EventKind};
use crate::wire::frame::{Frame, SharedFrame};
use crate::wire::poll::Polled;

/// Durable events of one answer at most.
pub const MAX_POLL_EVENTS: usize = 500;
/// About how many bytes of events one answer has; a single event may be larger.
const PAGE_BYTES: usize = 256 * 1024;
/// How long the first live event waits for others, so that a burst is one answer.
const LINGER: Duration = Duration::from_millis(20);

/// What a long poll asks for.
#[derive(Clone, Debug)]
pub struct PollRequest {
    pub feed: FeedRequest,
    /// How long to wait where there is nothing new; zero answers at once.
    pub wait: Duration,
    /// Durable events of the answer: 1 to [`MAX_POLL_EVENTS`].
    pub limit: usize,
    /// Names the client: its newer poll that waits ends its older one.
    pub client: Option<Arc<str>>,
}

impl Broker {
    /// Waits for what comes after a cursor. Dropping the future frees everything at once.
    ///
    /// # Errors
    /// Why it is refused: draining, too many subscribers, or the log can't be read.
    pub async fn poll(&self, who: UserIdentity, request: PollRequest) -> Result<Polled, ByeReason> {
        let opener = self.admit(&request.feed.resume)?;
        let PollRequest { feed, wait, limit, client } = request;
        let deadline = Instant::now() + wait;
        let (wants_counts, stream) = (feed.filter.wants(EventKind::Unread), StreamId(Uuid::now_v7().as_u128()));
        let stay = if wait.is_zero() { Stay::Glance } else { Stay::Poll(client) };
        let (live, opening) = Live::open(self, stream, who.clone(), feed, stay, &opener).await?;
        drop(opener);
        let Opening { hello, first, backlog, counts_moved } = opening;

        let page = Page::new(limit.clamp(1, MAX_POLL_EVENTS), hello.cursor.seq);
        let mut poll = Poll { broker: self, live: &live, backlog, page, fresh: false };
        poll.page.extend(first);
        poll.replay().await?;
        let is_news = hello.reset.is_some() || counts_moved || !poll.page.frames.is_empty();
        let end = if is_news || wait.is_zero() { None } else { poll.park(deadline).await? };
        let Poll { page, fresh, backlog, .. } = poll;
        let (mut frames, cursor, more) = page.finish(&backlog);
        let (counts, as_of) = if fresh { self.exact(&who).await? } else { (hello.counts, hello.head) };
        // A snapshot has them already, before its entries.
        if wants_counts && hello.reset.is_none() && (is_news || fresh) {
            frames.push(Arc::new(Frame::unread(&hello.cursor.epoch, &counts, as_of)));
        }
        frames.extend(end.map(|ended| bye(&self.inner, ended)));
        let cursor = Cursor { epoch: hello.cursor.epoch, seq: cursor };
        Ok(Polled { user: who.user, cursor, reset: hello.reset, frames, counts, more, expires: who.expires })
    }

    /// Reads the counts anew, with the head they are as of: what woke the poll has changed them.
    async fn exact(&self, who: &UserIdentity) -> Result<(Counts, Seq), ByeReason> {
        let (counts, as_of) = self.counts(who).await.map_err(|error| {
            tracing::warn!(%error, "a long poll ends because the counts can't be read");
            ByeReason::Overloaded
        })?;
        Ok((counts, as_of.seq))
    }
}

/// A long poll that is being answered.
struct Poll<'p> {
    broker: &'p Broker,
    live: &'p Live,
    backlog: Backlog,
    page: Page,
    /// Whether anything came live, or went back to the log: the counts of the beginning are old then.
    fresh: bool,
}

impl Poll<'_> {
    /// Fills the page from the log, as far as the head.
    async fn replay(&mut self) -> Result<(), ByeReason> {
        while self.page.has_room() {
            match self.live.replay(&mut self.backlog).await {
                None => break,
                Some(Ok(frames)) => self.page.extend(frames),
                Some(Err(reason)) => return Err(reason),
            }
        }
        Ok(())
    }

    /// Waits until something comes, and a little longer for what comes with it. Returns why the subscriber must end.
    async fn park(&mut self, deadline: Instant) -> Result<Option<Ended>, ByeReason> {
        let mut ending = Ending::new(self.live, &self.broker.inner.clock, None);
        let mut until = deadline;
        while self.page.has_room() {
            let taken = tokio::select! {
                biased;
                taken = self.live.take() => taken,
                turn = ending.next() => match turn {
                    // `expires` stands in each answer; a warning here would wake every poll of the last minute.
                    Turn::Warn(_) => continue,
                    Turn::End(ended) => return Ok(Some(ended)),
                },
                () = sleep_until(until) => return Ok(None),
            };
            if taken.expiry_moved {
                ending.renewed(self.live);
            }
            let is_news = !taken.frames.is_empty() || taken.counts.is_some() || taken.lagged;
            let end = self.absorb(taken).await?;
            if end.is_some() {
                return Ok(end);
            }
            if is_news && !self.fresh {
                self.fresh = true;
                until = deadline.min(Instant::now() + LINGER);
            }
        }
        Ok(None)
    }

    async fn absorb(&mut self, taken: Taken) -> Result<Option<Ended>, ByeReason> {
        let (end, lagged) = (taken.end, taken.lagged);
        let counted = taken.counts.as_ref().filter(|_| !lagged).map(|(as_of, _)| *as_of);
        let mut frames = self.backlog.unsent(taken);
        // Fresh ones are read for the answer; these would be older.
        frames.retain(|frame| frame.kind != EventKind::Unread);
        self.page.extend(frames);
        if let Some(as_of) = counted {
            // All that these counts are as of was queued before them: what the filter left out is passed over.
            self.backlog.last = self.backlog.last.max(as_of);
        }
        if lagged {
            self.live.resync(&mut self.backlog).await?;
            self.replay().await?;
        }
        Ok(end)
    }
}

/// The events of one answer.
struct Page {
    frames: Vec<SharedFrame>,
    limit: usize,
    durable: usize,
    bytes: usize,
    /// The position of the last durable event taken.
    last: Seq,
    /// Something was left out.
    is_cut: bool,
}

impl Page {
    const fn new(limit: usize, after: Seq) -> Self {
        Self { frames: Vec::new(), limit, durable: 0, bytes: 0, last: after, is_cut: false }
    }

    const fn has_room(&self) -> bool {
        !self.is_cut && self.durable < self.limit && self.bytes < PAGE_BYTES
    }

    fn extend(&mut self, frames: Vec<SharedFrame>) {
        for frame in frames {
            if !self.has_room() {
                self.is_cut = true;
                return;
            }
            self.bytes += frame.weight();
            if let Some(seq) = frame.seq {
                self.durable += 1;
                self.last = seq;
            }
            self.frames.push(frame);
        }
    }

    /// The events, the position they reach, and whether there is more.
    fn finish(self, backlog: &Backlog) -> (Vec<SharedFrame>, Seq, bool) {
        if self.is_cut {
            return (self.frames, self.last, true);
        }
        // Positions that hold nothing for this client are passed over: nobody need look at them again.
        (self.frames, backlog.last.max(self.last), backlog.last < backlog.head)
    }
}

#[cfg(test)]
mod tests {
    use super::super::opening::Plan;
    use super::*;
    use crate::model::{Became, Epoch, MarkAs, MarkTarget, StateChange};

    fn event(seq: u64) -> SharedFrame {
        let target = MarkTarget::Upto(Seq(seq));
        let change = StateChange { seq: Seq(seq), became: Became::Marked(MarkAs::Seen), target, category: None };
        Arc::new(Frame::state(&Epoch::new("k7x2m").expect("an epoch"), &change, None))
    }

    fn backlog(last: u64, head: u64) -> Backlog {
        Backlog { last: Seq(last), head: Seq(head), floor: Seq::ZERO, plan: Plan::default() }
    }

    #[test]
    fn a_page_that_was_cut_reaches_its_last_event_and_says_that_there_is_more() {
        let mut page = Page::new(2, Seq(1));
        page.extend(vec![event(3), event(5), event(8)]);
        assert!(!page.has_room());
        let (frames, cursor, more) = page.finish(&backlog(8, 9));
        assert_eq!((frames.len(), cursor, more), (2, Seq(5), true));
    }

    #[test]
    fn a_full_page_that_holds_everything_reaches_the_head() {
        let mut page = Page::new(2, Seq(1));
        page.extend(vec![event(3), event(5)]);
        let (frames, cursor, more) = page.finish(&backlog(9, 9));
        assert_eq!((frames.len(), cursor, more), (2, Seq(9), false));
    }

    #[test]
    fn a_page_is_bounded_in_bytes_but_holds_one_event_at_least() {
        let mut page = Page::new(500, Seq(0));
        page.bytes = PAGE_BYTES - 1;
        page.extend(vec![event(1), event(2)]);
        assert_eq!((page.frames.len(), page.is_cut), (1, true));
    }
}

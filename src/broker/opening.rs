//! How a stream begins: attach, take the head, decide whether the client's cursor can be honoured, and say so.
//!
//! All of it runs in one hop to a reading connection. The order is what keeps the hand-over without gap: the
//! subscriber joins its topics before the head is taken, so whatever is committed later is in its queue, and
//! whatever is not lies at or below the head and is replayed.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::feed::FeedRequest;
use super::inbox::may_see;
use super::newest::Sharing;
use super::tally::Tallies;
use crate::hub::{Attachment, Filter, Taken};
use crate::interleave;
use crate::metrics::Metrics;
use crate::model::{Credential, Cursor, EntryState, Seq, UserIdentity, UserKey};
use crate::store::{InboxState, Kinds, PageQuery, Position, Reader, Replayed, Session, Shared, Sight, StoreError};
use crate::wire::cursor::Resume;
use crate::wire::event::{EventKind, Hello, MISSED_EXACT, ResetReason};
use crate::wire::frame::{Frame, SharedFrame};

/// Positions that one look at the log gathers: what `missed` needs, and one more to know that there are more.
pub(super) const PLAN: usize = MISSED_EXACT + 1;
/// Events that one read fetches at most …
const PAGE_EVENTS: usize = 128;
/// … and about how many bytes: a reader that stalls holds one page. A single event may be larger.
const PAGE_BYTES: usize = 24 * 1024;

/// Settings of `hello` that the log does not know.
pub(super) struct Greeting {
    pub(super) heartbeat: u64,
    pub(super) stream: String,
}

/// What a stream begins with.
pub(super) struct Opening {
    pub(super) hello: Hello,
    /// What follows at once: a snapshot, or the first page of the replay.
    pub(super) first: Vec<SharedFrame>,
    pub(super) backlog: Backlog,
    /// Whether the counts may have changed after the client's cursor although the filter lets nothing through: a long
    /// poll, whose client does not see `hello`, must tell them.
    pub(super) counts_moved: bool,
}

/// What is still to be replayed.
pub(super) struct Backlog {
    /// Everything visible up to here was sent.
    pub(super) last: Seq,
    /// Up to here the log is read; what lies above comes from the queue.
    pub(super) head: Seq,
    /// The highest floor when this was decided: retention that takes more is to be told.
    pub(super) floor: Seq,
    pub(super) plan: Plan,
}

/// Positions that are known to hold something to send, oldest first.
#[derive(Default)]
pub(super) struct Plan {
    positions: VecDeque<Position>,
    /// Whether nothing more lies between the last of them and the head.
    complete: bool,
}

impl Plan {
    /// Gathers what is visible in (after, upto].
    pub(super) fn gather(
        reader: &Reader<'_>,
        shown: &Sight,
        kinds: Kinds,
        after: Seq,
        upto: Seq,
    ) -> Result<Self, StoreError> {
        let positions = reader.positions(shown, kinds, after, upto, PLAN)?;
        Ok(Self { complete: positions.len() < PLAN, positions: positions.into() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Takes the next page, encoded for one subscriber, and the position that everything visible is sent up to then.
    pub(super) fn page(
        &mut self,
        reader: &Reader<'_>,
        sharing: &Sharing,
        user: UserKey,
        head: Seq,
    ) -> Result<(Vec<SharedFrame>, Seq), StoreError> {
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let known = |seq| sharing.known(seq);
        let passed = reader.replay(user, self.positions.make_contiguous(), known, |event| {
            let frame = replayed(reader, sharing, event);
            bytes += frame.weight();
            frames.push(frame);
            if frames.len() < PAGE_EVENTS && bytes < PAGE_BYTES {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        let last = self.positions.drain(..passed).next_back();
        // Only a plan that is complete proves that nothing more lies up to the head.
        let reached = match last {
            Some(position) if !(self.complete && self.positions.is_empty()) => position.seq,
            _ => head,
        };
        Ok((frames, reached))
    }
}

fn replayed(reader: &Reader<'_>, sharing: &Sharing, event: Replayed<SharedFrame>) -> SharedFrame {
    match event {
        Replayed::Known(frame) => {
            sharing.taken();
            frame
        }
        Replayed::Notification { notification, state, shared } => {
            sharing.read();
            let frame = Arc::new(Frame::replayed(reader.epoch(), &notification, state));
            if shared == Shared::Topic && state == EntryState::default() {
                sharing.keep(notification.seq, &frame);
            }
            frame
        }
        Replayed::State(change) => Arc::new(Frame::state(reader.epoch(), &change, None)),
    }
}

impl Backlog {
    /// What of the queue's content was not sent yet, and the counts behind it.
    pub(super) fn unsent(&mut self, taken: Taken) -> Vec<SharedFrame> {
        let Taken { mut frames, counts, lagged, .. } = taken;
        #[cfg(test)]
        let is_wrong = interleave::has_fault(interleave::Fault::NoDedupe);
        #[cfg(not(test))]
        let is_wrong = false;
        frames.retain(|frame| is_wrong || frame.seq.is_none_or(|seq| seq > self.last));
        if let Some(newest) = frames.iter().filter_map(|frame| frame.seq).max() {
            self.last = newest;
        }
        // After a lag the counts are ahead of what is still to be replayed; fresh ones are read with the head.
        frames.extend(counts.filter(|(as_of, _)| !lagged && *as_of > self.head).map(|(_, frame)| frame));
        frames
    }
}

/// Which events of the log a filter lets through.
pub(super) fn kinds(filter: &Filter) -> Kinds {
    match (filter.wants(EventKind::Notification), filter.wants(EventKind::State)) {
        (true, true) => Kinds::All,
        (true, false) => Kinds::NotificationsOnly,
        (false, true) => Kinds::StatesOnly,
        (false, false) => Kinds::None,
    }
}

/// What the token lets its user see.
fn visible(sight: &Sight, who: &UserIdentity) -> Sight {
    let mut visible = sight.clone();
    visible.spans.retain(|span| may_see(who, span));
    visible
}

/// The highest floor now, for a stream that has sent everything up to `last` and knew this floor. `None` where retention
/// took something that it was still to tell: it can't go on, and the next one is told `pruned`.
pub(super) fn floor_since(sight: &Sight, who: &UserIdentity, last: Seq, known: Seq) -> Option<Seq> {
    let visible = visible(sight, who);
    let floor = visible.highest_floor();
    let pruned = floor > known && visible.floor_above(last).is_some();
    (!pruned).then_some(floor.max(known))
}

/// What the stream may show: the user's sight, cut by token and filter.
pub(super) fn shown(sight: &Sight, who: &UserIdentity, filter: &Filter) -> Sight {
    let mut shown = sight.clone();
    shown.spans.retain(|span| may_see(who, span) && filter.admits_source(&span.category, span.topic.as_ref()));
    shown
}

/// Joins the topics that the user follows, and learns their language. What the hub learns while this runs wins over what was read.
pub(super) fn join(session: &mut Session<'_>, attachment: &Attachment, who: &UserIdentity) -> Result<(), StoreError> {
    let user = attachment.subscriber().user;
    session.snapshot(|reader| {
        let sight = reader.sight(user)?;
        interleave::point("topics read, not joined");
        attachment.subscriber().listen_first(reader.locale(user)?);
        let open = sight.spans.iter().filter(|span| span.parted.is_none() && may_see(who, span));
        attachment.join(open.filter_map(|span| span.source.as_topic()), reader.head());
        Ok(())
    })
}

/// Everything at one head.
pub(super) struct Begin<'b> {
    pub(super) who: &'b UserIdentity,
    pub(super) request: &'b FeedRequest,
    pub(super) greeting: Greeting,
    pub(super) tallies: &'b parking_lot::Mutex<Tallies>,
    pub(super) metrics: &'b Metrics,
    pub(super) sharing: &'b Sharing,
}

impl Begin<'_> {
    pub(super) fn run(self, reader: &Reader<'_>, user: UserKey) -> Result<Opening, StoreError> {
        let sight = reader.sight(user)?;
        interleave::point("tallies read, not loaded");
        self.tallies.lock().load(&sight, reader.head());
        match self.resumes(reader, &sight)? {
            Ok(after) => self.replay(reader, &sight, after),
            Err(reason) => self.snapshot(reader, &sight, reason),
        }
    }

    /// The position to go on from, or why that can't be.
    fn resumes(&self, reader: &Reader<'_>, sight: &Sight) -> Result<Result<Seq, ResetReason>, StoreError> {
        let visible = visible(sight, self.who);
        Ok(match &self.request.resume {
            Resume::FirstVisit => Err(ResetReason::None),
            Resume::Malformed => Err(ResetReason::Malformed),
            Resume::Now => Ok(reader.head()),
            Resume::Start => {
                // Retention takes read entries before older unread ones, so a floor may lie above what is retained.
                let oldest = reader.positions(&visible, Kinds::NotificationsOnly, Seq::ZERO, reader.head(), 1)?;
                let first = oldest.first().map_or(reader.head(), |oldest| oldest.seq.previous());
                Ok(visible.lowest_floor().min(first))
            }
            Resume::After(cursor) if cursor.epoch != *reader.epoch() => Err(ResetReason::Epoch),
            Resume::After(cursor) if cursor.seq > reader.head() => Err(ResetReason::Ahead),
            Resume::After(cursor) if visible.floor_above(cursor.seq).is_some() => Err(ResetReason::Pruned),
            Resume::After(cursor) => Ok(cursor.seq),
        })
    }

    fn replay(self, reader: &Reader<'_>, sight: &Sight, after: Seq) -> Result<Opening, StoreError> {
        let shown = shown(sight, self.who, &self.request.filter);
        let head = reader.head();
        let mut plan = Plan::gather(reader, &shown, kinds(&self.request.filter), after, head)?;
        let hello = self.hello(reader, sight, after, None, plan.positions.len());
        let counts_moved = plan.is_empty()
            && self.request.filter.wants(EventKind::Unread)
            && !self.request.filter.is_open()
            && !reader.positions(&visible(sight, self.who), Kinds::All, after, head, 1)?.is_empty();
        let (first, last) = plan.page(reader, self.sharing, shown.user, head)?;
        let floor = visible(sight, self.who).highest_floor();
        Ok(Opening { hello, first, backlog: Backlog { last, head, floor, plan }, counts_moved })
    }

    fn snapshot(self, reader: &Reader<'_>, sight: &Sight, reason: ResetReason) -> Result<Opening, StoreError> {
        let head = reader.head();
        let filter = &self.request.filter;
        let mut entries = Vec::new();
        if filter.wants(EventKind::Notification) && self.request.snapshot > 0 {
            let query = PageQuery { before: Seq::MAX, limit: self.request.snapshot, state: InboxState::All };
            (entries, _) = reader.page(&shown(sight, self.who, filter), query)?;
        }
        let positions: VecDeque<_> = entries.iter().rev().map(|(n, _)| Position::of_notification(n.seq)).collect();
        let after = positions.front().map_or(head, |oldest| oldest.seq.previous());
        let hello = self.hello(reader, sight, after, Some(reason), positions.len());
        // What lies between the newest of these and the head is part of the state they show.
        let mut plan = Plan { positions, complete: true };
        let (entries, last) = plan.page(reader, self.sharing, sight.user, head)?;
        let mut first = Vec::with_capacity(entries.len() + 1);
        if filter.wants(EventKind::Unread) {
            let counts = sight.counts(|span| may_see(self.who, span));
            first.push(Arc::new(Frame::unread(reader.epoch(), &counts, head)));
        }
        first.extend(entries);
        let floor = visible(sight, self.who).highest_floor();
        Ok(Opening { hello, first, backlog: Backlog { last, head, floor, plan }, counts_moved: false })
    }

    fn hello(
        &self,
        reader: &Reader<'_>,
        sight: &Sight,
        after: Seq,
        reset: Option<ResetReason>,
        missed: usize,
    ) -> Hello {
        self.metrics.recoveries.get_or_create(&[("recovery", reset.map_or("recovered", ResetReason::as_str))]).inc();
        Hello {
            user: self.who.user.clone(),
            cursor: Cursor { epoch: reader.epoch().clone(), seq: after },
            head: reader.head(),
            reset,
            missed,
            counts: sight.counts(|span| may_see(self.who, span)),
            heartbeat: self.greeting.heartbeat,
            expires: self.who.expires.filter(|_| self.who.credential != Credential::Proxy),
            stream: self.greeting.stream.clone(),
        }
    }
}

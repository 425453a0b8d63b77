//! A subscriber that is attached: what a feed and a long poll have in common.
//!
//! **Invariant**: dropping it detaches at once and frees all that it held, in the hub and in the tallies.

use std::sync::Arc;

use super::Broker;
use super::admission::Opener;
use super::feed::{FeedRequest, MAX_SNAPSHOT};
use super::inbox::may_see;
use super::opening::{Backlog, Begin, Greeting, Opening, Plan, floor_since, join, kinds, shown};
use super::tally::TallyGuard;
use crate::hub::{Attach, Attachment, Ended, Seat, Subscriber, Taken};
use crate::interleave;
use crate::model::{Credential, StreamId, UserIdentity, UserKey};
use crate::store::StoreError;
use crate::wire::event::{ByeReason, EventKind};
use crate::wire::frame::{Frame, SharedFrame};

/// The log can't be read just now: the client comes back, with backoff.
fn unreadable(stream: StreamId, error: &StoreError) -> ByeReason {
    tracing::warn!(%error, %stream, "a stream ends because the log can't be read");
    ByeReason::Overloaded
}

/// How long a subscriber means to stay, and so which seats it takes.
#[derive(Clone)]
pub(super) enum Stay {
    Stream,
    /// A long poll, of a client that may have named itself.
    Poll(Option<Arc<str>>),
    /// A plain catch-up: it is over at once, and ends nobody's stream.
    Glance,
}

impl Stay {
    fn seats(self, user: UserKey, credential: &Credential) -> Vec<Seat> {
        let ticket = match credential {
            Credential::Ticket(id) => Some(Seat::Ticket(id.clone())),
            Credential::Bearer | Credential::Cookie | Credential::Proxy => None,
        };
        match self {
            Self::Stream | Self::Poll(None) => ticket.into_iter().collect(),
            Self::Poll(Some(client)) => ticket.into_iter().chain([Seat::Client(user, client)]).collect(),
            Self::Glance => Vec::new(),
        }
    }
}

/// A subscriber that is attached: to the hub, and to the tallies that its counts are made of.
pub(super) struct Live {
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
    Attached(Attachment, TallyGuard, Box<Opening>),
}

impl Live {
    pub(super) async fn open(
        broker: &Broker,
        stream: StreamId,
        who: UserIdentity,
        request: FeedRequest,
        stay: Stay,
        opener: &Opener,
    ) -> Result<(Self, Opening), ByeReason> {
        let request = FeedRequest { snapshot: request.snapshot.min(MAX_SNAPSHOT), ..request };
        let (who, request) = (Arc::new(who), Arc::new(request));
        let mut attempt = attempt(broker, stream, &who, &request, &stay, opener).await?;
        if matches!(attempt, Attempt::UnknownUser) {
            broker.appear(&who.user).await.map_err(|error| {
                tracing::warn!(%error, %stream, "a new user could not be written down");
                ByeReason::Overloaded
            })?;
            attempt = self::attempt(broker, stream, &who, &request, &stay, opener).await?;
        }
        let Attempt::Attached(attachment, tally, opening) = attempt else { return Err(ByeReason::Overloaded) };
        if broker.inner.is_revoked(&who) {
            // It was taken back after the credential was judged, maybe just before this one came to the hub.
            attachment.subscriber().end(Ended::alone(ByeReason::Revoked));
        }
        if broker.inner.lifecycle.is_draining() {
            // The drain may have walked the hub just before this one came.
            attachment.subscriber().end(broker.inner.ended(ByeReason::Shutdown));
        }
        Ok((Self { broker: broker.clone(), who, request, attachment, _tally: tally }, *opening))
    }

    /// Whether a proxy vouches for the user.
    pub(super) fn by_proxy(&self) -> bool {
        self.who.credential == Credential::Proxy
    }

    pub(super) fn subscriber(&self) -> &Arc<Subscriber> {
        self.attachment.subscriber()
    }

    /// The next page of the backlog; `None` when there is none left.
    pub(super) async fn replay(&self, backlog: &mut Backlog) -> Option<Result<Vec<SharedFrame>, ByeReason>> {
        if backlog.last >= backlog.head {
            return None;
        }
        let (who, request) = (self.who.clone(), self.request.clone());
        let (user, last, head, known) = (self.subscriber().user, backlog.last, backlog.head, backlog.floor);
        let mut plan = std::mem::take(&mut backlog.plan);
        let _turn = self.broker.inner.admission.replay().await;
        let newest = self.broker.inner.newest.clone();
        let read = self.broker.inner.store.read(move |session| {
            let sharing = newest.sharing();
            session.snapshot(|reader| {
                let sight = reader.sight(user)?;
                interleave::point("sight of a page");
                let Some(floor) = floor_since(&sight, &who, last, known) else { return Ok(None) };
                if plan.is_empty() {
                    let shown = shown(&sight, &who, &request.filter);
                    plan = Plan::gather(reader, &shown, kinds(&request.filter), last, head)?;
                }
                let (frames, reached) = plan.page(reader, &sharing, user, head)?;
                Ok(Some((frames, plan, reached, floor)))
            })
        });
        Some(match read.await {
            Ok(Some((frames, plan, reached, floor))) => {
                backlog.plan = plan;
                backlog.last = reached;
                backlog.floor = floor;
                Ok(frames)
            }
            Ok(None) => Err(ByeReason::Rotate),
            Err(error) => Err(unreadable(self.subscriber().stream, &error)),
        })
    }

    /// Goes back to the log after the queue overran: a new head, and the counts as of it.
    pub(super) async fn resync(&self, backlog: &mut Backlog) -> Result<Option<SharedFrame>, ByeReason> {
        let (who, user) = (self.who.clone(), self.subscriber().user);
        let (last, known) = (backlog.last, backlog.floor);
        let read = self.broker.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let sight = reader.sight(user)?;
                let Some(floor) = floor_since(&sight, &who, last, known) else { return Ok(None) };
                let counts = sight.counts(|span| may_see(&who, span));
                Ok(Some((reader.head(), floor, Frame::unread(reader.epoch(), &counts, reader.head()))))
            })
        });
        let read = read.await.map_err(|error| unreadable(self.subscriber().stream, &error))?;
        let (head, floor, counts) = read.ok_or(ByeReason::Rotate)?;
        backlog.head = head;
        backlog.floor = floor;
        backlog.plan = Plan::default();
        Ok(self.request.filter.wants(EventKind::Unread).then(|| Arc::new(counts)))
    }

    pub(super) async fn take(&self) -> Taken {
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
    stay: &Stay,
    opener: &Opener,
) -> Result<Attempt, ByeReason> {
    let _turn = opener.turn().await;
    let (inner, who, request, stay) = (broker.inner.clone(), who.clone(), request.clone(), stay.clone());
    let read = broker.inner.store.read(move |session| {
        let Some(user) = session.snapshot(|reader| reader.user(&who.user))? else { return Ok(Attempt::UnknownUser) };
        let tally = TallyGuard::attach(&inner.tallies, user);
        interleave::point("tallied, not attached");
        let seats = stay.seats(user, &who.credential);
        let attach = Attach {
            user,
            stream,
            filter: request.filter.clone(),
            topics: who.topics.clone(),
            expires: who.expires,
            seats,
        };
        let greeting = Greeting { heartbeat: inner.config().heartbeat.as_secs(), stream: stream.to_string() };
        let sharing = inner.newest.sharing();
        let begin = Begin {
            who: &who,
            request: &request,
            greeting,
            tallies: &inner.tallies,
            metrics: &inner.metrics,
            sharing: &sharing,
        };
        #[cfg(test)]
        if interleave::has_fault(interleave::Fault::ReadThenSubscribe) {
            let opening = session.snapshot(|reader| begin.run(reader, user))?;
            interleave::point("read, not subscribed");
            let Ok(attachment) = inner.hub.attach(attach) else { return Ok(Attempt::Full) };
            join(session, &attachment, &who)?;
            return Ok(Attempt::Attached(attachment, tally, Box::new(opening)));
        }
        let Ok(attachment) = inner.hub.attach(attach) else { return Ok(Attempt::Full) };
        join(session, &attachment, &who)?;
        let opening = session.snapshot(|reader| begin.run(reader, user))?;
        interleave::point("begun, not answered");
        Ok(Attempt::Attached(attachment, tally, Box::new(opening)))
    });
    read.await.map_err(|error| unreadable(stream, &error))
}

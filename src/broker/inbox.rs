//! The inbox: pages, counts and marks of one user.

use super::{Broker, BrokerError};
use crate::model::{
    Category, Counts, Credential, Cursor, Identity, MarkTarget, NotificationId, Scope, Seq, UserId, UserIdentity,
};
use crate::store::{InboxState, MarkEntries, PageQuery, Reader, Sight, Span, StoreError};
use crate::wire::inbox::{Entry, MarkBody, Marked, Page};

/// Entries of one page at most.
pub const MAX_PAGE: usize = 100;

/// What a page is asked for.
#[derive(Clone, Debug)]
pub struct InboxQuery {
    /// Entries before this one; `None` begins with the newest.
    pub before: Option<Cursor>,
    /// 1 to [`MAX_PAGE`].
    pub limit: usize,
    pub state: InboxState,
    pub category: Option<Category>,
}

impl Broker {
    /// One page, newest first.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn inbox(&self, who: &UserIdentity, query: InboxQuery) -> Result<Page, BrokerError> {
        let before = match &query.before {
            Some(cursor) if cursor.epoch != *self.epoch() => return Err(BrokerError::UnknownEpoch),
            Some(cursor) => cursor.seq,
            None => Seq::MAX,
        };
        let page = PageQuery { before, limit: query.limit.clamp(1, MAX_PAGE), state: query.state };
        self.of_user(who.clone(), move |reader, sight, cursor| {
            let counts = sight.counts(|_| true);
            let mut shown = sight;
            shown.spans.retain(|span| query.category.as_ref().is_none_or(|wanted| *wanted == span.category));
            let (entries, next) = reader.page(&shown, page)?;
            let entries = entries.into_iter().map(|(notification, state)| Entry { notification, state }).collect();
            Ok(Page { entries, next, counts, cursor })
        })
        .await
    }

    /// One entry.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] where it is not in this user's inbox.
    pub async fn entry(&self, who: &UserIdentity, id: NotificationId) -> Result<Entry, BrokerError> {
        let found = self.of_user(who.clone(), move |reader, sight, _| reader.entry(&sight, id)).await?;
        found.map(|(notification, state)| Entry { notification, state }).ok_or(BrokerError::NotFound("entry"))
    }

    /// The caller's counts, and the head they are as of.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn counts(&self, who: &UserIdentity) -> Result<(Counts, Cursor), BrokerError> {
        self.of_user(who.clone(), |_, sight, cursor| Ok((sight.counts(|_| true), cursor))).await
    }

    /// A user's counts, for the application's backend.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn counts_of(&self, by: &Identity, user: &UserId) -> Result<(Counts, Cursor), BrokerError> {
        if !by.has(&Scope::Users) {
            return Err(BrokerError::Forbidden("reading a user's counts needs the scope `users`"));
        }
        let whole = UserIdentity {
            user: user.clone(),
            credential: Credential::Bearer,
            issued: None,
            topics: None,
            publishes: false,
            expires: None,
        };
        // A backend that asks about someone does not make them appear.
        let (found, _) = self.read_sight(whole, |_, sight, cursor| Ok((sight.counts(|_| true), cursor))).await?;
        Ok(found)
    }

    /// Marks entries. One mark is one commit and, where it changed something, one `state` event.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn mark(&self, who: &UserIdentity, body: MarkBody) -> Result<Marked, BrokerError> {
        if matches!(who.credential, Credential::Ticket(_)) {
            return Err(BrokerError::Forbidden("a ticket reads only; marking needs the session or a token"));
        }
        if body.epoch.is_some_and(|epoch| epoch != *self.epoch()) {
            return Err(BrokerError::UnknownEpoch);
        }
        // A watermark covers the whole inbox, also what this token may not see.
        if who.topics.is_some() && matches!(body.mark.target, MarkTarget::Upto(_)) {
            return Err(BrokerError::Forbidden("this token sees only some topics, so it marks entries by `ids`"));
        }
        let operation = MarkEntries {
            user: who.user.clone(),
            topics: who.topics.clone(),
            mark: body.mark,
            now: self.inner.clock.now(),
        };
        let mut outcome = self.inner.store.write(operation.clone()).await?;
        if outcome.sight.is_none() {
            // Someone new: what was sent to everyone of late is theirs, to be marked and to be counted.
            self.appear(&who.user).await?;
            outcome = self.inner.store.write(operation).await?;
        }
        Ok(Marked {
            changed: outcome.changed,
            counts: outcome.sight.map(|sight| sight.counts(|span| may_see(who, span))).unwrap_or_default(),
            cursor: Cursor { epoch: self.epoch().clone(), seq: outcome.head },
            unknown: outcome.unknown,
        })
    }

    /// Reads with what the user may see, at one head.
    ///
    /// Someone new appears with it, so that what they have seen of `everyone` does not leave them when it grows old.
    /// Reading does not depend on that: on a full disk it goes on.
    async fn of_user<R, F>(&self, who: UserIdentity, work: F) -> Result<R, BrokerError>
    where
        F: FnOnce(&Reader<'_>, Sight, Cursor) -> Result<R, StoreError> + Send + 'static,
        R: Send + 'static,
    {
        let user = who.user.clone();
        let (result, sight_of) = self.read_sight(who, work).await?;
        if sight_of == SightOf::Newcomer
            && let Err(error) = self.appear(&user).await
        {
            tracing::debug!(%error, "someone new could not be written down; the next request tries again");
        }
        Ok(result)
    }

    async fn read_sight<R, F>(&self, who: UserIdentity, work: F) -> Result<(R, SightOf), BrokerError>
    where
        F: FnOnce(&Reader<'_>, Sight, Cursor) -> Result<R, StoreError> + Send + 'static,
        R: Send + 'static,
    {
        let newcomer_since = self.inner.clock.now().before(self.inner.config().everyone_horizon);
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let (mut sight, sight_of) = match reader.user(&who.user)? {
                    Some(key) => (reader.sight(key)?, SightOf::Known),
                    None => (reader.newcomers_sight(newcomer_since)?, SightOf::Newcomer),
                };
                sight.spans.retain(|span| may_see(&who, span));
                let cursor = Cursor { epoch: reader.epoch().clone(), seq: reader.head() };
                Ok((work(reader, sight, cursor)?, sight_of))
            })
        });
        Ok(read.await?)
    }
}

/// Whose sight was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SightOf {
    Known,
    /// A user who has not appeared yet.
    Newcomer,
}

/// Whether the caller's token may see a span.
pub(super) fn may_see(who: &UserIdentity, span: &Span) -> bool {
    span.topic.as_ref().is_none_or(|topic| who.may_see(topic))
}

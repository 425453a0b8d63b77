//! Everything about one user: to be handed out, and to be erased.

use super::{Broker, BrokerError};
use crate::interleave;
use crate::model::{Cursor, Identity, MarkAs, MarkKind, Profile, Scope, Seq, UserId, UserKey};
use crate::store::{EraseRows, ErasedPart, ForgetUser, Forgotten, Reader, StoreError, UserRow};
use crate::wire::delivery::Asked;
use crate::wire::inbox::Entry;
use crate::wire::upkeep::{Erased, ExportFrom, ExportPage, ExportRecord};

impl Broker {
    /// A page of everything that is stored about a user.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a user who never appeared.
    pub async fn export(&self, by: &Identity, user: &UserId, from: ExportFrom) -> Result<ExportPage, BrokerError> {
        may_look_after(by)?;
        let user = user.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| match reader.user(&user)? {
                Some(key) => page(reader, Some(key), &user, from).map(Some),
                // Someone may have published, or wait for a first notification, without an inbox.
                None if !reader.is_named(&user)? => Ok(None),
                None => page(reader, None, &user, from).map(Some),
            })
        });
        read.await?.ok_or(BrokerError::NotFound("user"))
    }

    /// Erases everything about a user, and ends their streams. The file still holds traces until it is compacted.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] where nothing bears the name.
    pub async fn erase(&self, by: &Identity, user: &UserId) -> Result<Erased, BrokerError> {
        may_look_after(by)?;
        let mut erased = Erased::default();
        let mut found = false;
        let key = loop {
            let forgotten = self.inner.store.write(ForgetUser { user: user.clone() }).await?;
            interleave::point("forgotten in the log, not in memory");
            // What was read before may bear the name.
            self.inner.newest.forget_all();
            match forgotten {
                Forgotten::Part { unsigned, others } => {
                    found |= unsigned + others > 0;
                    erased.unsigned += unsigned;
                }
                Forgotten::All(key) => break key,
            }
        };
        // Or an old token would make the user anew.
        if (key.is_some() || found)
            && let Err(error) = self.take_back(user).await
        {
            tracing::warn!(%error, "tokens of an erased user could not be taken back; they are good until they run out");
        }
        tracing::info!(by = %by.principal(), "A user was erased");
        match key {
            Some(key) => {
                let part = self.erase_rows(key).await?;
                Ok(Erased { entries: part.entries, notifications: part.notifications, ..erased })
            }
            None if found => Ok(erased),
            None => Err(BrokerError::NotFound("user")),
        }
    }

    /// Takes the rows of a user who is forgotten.
    async fn erase_rows(&self, user: UserKey) -> Result<ErasedPart, StoreError> {
        let mut erased = ErasedPart::default();
        loop {
            let part = self.inner.store.write(EraseRows { user }).await?;
            erased.entries += part.entries;
            erased.notifications += part.notifications;
            if !part.more {
                return Ok(erased);
            }
        }
    }

    /// Goes on with erasures that an end of the process cut short.
    pub(super) async fn finish_erasures(&self) -> Result<(), StoreError> {
        loop {
            let read = self.inner.store.read(|session| session.snapshot(|reader| reader.forgotten_user()));
            let Some(user) = read.await? else { return Ok(()) };
            self.erase_rows(user).await?;
        }
    }
}

fn may_look_after(by: &Identity) -> Result<(), BrokerError> {
    if by.has(&Scope::Users) {
        Ok(())
    } else {
        Err(BrokerError::Forbidden("exporting and erasing users needs the scope `users`"))
    }
}

fn page(reader: &Reader<'_>, key: Option<UserKey>, user: &UserId, from: ExportFrom) -> Result<ExportPage, StoreError> {
    match from {
        ExportFrom::Profile => {
            Ok(ExportPage { records: profile(reader, key, user)?, next: Some(ExportFrom::Entries(Seq::ZERO)) })
        }
        ExportFrom::Entries(after) => {
            let entries = match key {
                Some(key) => reader.entries_after(&reader.sight(key)?, after)?,
                None => Vec::new(),
            };
            let last = entries.last().map(|(notification, _)| notification.seq);
            let records = entries
                .into_iter()
                .map(|(notification, state)| ExportRecord::Entry(Entry { notification, state }))
                .collect();
            Ok(ExportPage { records, next: Some(last.map_or(ExportFrom::Published(Seq::ZERO), ExportFrom::Entries)) })
        }
        ExportFrom::Published(after) => {
            let published = reader.published_by(user, after)?;
            let last = published.last().map(|notification| notification.seq);
            let records = published.into_iter().map(ExportRecord::Published).collect();
            Ok(ExportPage { records, next: Some(last.map_or(ExportFrom::Scheduled(None), ExportFrom::Published)) })
        }
        ExportFrom::Scheduled(after) => {
            let rows = reader.scheduled_about(user, after)?;
            let last = rows.last().map(|row| row.scheduled.id);
            let next = Some(last.map_or(ExportFrom::Deliveries(None), |id| ExportFrom::Scheduled(Some(id))));
            let records = rows.into_iter().map(|row| ExportRecord::Scheduled(Box::new(row.scheduled))).collect();
            Ok(ExportPage { records, next })
        }
        ExportFrom::Deliveries(before) => {
            let asked = Asked { user: Some(user.clone()), ..Asked::default() };
            let rows = reader.deliveries(&asked, before, DELIVERIES_A_PAGE)?;
            let mut records = Vec::with_capacity(rows.items.len());
            for row in rows.items {
                let attempts = reader.attempts(row.id)?;
                records.push(ExportRecord::Delivery(Box::new(row), attempts));
            }
            Ok(ExportPage { records, next: rows.next.map(|id| ExportFrom::Deliveries(Some(id))) })
        }
    }
}

/// Deliveries that one page of an export holds.
const DELIVERIES_A_PAGE: usize = 200;

/// Who the user is, without entries.
fn profile(reader: &Reader<'_>, key: Option<UserKey>, user: &UserId) -> Result<Vec<ExportRecord>, StoreError> {
    let UserRow { appeared_at, watermarks, tickets } = reader.user_row(key, user)?;
    let mut records = Vec::new();
    records.extend(appeared_at.map(|appeared_at| ExportRecord::User { user: user.clone(), appeared_at }));
    let profile = key.map(|key| reader.profile(key)).transpose()?.unwrap_or_default();
    if profile != Profile::default() {
        records.push(ExportRecord::Profile { user: user.clone(), profile });
    }
    let followed = key.map(|key| reader.followed(key)).transpose()?;
    for row in followed.unwrap_or_default() {
        records.push(ExportRecord::Follow { topic: row.topic, following: row.following, muted: row.muted });
    }
    for (category, kind, upto, at) in watermarks {
        let mark = match kind {
            MarkKind::Seen => MarkAs::Seen,
            MarkKind::Read => MarkAs::Read,
            MarkKind::Archived => MarkAs::Archived,
        };
        let upto = Cursor { epoch: reader.epoch().clone(), seq: upto };
        records.push(ExportRecord::Watermark { mark, category, upto, at });
    }
    for (created_at, used_at, expires_at) in tickets {
        records.push(ExportRecord::Ticket { created_at, used_at, expires_at });
    }
    Ok(records)
}

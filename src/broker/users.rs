//! Everything about one user: to be handed out, and to be erased.

use super::{Broker, BrokerError};
use crate::model::{Cursor, Identity, MarkAs, MarkKind, Scope, Seq, UserId, UserKey};
use crate::store::{EraseUser, Reader, StoreError, UserRow};
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
                Some(key) => page(reader, key, &user, from).map(Some),
                None => Ok(None),
            })
        });
        read.await?.ok_or(BrokerError::NotFound("user"))
    }

    /// Erases everything about a user, and ends their streams. The file still holds traces until it is compacted.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] for a user who never appeared.
    pub async fn erase(&self, by: &Identity, user: &UserId) -> Result<Erased, BrokerError> {
        may_look_after(by)?;
        let mut erased = Erased::default();
        loop {
            let part = self.inner.store.write(EraseUser { user: user.clone() }).await?;
            erased.entries += part.entries;
            erased.notifications += part.notifications;
            erased.unsigned += part.unsigned;
            if !part.more {
                return Ok(erased);
            }
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

fn page(reader: &Reader<'_>, key: UserKey, user: &UserId, from: ExportFrom) -> Result<ExportPage, StoreError> {
    match from {
        ExportFrom::Profile => {
            Ok(ExportPage { records: profile(reader, key, user)?, next: Some(ExportFrom::Entries(Seq::ZERO)) })
        }
        ExportFrom::Entries(after) => {
            let entries = reader.entries_after(&reader.sight(key)?, after)?;
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
            let next = rows.last().map(|row| ExportFrom::Scheduled(Some(row.scheduled.id)));
            let records = rows.into_iter().map(|row| ExportRecord::Scheduled(row.scheduled)).collect();
            Ok(ExportPage { records, next })
        }
    }
}

/// Who the user is, without entries.
fn profile(reader: &Reader<'_>, key: UserKey, user: &UserId) -> Result<Vec<ExportRecord>, StoreError> {
    let UserRow { appeared_at, watermarks, tickets } = reader.user_row(key, user)?;
    let mut records = vec![ExportRecord::User { user: user.clone(), appeared_at }];
    for row in reader.followed(key)? {
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

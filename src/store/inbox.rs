//! Pages of an inbox, newest first, and the snapshot that a stream begins with when it can't go on.

use rusqlite::{Connection, params};

use super::StoreError;
use super::notifications::{self, Located};
use super::reader::Reader;
use super::sight::{Sight, Span};
use super::states::States;
use super::wordings::Listener;
use crate::model::{EntryState, Notification, NotificationId, Seq, UserKey};

const DIRECT_BEFORE: &str =
    "SELECT seq FROM entries WHERE user = ?1 AND source = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq DESC LIMIT ?5";
const TOPIC_BEFORE: &str = "
    SELECT seq FROM notifications
    WHERE topic = ?1 AND seq > ?2 AND seq < ?3 AND died IS NULL ORDER BY seq DESC LIMIT ?4";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[DIRECT_BEFORE, TOPIC_BEFORE];

/// Entries looked at for one page at most. A page may come short for it; its `next` goes on from there.
const MAX_SCAN: usize = 5_000;
/// Entries looked at in one go.
const CHUNK: usize = 64;

/// Which entries a page shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InboxState {
    /// All that are not archived.
    #[default]
    All,
    /// Not read and not archived.
    Unread,
    Archived,
}

impl InboxState {
    const fn shows(self, state: &EntryState) -> bool {
        match self {
            Self::All => state.archived_at.is_none(),
            Self::Unread => state.is_unread(),
            Self::Archived => state.archived_at.is_some(),
        }
    }
}

/// What a page is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PageQuery {
    /// Entries before this position.
    pub before: Seq,
    /// Entries at most.
    pub limit: usize,
    pub state: InboxState,
}

/// An entry with its state.
pub type StatedEntry = (Notification, EntryState);

impl Reader<'_> {
    /// A page, newest first, and where the next older one begins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(&self, sight: &Sight, query: PageQuery) -> Result<(Vec<StatedEntry>, Option<Seq>), StoreError> {
        let mut page = Vec::with_capacity(query.limit.min(CHUNK));
        let (mut before, mut scanned) = (query.before, 0);
        let mut listener = Listener::new(self.connection(), sight.user);
        loop {
            let seqs = newest_before(self.connection(), sight, before, CHUNK)?;
            let Some(oldest) = seqs.last().copied() else { return Ok((page, None)) };
            let states = States::load(self.connection(), sight.user, oldest)?;
            for seq in &seqs {
                let Some(stored) = notifications::load(self.connection(), *seq)? else { continue };
                let state = states.of(stored.source, stored.category, *seq)?;
                if !query.state.shows(&state) {
                    continue;
                }
                if page.len() == query.limit {
                    // One more is there, so there is a next page.
                    return Ok((page, Some(seq.next())));
                }
                page.push((listener.told(stored)?, state));
            }
            scanned += seqs.len();
            before = oldest;
            if seqs.len() < CHUNK {
                return Ok((page, None));
            }
            if scanned >= MAX_SCAN {
                return Ok((page, Some(before)));
            }
        }
    }

    /// One entry of the user's inbox.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn entry(&self, sight: &Sight, id: NotificationId) -> Result<Option<StatedEntry>, StoreError> {
        let found = notifications::locate(self.connection(), id)?.filter(|found| found.death.is_none());
        let Some(Located { seq, source, .. }) = found else { return Ok(None) };
        if !sight.spans.iter().any(|span| span.source == source && span.contains(seq)) {
            return Ok(None);
        }
        if source.as_topic().is_none() && !notifications::has_entry(self.connection(), sight.user, source, seq)? {
            return Ok(None);
        }
        let Some(stored) = notifications::load(self.connection(), seq)? else { return Ok(None) };
        let state = States::load(self.connection(), sight.user, seq)?.of(stored.source, stored.category, seq)?;
        Ok(Some((Listener::new(self.connection(), sight.user).told(stored)?, state)))
    }
}

/// The newest positions before `before` over all spans, newest first.
fn newest_before(
    connection: &Connection,
    sight: &Sight,
    before: Seq,
    limit: usize,
) -> Result<Vec<Seq>, rusqlite::Error> {
    let mut found = Vec::new();
    for span in &sight.spans {
        found.extend(span_before(connection, sight.user, span, before, limit)?);
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(limit);
    Ok(found)
}

fn span_before(
    connection: &Connection,
    user: UserKey,
    span: &Span,
    before: Seq,
    limit: usize,
) -> Result<Vec<Seq>, rusqlite::Error> {
    let before = before.min(span.end().next());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    match span.source.as_topic() {
        Some(topic) => connection
            .prepare_cached(TOPIC_BEFORE)?
            .query_map(params![topic, span.joined, before, limit], |row| row.get(0))?
            .collect(),
        None => connection
            .prepare_cached(DIRECT_BEFORE)?
            .query_map(params![user, span.source, span.joined, before, limit], |row| row.get(0))?
            .collect(),
    }
}

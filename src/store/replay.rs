//! Reading the log after a cursor, for one user: which positions hold something visible, and what stands there.
//!
//! Positions come first, merged over all spans; contents follow page by page. Replay is compact: marks and watermarks
//! keep the seq of their latest change, so a state that changed thrice comes once, where it changed last.

use std::ops::ControlFlow;

use rusqlite::{Connection, Row, params};

use super::StoreError;
use super::reader::Reader;
use super::sight::{Sight, Span};
use super::states::States;
use super::wordings::Listener;
use super::{deaths, notifications};
use crate::model::{
    Became, Death, EntryState, MarkAs, MarkKind, MarkTarget, Notification, NotificationId, Seq, SourceKey, StateChange,
    UserKey,
};

const DIRECT_BETWEEN: &str = "
    SELECT seq FROM entries WHERE user = ?1 AND source = ?2 AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5";
const TOPIC_BETWEEN: &str = "
    SELECT seq FROM notifications
    WHERE topic = ?1 AND seq > ?2 AND seq <= ?3 AND died IS NULL ORDER BY seq LIMIT ?4";
/// Marks of what retention took are told no more.
const MARKS_BETWEEN: &str = "
    SELECT DISTINCT m.changed FROM marks m INDEXED BY marks_changed
    WHERE m.user = ?1 AND m.changed > ?2 AND m.changed <= ?3
      AND EXISTS (SELECT 1 FROM notifications n WHERE n.seq = m.seq)
    ORDER BY m.changed LIMIT ?4";
const GRAVES_BETWEEN: &str = "
    SELECT DISTINCT died FROM graves
    WHERE user = ?1 AND died > ?2 AND died <= ?3 AND source = ?4 ORDER BY died LIMIT ?5";
const DEATHS_BETWEEN: &str = "
    SELECT died FROM notifications
    WHERE topic = ?1 AND died > ?2 AND died <= ?3 AND seq > ?4 AND seq <= ?5 ORDER BY died LIMIT ?6";
const GRAVES_AT: &str = "
    SELECT n.id, g.death, g.replaced_by FROM graves g JOIN notifications n ON n.seq = g.seq
    WHERE g.user = ?1 AND g.died = ?2 AND g.source = ?3";
const DEATH_AT: &str = "SELECT id, death, replaced_by FROM notifications WHERE topic = ?1 AND died = ?2";
const WATERMARKS_BETWEEN: &str = "
    SELECT DISTINCT changed FROM watermarks
    WHERE user = ?1 AND changed > ?2 AND changed <= ?3 ORDER BY changed LIMIT ?4";
const WATERMARKS_AT: &str = "
    SELECT w.kind, w.upto, c.name FROM watermarks w LEFT JOIN categories c ON c.id = w.category
    WHERE w.user = ?1 AND w.changed = ?2";
/// Left to itself SQLite walks through all marks of the user, for every event.
const MARKS_AT: &str = "
    SELECT m.kind, m.at IS NULL, n.id FROM marks m INDEXED BY marks_changed JOIN notifications n ON n.seq = m.seq
    WHERE m.user = ?1 AND m.changed = ?2";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    DIRECT_BETWEEN,
    TOPIC_BETWEEN,
    MARKS_BETWEEN,
    GRAVES_BETWEEN,
    DEATHS_BETWEEN,
    GRAVES_AT,
    DEATH_AT,
    WATERMARKS_BETWEEN,
    WATERMARKS_AT,
    MARKS_AT,
];

/// Something visible to the user, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub seq: Seq,
    kind: PositionKind,
}

impl Position {
    /// Where a notification stands that was found otherwise.
    pub const fn of_notification(seq: Seq) -> Self {
        Self { seq, kind: PositionKind::Notification }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PositionKind {
    Notification,
    Mark,
    /// Of an entry of this source.
    Death(SourceKey),
}

/// What stands at a position. `K` is what the caller knows of an entry that nobody has marked.
#[derive(Clone, Debug)]
pub enum Replayed<K> {
    Notification {
        notification: Notification,
        state: EntryState,
        /// Whether it is a topic's, which others read too.
        shared: Shared,
    },
    /// It is alive and the user's, without a mark: what the caller knows of it holds.
    Known(K),
    State(StateChange),
}

/// Whether others read the same entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    Topic,
    Direct,
}

/// Which kinds of event a replay is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    All,
    NotificationsOnly,
    StatesOnly,
    None,
}

impl Kinds {
    const fn notifications(self) -> bool {
        matches!(self, Self::All | Self::NotificationsOnly)
    }

    const fn states(self) -> bool {
        matches!(self, Self::All | Self::StatesOnly)
    }
}

/// Entries of one span in (after, upto], oldest first, at most `limit`.
pub(super) fn entries_between(
    connection: &Connection,
    user: UserKey,
    span: &Span,
    after: Seq,
    upto: Seq,
    limit: usize,
) -> Result<Vec<Seq>, rusqlite::Error> {
    let (after, upto) = (after.max(span.joined), upto.min(span.end()));
    if after >= upto || span.newest <= after {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    match span.source.as_topic() {
        Some(topic) => seqs(connection, TOPIC_BETWEEN, params![topic, after, upto, limit]),
        None => seqs(connection, DIRECT_BETWEEN, params![user, span.source, after, upto, limit]),
    }
}

fn seqs(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Seq>, rusqlite::Error> {
    connection.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
}

impl Reader<'_> {
    /// Visible positions in (after, upto], oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn positions(
        &self,
        sight: &Sight,
        kinds: Kinds,
        after: Seq,
        upto: Seq,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let connection = self.connection();
        let mut found = Vec::new();
        if after >= upto {
            return Ok(found);
        }
        if kinds.notifications() {
            for span in &sight.spans {
                let after = after.max(span.began);
                let seqs = entries_between(connection, sight.user, span, after, upto, limit)?;
                found.extend(seqs.into_iter().map(|seq| Position { seq, kind: PositionKind::Notification }));
            }
        }
        if kinds.states() {
            for sql in [MARKS_BETWEEN, WATERMARKS_BETWEEN] {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let seqs = seqs(connection, sql, params![sight.user, after, upto, limit])?;
                found.extend(seqs.into_iter().map(|seq| Position { seq, kind: PositionKind::Mark }));
            }
            for span in &sight.spans {
                let kind = PositionKind::Death(span.source);
                let seqs = deaths_between(connection, sight.user, span, after, upto, limit)?;
                found.extend(seqs.into_iter().map(|seq| Position { seq, kind }));
            }
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    /// Hands over what stands at these positions, in their order, until `take` has enough. What is gone meanwhile is
    /// left out. What `known` has of a topic's entry is handed back in place of the entry, where the user has set no
    /// mark on it. Returns how many positions were passed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn replay<K>(
        &self,
        user: UserKey,
        positions: &[Position],
        known: impl Fn(Seq) -> Option<K>,
        mut take: impl FnMut(Replayed<K>) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        let Some(first) = positions.first() else { return Ok(0) };
        let states = States::load(self.connection(), user, first.seq)?;
        let mut listener = Listener::new(self.connection(), user);
        for (passed, position) in positions.iter().enumerate() {
            let found = match position.kind {
                PositionKind::Notification => {
                    self.living(user, position.seq, &states, known(position.seq), &mut listener)?
                }
                PositionKind::Mark => self.mark_at(user, position.seq)?.map(Replayed::State),
                PositionKind::Death(source) => self.death_at(user, source, position.seq)?.map(Replayed::State),
            };
            if found.is_some_and(|event| take(event).is_break()) {
                return Ok(passed + 1);
            }
        }
        Ok(positions.len())
    }

    /// The notification at a position. It may have died since the position was gathered.
    fn living<K>(
        &self,
        user: UserKey,
        seq: Seq,
        states: &States<'_>,
        known: Option<K>,
        listener: &mut Listener<'_>,
    ) -> Result<Option<Replayed<K>>, StoreError> {
        if let Some(known) = known {
            let Some((topic, category)) = notifications::living_of_topic(self.connection(), seq)? else {
                return Ok(None);
            };
            if states.of(SourceKey::topic(topic), category, seq)? == EntryState::default() {
                return Ok(Some(Replayed::Known(known)));
            }
        }
        let Some(stored) = notifications::load(self.connection(), seq)?.filter(|stored| stored.died.is_none()) else {
            return Ok(None);
        };
        if stored.source.as_topic().is_none() && !notifications::has_entry(self.connection(), user, stored.source, seq)?
        {
            return Ok(None);
        }
        let state = states.of(stored.source, stored.category, seq)?;
        // What says something else in other languages is not the same for all.
        let shared = if stored.source.as_topic().is_some() && !stored.worded { Shared::Topic } else { Shared::Direct };
        Ok(Some(Replayed::Notification { notification: listener.told(stored)?, state, shared }))
    }

    /// The mark that was committed at a position, as far as later marks have not overtaken it.
    fn mark_at(&self, user: UserKey, seq: Seq) -> Result<Option<StateChange>, StoreError> {
        let mut statement = self.sql(WATERMARKS_AT)?;
        let watermarks = statement
            .query_map(params![user, seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<Vec<(MarkKind, Seq, _)>, _>>()?;
        if let Some((kind, upto, category)) = watermarks.into_iter().max_by_key(|(kind, ..)| strength(*kind)) {
            let target = MarkTarget::Upto(upto);
            return Ok(Some(StateChange { seq, became: Became::Marked(set_mark(kind)), target, category }));
        }
        let mut statement = self.sql(MARKS_AT)?;
        let rows = statement
            .query_map(params![user, seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<Vec<(MarkKind, bool, NotificationId)>, _>>()?;
        // One mark names one state; a `read` wrote `seen` rows beside its own.
        let strongest =
            rows.iter().max_by_key(|(kind, ..)| strength(*kind)).map(|(kind, taken_back, _)| (*kind, *taken_back));
        let Some((kind, taken_back)) = strongest else { return Ok(None) };
        let mark = match (kind, taken_back) {
            (MarkKind::Read, true) => MarkAs::Unread,
            (MarkKind::Archived, true) => MarkAs::Unarchived,
            (kind, _) => set_mark(kind),
        };
        let ids = rows.into_iter().filter(|(row_kind, ..)| *row_kind == kind).map(|(_, _, id)| id).collect();
        Ok(Some(StateChange { seq, became: Became::Marked(mark), target: MarkTarget::Ids(ids), category: None }))
    }

    /// The death that was committed at a position in a source.
    fn death_at(&self, user: UserKey, source: SourceKey, seq: Seq) -> Result<Option<StateChange>, StoreError> {
        let read = |row: &Row<'_>| Ok((row.get(0)?, deaths::from_columns(row.get(1)?, row.get(2)?)));
        let dead: Vec<(NotificationId, Death)> = match source.as_topic() {
            Some(topic) => self.sql(DEATH_AT)?.query_map(params![topic, seq], read)?.collect::<Result<_, _>>()?,
            None => self.sql(GRAVES_AT)?.query_map(params![user, seq, source], read)?.collect::<Result<_, _>>()?,
        };
        let Some((_, death)) = dead.first() else { return Ok(None) };
        let became = Became::Dead(*death);
        let target = MarkTarget::Ids(dead.into_iter().map(|(id, _)| id).collect());
        Ok(Some(StateChange { seq, became, target, category: None }))
    }
}

/// Deaths of entries of one span in (after, upto], oldest first, at most `limit`.
fn deaths_between(
    connection: &Connection,
    user: UserKey,
    span: &Span,
    after: Seq,
    upto: Seq,
    limit: usize,
) -> Result<Vec<Seq>, rusqlite::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    match span.source.as_topic() {
        Some(_) if span.shrunk <= after => Ok(Vec::new()),
        Some(topic) => seqs(connection, DEATHS_BETWEEN, params![topic, after, upto, span.joined, span.end(), limit]),
        None => seqs(connection, GRAVES_BETWEEN, params![user, after, upto, span.source, limit]),
    }
}

/// Read says more than the seen that comes with it.
const fn strength(kind: MarkKind) -> u8 {
    match kind {
        MarkKind::Seen => 0,
        MarkKind::Read => 1,
        MarkKind::Archived => 2,
    }
}

const fn set_mark(kind: MarkKind) -> MarkAs {
    match kind {
        MarkKind::Seen => MarkAs::Seen,
        MarkKind::Read => MarkAs::Read,
        MarkKind::Archived => MarkAs::Archived,
    }
}

//! How many entries of a span count, from watermarks and sparse marks; and the recount from first principles that
//! proves it.
//!
//! Above the watermarks an entry counts unless its own mark says otherwise; below them it does not, unless its mark
//! was taken back. So the count is one difference of ordinals and a look at the sparse rows that say otherwise.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::reader::Reader;
use super::sight::{Sight, Span};
use super::states::{States, Watermarks};
use super::{StoreError, replay};
use crate::model::{Category, CategoryCounts, Counts, MarkKind, Seq, Timestamp, UserId, UserKey};

/// Sparse rows that may make an entry count differently than its watermark says: all above it; below it those of
/// entries with a mark taken back.
const SELECT_EXCEPTIONS: &str = "
    SELECT seq, kind, at FROM marks
    WHERE user = ?1 AND source = ?2 AND seq > ?3 AND seq <= ?4
    UNION ALL
    SELECT m.seq, m.kind, m.at FROM
        (SELECT DISTINCT seq FROM marks INDEXED BY marks_taken_back
         WHERE user = ?1 AND source = ?2 AND seq > ?5 AND seq <= ?3 AND at IS NULL) taken
    JOIN marks m ON m.user = ?1 AND m.source = ?2 AND m.seq = taken.seq
    WHERE m.seq <= ?4";
const SELECT_USERS: &str = "SELECT id, name FROM users WHERE id > ?1 ORDER BY id LIMIT ?2";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_EXCEPTIONS, SELECT_USERS];

/// Entries of a span in which neither `kind` nor archived is set.
pub(super) fn count_open(
    connection: &Connection,
    user: UserKey,
    span: &Span,
    watermarks: &Watermarks,
    kind: MarkKind,
) -> Result<u64, rusqlite::Error> {
    let reach = |kind| watermarks.reach(span.category_key, kind);
    let (of_kind, of_archived) = (reach(kind), reach(MarkKind::Archived));
    let covered = of_kind.max(of_archived).max(span.joined);
    let plain = span.count_entries(connection, user, covered, span.end())?;

    let mut exceptions: BTreeMap<Seq, (bool, bool)> = BTreeMap::new();
    let mut statement = connection.prepare_cached(SELECT_EXCEPTIONS)?;
    let mut rows = statement.query(params![user, span.source, covered, span.end(), span.joined])?;
    while let Some(row) = rows.next()? {
        let (seq, row_kind, at): (Seq, MarkKind, Option<Timestamp>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let state = exceptions.entry(seq).or_insert((seq <= of_kind, seq <= of_archived));
        if row_kind == kind {
            state.0 = at.is_some();
        } else if row_kind == MarkKind::Archived {
            state.1 = at.is_some();
        }
    }
    let (mut more, mut fewer) = (0u64, 0u64);
    for (seq, (set, archived)) in exceptions {
        match (seq > covered, !set && !archived) {
            (true, false) => fewer += 1,
            (false, true) => more += 1,
            _ => {}
        }
    }
    Ok((plain + more).saturating_sub(fewer))
}

/// A user whose stored counts are not what a recount gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    pub user: UserId,
    pub stored: Counts,
    pub recounted: Counts,
}

/// Users looked at in one read transaction.
const USERS_A_PAGE: usize = 100;

impl Reader<'_> {
    /// Compares the stored counts of the users after `after` with a count of their entries one by one. Returns what
    /// drifted, and where the next page begins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drift(&self, after: UserKey) -> Result<(Vec<Drift>, Option<UserKey>), StoreError> {
        let mut statement = self.sql(SELECT_USERS)?;
        let rows = statement.query_map(params![after, USERS_A_PAGE], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let users: Vec<(UserKey, UserId)> = rows.collect::<Result<_, _>>()?;
        let next = (users.len() == USERS_A_PAGE).then(|| users.last().map(|(key, _)| *key)).flatten();
        let mut drifted = Vec::new();
        for (key, user) in users {
            let sight = self.sight(key)?;
            let (stored, recounted) = (sight.counts(|_| true), self.recount(&sight)?);
            if stored != recounted {
                drifted.push(Drift { user, stored, recounted });
            }
        }
        Ok((drifted, next))
    }

    /// Counts by looking at every entry: slow, and right by construction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recount(&self, sight: &Sight) -> Result<Counts, StoreError> {
        let states = States::load(self.connection(), sight.user, Seq::ZERO)?;
        let mut by_category: BTreeMap<Category, CategoryCounts> = BTreeMap::new();
        for span in &sight.spans {
            let all = replay::entries_between(self.connection(), sight.user, span, Seq::ZERO, self.head(), usize::MAX)?;
            let counts = by_category.entry(span.category.clone()).or_default();
            for seq in all {
                let state = states.of(span.source, span.category_key, seq)?;
                counts.unread += u64::from(state.is_unread());
                counts.unseen += u64::from(state.is_unseen());
            }
        }
        let mut counts = Counts::default();
        for (category, more) in &by_category {
            counts.add(category, *more);
        }
        Ok(counts)
    }
}

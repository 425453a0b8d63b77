//! How many entries of a span count, from watermarks and sparse marks; and the recount from first principles that
//! proves it.
//!
//! Above the watermarks an entry counts unless its own mark says otherwise; below them it does not, unless its mark
//! was taken back. So the count is one difference of ordinals and a look at the sparse rows that say otherwise.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::commit::{Change, Standing};
use super::deaths::{self, LEVEL_BITS, LEVELS};
use super::reader::Reader;
use super::sight::{Sight, Span};
use super::states::{States, Watermarks};
use super::writer::{OpError, Operation, Tx};
use super::{Refusal, StoreError, replay, users};
use crate::model::{Category, CategoryCounts, Counts, MarkKind, Seq, Tally, Timestamp, TopicKey, UserId, UserKey};

/// Sparse rows of living entries that may make one count differently than its watermark says: all above it; below it
/// those of entries with a mark taken back.
const SELECT_EXCEPTIONS: &str = "
    SELECT m.seq, m.kind, m.at FROM marks m
    WHERE m.user = ?1 AND m.source = ?2 AND m.seq > ?3 AND m.seq <= ?4
      AND CASE WHEN ?2 < 0 THEN EXISTS (SELECT 1 FROM entries e WHERE e.user = ?1 AND e.source = ?2 AND e.seq = m.seq)
          ELSE EXISTS (SELECT 1 FROM notifications n WHERE n.seq = m.seq AND n.died IS NULL) END
    UNION ALL
    SELECT m.seq, m.kind, m.at FROM
        (SELECT DISTINCT seq FROM marks INDEXED BY marks_taken_back
         WHERE user = ?1 AND source = ?2 AND seq > ?5 AND seq <= ?3 AND at IS NULL) taken
    JOIN marks m ON m.user = ?1 AND m.source = ?2 AND m.seq = taken.seq
    WHERE m.seq <= ?4
      AND CASE WHEN ?2 < 0 THEN EXISTS (SELECT 1 FROM entries e WHERE e.user = ?1 AND e.source = ?2 AND e.seq = m.seq)
          ELSE EXISTS (SELECT 1 FROM notifications n WHERE n.seq = m.seq AND n.died IS NULL) END";
const SELECT_USERS: &str = "SELECT id, name FROM users WHERE id > ?1 AND name >= ' ' ORDER BY id LIMIT ?2";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_EXCEPTIONS,
    SELECT_USERS,
    REPAIR_STANDING,
    REPAIR_FOLLOWERS,
    SELECT_TOPICS,
    FORGET_DEAD,
    SELECT_DEAD,
    COUNT_DEAD,
    COUNT_USERS,
];

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

const REPAIR_STANDING: &str = "
    UPDATE standings SET unread_gone = ?4, unseen_gone = ?5, kept = ?6, settled = ?7
    WHERE user = ?1 AND source = ?2 AND joined = ?3";
const REPAIR_FOLLOWERS: &str = "
    UPDATE topics SET followers = (SELECT count(*) FROM standings s INDEXED BY standings_by_topic
                                   WHERE s.source = topics.id AND s.source > 0 AND s.parted IS NULL)
    WHERE id = ?1 AND name <> 'everyone'";
const SELECT_TOPICS: &str = "SELECT id FROM topics WHERE id > ?1 AND deleted IS NULL ORDER BY id LIMIT 1";
const FORGET_DEAD: &str = "DELETE FROM dead_blocks WHERE topic = ?1";
const SELECT_DEAD: &str = "SELECT ordinal FROM notifications WHERE topic = ?1 AND died IS NOT NULL";
const COUNT_DEAD: &str = "
    INSERT INTO dead_blocks (topic, level, block, dead) VALUES (?1, ?2, ?3, 1) ON CONFLICT DO UPDATE SET dead = dead + 1";
const COUNT_USERS: &str = "SELECT count(*) FROM users";

/// Counts one user's inbox from first principles, and stores the result.
#[derive(Clone, Debug)]
pub struct RepairUser {
    pub user: UserId,
}

impl Operation for RepairUser {
    type Output = ();

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        let user = users::find(tx, &self.user)?.ok_or(Refusal::NotFound("user"))?;
        let sight = Sight::load(tx.connection(), user)?;
        let mut counted = Vec::with_capacity(sight.spans.len());
        {
            let states = States::load(tx.connection(), user, Seq::ZERO)?;
            for mut span in sight.spans.into_iter().filter(|span| span.stored) {
                let Counted { entries, open } = count_entries(tx.connection(), user, &span, &states)?;
                let total = span.tally.own_total.unwrap_or(span.total);
                span.tally.unread_gone = total.saturating_sub(open.unread);
                span.tally.unseen_gone = total.saturating_sub(open.unseen);
                span.kept = if span.topic.is_none() { entries } else { 0 };
                counted.push(span);
            }
        }
        let seq = tx.next_seq();
        for span in counted {
            let Tally { unread_gone, unseen_gone, .. } = span.tally;
            tx.sql(REPAIR_STANDING)?.execute(params![
                user,
                span.source,
                span.joined,
                unread_gone,
                unseen_gone,
                span.kept,
                seq
            ])?;
            tx.change(Change::Standing { user, seq, standing: Standing::of(&span) });
        }
        Ok(())
    }
}

/// Counts the followers and the dead of the next topic from first principles, and stores the result.
#[derive(Clone, Copy, Debug)]
pub struct RepairTopics {
    pub after: TopicKey,
}

impl Operation for RepairTopics {
    /// The topic; `None` when there is no further one.
    type Output = Option<TopicKey>;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Option<TopicKey>, OpError> {
        let found: Option<TopicKey> = tx.sql(SELECT_TOPICS)?.query_row([self.after], |row| row.get(0)).optional()?;
        let Some(topic) = found else { return Ok(None) };
        tx.sql(REPAIR_FOLLOWERS)?.execute([topic])?;
        tx.sql(FORGET_DEAD)?.execute([topic])?;
        let dead: Vec<u64> = tx.sql(SELECT_DEAD)?.query_map([topic], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for ordinal in dead {
            for level in LEVELS {
                tx.sql(COUNT_DEAD)?.execute(params![topic, level, ordinal >> (level * LEVEL_BITS)])?;
            }
        }
        let seq = tx.next_seq();
        deaths::shrink(tx, topic, seq)?;
        Ok(Some(topic))
    }
}

/// A span, entry by entry.
struct Counted {
    entries: u64,
    open: CategoryCounts,
}

fn count_entries(
    connection: &Connection,
    user: UserKey,
    span: &Span,
    states: &States<'_>,
) -> Result<Counted, rusqlite::Error> {
    let all = replay::entries_between(connection, user, span, Seq::ZERO, Seq::MAX, usize::MAX)?;
    let mut counted = Counted { entries: 0, open: CategoryCounts::default() };
    for seq in all {
        let state = states.of(span.source, span.category_key, seq)?;
        counted.entries += 1;
        counted.open.unread += u64::from(state.is_unread());
        counted.open.unseen += u64::from(state.is_unseen());
    }
    Ok(counted)
}

impl Reader<'_> {
    /// All users there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_users(&self) -> Result<u64, StoreError> {
        Ok(self.sql(COUNT_USERS)?.query_row([], |row| row.get(0))?)
    }

    /// Compares the stored counts of a page of users after `after` with a count of their entries one by one. Returns how
    /// many were looked at, what drifted, and where the next page begins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drift(&self, after: UserKey) -> Result<(usize, Vec<Drift>, Option<UserKey>), StoreError> {
        let mut statement = self.sql(SELECT_USERS)?;
        let rows = statement.query_map(params![after, USERS_A_PAGE], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let users: Vec<(UserKey, UserId)> = rows.collect::<Result<_, _>>()?;
        let looked_at = users.len();
        let next = (looked_at == USERS_A_PAGE).then(|| users.last().map(|(key, _)| *key)).flatten();
        let mut drifted = Vec::new();
        for (key, user) in users {
            let sight = self.sight(key)?;
            let (stored, recounted) = (sight.counts(|_| true), self.recount(&sight)?);
            if stored != recounted {
                drifted.push(Drift { user, stored, recounted });
            }
        }
        Ok((looked_at, drifted, next))
    }

    /// Counts by looking at every entry: slow, and right by construction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recount(&self, sight: &Sight) -> Result<Counts, StoreError> {
        let states = States::load(self.connection(), sight.user, Seq::ZERO)?;
        let mut by_category: BTreeMap<Category, CategoryCounts> = BTreeMap::new();
        for span in &sight.spans {
            if span.tally.muted {
                continue;
            }
            let counted = count_entries(self.connection(), sight.user, span, &states)?;
            let counts = by_category.entry(span.category.clone()).or_default();
            counts.unread += counted.open.unread;
            counts.unseen += counted.open.unseen;
        }
        let mut counts = Counts::default();
        for (category, more) in &by_category {
            counts.add(category, *more);
        }
        Ok(counts)
    }
}

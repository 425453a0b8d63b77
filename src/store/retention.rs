//! Retention: entries that are too old, or too many, leave for good, a bounded number in one transaction.
//!
//! What goes is looked for by readers ([`Reader::surplus`], [`Reader::old_topics`]); the writer takes what it is named.
//! **Invariant**: a floor never lies below anything that was taken, so that whoever comes back from before is told.
//! **Invariant**: an unread entry leaves the counts in the transaction that takes it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::StoreError;
use super::commit::Change;
use super::deaths::{self, LEVEL_BITS, LEVELS};
use super::reader::Reader;
use super::sight::{Sight, Span};
use super::states::States;
use super::writer::{Need, OpError, Operation, Tx};
use super::{deliveries, notifications};
use crate::model::{Category, NotificationId, Seq, SourceKey, Timestamp, TopicKey, UserKey};

/// What is kept. `None` keeps all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long an entry is kept after it was delivered.
    pub age: Option<Duration>,
    /// Ages of categories that differ.
    pub ages: HashMap<Category, Option<Duration>>,
    /// Direct entries of one user.
    pub per_user: Option<u64>,
    /// Direct entries of one user in these categories.
    pub numbers: HashMap<Category, Option<u64>>,
    /// Entries of one topic.
    pub per_topic: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: None,
            ages: HashMap::new(),
            per_user: Some(10_000),
            numbers: HashMap::new(),
            per_topic: Some(100_000),
        }
    }
}

impl Retention {
    /// Keeps everything.
    pub fn none() -> Self {
        Self { age: None, ages: HashMap::new(), per_user: None, numbers: HashMap::new(), per_topic: None }
    }

    /// Entries of this category that were delivered before this moment are too old.
    fn cutoff(&self, category: &Category, now: Timestamp) -> Option<Timestamp> {
        self.ages.get(category).copied().unwrap_or(self.age).map(|age| now.before(age))
    }
}

/// How long the death of a direct entry is told to whoever comes back.
const GRAVES_KEPT: Duration = Duration::from_hours(30 * 24);
/// Deaths of one user's entries that are told at most; one who comes back from before them gets a snapshot.
const MAX_GRAVES: u64 = 1_000;
/// Deaths of one topic's entries that are told at most.
const MAX_DEATHS: u64 = 1_000;
/// Entries that one transaction takes at most.
pub const MAX_TAKEN: usize = 500;
/// Users, or topics, that one read looks at.
const A_PAGE: u64 = 200;

const SELECT_USERS: &str = "SELECT id FROM users WHERE id > ?1 ORDER BY id LIMIT ?2";
const SELECT_OLDER: &str = "
    SELECT e.seq FROM entries e JOIN notifications n ON n.seq = e.seq
    WHERE e.user = ?1 AND e.source = ?2 AND n.created_at < ?3 ORDER BY e.seq LIMIT ?4";
const SELECT_ENTRIES: &str = "SELECT seq FROM entries WHERE user = ?1 AND source = ?2 ORDER BY seq";
const SELECT_OLD_GRAVE: &str = "SELECT max(died) FROM graves WHERE user = ?1 AND at < ?2";
const SELECT_SURPLUS_GRAVE: &str = "SELECT died FROM graves WHERE user = ?1 ORDER BY died DESC LIMIT 1 OFFSET ?2";
const SELECT_FORGOTTEN_MARKS: &str = "
    SELECT 1 FROM marks WHERE user = ?1 AND source = ?2 AND seq < ?3 LIMIT 1";
const SELECT_OLD_WATERMARKS: &str = "
    SELECT 1 FROM watermarks w WHERE user = ?1 AND upto < ?2
      AND EXISTS (SELECT 1 FROM watermarks v
                  WHERE v.user = ?1 AND v.category = w.category AND v.kind = w.kind AND v.upto > w.upto)
    LIMIT 1";
const SELECT_OLDEST: &str = "SELECT min(seq) FROM notifications";
const SELECT_OLDEST_OF_TOPIC: &str = "
    SELECT min(coalesce((SELECT seq FROM notifications WHERE topic = ?1 AND died IS NULL ORDER BY seq LIMIT 1), ?2),
               coalesce((SELECT seq FROM notifications
                         WHERE topic = ?1 AND died IS NOT NULL ORDER BY seq LIMIT 1), ?2))";
const SELECT_TOPICS: &str = "
    SELECT t.id, c.name, t.published, t.pruned FROM topics t JOIN categories c ON c.id = t.category
    WHERE t.id > ?1 AND t.deleted IS NULL ORDER BY t.id LIMIT ?2";
const OLDEST_LIVING: &str = "
    SELECT seq, ordinal, created_at FROM notifications
    WHERE topic = ?1 AND died IS NULL ORDER BY seq LIMIT ?2";
const SELECT_SURPLUS_DEATH: &str = "
    SELECT died FROM notifications INDEXED BY notifications_died
    WHERE topic = ?1 AND died IS NOT NULL ORDER BY died DESC LIMIT 1 OFFSET ?2";
const SELECT_DEAD: &str = "
    SELECT seq FROM notifications INDEXED BY notifications_died
    WHERE topic = ?1 AND died IS NOT NULL AND died <= ?2 ORDER BY died LIMIT ?3";
const DELETE_NOTIFICATION: &str = "DELETE FROM notifications WHERE seq = ?1";
const DELETE_UNHELD: &str = "
    DELETE FROM notifications WHERE seq = ?1 AND topic IS NULL
      AND NOT EXISTS (SELECT 1 FROM entries WHERE seq = ?1) AND NOT EXISTS (SELECT 1 FROM graves WHERE seq = ?1)";
const FORGET_COLLAPSE: &str = "DELETE FROM collapses WHERE owner = ?1 AND key = ?2 AND seq = ?3";
const PRUNE_TOPIC: &str = "
    UPDATE topics SET pruned = max(pruned, ?2), floor = max(floor, ?3), shrunk = coalesce(?4, shrunk) WHERE id = ?1";
const RAISE_TOPIC_FLOOR: &str = "UPDATE topics SET floor = max(floor, ?2) WHERE id = ?1";
const DELETE_DEAD_BLOCKS: &str = "DELETE FROM dead_blocks WHERE topic = ?1 AND level = ?2 AND block < ?3";
const RAISE_FLOOR: &str = "UPDATE users SET floor = max(floor, ?2) WHERE id = ?1";
const DELETE_MARKS_OF: &str = "DELETE FROM marks WHERE user = ?1 AND source = ?2 AND seq = ?3";
const TAKE_GRAVES: &str = "
    DELETE FROM graves WHERE (user, died, source, seq) IN
        (SELECT user, died, source, seq FROM graves WHERE user = ?1 AND died <= ?2 ORDER BY died LIMIT ?3)
    RETURNING died, source, seq";
const DELETE_FORGOTTEN_MARKS: &str = "
    DELETE FROM marks WHERE (user, source, seq, kind) IN
        (SELECT user, source, seq, kind FROM marks WHERE user = ?1 AND source = ?2 AND seq < ?3 LIMIT ?4)";
/// What was pruned of a past follow stays told, by the user's own floor.
const DELETE_PAST_FOLLOWS: &str = "
    DELETE FROM standings WHERE user = ?1 AND source = ?2 AND parted < ?3
    RETURNING min(parted, (SELECT floor FROM topics WHERE id = ?2)), joined";
const DELETE_OLD_WATERMARKS: &str = "
    DELETE FROM watermarks WHERE user = ?1 AND upto < ?2
      AND EXISTS (SELECT 1 FROM watermarks v
                  WHERE v.user = ?1 AND v.category = watermarks.category AND v.kind = watermarks.kind
                    AND v.upto > watermarks.upto)";
const SELECT_DELETED: &str = "SELECT id FROM topics WHERE deleted > 0 ORDER BY deleted LIMIT 1";
const CLEAR_NOTIFICATIONS: &str = "
    DELETE FROM notifications WHERE seq IN
        (SELECT seq FROM (SELECT seq FROM notifications WHERE topic = ?1 AND died IS NULL ORDER BY seq LIMIT ?2)
         UNION ALL
         SELECT seq FROM (SELECT seq FROM notifications WHERE topic = ?1 AND died IS NOT NULL ORDER BY seq LIMIT ?2))";
/// Those of the next step that go by other media too.
const SELECT_CARRIED: &str = "
    SELECT id FROM notifications WHERE carried = 1 AND seq IN
        (SELECT seq FROM (SELECT seq FROM notifications WHERE topic = ?1 AND died IS NULL ORDER BY seq LIMIT ?2))";
/// Marks of the first page of those who follow, which goes behind them: each standing is passed once.
const CLEAR_MARKS: &str = "
    DELETE FROM marks WHERE source = ?1 AND user IN
        (SELECT user FROM standings INDEXED BY standings_by_topic
         WHERE source = ?1 AND source > 0 ORDER BY user, joined LIMIT ?2)";
const CLEAR_STANDINGS: &str = "
    DELETE FROM standings WHERE (user, source, joined) IN
        (SELECT user, source, joined FROM standings INDEXED BY standings_by_topic
         WHERE source = ?1 AND source > 0 ORDER BY user, joined LIMIT ?2)";
const CLEAR_MUTES: &str = "
    DELETE FROM mutes WHERE (user, source) IN
        (SELECT user, source FROM mutes INDEXED BY mutes_by_topic WHERE source = ?1 LIMIT ?2)";
const CLEAR_DEAD_BLOCKS: &str = "
    DELETE FROM dead_blocks WHERE (topic, level, block) IN
        (SELECT topic, level, block FROM dead_blocks WHERE topic = ?1 LIMIT ?2)";
const CLEAR_COLLAPSES: &str = "
    DELETE FROM collapses WHERE (owner, key) IN (SELECT owner, key FROM collapses WHERE owner = ?1 LIMIT ?2)";
/// The bare row stays: to delete it SQLite would walk through all notifications for one that names it.
const CLEAR_TOPIC: &str = "UPDATE topics SET deleted = -1 WHERE id = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_USERS,
    SELECT_OLDER,
    SELECT_ENTRIES,
    SELECT_OLD_GRAVE,
    SELECT_SURPLUS_GRAVE,
    SELECT_FORGOTTEN_MARKS,
    SELECT_OLD_WATERMARKS,
    SELECT_OLDEST,
    SELECT_OLDEST_OF_TOPIC,
    SELECT_TOPICS,
    OLDEST_LIVING,
    SELECT_SURPLUS_DEATH,
    SELECT_DEAD,
    RAISE_TOPIC_FLOOR,
    DELETE_NOTIFICATION,
    DELETE_UNHELD,
    FORGET_COLLAPSE,
    PRUNE_TOPIC,
    DELETE_DEAD_BLOCKS,
    RAISE_FLOOR,
    DELETE_MARKS_OF,
    TAKE_GRAVES,
    DELETE_FORGOTTEN_MARKS,
    DELETE_PAST_FOLLOWS,
    DELETE_OLD_WATERMARKS,
    SELECT_DELETED,
    CLEAR_NOTIFICATIONS,
    SELECT_CARRIED,
    CLEAR_MARKS,
    CLEAR_STANDINGS,
    CLEAR_MUTES,
    CLEAR_DEAD_BLOCKS,
    CLEAR_COLLAPSES,
    CLEAR_TOPIC,
];

/// What of one user is too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    /// Direct entries, at most [`MAX_TAKEN`].
    pub entries: Vec<(SourceKey, Seq)>,
    /// Deaths up to here need not be told any more.
    pub graves: Option<Seq>,
    /// Marks of entries of these topics before these positions, whose entries are gone.
    pub marks: Vec<(SourceKey, Seq)>,
    /// Watermarks below here cover nothing that is left.
    pub watermarks: Option<Seq>,
}

impl Surplus {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A topic whose oldest entries are too old, or too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldTopic {
    pub topic: TopicKey,
    /// Entries up to this ordinal go.
    pub upto: u64,
    /// Entries delivered before this moment go.
    pub before: Option<Timestamp>,
    /// Deaths up to here need not be told any more.
    pub dead: Option<Seq>,
}

impl Reader<'_> {
    /// Users after one, a page of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn users_after(&self, after: UserKey) -> Result<Vec<UserKey>, StoreError> {
        let mut statement = self.sql(SELECT_USERS)?;
        Ok(statement.query_map(params![after, A_PAGE], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// What of a user is too old or too many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn surplus(&self, user: UserKey, keep: &Retention, now: Timestamp) -> Result<Surplus, StoreError> {
        let sight = Sight::load(self.connection(), user)?;
        let direct: Vec<&Span> = sight.spans.iter().filter(|span| span.topic.is_none()).collect();
        let mut surplus = Surplus::default();
        for span in &direct {
            if let Some(cutoff) = keep.cutoff(&span.category, now) {
                let limit = MAX_TAKEN - surplus.entries.len();
                let mut statement = self.sql(SELECT_OLDER)?;
                let rows = statement.query_map(params![user, span.source, cutoff, limit], |row| row.get(0))?;
                for seq in rows {
                    surplus.entries.push((span.source, seq?));
                }
            }
        }
        // Too old goes first; what is still too many is looked at when that has gone.
        if surplus.entries.is_empty() {
            surplus.entries = self.too_many(user, &direct, keep)?;
        }
        surplus.graves = self.surplus_graves(user, now)?;
        let oldest: Option<Seq> = self.sql(SELECT_OLDEST)?.query_row([], |row| row.get(0))?;
        let oldest = oldest.unwrap_or(self.head());
        for span in sight.spans.iter().filter(|span| span.topic.is_some()) {
            let topic = span.source.as_topic().expect("a span of a topic");
            let first: Seq = self.sql(SELECT_OLDEST_OF_TOPIC)?.query_row(params![topic, Seq::MAX], |row| row.get(0))?;
            let first = first.min(self.head().next());
            let marked = self.sql(SELECT_FORGOTTEN_MARKS)?.exists(params![user, span.source, first])?;
            if marked || span.parted.is_some_and(|parted| parted < first) {
                surplus.marks.push((span.source, first));
            }
        }
        surplus.marks.dedup();
        if self.sql(SELECT_OLD_WATERMARKS)?.exists(params![user, oldest])? {
            surplus.watermarks = Some(oldest);
        }
        Ok(surplus)
    }

    /// The oldest read entries beyond the numbers, and where those do not suffice the oldest unread.
    fn too_many(&self, user: UserKey, direct: &[&Span], keep: &Retention) -> Result<Vec<(SourceKey, Seq)>, StoreError> {
        let mut taken = Vec::new();
        for span in direct {
            let allowed = keep.numbers.get(&span.category).copied().flatten().unwrap_or(u64::MAX);
            if span.kept > allowed {
                taken.extend(self.oldest(user, &[span], span.kept - allowed)?);
            }
        }
        let total: u64 = direct.iter().map(|span| span.kept).sum();
        let allowed = keep.per_user.unwrap_or(u64::MAX);
        if taken.is_empty() && total > allowed {
            taken = self.oldest(user, direct, total - allowed)?;
        }
        taken.truncate(MAX_TAKEN);
        Ok(taken)
    }

    /// So many entries of these sources: read ones first, the oldest first.
    fn oldest(&self, user: UserKey, spans: &[&Span], surplus: u64) -> Result<Vec<(SourceKey, Seq)>, StoreError> {
        let wanted = usize::try_from(surplus).unwrap_or(usize::MAX).min(MAX_TAKEN);
        let states = States::load(self.connection(), user, Seq::ZERO)?;
        let mut entries: Vec<(bool, Seq, SourceKey)> = Vec::new();
        for span in spans {
            let mut statement = self.sql(SELECT_ENTRIES)?;
            let mut rows = statement.query(params![user, span.source])?;
            while let Some(row) = rows.next()? {
                let seq = row.get(0)?;
                let state = states.of(span.source, span.category_key, seq)?;
                entries.push((state.is_unread(), seq, span.source));
            }
        }
        entries.sort_unstable();
        Ok(entries.into_iter().take(wanted).map(|(_, seq, source)| (source, seq)).collect())
    }

    fn surplus_graves(&self, user: UserKey, now: Timestamp) -> Result<Option<Seq>, StoreError> {
        let old: Option<Seq> =
            self.sql(SELECT_OLD_GRAVE)?.query_row(params![user, now.before(GRAVES_KEPT)], |row| row.get(0))?;
        let surplus: Option<Seq> =
            self.sql(SELECT_SURPLUS_GRAVE)?.query_row(params![user, MAX_GRAVES], |row| row.get(0)).optional()?;
        Ok(old.max(surplus))
    }

    /// Topics after one, a page of them: the last looked at, and those whose oldest entries are to go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn old_topics(
        &self,
        after: TopicKey,
        keep: &Retention,
        now: Timestamp,
    ) -> Result<(Option<TopicKey>, Vec<OldTopic>), StoreError> {
        let mut statement = self.sql(SELECT_TOPICS)?;
        let rows = statement
            .query_map(params![after, A_PAGE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let topics: Vec<(TopicKey, Category, u64, u64)> = rows.collect::<Result<_, _>>()?;
        let last = topics.last().map(|(topic, ..)| *topic);
        let mut old = Vec::new();
        for (topic, category, published, pruned) in topics {
            let upto = published.saturating_sub(keep.per_topic.unwrap_or(u64::MAX));
            let before = keep.cutoff(&category, now);
            let dead: Option<Seq> =
                self.sql(SELECT_SURPLUS_DEATH)?.query_row(params![topic, MAX_DEATHS], |row| row.get(0)).optional()?;
            if upto > pruned || dead.is_some() || self.has_older(topic, before)? {
                old.push(OldTopic { topic, upto, before, dead });
            }
        }
        Ok((last, old))
    }

    fn has_older(&self, topic: TopicKey, before: Option<Timestamp>) -> Result<bool, StoreError> {
        let Some(before) = before else { return Ok(false) };
        let oldest =
            self.sql(OLDEST_LIVING)?.query_row(params![topic, 1], |row| row.get::<_, Timestamp>(2)).optional()?;
        Ok(oldest.is_some_and(|at| at < before))
    }

    /// A topic that was deleted, and whose rows are still there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deleted_topic(&self) -> Result<Option<TopicKey>, StoreError> {
        Ok(self.sql(SELECT_DELETED)?.query_row([], |row| row.get(0)).optional()?)
    }
}

/// Takes the oldest entries of a topic, and deaths that are told no more, at most [`MAX_TAKEN`] of each.
#[derive(Clone, Debug)]
pub struct PruneTopic(pub OldTopic);

impl Operation for PruneTopic {
    /// How many rows were taken.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        Ok(self.take_living(tx)? + self.take_dead(tx)?)
    }
}

impl PruneTopic {
    fn take_living(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        let OldTopic { topic, upto, before, .. } = &self.0;
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let oldest: Vec<(Seq, u64, Timestamp)> =
            tx.sql(OLDEST_LIVING)?.query_map(params![topic, MAX_TAKEN], row)?.collect::<Result<_, _>>()?;
        let goes =
            |(_, ordinal, at): &(Seq, u64, Timestamp)| ordinal <= upto || before.is_some_and(|before| *at < before);
        let taken: Vec<_> = oldest.into_iter().take_while(goes).collect();
        for (seq, ..) in &taken {
            if let Some(entry) = notifications::locate_at(tx.connection(), *seq)?
                && let Some(key) = &entry.collapse
            {
                let everyone = entry.topic.as_ref().is_some_and(crate::model::TopicName::is_everyone);
                let owner = if everyone { 0 } else { topic.0 };
                tx.sql(FORGET_COLLAPSE)?.execute(params![owner, key, seq])?;
            }
            tx.sql(DELETE_NOTIFICATION)?.execute([seq])?;
        }
        let last = taken.last().map_or(0, |(_, ordinal, _)| *ordinal);
        // Where the rule has taken all it can, nothing up to its ordinal is alive, whatever died there.
        let pruned = if taken.len() < MAX_TAKEN { last.max(*upto) } else { last };
        let floor = taken.last().map_or(Seq::ZERO, |(seq, ..)| *seq);
        // What nobody sees any more changes no count, and takes no position.
        let now = if taken.is_empty() { None } else { Some(tx.next_seq()) };
        tx.sql(PRUNE_TOPIC)?.execute(params![topic, pruned, floor, now])?;
        for level in LEVELS {
            // Blocks that lie wholly below, inside a block of the next level that does too, are never summed again.
            let wider = (level + 1) * LEVEL_BITS;
            let first = if level + 1 == LEVELS.end { 0 } else { (pruned >> wider) << LEVEL_BITS };
            tx.sql(DELETE_DEAD_BLOCKS)?.execute(params![topic, level, first])?;
        }
        if let Some(seq) = now {
            tx.change(Change::Shrunk { topic: *topic, seq });
        }
        Ok(taken.len())
    }

    /// The entries went when they died; what goes now is the news of it. Who has not heard it by then is told `pruned`.
    fn take_dead(&self, tx: &Tx<'_>) -> Result<usize, OpError> {
        let OldTopic { topic, dead: Some(upto), .. } = &self.0 else { return Ok(0) };
        let dead: Vec<Seq> = tx
            .sql(SELECT_DEAD)?
            .query_map(params![topic, upto, MAX_TAKEN], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for seq in &dead {
            tx.sql(DELETE_NOTIFICATION)?.execute([seq])?;
        }
        tx.sql(RAISE_TOPIC_FLOOR)?.execute(params![topic, upto])?;
        Ok(dead.len())
    }
}

/// Takes what of a user is too much.
#[derive(Clone, Debug)]
pub struct PruneUser {
    pub user: UserKey,
    pub surplus: Surplus,
}

impl Operation for PruneUser {
    /// How many entries were taken.
    type Output = usize;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        let taken = self.take_entries(tx)?;
        self.take_graves(tx)?;
        for (source, before) in &self.surplus.marks {
            tx.sql(DELETE_FORGOTTEN_MARKS)?.execute(params![self.user, source, before, MAX_TAKEN])?;
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let past: Vec<(Seq, Seq)> = tx
                .sql(DELETE_PAST_FOLLOWS)?
                .query_map(params![self.user, source, before], row)?
                .collect::<Result<_, _>>()?;
            for (floor, joined) in past {
                if floor > joined {
                    tx.sql(RAISE_FLOOR)?.execute(params![self.user, floor])?;
                }
            }
        }
        if let Some(before) = self.surplus.watermarks {
            tx.sql(DELETE_OLD_WATERMARKS)?.execute(params![self.user, before])?;
        }
        Ok(taken)
    }
}

impl PruneUser {
    fn take_entries(&self, tx: &mut Tx<'_>) -> Result<usize, OpError> {
        let mut changed: BTreeMap<SourceKey, (crate::model::Tally, Category)> = BTreeMap::new();
        let mut taken = 0;
        for (source, seq) in &self.surplus.entries {
            // It may have died or been erased since it was looked at.
            if !notifications::has_entry(tx.connection(), self.user, *source, *seq)? {
                continue;
            }
            let Some(entry) = notifications::locate_at(tx.connection(), *seq)? else { continue };
            let tally = deaths::take_out(tx, self.user, &entry)?;
            changed.insert(*source, (tally, entry.category));
            tx.sql(DELETE_MARKS_OF)?.execute(params![self.user, source, seq])?;
            tx.sql(DELETE_UNHELD)?.execute([seq])?;
            tx.sql(RAISE_FLOOR)?.execute(params![self.user, seq])?;
            taken += 1;
        }
        if taken > 0 {
            let now = tx.next_seq();
            for (_, (tally, category)) in changed {
                deaths::stand(tx, self.user, tally, category, now);
            }
        }
        Ok(taken)
    }

    fn take_graves(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        let Some(upto) = self.surplus.graves else { return Ok(()) };
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let graves: Vec<(Seq, SourceKey, Seq)> =
            tx.sql(TAKE_GRAVES)?.query_map(params![self.user, upto, MAX_TAKEN], row)?.collect::<Result<_, _>>()?;
        for (died, source, seq) in graves {
            tx.sql(DELETE_MARKS_OF)?.execute(params![self.user, source, seq])?;
            tx.sql(DELETE_UNHELD)?.execute([seq])?;
            tx.sql(RAISE_FLOOR)?.execute(params![self.user, died])?;
        }
        Ok(())
    }
}

/// Clears rows of a deleted topic, a bounded number at a time.
#[derive(Clone, Copy, Debug)]
pub struct ClearTopic {
    pub topic: TopicKey,
    pub now: Timestamp,
}

impl Operation for ClearTopic {
    /// Whether nothing is left.
    type Output = bool;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, OpError> {
        let carried: Vec<NotificationId> = tx
            .sql(SELECT_CARRIED)?
            .query_map(params![self.topic, MAX_TAKEN], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in carried {
            deliveries::cancel(tx, id, deliveries::TOPIC_DELETED, self.now)?;
        }
        // Marks are found by way of standings, so those go after them.
        let steps =
            [CLEAR_NOTIFICATIONS, CLEAR_MARKS, CLEAR_STANDINGS, CLEAR_MUTES, CLEAR_DEAD_BLOCKS, CLEAR_COLLAPSES];
        for sql in steps {
            if tx.sql(sql)?.execute(params![self.topic, MAX_TAKEN])? > 0 {
                return Ok(false);
            }
        }
        tx.sql(CLEAR_TOPIC)?.execute([self.topic])?;
        Ok(true)
    }
}

/// Gives pages that are free back to the file system.
#[derive(Clone, Copy, Debug)]
pub struct Shrink;

/// Pages that one transaction gives back.
const SHRINK_PAGES: u32 = 256;
/// One page in so many may stay free, to be used again.
const FREE_OF: u64 = 8;

impl Operation for Shrink {
    /// Whether there is more to give back.
    type Output = bool;

    const NEED: Need = Need::Little;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, OpError> {
        let pragma = |name: &str| tx.connection().pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        let (free, pages) = (pragma("freelist_count")?, pragma("page_count")?);
        if free <= u64::from(SHRINK_PAGES).max(pages / FREE_OF) {
            return Ok(false);
        }
        let mut statement = tx.connection().prepare(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(statement);
        Ok(pragma("freelist_count")? < free)
    }
}

//! What one user may see: the spans of the log that are theirs, and the tallies their counts follow from.
//!
//! A span is a topic from where the user joined to where the user left, or the direct entries of one category. It is
//! made of a few rows however many entries lie in it; replay, counts, pages and marks all begin with it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::StoreError;
use super::deaths::dead_between;
use super::reader::Reader;
use super::recount::count_open;
use super::states::Watermarks;
use super::users::{everyone_and_floor, everyone_from};
use crate::model::{
    Category, CategoryCounts, Counts, MarkKind, Seq, SourceKey, Tally, Timestamp, TopicKey, TopicName, UserKey,
};

const SELECT_STANDINGS: &str = "
    SELECT s.source, s.joined, s.parted, s.published, s.newest, s.unread_gone, s.unseen_gone,
           t.name, t.published, t.newest, t.floor, c.id, c.name, s.settled, t.shrunk, t.pruned, m.user IS NOT NULL, s.kept,
           s.began
    FROM standings s
    LEFT JOIN topics t ON t.id = s.source
    JOIN categories c ON c.id = CASE WHEN s.source < 0 THEN -s.source ELSE t.category END
    LEFT JOIN mutes m ON m.user = s.user AND m.source = s.source
    WHERE s.user = ?1 AND t.deleted IS NULL";
const SELECT_EVERYONE: &str = "
    SELECT t.id, t.published, t.newest, t.floor, c.id, c.name, t.shrunk, t.pruned
    FROM topics t JOIN categories c ON c.id = t.category
    WHERE t.name = 'everyone'";
/// The ordinal of the newest living entry at a position. Answered from the index alone.
pub(super) const SELECT_ORDINAL: &str = "
    SELECT ordinal FROM notifications WHERE topic = ?1 AND seq <= ?2 AND died IS NULL ORDER BY seq DESC LIMIT 1";
/// How many direct entries lie in (after, upto].
const COUNT_DIRECT: &str = "SELECT count(*) FROM entries WHERE user = ?1 AND source = ?2 AND seq > ?3 AND seq <= ?4";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_STANDINGS, SELECT_EVERYONE, SELECT_ORDINAL, COUNT_DIRECT];

/// Part of the log that is a user's.
#[derive(Clone, Debug)]
pub struct Span {
    pub source: SourceKey,
    /// `None` for direct entries.
    pub topic: Option<TopicName>,
    pub category: Category,
    pub(super) category_key: i64,
    /// Entries after this position are the user's …
    pub joined: Seq,
    /// Where the follow began. Entries in between were there before it: streams had passed them, so no stream is given them.
    pub(super) began: Seq,
    /// … up to and including this one; `None` while the user follows.
    pub parted: Option<Seq>,
    /// Seq of the newest entry of the source.
    pub newest: Seq,
    /// The highest position that retention took.
    pub floor: Seq,
    /// What the source's topic has published so far.
    pub total: u64,
    pub tally: Tally,
    /// Direct entries that are in the inbox.
    pub(super) kept: u64,
    /// The seq as of which the tally was stored.
    settled: Seq,
    /// The seq at which an entry of the topic last died or was pruned.
    pub(super) shrunk: Seq,
    /// The ordinal of the newest entry that retention took.
    pruned: u64,
    /// Whether the standing has a row; those of `everyone` get one with their first mark.
    pub(super) stored: bool,
}

impl Span {
    /// What it adds to the counts.
    pub fn counts(&self) -> CategoryCounts {
        self.tally.counts(self.total)
    }

    /// The last position that can be in it.
    pub fn end(&self) -> Seq {
        self.parted.unwrap_or(Seq::MAX)
    }

    /// Whether an entry of this source at this position is the user's.
    pub fn contains(&self, seq: Seq) -> bool {
        seq > self.joined && seq <= self.end()
    }

    /// Entries in (after, upto] that are the user's.
    pub(super) fn count_entries(
        &self,
        connection: &Connection,
        user: UserKey,
        after: Seq,
        upto: Seq,
    ) -> Result<u64, rusqlite::Error> {
        let (after, upto) = (after.max(self.joined), upto.min(self.end()));
        if after >= upto {
            return Ok(0);
        }
        match self.source.as_topic() {
            Some(topic) => self.count_living(connection, topic, after, upto),
            None => connection
                .prepare_cached(COUNT_DIRECT)?
                .query_row(params![user, self.source, after, upto], |row| row.get(0)),
        }
    }

    /// Living entries of the topic in (after, upto]: those with ordinals between the newest living entry at either end,
    /// without the dead among them.
    fn count_living(
        &self,
        connection: &Connection,
        topic: TopicKey,
        after: Seq,
        upto: Seq,
    ) -> Result<u64, rusqlite::Error> {
        let Some(last) = ordinal_at(connection, topic, upto)? else { return Ok(0) };
        let first = ordinal_at(connection, topic, after)?.unwrap_or(self.pruned);
        let dead = if self.shrunk > Seq::ZERO { dead_between(connection, topic, first, last)? } else { 0 };
        Ok(last.saturating_sub(first).saturating_sub(dead))
    }

    /// Whether entries died since the tally was stored.
    fn is_stale(&self) -> bool {
        self.source.as_topic().is_some() && self.shrunk > self.settled
    }

    /// Counts the tally anew.
    pub(super) fn recount(
        &mut self,
        connection: &Connection,
        user: UserKey,
        watermarks: &Watermarks,
    ) -> Result<(), rusqlite::Error> {
        let unread = count_open(connection, user, self, watermarks, MarkKind::Read)?;
        let unseen = count_open(connection, user, self, watermarks, MarkKind::Seen)?;
        let total = self.tally.own_total.unwrap_or(self.total);
        self.tally.unread_gone = total.saturating_sub(unread);
        self.tally.unseen_gone = total.saturating_sub(unseen);
        Ok(())
    }
}

/// The ordinal of the newest living entry of a topic at a position.
fn ordinal_at(connection: &Connection, topic: TopicKey, seq: Seq) -> Result<Option<u64>, rusqlite::Error> {
    connection.prepare_cached(SELECT_ORDINAL)?.query_row(params![topic, seq], |row| row.get(0)).optional()
}

/// Everything one user may see.
#[derive(Clone, Debug)]
pub struct Sight {
    pub user: UserKey,
    pub spans: Vec<Span>,
    /// The highest position that retention took from the direct entries. Kept apart from the spans, for an inbox all
    /// of whose entries are gone.
    pub direct_floor: Seq,
}

impl Sight {
    /// Counts over all spans that `visible` lets through.
    pub fn counts(&self, visible: impl Fn(&Span) -> bool) -> Counts {
        let mut counts = Counts::default();
        for span in self.spans.iter().filter(|span| visible(span)) {
            counts.add(&span.category, span.counts());
        }
        counts
    }

    /// The highest floor that matters to someone who has seen everything up to `seq`: above it, something is gone.
    /// What retention took of a topic after the user left it was never theirs.
    pub fn floor_above(&self, seq: Seq) -> Option<Seq> {
        let topics = self.spans.iter().filter(|span| span.topic.is_some());
        topics
            .map(|span| (span.floor.min(span.end()), span.joined))
            .filter(|(floor, joined)| *floor > seq.max(*joined))
            .map(|(floor, _)| floor)
            .chain((self.direct_floor > seq).then_some(self.direct_floor))
            .max()
    }

    /// The highest position that retention took from any of it.
    pub fn highest_floor(&self) -> Seq {
        let topics = self.spans.iter().filter(|span| span.topic.is_some()).map(|span| span.floor.min(span.end()));
        topics.chain([self.direct_floor]).max().unwrap_or_default()
    }

    /// The position before everything that is retained: where `start` begins.
    pub fn lowest_floor(&self) -> Seq {
        let topics = self.spans.iter().filter(|span| span.topic.is_some()).map(|span| span.floor.max(span.began));
        topics.chain([self.direct_floor]).min().unwrap_or(Seq::ZERO)
    }

    pub(super) fn load(connection: &Connection, user: UserKey) -> Result<Self, rusqlite::Error> {
        let (everyone_from, direct_floor) = everyone_and_floor(connection, user)?;
        Self::load_from(connection, user, everyone_from, direct_floor)
    }

    fn load_from(
        connection: &Connection,
        user: UserKey,
        everyone_from: Seq,
        direct_floor: Seq,
    ) -> Result<Self, rusqlite::Error> {
        let mut spans: Vec<Span> =
            connection.prepare_cached(SELECT_STANDINGS)?.query_map([user], standing)?.collect::<Result<_, _>>()?;
        let mut statement = connection.prepare_cached(SELECT_EVERYONE)?;
        let everyone: Vec<Span> =
            statement.query_map([], |row| everyone(row, everyone_from))?.collect::<Result<_, _>>()?;
        for mut span in everyone {
            if spans.iter().any(|known| known.source == span.source) {
                continue;
            }
            // What was there before the user appeared never counted for them. Where entries died it is counted anew.
            let topic = span.source.as_topic().expect("`everyone` is a topic");
            let before = ordinal_at(connection, topic, everyone_from)?.unwrap_or_default();
            span.tally.unread_gone = before;
            span.tally.unseen_gone = before;
            spans.push(span);
        }
        if spans.iter().any(Span::is_stale) {
            let watermarks = Watermarks::load(connection, user)?;
            for span in spans.iter_mut().filter(|span| span.is_stale()) {
                span.recount(connection, user, &watermarks)?;
            }
        }
        Ok(Self { user, spans, direct_floor })
    }
}

fn standing(row: &Row<'_>) -> Result<Span, rusqlite::Error> {
    let source: SourceKey = row.get(0)?;
    Ok(Span {
        source,
        topic: row.get(7)?,
        category_key: row.get(11)?,
        category: row.get(12)?,
        joined: row.get(1)?,
        began: row.get::<_, Seq>(18)?.max(row.get(1)?),
        parted: row.get(2)?,
        newest: row.get::<_, Option<Seq>>(4)?.or(row.get(9)?).unwrap_or_default(),
        floor: row.get::<_, Option<Seq>>(10)?.unwrap_or_default(),
        total: row.get::<_, Option<u64>>(8)?.unwrap_or_default(),
        tally: Tally {
            source,
            own_total: row.get(3)?,
            unread_gone: row.get(5)?,
            unseen_gone: row.get(6)?,
            muted: row.get(16)?,
        },
        kept: row.get(17)?,
        settled: row.get(13)?,
        shrunk: row.get::<_, Option<Seq>>(14)?.unwrap_or_default(),
        pruned: row.get::<_, Option<u64>>(15)?.unwrap_or_default(),
        stored: true,
    })
}

fn everyone(row: &Row<'_>, joined: Seq) -> Result<Span, rusqlite::Error> {
    let source = SourceKey::topic(row.get(0)?);
    Ok(Span {
        source,
        topic: Some(TopicName::everyone()),
        category_key: row.get(4)?,
        category: row.get(5)?,
        joined,
        began: joined,
        parted: None,
        newest: row.get(2)?,
        floor: row.get(3)?,
        total: row.get(1)?,
        tally: Tally { source, own_total: None, unread_gone: 0, unseen_gone: 0, muted: false },
        kept: 0,
        settled: Seq::ZERO,
        shrunk: row.get(6)?,
        pruned: row.get(7)?,
        stored: false,
    })
}

/// A number that no user has, so that nobody's rows are found.
const NOBODY: UserKey = UserKey(0);

impl Reader<'_> {
    /// What the user may see at this head.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sight(&self, user: UserKey) -> Result<Sight, StoreError> {
        Ok(Sight::load(self.connection(), user)?)
    }

    /// What someone may see who has not appeared yet: what was sent to everyone since `since`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newcomers_sight(&self, since: Timestamp) -> Result<Sight, StoreError> {
        let from = everyone_from(self.connection(), self.head(), since)?;
        Ok(Sight::load_from(self.connection(), NOBODY, from, Seq::ZERO)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(joined: u64, parted: Option<u64>, floor: u64) -> Sight {
        let topic = TopicKey(7);
        let source = SourceKey::topic(topic);
        let span = Span {
            source,
            topic: Some(TopicName::new("ops").expect("a topic")),
            category: Category::default(),
            category_key: 1,
            joined: Seq(joined),
            began: Seq(joined),
            parted: parted.map(Seq),
            newest: Seq(100),
            floor: Seq(floor),
            total: 100,
            tally: Tally { source, own_total: None, unread_gone: 0, unseen_gone: 0, muted: false },
            kept: 0,
            settled: Seq::ZERO,
            shrunk: Seq::ZERO,
            pruned: 0,
            stored: true,
        };
        Sight { user: UserKey(1), spans: vec![span], direct_floor: Seq::ZERO }
    }

    #[test]
    fn a_cursor_at_the_floor_recovers_and_one_below_it_does_not() {
        let follows = sight(10, None, 50);
        assert_eq!(follows.floor_above(Seq(49)), Some(Seq(50)));
        assert_eq!(follows.floor_above(Seq(50)), None);
    }

    #[test]
    fn what_was_taken_before_one_joined_or_after_one_left_is_not_missed() {
        assert_eq!(sight(60, None, 50).floor_above(Seq(20)), None, "joined above the floor");
        assert_eq!(sight(10, Some(30), 50).floor_above(Seq(30)), None, "has seen all until the leave");
        assert_eq!(sight(10, Some(30), 50).floor_above(Seq(29)), Some(Seq(30)), "may have missed what came before it");
    }

    #[test]
    fn an_inbox_that_lost_direct_entries_is_pruned_below_its_floor() {
        let emptied = Sight { user: UserKey(1), spans: Vec::new(), direct_floor: Seq(5) };
        assert_eq!(emptied.floor_above(Seq(4)), Some(Seq(5)));
        assert_eq!(emptied.floor_above(Seq(5)), None);
    }
}

//! What state an entry is in: its own mark where it has one, else the watermark that covers it.
//!
//! **Invariant**: a mark's row wins over every watermark; a watermark that covers a row that was taken back sets that
//! row in the same transaction, so the rule holds without comparing seqs.
//! **Invariant**: an entry's moment is that of the first watermark that covered it, in the order of the log: later ones
//! change nothing of it, whatever the clock did between them. In a line, which is a category and a kind, `upto` and `changed`
//! rise together, so the first is the one that reaches least far.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{EntryState, MarkKind, Seq, SourceKey, Timestamp, UserKey};

const SELECT_MARKS: &str = "SELECT kind, at FROM marks WHERE user = ?1 AND source = ?2 AND seq = ?3";
/// Watermarks that reach at least to a position; those below it cover nothing of interest.
const SELECT_WATERMARKS: &str = "
    SELECT category, kind, upto, at, changed FROM watermarks WHERE user = ?1 AND upto >= ?2";
/// How far each watermark reaches now.
const SELECT_REACH: &str = "SELECT category, kind, max(upto) FROM watermarks WHERE user = ?1 GROUP BY category, kind";
/// Its own marks, and whether they were made before a moment of the log.
const SELECT_MARKS_UNTIL: &str = "
    SELECT kind, CASE WHEN changed < ?4 THEN at END FROM marks WHERE user = ?1 AND source = ?2 AND seq = ?3";
/// The first of a line that covered a position.
const SELECT_FIRST: &str = "
    SELECT changed, at FROM watermarks
    WHERE user = ?1 AND category = ?2 AND kind = ?3 AND upto >= ?4 ORDER BY upto LIMIT 1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[SELECT_MARKS, SELECT_WATERMARKS, SELECT_REACH, SELECT_MARKS_UNTIL, SELECT_FIRST];

/// The category of a watermark that covers all categories.
pub(super) const ALL_CATEGORIES: i64 = 0;

struct Watermark {
    category: i64,
    kind: MarkKind,
    upto: Seq,
    at: Timestamp,
    changed: Seq,
}

/// The states of entries at or above a position.
pub(super) struct States<'c> {
    connection: &'c Connection,
    user: UserKey,
    watermarks: Vec<Watermark>,
}

impl<'c> States<'c> {
    /// Loads what is needed for entries at `from` or later.
    pub(super) fn load(connection: &'c Connection, user: UserKey, from: Seq) -> Result<Self, rusqlite::Error> {
        let mut statement = connection.prepare_cached(SELECT_WATERMARKS)?;
        let rows = statement.query_map(params![user, from], |row| {
            Ok(Watermark {
                category: row.get(0)?,
                kind: row.get(1)?,
                upto: row.get(2)?,
                at: row.get(3)?,
                changed: row.get(4)?,
            })
        })?;
        let watermarks = rows.collect::<Result<_, _>>()?;
        Ok(Self { connection, user, watermarks })
    }

    /// The state of one entry.
    pub(super) fn of(&self, source: SourceKey, category: i64, seq: Seq) -> Result<EntryState, rusqlite::Error> {
        let mut state = EntryState::default();
        for kind in MarkKind::ALL {
            let covering = self.watermarks.iter().filter(|w| {
                w.kind == kind && w.upto >= seq && (w.category == ALL_CATEGORIES || w.category == category)
            });
            state.set(kind, covering.min_by_key(|w| w.changed).map(|w| w.at));
        }
        let mut statement = self.connection.prepare_cached(SELECT_MARKS)?;
        let mut rows = statement.query(params![self.user, source, seq])?;
        while let Some(row) = rows.next()? {
            state.set(row.get(0)?, row.get(1)?);
        }
        Ok(state)
    }
}

/// The state that one entry was in before `until`: what is marked after its death says nothing of it.
pub(super) fn as_of(
    connection: &Connection,
    user: UserKey,
    source: SourceKey,
    category: i64,
    seq: Seq,
    until: Seq,
) -> Result<EntryState, rusqlite::Error> {
    let mut state = EntryState::default();
    let mut first = connection.prepare_cached(SELECT_FIRST)?;
    for kind in MarkKind::ALL {
        let mut earliest: Option<(Seq, Timestamp)> = None;
        for line in [ALL_CATEGORIES, category] {
            let wanted = params![user, line, kind, seq];
            let found = first.query_row(wanted, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            earliest = earliest.into_iter().chain(found).min_by_key(|(changed, _)| *changed);
        }
        state.set(kind, earliest.filter(|(changed, _)| *changed < until).map(|(_, at)| at));
    }
    let mut marks = connection.prepare_cached(SELECT_MARKS_UNTIL)?;
    let mut rows = marks.query(params![user, source, seq, until])?;
    while let Some(row) = rows.next()? {
        state.set(row.get(0)?, row.get(1)?);
    }
    Ok(state)
}

/// How far a user's watermarks reach.
pub(super) struct Watermarks {
    reach: Vec<(i64, MarkKind, Seq)>,
}

impl Watermarks {
    pub(super) fn load(connection: &Connection, user: UserKey) -> Result<Self, rusqlite::Error> {
        let mut statement = connection.prepare_cached(SELECT_REACH)?;
        let rows = statement.query_map([user], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(Self { reach: rows.collect::<Result<_, _>>()? })
    }

    /// Up to where entries of this category are covered, by their own watermark or by the one for all.
    pub(super) fn reach(&self, category: i64, kind: MarkKind) -> Seq {
        let of_scope = |scope| self.reach.iter().find(|(c, k, _)| *c == scope && *k == kind).map(|(_, _, upto)| *upto);
        of_scope(category).max(of_scope(ALL_CATEGORIES)).unwrap_or(Seq::ZERO)
    }

    /// Moves a watermark forward.
    pub(super) fn advance(&mut self, scope: i64, kind: MarkKind, upto: Seq) {
        match self.reach.iter_mut().find(|(c, k, _)| *c == scope && *k == kind) {
            Some((_, _, reached)) => *reached = upto.max(*reached),
            None => self.reach.push((scope, kind, upto)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Audience, Category, Content, Draft, Life, Mark, MarkAs, MarkTarget, Media, NotificationId, Principal, UserId,
        Via,
    };
    use crate::store::{MarkEntries, Place, Policy, Publish, Unknown, When, notifications, scratch};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    fn publish(to: &UserId, id: NotificationId, about: &str) -> Publish {
        let category = Category::new(about).expect("a category");
        Publish {
            id,
            draft: Draft {
                to: Audience::Users(vec![to.clone()]),
                content: Content { title: "x".to_owned(), category, ..Content::default() },
                category_named: true,
                life: Life::default(),
                via: Via::default(),
            },
            when: Ok(When::default()),
            publisher: Principal::Operator,
            idempotency: None,
            now: NOW,
            policy: Policy {
                topics: Unknown::Create,
                users: Unknown::Create,
                everyone_horizon: HOUR,
                media: Arc::new(Media::default()),
            },
        }
    }

    #[tokio::test]
    async fn an_entrys_moment_is_that_of_the_first_mark_that_covered_it_whatever_the_clock_did_since() {
        let (store, lifecycle, _directory) = scratch::open(NOW).await;
        let alice = UserId::new("alice").expect("a user");
        let id = || NotificationId(uuid::Uuid::now_v7());
        let first = id();
        let mut positions = Vec::new();
        for (id, about) in [(first, "loans"), (id(), "loans"), (id(), "orders")] {
            let Place::Log(cursor) = store.write(publish(&alice, id, about)).await.expect("is published").place else {
                panic!("it waits for nothing")
            };
            positions.push(cursor.seq);
        }
        // The clock jumps back by an hour between marks that reach further and further: of the category, then of all.
        let mark = |upto, about: Option<&str>, now| MarkEntries {
            user: alice.clone(),
            topics: None,
            mark: Mark {
                mark: MarkAs::Seen,
                target: MarkTarget::Upto(upto),
                category: about.map(|name| Category::new(name).expect("a category")),
            },
            now,
        };
        for (upto, about, now) in [
            (positions[0], Some("loans"), NOW.after(HOUR)),
            (positions[1], Some("loans"), NOW),
            (positions[2], None, NOW.before(HOUR)),
        ] {
            let marked = store.write(mark(upto, about, now)).await.expect("is marked");
            assert_eq!(marked.changed, 1);
        }

        let log = Connection::open(store.path()).expect("the log opens a second time");
        let found = notifications::locate(&log, first).expect("is read").expect("it is there");
        let user = log.query_row("SELECT id FROM users WHERE name = 'alice'", [], |row| row.get(0)).expect("a user");
        let at = |until| {
            let state = as_of(&log, user, found.source, found.category_key, found.seq, until);
            state.expect("is read").seen_at
        };
        assert_eq!(at(Seq::MAX), Some(NOW.after(HOUR)));
        // The mark is the log's fourth change.
        assert_eq!((at(Seq(4)), at(Seq(5))), (None, Some(NOW.after(HOUR))));
        let listed =
            States::load(&log, user, found.seq).and_then(|all| all.of(found.source, found.category_key, found.seq));
        assert_eq!(listed.expect("is read").seen_at, at(Seq::MAX), "lists and the log say the same");
        let read = store.read(move |session| {
            session.snapshot(|reader| {
                let about = reader.about(first)?.expect("it is there");
                reader.recipients(&about)
            })
        });
        let recipients = read.await.expect("is read");
        assert_eq!(recipients.iter().map(|one| one.seen_at).collect::<Vec<_>>(), [at(Seq::MAX)]);
        drop((store, log));
        assert!(lifecycle.core_ended(Duration::from_secs(5)).await, "the writer ends with its last user");
    }
}

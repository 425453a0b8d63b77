//! What state an entry is in: its own mark where it has one, else the watermark that covers it.
//!
//! **Invariant**: a mark's row wins over every watermark; a watermark that covers a row that was taken back sets that
//! row in the same transaction, so the rule holds without comparing seqs.

use rusqlite::{Connection, params};

use crate::model::{EntryState, MarkKind, Seq, SourceKey, Timestamp, UserKey};

const SELECT_MARKS: &str = "SELECT kind, at FROM marks WHERE user = ?1 AND source = ?2 AND seq = ?3";
/// Watermarks that reach at least to a position; those below it cover nothing of interest.
const SELECT_WATERMARKS: &str = "SELECT category, kind, upto, at FROM watermarks WHERE user = ?1 AND upto >= ?2";
/// How far each watermark reaches now.
const SELECT_REACH: &str = "SELECT category, kind, max(upto) FROM watermarks WHERE user = ?1 GROUP BY category, kind";
/// Its own marks, and whether they were made before a moment of the log.
const SELECT_MARKS_UNTIL: &str = "
    SELECT kind, CASE WHEN changed < ?4 THEN at END FROM marks WHERE user = ?1 AND source = ?2 AND seq = ?3";
/// The plus keeps SQLite from walking through all that the user ever marked.
const SELECT_COVERED: &str = "
    SELECT min(at) FROM watermarks
    WHERE user = ?1 AND category IN (0, ?2) AND kind = ?3 AND upto >= ?4 AND +changed < ?5";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[SELECT_MARKS, SELECT_WATERMARKS, SELECT_REACH, SELECT_MARKS_UNTIL, SELECT_COVERED];

/// The category of a watermark that covers all categories.
pub(super) const ALL_CATEGORIES: i64 = 0;

struct Watermark {
    category: i64,
    kind: MarkKind,
    upto: Seq,
    at: Timestamp,
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
            Ok(Watermark { category: row.get(0)?, kind: row.get(1)?, upto: row.get(2)?, at: row.get(3)? })
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
            // The first mark that covered it is when it happened; later ones reach further.
            state.set(kind, covering.map(|w| w.at).min());
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
    let mut covered = connection.prepare_cached(SELECT_COVERED)?;
    for kind in MarkKind::ALL {
        state.set(kind, covered.query_row(params![user, category, kind, seq, until], |row| row.get(0))?);
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

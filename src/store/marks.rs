//! Marks: a person's devices say what was seen, read, archived, or take that back.
//!
//! `upto` moves a watermark: one row, whatever it covers. Single entries get sparse rows. Either way the standings
//! that counts follow from change in the same transaction, and one mark is one seq and one `state` event.
//!
//! **Invariant**: a mark that changes nothing writes nothing and takes no seq.

use std::sync::Arc;

use rusqlite::params;

use super::commit::{Change, Standing};
use super::notifications::Located;
use super::sight::{Sight, Span};
use super::states::{ALL_CATEGORIES, States, Watermarks};
use super::writer::{OpError, Operation, Tx};
use super::{Refusal, notifications, users};
use crate::model::{
    Became, Category, EntryState, Mark, MarkKind, MarkTarget, NotificationId, Seq, SourceKey, StateChange, Timestamp,
    TopicPattern, UserId, UserKey,
};

const INSERT_WATERMARK: &str = "
    INSERT INTO watermarks (user, category, kind, upto, at, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// Entries whose mark was taken back and that a watermark now covers again.
const COVER_TAKEN_BACK: &str = "
    UPDATE marks INDEXED BY marks_taken_back SET at = ?5, changed = ?6
    WHERE user = ?1 AND source = ?2 AND kind = ?3 AND seq > ?7 AND seq <= ?4 AND at IS NULL";
const COUNT_TAKEN_BACK: &str = "
    SELECT count(*) FROM marks INDEXED BY marks_taken_back
    WHERE user = ?1 AND source = ?2 AND kind = ?3 AND seq > ?4 AND seq <= ?5 AND at IS NULL
      AND CASE WHEN ?2 < 0 THEN EXISTS (SELECT 1 FROM entries e WHERE e.user = ?1 AND e.source = ?2 AND e.seq = marks.seq)
          ELSE EXISTS (SELECT 1 FROM notifications n WHERE n.seq = marks.seq AND n.died IS NULL) END";
const COUNT_SET: &str = "
    SELECT count(*) FROM marks
    WHERE user = ?1 AND source = ?2 AND kind = ?3 AND seq > ?4 AND seq <= ?5 AND at IS NOT NULL
      AND CASE WHEN ?2 < 0 THEN EXISTS (SELECT 1 FROM entries e WHERE e.user = ?1 AND e.source = ?2 AND e.seq = marks.seq)
          ELSE EXISTS (SELECT 1 FROM notifications n WHERE n.seq = marks.seq AND n.died IS NULL) END";
const UPSERT_MARK: &str = "
    INSERT INTO marks (user, source, seq, kind, at, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET at = excluded.at, changed = excluded.changed";
const UPDATE_STANDING: &str = "
    UPDATE standings SET unread_gone = ?4, unseen_gone = ?5, settled = ?6
    WHERE user = ?1 AND source = ?2 AND joined = ?3";
/// The first mark of an entry sent to everyone gives the user a standing there.
const INSERT_STANDING: &str = "
    INSERT INTO standings (user, source, joined, unread_gone, unseen_gone, settled) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[INSERT_WATERMARK, COVER_TAKEN_BACK, COUNT_TAKEN_BACK, COUNT_SET, UPSERT_MARK, UPDATE_STANDING, INSERT_STANDING];

/// One mark of one user.
#[derive(Clone, Debug)]
pub struct MarkEntries {
    pub user: UserId,
    /// Topics that the caller may see; `None` is all. What is hidden can't be marked.
    pub topics: Option<Arc<[TopicPattern]>>,
    pub mark: Mark,
    pub now: Timestamp,
}

/// What a mark did, and what the user's inbox is after it.
#[derive(Clone, Debug)]
pub struct MarkOutcome {
    /// Entries whose state changed.
    pub changed: u64,
    /// Ids that are not in this inbox, or not of the category.
    pub unknown: Vec<NotificationId>,
    /// `None` for a user who has no inbox yet.
    pub sight: Option<Sight>,
    /// The head that `sight` is as of.
    pub head: Seq,
}

impl Operation for MarkEntries {
    type Output = MarkOutcome;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<MarkOutcome, OpError> {
        if let MarkTarget::Upto(upto) = self.mark.target
            && upto > tx.head()
        {
            return Err(Refusal::Ahead.into());
        }
        let Some(user) = users::find(tx, &self.user)? else {
            let unknown = match &self.mark.target {
                MarkTarget::Ids(ids) => ids.clone(),
                MarkTarget::Upto(_) => Vec::new(),
            };
            return Ok(MarkOutcome { changed: 0, unknown, sight: None, head: tx.head() });
        };
        let marking = Marking { user, request: self, sight: Sight::load(tx.connection(), user)? };
        match &self.mark.target {
            MarkTarget::Upto(upto) => marking.upto(tx, *upto),
            MarkTarget::Ids(ids) => marking.ids(tx, ids),
        }
    }
}

/// A mark at work.
struct Marking<'m> {
    user: UserKey,
    request: &'m MarkEntries,
    sight: Sight,
}

impl Marking<'_> {
    fn upto(mut self, tx: &mut Tx<'_>, upto: Seq) -> Result<MarkOutcome, OpError> {
        let MarkEntries { mark, now, .. } = self.request;
        let mut watermarks = Watermarks::load(tx.connection(), self.user)?;
        let mut changed = 0;
        let mut touched = Vec::new();
        for (index, span) in self.sight.spans.iter().enumerate().filter(|(_, span)| self.is_meant(&span.category)) {
            let mut of_span = 0;
            for (rank, kind) in mark.mark.sets().iter().enumerate() {
                let unset = self.count_unset(tx, span, &watermarks, *kind, upto)?;
                of_span += unset;
                changed += if rank == 0 { unset } else { 0 };
            }
            if of_span > 0 {
                touched.push(index);
            }
        }
        if touched.is_empty() {
            return Ok(self.outcome(tx, 0, Vec::new()));
        }

        let seq = tx.next_seq();
        let scope = match touched.first().filter(|_| mark.category.is_some()) {
            Some(index) => self.sight.spans[*index].category_key,
            None => ALL_CATEGORIES,
        };
        for kind in mark.mark.sets() {
            if upto > watermarks.reach(scope, *kind) {
                tx.sql(INSERT_WATERMARK)?.execute(params![self.user, scope, kind, upto, now, seq])?;
                watermarks.advance(scope, *kind, upto);
            }
            for span in touched.iter().map(|index| &self.sight.spans[*index]) {
                let end = upto.min(span.end());
                tx.sql(COVER_TAKEN_BACK)?.execute(params![self.user, span.source, kind, end, now, seq, span.joined])?;
            }
        }
        for index in touched {
            self.recount(tx, index, &watermarks, seq)?;
        }
        self.announce(tx, seq, MarkTarget::Upto(upto));
        Ok(self.outcome(tx, changed, Vec::new()))
    }

    fn is_seen(&self, span: &Span) -> bool {
        let patterns = self.request.topics.as_ref();
        span.topic.as_ref().is_none_or(|topic| {
            topic.is_everyone() || patterns.is_none_or(|patterns| patterns.iter().any(|p| p.matches(topic)))
        })
    }

    fn is_meant(&self, category: &Category) -> bool {
        self.request.mark.category.as_ref().is_none_or(|meant| meant == category)
    }

    /// Entries of the span up to `upto` in which `kind` is not set.
    fn count_unset(
        &self,
        tx: &Tx<'_>,
        span: &Span,
        watermarks: &Watermarks,
        kind: MarkKind,
        upto: Seq,
    ) -> Result<u64, rusqlite::Error> {
        let covered = watermarks.reach(span.category_key, kind).max(span.joined);
        let end = upto.min(span.end());
        let mut unset = 0;
        if end > covered {
            let set: u64 =
                tx.sql(COUNT_SET)?.query_row(params![self.user, span.source, kind, covered, end], |row| row.get(0))?;
            unset += span.count_entries(tx.connection(), self.user, covered, end)?.saturating_sub(set);
        }
        let below = covered.min(end);
        let taken_back: u64 = tx
            .sql(COUNT_TAKEN_BACK)?
            .query_row(params![self.user, span.source, kind, span.joined, below], |row| row.get(0))?;
        Ok(unset + taken_back)
    }

    fn ids(mut self, tx: &mut Tx<'_>, ids: &[NotificationId]) -> Result<MarkOutcome, OpError> {
        let mut unknown = Vec::new();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            match self.find(tx, *id)? {
                Some((seq, source, index)) => found.push((*id, seq, source, index)),
                None => unknown.push(*id),
            }
        }
        let oldest = found.iter().map(|(_, seq, ..)| *seq).min().unwrap_or(Seq::MAX);
        let states = States::load(tx.connection(), self.user, oldest)?;
        let mut plan = Vec::new();
        for (id, seq, source, index) in found {
            let before = states.of(source, self.sight.spans[index].category_key, seq)?;
            let after = self.after(before);
            if after != before {
                plan.push((id, seq, index, before, after));
            }
        }
        if plan.is_empty() {
            return Ok(self.outcome(tx, 0, unknown));
        }

        let changed_at = tx.next_seq();
        let mut touched = Vec::new();
        let mut marked = Vec::with_capacity(plan.len());
        for (id, seq, index, before, after) in plan {
            let span = &mut self.sight.spans[index];
            for kind in MarkKind::ALL.into_iter().filter(|kind| before.at(*kind) != after.at(*kind)) {
                let row = params![self.user, span.source, seq, kind, after.at(kind), changed_at];
                tx.sql(UPSERT_MARK)?.execute(row)?;
            }
            let gone = |counted_before, counted_after, gone: u64| match (counted_before, counted_after) {
                (true, false) => gone + 1,
                (false, true) => gone.saturating_sub(1),
                _ => gone,
            };
            span.tally.unread_gone = gone(before.is_unread(), after.is_unread(), span.tally.unread_gone);
            span.tally.unseen_gone = gone(before.is_unseen(), after.is_unseen(), span.tally.unseen_gone);
            touched.push(index);
            marked.push(id);
        }
        touched.sort_unstable();
        touched.dedup();
        for index in touched {
            self.store_standing(tx, index, changed_at)?;
        }
        let changed = u64::try_from(marked.len()).unwrap_or(u64::MAX);
        self.announce(tx, changed_at, MarkTarget::Ids(marked));
        Ok(self.outcome(tx, changed, unknown))
    }

    /// Where an entry stands in this inbox: position, source, and which span holds it.
    fn find(&self, tx: &Tx<'_>, id: NotificationId) -> Result<Option<(Seq, SourceKey, usize)>, rusqlite::Error> {
        let found = notifications::locate(tx.connection(), id)?.filter(|found| found.death.is_none());
        let Some(Located { seq, source, .. }) = found else { return Ok(None) };
        let span =
            self.sight.spans.iter().position(|span| span.source == source && span.contains(seq) && self.is_seen(span));
        let Some(index) = span.filter(|index| self.is_meant(&self.sight.spans[*index].category)) else {
            return Ok(None);
        };
        let mine = source.as_topic().is_some() || notifications::has_entry(tx.connection(), self.user, source, seq)?;
        Ok(mine.then_some((seq, source, index)))
    }

    fn after(&self, before: EntryState) -> EntryState {
        let MarkEntries { mark, now, .. } = self.request;
        let mut after = before;
        for kind in mark.mark.sets() {
            after.set(*kind, before.at(*kind).or(Some(*now)));
        }
        if let Some(kind) = mark.mark.clears() {
            after.set(kind, None);
        }
        after
    }

    fn recount(&mut self, tx: &mut Tx<'_>, index: usize, watermarks: &Watermarks, seq: Seq) -> Result<(), OpError> {
        self.sight.spans[index].recount(tx.connection(), self.user, watermarks)?;
        self.store_standing(tx, index, seq)
    }

    fn store_standing(&mut self, tx: &mut Tx<'_>, index: usize, seq: Seq) -> Result<(), OpError> {
        let span = &mut self.sight.spans[index];
        let sql = if span.stored { UPDATE_STANDING } else { INSERT_STANDING };
        tx.sql(sql)?.execute(params![
            self.user,
            span.source,
            span.joined,
            span.tally.unread_gone,
            span.tally.unseen_gone,
            seq,
        ])?;
        span.stored = true;
        tx.change(Change::Standing { user: self.user, seq, standing: Standing::of(span) });
        Ok(())
    }

    fn announce(&self, tx: &mut Tx<'_>, seq: Seq, target: MarkTarget) {
        let Mark { mark, category, .. } = &self.request.mark;
        // Ids name their entries whatever category was asked for; only a bound needs it to be understood.
        let category = category.clone().filter(|_| matches!(target, MarkTarget::Upto(_)));
        let change = StateChange { seq, became: Became::Marked(*mark), target, category };
        tx.change(Change::Marked { user: self.user, change });
    }

    fn outcome(self, tx: &Tx<'_>, changed: u64, unknown: Vec<NotificationId>) -> MarkOutcome {
        MarkOutcome { changed, unknown, sight: Some(self.sight), head: tx.head() }
    }
}

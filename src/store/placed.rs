//! What was placed in the app, as the message log tells it: the newest first, to one person or to all.
//!
//! Nothing is stored for it besides what the inbox needs. What went to named users is a line for each of them. What went to
//! a topic or to everyone is one line for all, since no row is kept for each follower; asked about one person, it is
//! theirs, with what they did with it. What has died since is told too.
//!
//! **Invariant**: a page looks through a bounded number of rows and says how far it came, so pages put together leave
//! nothing out.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row, params};

use super::deliveries::why;
use super::reader::Reader;
use super::sight::{Sight, Span};
use super::sql::used_template;
use super::states;
use super::{MAX_LOOKED_AT, StoreError, deaths, dispatches, notifications, wordings};
use crate::model::{
    Category, Death, EntryState, Hearing, NotificationId, Seq, SourceKey, Timestamp, TopicKey, TopicName, UsedTemplate,
    UserId, UserKey, Wordings,
};
use crate::wire::message_log::{LogQuery, Placed, PlacedAt};

const SELECT_NEWEST: &str = "
    SELECT n.seq, n.id, n.topic, t.name, n.category, c.name, n.template, n.created_at, n.died, n.death, n.replaced_by,
           t.deleted, n.template_version
    FROM notifications n CROSS JOIN categories c ON c.id = n.category LEFT JOIN topics t ON t.id = n.topic
    WHERE n.seq <= ?1 AND n.seq >= ?2 ORDER BY n.seq DESC LIMIT ?3";
const SELECT_SEQ: &str = "SELECT seq FROM notifications WHERE id = ?1";
const SELECT_HOLDERS: &str = "
    SELECT e.user, u.name FROM entries e INDEXED BY entries_by_notification CROSS JOIN users u ON u.id = e.user
    WHERE e.seq = ?1 AND e.user < ?2 ORDER BY e.user DESC LIMIT ?3";
/// Those in whose inbox it died.
const SELECT_MOURNERS: &str = "
    SELECT g.user, u.name, g.died, g.death, g.replaced_by
    FROM graves g INDEXED BY graves_by_notification CROSS JOIN users u ON u.id = g.user
    WHERE g.seq = ?1 AND g.user < ?2 ORDER BY g.user DESC LIMIT ?3";
const SELECT_GRAVES: &str = "SELECT seq, source, died, death, replaced_by FROM graves WHERE user = ?1";
const DIRECT_BEFORE: &str = "
    SELECT seq FROM entries WHERE user = ?1 AND source = ?2 AND seq > ?3 AND seq < ?4 ORDER BY seq DESC LIMIT ?5";
const LIVING_BEFORE: &str = "
    SELECT seq FROM notifications
    WHERE topic = ?1 AND seq > ?2 AND seq < ?3 AND died IS NULL ORDER BY seq DESC LIMIT ?4";
/// Who follows from after a death on never had what died.
const DEAD_BEFORE: &str = "
    SELECT seq FROM notifications INDEXED BY notifications_dead
    WHERE topic = ?1 AND seq > ?2 AND seq < ?3 AND died IS NOT NULL AND died > ?5 ORDER BY seq DESC LIMIT ?4";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_NEWEST,
    SELECT_SEQ,
    SELECT_HOLDERS,
    SELECT_MOURNERS,
    SELECT_GRAVES,
    DIRECT_BEFORE,
    LIVING_BEFORE,
    DEAD_BEFORE,
];

/// Positions looked at in one go.
const CHUNK: usize = 256;

/// A page of what was placed in the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedRows {
    pub items: Vec<(PlacedAt, Placed)>,
    /// Before which the next page begins; `None` at the end.
    pub next: Option<PlacedAt>,
    /// Where the page ended because it had looked through so much: when the last row of it was made.
    pub cut: Option<Timestamp>,
}

/// How somebody came to have a notification, or why they have it not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belonging {
    Named,
    Follows {
        topic: TopicName,
        hearing: Hearing,
        /// Whether they have left since.
        left: bool,
    },
    Everyone,
    /// It reached others.
    Outside,
    /// Their inbox keeps nothing that old, so it can't be told.
    Forgotten,
}

/// A notification as it stands with one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standpoint {
    pub belonging: Belonging,
    pub placed: Placed,
    /// How it left their inbox, where it has.
    pub death: Option<Death>,
    /// What their inbox may show of it, where it says something else in other languages.
    pub wordings: Wordings,
    /// The key under which a newer one takes its place.
    pub collapse: Option<String>,
    /// Whether it was to go by other media than the inbox too.
    pub carried: bool,
}

/// One notification on the way down.
struct Found {
    seq: Seq,
    id: NotificationId,
    topic: Option<(TopicKey, TopicName)>,
    category_key: i64,
    category: Category,
    template: Option<UsedTemplate>,
    created_at: Timestamp,
    death: Option<(Seq, Death)>,
    deleted: bool,
}

fn found(row: &Row<'_>) -> Result<Found, rusqlite::Error> {
    let deleted: Option<i64> = row.get(11)?;
    let topic = match row.get(2)? {
        // A deleted topic has no name any more.
        Some(key) if deleted.is_none() => Some((key, row.get(3)?)),
        _ => None,
    };
    let death = match (row.get(8)?, row.get(9)?) {
        (Some(died), Some(kind)) => Some((died, deaths::from_columns(kind, row.get(10)?))),
        _ => None,
    };
    Ok(Found {
        seq: row.get(0)?,
        id: row.get(1)?,
        topic,
        category_key: row.get(4)?,
        category: row.get(5)?,
        template: used_template(row, 6, 12)?,
        created_at: row.get(7)?,
        death,
        deleted: deleted.is_some(),
    })
}

impl Found {
    fn source(&self) -> SourceKey {
        notifications::source(self.topic.as_ref().map(|(key, _)| *key), self.category_key)
    }

    fn placed(&self, user: Option<UserId>, state: &EntryState, death: Option<Death>) -> Placed {
        Placed {
            notification: self.id,
            topic: self.topic.as_ref().map(|(_, name)| name.clone()),
            user,
            category: self.category.clone(),
            template: self.template.clone(),
            seen_at: state.seen_at,
            read_at: state.read_at,
            reason: death.map(|death| why(death).to_owned()),
            created_at: self.created_at,
        }
    }
}

/// Somebody in whose inbox it is, by number and name; and how it left that, where it has.
type Holder = (UserKey, String, Option<(Seq, Death)>);

/// One walk from the newest back.
struct Walk<'w> {
    query: &'w LogQuery,
    limit: usize,
    rows: PlacedRows,
    /// The last place that was looked at.
    last: Option<PlacedAt>,
    looked_at: usize,
}

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    On,
    Done,
}

impl<'w> Walk<'w> {
    fn new(query: &'w LogQuery, limit: usize) -> Self {
        Self { query, limit, rows: PlacedRows::default(), last: None, looked_at: 0 }
    }

    /// Takes a line where it is asked for.
    fn look(&mut self, at: PlacedAt, placed: Placed) -> Step {
        if self.query.is_met(&placed) {
            if self.rows.items.len() == self.limit {
                self.rows.next = self.last;
                return Step::Done;
            }
            let made = placed.created_at;
            self.rows.items.push((at, placed));
            return self.pass(at, made);
        }
        self.pass(at, placed.created_at)
    }

    /// Goes past a place.
    fn pass(&mut self, at: PlacedAt, made: Timestamp) -> Step {
        self.last = Some(at);
        self.looked_at += 1;
        if self.looked_at < MAX_LOOKED_AT {
            return Step::On;
        }
        self.rows.next = Some(at);
        self.rows.cut = Some(made);
        Step::Done
    }

    /// Whether nothing of a notification can be asked for, whoever has it.
    fn passes_over(&self, found: &Found) -> bool {
        let asked = &self.query.asked;
        found.deleted
            || asked.category.as_ref().is_some_and(|category| *category != found.category)
            || !asked.is_by(found.template.as_ref())
            || asked.until.is_some_and(|until| found.created_at >= until)
    }

    /// Whether everything that is asked for lies before this.
    fn is_behind(&self, made: Timestamp) -> bool {
        dispatches::is_behind(&self.query.asked, made)
    }
}

impl Reader<'_> {
    /// What was placed in the app before a place, the newest first. It looks through [`MAX_LOOKED_AT`] rows at most, so a
    /// page may hold few, or none, and yet not be the last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn placed(&self, query: &LogQuery, before: PlacedAt, limit: usize) -> Result<PlacedRows, StoreError> {
        let lowest = match query.asked.notification {
            None => None,
            Some(id) => match self.sql(SELECT_SEQ)?.query_row([id], |row| row.get(0)).optional()? {
                None => return Ok(PlacedRows::default()),
                Some(seq) => Some(seq),
            },
        };
        let before = lowest.map_or(before, |seq: Seq| before.min(PlacedAt { seq, user: PlacedAt::NEWEST.user }));
        let lowest = lowest.unwrap_or(Seq::ZERO);
        let mut walk = Walk::new(query, limit);
        match &query.asked.user {
            None => self.walk_all(&mut walk, before, lowest)?,
            Some(name) => {
                if let Some(user) = self.user(name)? {
                    self.walk_one(&mut walk, user, name, before, lowest)?;
                }
            }
        }
        Ok(walk.rows)
    }

    fn walk_all(&self, walk: &mut Walk<'_>, before: PlacedAt, lowest: Seq) -> Result<(), StoreError> {
        let mut before = before;
        loop {
            let chunk = i64::try_from(CHUNK).unwrap_or(i64::MAX);
            let page: Vec<Found> = self
                .sql(SELECT_NEWEST)?
                .query_map(params![before.seq, lowest, chunk], found)?
                .collect::<Result<_, _>>()?;
            for found in &page {
                if walk.is_behind(found.created_at) {
                    return Ok(());
                }
                let from = if found.seq == before.seq { before.user } else { PlacedAt::NEWEST.user };
                if self.walk_holders(walk, found, from)? == Step::Done {
                    return Ok(());
                }
            }
            match page.last() {
                Some(last) if page.len() == CHUNK => before = PlacedAt { seq: last.seq, user: UserKey(0) },
                _ => return Ok(()),
            }
        }
    }

    /// The lines of one notification: one for a topic's, else one for each user whose number is below `before`.
    fn walk_holders(&self, walk: &mut Walk<'_>, found: &Found, before: UserKey) -> Result<Step, StoreError> {
        // Behind all users, where nothing is left of it.
        let whole = PlacedAt { seq: found.seq, user: UserKey(0) };
        if before == whole.user {
            return Ok(Step::On);
        }
        if walk.passes_over(found) {
            return Ok(walk.pass(whole, found.created_at));
        }
        if found.topic.is_some() {
            let death = found.death.map(|(_, death)| death);
            return Ok(walk.look(whole, found.placed(None, &EntryState::default(), death)));
        }
        let most = i64::try_from(MAX_LOOKED_AT).unwrap_or(i64::MAX);
        let wanted = params![found.seq, before, most];
        let mut holders: Vec<Holder> = self
            .sql(SELECT_HOLDERS)?
            .query_map(wanted, |row| Ok((row.get(0)?, row.get(1)?, None)))?
            .collect::<Result<_, _>>()?;
        let mut mourners = self.sql(SELECT_MOURNERS)?;
        for mourner in mourners.query_map(wanted, |row| {
            let death = (row.get(2)?, deaths::from_columns(row.get(3)?, row.get(4)?));
            Ok((row.get(0)?, row.get(1)?, Some(death)))
        })? {
            holders.push(mourner?);
        }
        holders.sort_unstable_by_key(|(user, ..)| std::cmp::Reverse(*user));
        for (user, name, death) in holders {
            let at = PlacedAt { seq: found.seq, user };
            // The name of one who is being erased is none.
            let step = match UserId::new(&name) {
                Err(_) => walk.pass(at, found.created_at),
                Ok(name) => {
                    let state = self.state_until(user, found, death.map(|(died, _)| died))?;
                    walk.look(at, found.placed(Some(name), &state, death.map(|(_, death)| death)))
                }
            };
            if step == Step::Done {
                return Ok(step);
            }
        }
        Ok(walk.pass(whole, found.created_at))
    }

    fn walk_one(
        &self,
        walk: &mut Walk<'_>,
        user: UserKey,
        name: &UserId,
        before: PlacedAt,
        lowest: Seq,
    ) -> Result<(), StoreError> {
        let mut sight = self.sight(user)?;
        if let Some(category) = &walk.query.asked.category {
            sight.spans.retain(|span| span.category == *category);
        }
        let graves = self.graves(user)?;
        // A person has one line of a notification, behind everybody's.
        let mut before = if before.user > UserKey(0) { before.seq.next() } else { before.seq };
        loop {
            let seqs = self.newest_before(&sight, &graves, before)?;
            for seq in &seqs {
                if *seq < lowest {
                    return Ok(());
                }
                let Some(found) = self.found(*seq)?.filter(|found| !found.deleted) else { continue };
                if walk.is_behind(found.created_at) {
                    return Ok(());
                }
                let at = PlacedAt { seq: *seq, user: UserKey(0) };
                let step = if walk.passes_over(&found) {
                    walk.pass(at, found.created_at)
                } else {
                    let death = graves.get(seq).map(|grave| (grave.died, grave.death)).or(found.death);
                    let state = self.state_until(user, &found, death.map(|(died, _)| died))?;
                    walk.look(at, found.placed(Some(name.clone()), &state, death.map(|(_, death)| death)))
                };
                if step == Step::Done {
                    return Ok(());
                }
            }
            // Follows may overlap, so a chunk that is not full need not be the last.
            match seqs.last() {
                Some(last) => before = *last,
                None => return Ok(()),
            }
        }
    }

    fn found(&self, seq: Seq) -> Result<Option<Found>, rusqlite::Error> {
        self.sql(SELECT_NEWEST)?.query_row(params![seq, seq, 1], found).optional()
    }

    fn state_until(&self, user: UserKey, found: &Found, died: Option<Seq>) -> Result<EntryState, rusqlite::Error> {
        let until = died.unwrap_or(Seq::MAX);
        states::as_of(self.connection(), user, found.source(), found.category_key, found.seq, until)
    }

    fn graves(&self, user: UserKey) -> Result<HashMap<Seq, Grave>, rusqlite::Error> {
        let mut statement = self.sql(SELECT_GRAVES)?;
        let rows = statement.query_map([user], |row| {
            let death = deaths::from_columns(row.get(3)?, row.get(4)?);
            Ok((row.get(0)?, Grave { source: row.get(1)?, died: row.get(2)?, death }))
        })?;
        rows.collect()
    }

    /// The newest positions before `before` that are or were the user's, newest first.
    fn newest_before(
        &self,
        sight: &Sight,
        graves: &HashMap<Seq, Grave>,
        before: Seq,
    ) -> Result<Vec<Seq>, rusqlite::Error> {
        let is_shown = |source: SourceKey| sight.spans.iter().any(|span| span.source == source);
        let buried = graves.iter().filter(|(seq, grave)| **seq < before && is_shown(grave.source));
        let mut seqs: Vec<Seq> = buried.map(|(seq, _)| *seq).collect();
        for span in &sight.spans {
            seqs.extend(self.span_before(sight.user, span, before)?);
        }
        seqs.sort_unstable_by(|a, b| b.cmp(a));
        seqs.dedup();
        seqs.truncate(CHUNK);
        Ok(seqs)
    }

    fn span_before(&self, user: UserKey, span: &Span, before: Seq) -> Result<Vec<Seq>, rusqlite::Error> {
        let before = before.min(span.end().next());
        let chunk = i64::try_from(CHUNK).unwrap_or(i64::MAX);
        let Some(topic) = span.source.as_topic() else {
            let wanted = params![user, span.source, span.joined, before, chunk];
            return self.sql(DIRECT_BEFORE)?.query_map(wanted, |row| row.get(0))?.collect();
        };
        let wanted = params![topic, span.joined, before, chunk];
        let mut seqs: Vec<Seq> =
            self.sql(LIVING_BEFORE)?.query_map(wanted, |row| row.get(0))?.collect::<Result<_, _>>()?;
        if span.shrunk > Seq::ZERO {
            let wanted = params![topic, span.joined, before, chunk, span.began];
            for seq in self.sql(DEAD_BEFORE)?.query_map(wanted, |row| row.get(0))? {
                seqs.push(seq?);
            }
        }
        Ok(seqs)
    }

    /// How a notification stands with one person; `None` where it is not in the log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn standpoint(
        &self,
        id: NotificationId,
        name: &UserId,
        user: Option<UserKey>,
    ) -> Result<Option<Standpoint>, StoreError> {
        let Some(located) = notifications::locate(self.connection(), id)? else { return Ok(None) };
        let Some(found) = self.found(located.seq)? else { return Ok(None) };
        let grave = user.map(|user| self.graves(user)).transpose()?.and_then(|mut graves| graves.remove(&found.seq));
        let belonging = match user {
            Some(user) => self.belonging(&found, user, grave.as_ref())?,
            None => Belonging::Outside,
        };
        let death = grave.map(|grave| (grave.died, grave.death)).or(found.death);
        let state = match user {
            Some(user) => self.state_until(user, &found, death.map(|(died, _)| died))?,
            None => EntryState::default(),
        };
        let death = death.map(|(_, death)| death);
        Ok(Some(Standpoint {
            belonging,
            placed: found.placed(Some(name.clone()), &state, death),
            death,
            wordings: wordings::load(self.connection(), id)?,
            collapse: located.collapse,
            carried: located.carried,
        }))
    }

    fn belonging(&self, found: &Found, user: UserKey, grave: Option<&Grave>) -> Result<Belonging, StoreError> {
        let (seq, source) = (found.seq, found.source());
        let sight = self.sight(user)?;
        let Some((_, topic)) = &found.topic else {
            let named = grave.is_some() || notifications::has_entry(self.connection(), user, source, seq)?;
            return Ok(if named {
                Belonging::Named
            } else if sight.direct_floor >= seq {
                Belonging::Forgotten
            } else {
                Belonging::Outside
            });
        };
        let had = |span: &&Span| {
            let lived = found.death.is_none_or(|(died, _)| span.began < died);
            span.source == source && span.contains(seq) && lived
        };
        Ok(match sight.spans.iter().find(had) {
            None => Belonging::Outside,
            Some(_) if topic.is_everyone() => Belonging::Everyone,
            Some(span) => Belonging::Follows {
                topic: topic.clone(),
                hearing: if span.tally.muted { Hearing::HasMuted } else { Hearing::Listens },
                left: span.parted.is_some(),
            },
        })
    }
}

/// How an entry left one inbox.
struct Grave {
    source: SourceKey,
    died: Seq,
    death: Death,
}

//! What everybody should see, written from `semantics.md` with vectors and no cleverness: every entry is copied into
//! the inbox of each person it reaches, and every answer is found by looking at all of them. What is over stays, and
//! says so: a subscriber may have been sent it before.
//!
//! It shares the words of `tidings::model` (names, times, states) and none of its rules.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings::model::{Death, EntryState, FollowRule, MarkAs, NotificationId, Timestamp};

/// How far back `everyone` reaches for someone new.
pub const EVERYONE_HORIZON: Duration = Duration::from_hours(7 * 24);
/// How long a publish is remembered by its key.
pub const ANSWERS_KEPT: Duration = Duration::from_hours(24);
/// How far ahead a delivery may lie.
pub const SCHEDULE_HORIZON: Duration = Duration::from_hours(365 * 24);
/// How long ago the moment of a delivery may be that is published at once.
pub const LATE_AT_MOST: Duration = Duration::from_mins(1);

/// Entries that retention takes in one commit at most.
const TAKEN_AT_ONCE: usize = 500;

const GENERAL: &str = "general";
const EVERYONE: &str = "everyone";

/// What retention keeps; `None` keeps all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    pub hours: Option<u64>,
    /// Direct entries of one person: in all, and of the category `loans`.
    pub per_user: Option<usize>,
    pub of_loans: Option<usize>,
    /// Entries of one topic.
    pub per_topic: Option<u64>,
}

/// Whom a publish is for, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Users(Vec<&'static str>),
    Topic(&'static str),
    Everyone,
}

/// A moment as a publisher names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So many seconds later: after the publish, or after the delivery for an end.
    In(u64),
    At(Timestamp),
}

/// A publish as it is handed in.
#[derive(Clone, Debug)]
pub struct Sending {
    pub to: To,
    pub category: Option<&'static str>,
    pub title: String,
    pub collapse: Option<&'static str>,
    pub deliver: Option<When>,
    pub expiry: Option<When>,
}

/// Why an entry is in no list and no count any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Dead(Death),
    /// Its topic was deleted.
    Deleted,
    /// Retention took it.
    Pruned,
}

/// An entry as one person has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub seq: u64,
    pub id: NotificationId,
    /// `None` where it was sent to the person directly.
    pub topic: Option<&'static str>,
    pub category: &'static str,
    pub title: String,
    pub created_at: Timestamp,
    pub state: EntryState,
    /// The position from which on the person could see it: its own, or that of a follow which began before it.
    pub since: u64,
    /// Whether a follow began with it: it is in lists, counts and snapshots, and streams, which have passed it, are not
    /// given it.
    pub given: bool,
    /// The position at which it was over, and why.
    pub over: Option<(u64, Over)>,
    /// The position at which its topic was deleted, whatever had become of it before.
    deleted_at: Option<u64>,
    /// The positions at which it was archived, and taken out again.
    archived: Vec<(u64, bool)>,
    /// Which topic of that name it is of; a name that is deleted and made again is another topic.
    topic_number: Option<usize>,
    collapse: Option<&'static str>,
}

impl Entry {
    pub fn is_alive(&self) -> bool {
        self.over.is_none()
    }

    /// Whether it could be seen as of a position.
    pub fn was_visible_at(&self, seq: u64) -> bool {
        self.since <= seq && self.over.is_none_or(|(at, _)| at > seq)
    }

    /// Whether it was archived as of a position.
    pub fn was_archived_at(&self, seq: u64) -> bool {
        self.archived.iter().rev().find(|(at, _)| *at <= seq).is_some_and(|(_, archived)| *archived)
    }

    /// Whether the person ever saw it: an interval may begin before what was dead already.
    fn was_ever_visible(&self) -> bool {
        self.over.is_none_or(|(at, _)| at > self.since)
    }

    /// Whether it is still stored: what died is, until its death is old.
    fn is_kept(&self) -> bool {
        !matches!(self.over, Some((_, Over::Pruned)))
    }

    /// Whether its topic was deleted after it had died: of its death nobody is told any more.
    pub fn is_deleted_dead(&self) -> bool {
        self.deleted_at.is_some() && matches!(self.over, Some((_, Over::Dead(_))))
    }

    fn counts_unread(&self) -> bool {
        self.state.read_at.is_none() && self.state.archived_at.is_none()
    }

    fn counts_unseen(&self) -> bool {
        self.state.seen_at.is_none() && self.state.archived_at.is_none()
    }
}

/// Unread and unseen.
pub type Pair = (u64, u64);

/// Counts as a client is told them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub unread: u64,
    pub unseen: u64,
    pub by_category: BTreeMap<String, Pair>,
}

/// Counts of one person after one commit, by topic (or none) and category, so that a token can cut them.
type Breakdown = BTreeMap<(Option<&'static str>, &'static str), Pair>;

/// Part of the log that a person has of a topic: after `joined`, up to `parted`.
struct Span {
    topic_number: usize,
    joined: u64,
    parted: Option<u64>,
}

#[derive(Default)]
struct Person {
    appeared: bool,
    /// The how-manieth person who appeared.
    number: usize,
    /// In seq order.
    inbox: Vec<Entry>,
    /// After each commit that may have changed them.
    counts: Vec<(u64, Breakdown)>,
    spans: Vec<Span>,
    /// Up to where retention had taken something of topics that are deleted now: a past follow's end stays told by the
    /// person's own floor.
    deleted_floor: u64,
    /// Numbers of topics.
    muted: Vec<usize>,
}

impl Person {
    fn counts_at(&self, token: &Token, seq: u64) -> Counts {
        let noted = self.counts.iter().rev().find(|(at, _)| *at <= seq);
        let mut counts = Counts::default();
        for ((topic, category), (unread, unseen)) in noted.into_iter().flat_map(|(_, breakdown)| breakdown) {
            if token.sees(*topic) {
                counts.unread += unread;
                counts.unseen += unseen;
                let of_category = counts.by_category.entry((*category).to_owned()).or_default();
                *of_category = (of_category.0 + unread, of_category.1 + unseen);
            }
        }
        counts
    }

    fn insert(&mut self, entry: Entry) {
        let at = self.inbox.partition_point(|known| known.seq < entry.seq);
        self.inbox.insert(at, entry);
    }
}

/// A topic as a backend is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: &'static str,
    pub category: &'static str,
    pub rule: FollowRule,
    pub followers: Vec<&'static str>,
    pub published: u64,
    pub created_at: Timestamp,
    number: usize,
}

/// A topic as a person is shown it who follows or has muted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    pub topic: &'static str,
    pub category: &'static str,
    pub following: bool,
    pub muted: bool,
    pub rule: FollowRule,
}

/// What a token may see.
#[derive(Clone, Debug, Default)]
pub struct Token {
    /// Patterns of topics, `None` for all. Direct entries and `everyone` are always seen.
    pub topics: Option<Vec<&'static str>>,
}

impl Token {
    pub fn sees(&self, topic: Option<&str>) -> bool {
        let (Some(topic), Some(patterns)) = (topic, &self.topics) else {
            return true;
        };
        topic == EVERYONE || patterns.iter().any(|pattern| matches(pattern, topic))
    }
}

/// A pattern is a name, or the beginning of one and a `*`.
pub fn matches(pattern: &str, topic: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == topic, |start| topic.starts_with(start))
}

/// A publish on its way: what its answer must say. It takes effect with [`World::publish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It reaches so many; `None` for everyone.
    Accepted(Option<u64>),
    /// It waits for this moment.
    Scheduled(Timestamp),
    /// The topic bears this category.
    CategoryConflict(&'static str),
    /// Its times break a rule.
    Untimely,
}

/// Which entries a mark is about.
#[derive(Clone, Debug)]
pub enum Target {
    Upto(u64),
    Ids(Vec<NotificationId>),
}

/// What a mark must answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Marked {
    pub changed: u64,
    pub unknown: Vec<NotificationId>,
}

/// A notification that was committed.
#[derive(Clone, Debug)]
pub struct Note {
    pub id: NotificationId,
    pub seq: u64,
    pub to: To,
    pub category: &'static str,
    pub title: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// The position at which it was over for the last one who had it, and how.
    pub death: Option<(u64, Death)>,
    topic_number: Option<usize>,
    /// The how-manieth of its topic.
    ordinal: u64,
    collapse: Option<&'static str>,
}

/// A notification that waits for its time.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub id: NotificationId,
    pub due: Timestamp,
    pub created_at: Timestamp,
    pub sending: Sending,
    pub expires_at: Option<Timestamp>,
    /// It could not be delivered: its topic bears another category by now.
    pub failed: bool,
}

/// What a publisher is told of one.
#[derive(Debug)]
pub enum Fate<'w> {
    Waits(&'w Waiting),
    Committed(&'w Note),
    /// Nobody knows it any more.
    Unknown,
}

/// Users whose inbox it is or was in, and who of them saw, read and archived it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Engaged {
    pub recipients: u64,
    pub seen: u64,
    pub read: u64,
    pub archived: u64,
}

/// What taking a notification back must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retracted {
    Now,
    Cancelled,
    Before(Death),
    Unknown,
}

/// Everything that was ever committed.
pub struct World {
    pub now: Timestamp,
    /// The newest position.
    pub head: u64,
    /// Whether much happens at once. Counts that are pushed then know of everything up to their position and may know of
    /// more, where rows were read anew of what is committed and not told yet; they must be right when all rests.
    pub is_busy: bool,
    /// Whether streams are so old at times that another is to take their place.
    pub grows_old: bool,
    people: BTreeMap<&'static str, Person>,
    topics: Vec<Topic>,
    /// `everyone` is a topic for each category.
    everyone: Vec<(&'static str, usize)>,
    /// How many topics were ever made.
    numbers: usize,
    /// How many people ever appeared.
    arrivals: usize,
    /// How many each topic has published.
    published: BTreeMap<usize, u64>,
    keep: Keep,
    /// Whether retention ever looked.
    pub has_retained: bool,
    /// For each topic the highest position, of an entry or of a death, that retention took.
    floors: BTreeMap<usize, u64>,
    notes: Vec<Note>,
    waiting: Vec<Waiting>,
    ids: Vec<NotificationId>,
}

impl World {
    pub fn new(now: Timestamp, people: &[&'static str], keep: Keep) -> Self {
        let people = people.iter().map(|name| (*name, Person::default())).collect();
        let (topics, notes, waiting, ids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            now,
            head: 0,
            is_busy: false,
            grows_old: false,
            people,
            topics,
            everyone: Vec::new(),
            numbers: 0,
            arrivals: 0,
            published: BTreeMap::new(),
            keep,
            has_retained: false,
            floors: BTreeMap::new(),
            notes,
            waiting,
            ids,
        }
    }

    /// All notifications that were ever published, oldest first: delivered, waiting, cancelled, gone.
    pub fn ids(&self) -> &[NotificationId] {
        &self.ids
    }

    fn person(&self, user: &str) -> &Person {
        self.people.get(user).unwrap_or_else(|| panic!("{user} is not in this world"))
    }

    fn person_mut(&mut self, user: &str) -> &mut Person {
        self.people.get_mut(user).unwrap_or_else(|| panic!("{user} is not in this world"))
    }

    /// All topics, in order of their names.
    pub fn topics(&self) -> Vec<&Topic> {
        let mut topics: Vec<&Topic> = self.topics.iter().collect();
        topics.sort_unstable_by_key(|topic| topic.name);
        topics
    }

    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    /// The topic of this name; one that is not there is made with this category.
    fn make_topic(&mut self, name: &'static str, category: &'static str) -> &mut Topic {
        let known = self.topics.iter().position(|topic| topic.name == name);
        let at = known.unwrap_or_else(|| {
            self.numbers += 1;
            self.topics.push(Topic {
                name,
                category,
                rule: FollowRule::Managed,
                followers: Vec::new(),
                published: 0,
                created_at: self.now,
                number: self.numbers,
            });
            self.topics.len() - 1
        });
        &mut self.topics[at]
    }

    /// The part of `everyone` that bears a category.
    fn everyone_of(&mut self, category: &'static str) -> usize {
        if let Some((_, number)) = self.everyone.iter().find(|(known, _)| *known == category) {
            return *number;
        }
        self.numbers += 1;
        self.everyone.push((category, self.numbers));
        self.numbers
    }

    /// Someone is named, connects, reads or marks: what was sent to everyone of late is theirs (semantics 16).
    pub fn appear(&mut self, user: &str) {
        if !self.person(user).appeared {
            self.arrivals += 1;
            let newcomer = Person { number: self.arrivals, ..self.newcomer() };
            *self.person_mut(user) = newcomer;
        }
    }

    pub fn has_appeared(&self, user: &str) -> bool {
        self.person(user).appeared
    }

    /// Who appears now.
    fn newcomer(&self) -> Person {
        let since = self.now.before(EVERYONE_HORIZON);
        let recent = self.notes.iter().filter(|note| note.to == To::Everyone && note.created_at >= since);
        let inbox = recent.map(|note| Entry { since: self.head, ..entry_of(note) }).collect();
        let mut person = Person { appeared: true, inbox, ..Person::default() };
        note_counts(&mut person, self.head);
        person
    }

    /// What a backend is told that asks for a person's counts. Of someone new it is told what would be theirs; they do
    /// not appear with it.
    pub fn counts_asked(&self, user: &str) -> Counts {
        let person = self.person(user);
        let everything = Token { topics: None };
        if person.appeared {
            person.counts_at(&everything, self.head)
        } else {
            self.newcomer().counts_at(&everything, self.head)
        }
    }

    /// When a publish is due (`None` for at once) and when it is over; `Err` where its times break a rule.
    fn times(&self, sending: &Sending) -> Result<(Option<Timestamp>, Option<Timestamp>), Verdict> {
        let now = self.now;
        let due = match sending.deliver {
            None => now,
            Some(When::In(seconds)) => now.after(Duration::from_secs(seconds)),
            Some(When::At(at)) => at,
        };
        if due > now.after(SCHEDULE_HORIZON) || due < now.before(LATE_AT_MOST) {
            return Err(Verdict::Untimely);
        }
        let begins = due.max(now);
        let expires_at = sending.expiry.map(|expiry| end_of(expiry, begins));
        if expires_at.is_some_and(|expires_at| expires_at <= begins) {
            return Err(Verdict::Untimely);
        }
        Ok(((due > now).then_some(due), expires_at))
    }

    /// What a publish must be answered.
    pub fn judge(&self, sending: &Sending) -> Verdict {
        match self.times(sending) {
            Err(untimely) => untimely,
            Ok((due, _)) => match (self.judge_audience(sending), due) {
                (Verdict::Accepted(_), Some(due)) => Verdict::Scheduled(due),
                (verdict, _) => verdict,
            },
        }
    }

    fn judge_audience(&self, sending: &Sending) -> Verdict {
        match &sending.to {
            To::Users(users) => Verdict::Accepted(Some(users.len() as u64)),
            To::Everyone => Verdict::Accepted(None),
            To::Topic(name) => match self.topic(name) {
                Some(topic) if sending.category.is_some_and(|category| category != topic.category) => {
                    Verdict::CategoryConflict(topic.category)
                }
                Some(topic) => Verdict::Accepted(Some(topic.followers.len() as u64)),
                None => Verdict::Accepted(Some(0)),
            },
        }
    }

    /// A publish that was accepted: it takes the next position, or waits.
    pub fn publish(&mut self, sending: Sending, id: NotificationId) {
        self.ids.push(id);
        let (due, expires_at) = self.times(&sending).expect("it was judged");
        match due {
            None => self.commit(&sending, id, expires_at),
            Some(due) => {
                self.waiting.push(Waiting { id, due, created_at: self.now, sending, expires_at, failed: false });
            }
        }
    }

    fn commit(&mut self, sending: &Sending, id: NotificationId, expires_at: Option<Timestamp>) {
        self.head += 1;
        let seq = self.head;
        let named = sending.category.unwrap_or(GENERAL);
        let (topic_number, category, reached) = match &sending.to {
            To::Users(users) => {
                for user in users {
                    self.appear(user);
                }
                (None, named, users.clone())
            }
            To::Topic(name) => {
                let topic = self.make_topic(name, named);
                topic.published += 1;
                (Some(topic.number), topic.category, topic.followers.clone())
            }
            To::Everyone => {
                let here = self.people.iter().filter(|(_, person)| person.appeared).map(|(name, _)| *name);
                let here = here.collect();
                (Some(self.everyone_of(named)), named, here)
            }
        };
        let published = self.published.entry(topic_number.unwrap_or_default()).or_default();
        *published += 1;
        let ordinal = *published;
        let note = Note {
            id,
            seq,
            to: sending.to.clone(),
            category,
            title: sending.title.clone(),
            created_at: self.now,
            expires_at,
            death: None,
            topic_number,
            ordinal,
            collapse: sending.collapse,
        };
        let entry = entry_of(&note);
        self.replace(&note, &reached);
        self.notes.push(note);
        for user in reached {
            self.person_mut(user).insert(entry.clone());
        }
        let head = self.head;
        for person in self.people.values_mut() {
            note_counts(person, head);
        }
    }

    /// Semantics 13: what bears the key of a new notification in its place is replaced by it, in the same commit.
    fn replace(&mut self, new: &Note, reached: &[&'static str]) {
        let Some(key) = new.collapse else { return };
        let (at, death) = (self.head + 1, Death::Replaced { by: new.id });
        let replaced = match &new.to {
            To::Users(_) => {
                let mut older: Vec<NotificationId> = Vec::new();
                for user in reached {
                    let inbox = &mut self.person_mut(user).inbox;
                    let same = inbox.iter_mut().filter(|e| e.topic.is_none() && e.collapse == Some(key));
                    for entry in same.filter(|entry| entry.is_alive()) {
                        entry.over = Some((at, Over::Dead(death)));
                        older.push(entry.id);
                    }
                }
                self.bury_unheld(&older, at, death);
                !older.is_empty()
            }
            To::Topic(_) | To::Everyone => {
                let same = self.notes.iter().filter(|note| {
                    note.death.is_none()
                        && note.collapse == Some(key)
                        && match new.to {
                            To::Everyone => note.to == To::Everyone,
                            _ => note.topic_number == new.topic_number && note.topic_number.is_some(),
                        }
                });
                let older: Vec<NotificationId> = same.map(|note| note.id).collect();
                for id in &older {
                    self.bury(*id, at, death);
                }
                !older.is_empty()
            }
        };
        if replaced {
            self.head = at;
        }
    }

    /// Direct ones that nobody has alive any more are dead.
    fn bury_unheld(&mut self, ids: &[NotificationId], at: u64, death: Death) {
        for id in ids {
            let held =
                self.people.values().any(|person| person.inbox.iter().any(|entry| entry.id == *id && entry.is_alive()));
            let note = self.notes.iter_mut().find(|note| note.id == *id).expect("an entry is of a notification");
            if !held {
                note.death = Some((at, death));
            }
        }
    }

    /// A notification dies for all who still have it.
    fn bury(&mut self, id: NotificationId, at: u64, death: Death) {
        for person in self.people.values_mut() {
            for entry in person.inbox.iter_mut().filter(|entry| entry.id == id && entry.is_alive()) {
                entry.over = Some((at, Over::Dead(death)));
            }
        }
        let note = self.notes.iter_mut().find(|note| note.id == id).expect("who dies has lived");
        note.death = Some((at, death));
    }

    fn die(&mut self, id: NotificationId, death: Death) {
        self.head += 1;
        let head = self.head;
        self.bury(id, head, death);
        for person in self.people.values_mut() {
            note_counts(person, head);
        }
    }

    /// Commits what is due by now, in order of the moments, deliveries first (semantics 14).
    pub fn catch_up(&mut self) {
        enum Due {
            Delivery(usize),
            End(NotificationId),
        }
        loop {
            let deliveries = self.waiting.iter().enumerate().filter(|(_, waiting)| !waiting.failed);
            let deliveries = deliveries.map(|(at, waiting)| ((waiting.due, 0, 0, waiting.id), Due::Delivery(at)));
            let ends = self.notes.iter().filter(|note| note.death.is_none());
            let ends = ends.filter_map(|note| Some(((note.expires_at?, 1, note.seq, note.id), Due::End(note.id))));
            let next = deliveries.chain(ends).min_by_key(|(order, _)| *order);
            match next.filter(|((at, ..), _)| *at <= self.now) {
                None => return,
                Some((_, Due::End(id))) => self.die(id, Death::Expired),
                Some((_, Due::Delivery(at))) => self.deliver(at),
            }
        }
    }

    fn deliver(&mut self, at: usize) {
        if matches!(self.judge_audience(&self.waiting[at].sending), Verdict::CategoryConflict(_)) {
            self.waiting[at].failed = true;
            return;
        }
        let Waiting { id, sending, expires_at, .. } = self.waiting.remove(at);
        self.commit(&sending, id, expires_at);
    }

    /// The moments at which something is due, each once, the next first.
    pub fn moments(&self) -> Vec<Timestamp> {
        let deliveries = self.waiting.iter().filter(|waiting| !waiting.failed).map(|waiting| waiting.due);
        let ends = self.notes.iter().filter(|note| note.death.is_none()).filter_map(|note| note.expires_at);
        let mut moments: Vec<Timestamp> = deliveries.chain(ends).collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    /// What waits, the next due first.
    pub fn waiting(&self) -> Vec<&Waiting> {
        let mut waiting: Vec<&Waiting> = self.waiting.iter().collect();
        waiting.sort_unstable_by_key(|waiting| (waiting.due, waiting.id));
        waiting
    }

    /// A new draft takes the place of one that waits; the verdict on it, `None` where it does not wait. One that names
    /// no moment keeps the old one, which has passed where the delivery failed.
    pub fn reschedule(&mut self, id: NotificationId, sending: Sending) -> Option<Verdict> {
        let at = self.waiting.iter().position(|waiting| waiting.id == id)?;
        let kept = self.waiting[at].due;
        let due = match sending.deliver {
            None => kept,
            Some(When::In(seconds)) => self.now.after(Duration::from_secs(seconds)),
            Some(When::At(at)) => at,
        };
        if due > self.now.after(SCHEDULE_HORIZON) {
            return Some(Verdict::Untimely);
        }
        let expires_at = sending.expiry.map(|expiry| end_of(expiry, due));
        if expires_at.is_some_and(|expires_at| expires_at <= due || expires_at <= self.now) {
            return Some(Verdict::Untimely);
        }
        if let conflict @ Verdict::CategoryConflict(_) = self.judge_audience(&sending) {
            return Some(conflict);
        }
        let waiting = &mut self.waiting[at];
        *waiting = Waiting { id, due, created_at: waiting.created_at, sending, expires_at, failed: false };
        Some(Verdict::Scheduled(due))
    }

    /// What a publisher is told who asks for one.
    pub fn fate(&self, id: NotificationId) -> Fate<'_> {
        if let Some(waiting) = self.waiting.iter().find(|waiting| waiting.id == id) {
            return Fate::Waits(waiting);
        }
        self.notes.iter().find(|note| note.id == id).map_or(Fate::Unknown, Fate::Committed)
    }

    /// How many it reached, and what they did with it.
    pub fn engaged(&self, id: NotificationId) -> Engaged {
        let mut engaged = Engaged::default();
        for (_, entry) in self.copies(id) {
            engaged.recipients += 1;
            engaged.seen += u64::from(entry.state.seen_at.is_some());
            engaged.read += u64::from(entry.state.read_at.is_some());
            engaged.archived += u64::from(entry.state.archived_at.is_some());
        }
        engaged
    }

    /// How many may be told at most: of one that is dead also those who came later, and whose interval it lies in.
    pub fn reached_at_most(&self, id: NotificationId) -> u64 {
        let copies = self.people.values().map(|person| person.inbox.iter().filter(|entry| entry.id == id).count());
        copies.sum::<usize>() as u64
    }

    /// Whose inbox it is or was in, in order of their names.
    pub fn copies(&self, id: NotificationId) -> impl Iterator<Item = (&'static str, &Entry)> {
        self.people.iter().flat_map(move |(name, person)| {
            let copies = person.inbox.iter().filter(move |entry| entry.id == id && entry.was_ever_visible());
            let copies = copies.filter(|entry| !matches!(entry.over, Some((_, Over::Pruned))));
            copies.map(move |entry| (*name, entry))
        })
    }

    /// Takes a notification back.
    pub fn retract(&mut self, id: NotificationId) -> Retracted {
        match self.fate(id) {
            Fate::Unknown => Retracted::Unknown,
            Fate::Waits(_) => {
                self.waiting.retain(|waiting| waiting.id != id);
                Retracted::Cancelled
            }
            Fate::Committed(Note { death: Some((_, death)), .. }) => Retracted::Before(*death),
            Fate::Committed(_) => {
                self.die(id, Death::Retracted);
                Retracted::Now
            }
        }
    }

    /// Whether the follow is new; only then it takes a position. It begins before the newest `last` living entries, but
    /// not before the end of an earlier follow.
    pub fn follow(&mut self, topic: &'static str, user: &'static str, last: usize) -> bool {
        self.appear(user);
        let head = self.head + 1;
        let topic = self.make_topic(topic, GENERAL);
        if topic.followers.contains(&user) {
            return false;
        }
        topic.followers.push(user);
        let number = topic.number;
        self.head = head;

        let of_topic = |note: &&Note| note.topic_number == Some(number);
        let living = self.notes.iter().rev().filter(of_topic).filter(|note| note.death.is_none());
        let oldest = living.take(last).last().map_or(head, |note| note.seq - 1);
        let spans = self.person(user).spans.iter().filter(|span| span.topic_number == number);
        let parted = spans.filter_map(|span| span.parted).max().unwrap_or_default();
        let joined = oldest.max(parted);
        let given: Vec<Entry> =
            self.notes.iter().filter(of_topic).filter(|note| note.seq > joined).map(entry_of).collect();
        let person = self.person_mut(user);
        for entry in given {
            person.insert(Entry { since: head, given: true, ..entry });
        }
        person.spans.push(Span { topic_number: number, joined, parted: None });
        note_counts(person, head);
        true
    }

    /// Whether there was a follow to end; `None` where nobody has made the topic.
    pub fn unfollow(&mut self, topic: &str, user: &str) -> Option<bool> {
        let topic = self.topics.iter_mut().find(|known| known.name == topic)?;
        let Some(at) = topic.followers.iter().position(|follower| *follower == user) else {
            return Some(false);
        };
        topic.followers.remove(at);
        let number = topic.number;
        self.head += 1;
        let head = self.head;
        let open =
            self.person_mut(user).spans.iter_mut().find(|span| span.topic_number == number && span.parted.is_none());
        open.expect("a follower has a follow").parted = Some(head);
        Some(true)
    }

    /// Makes or changes a topic; whether it is new. `Err` names the category that it bears.
    pub fn put_topic(
        &mut self,
        name: &'static str,
        category: Option<&'static str>,
        rule: Option<FollowRule>,
    ) -> Result<bool, &'static str> {
        let known = self.topic(name).map(|topic| topic.category);
        match (known, category) {
            (Some(known), Some(category)) if known != category => return Err(known),
            _ => {}
        }
        let topic = self.make_topic(name, category.unwrap_or(GENERAL));
        topic.rule = rule.unwrap_or(topic.rule);
        Ok(known.is_none())
    }

    /// Deletes a topic with all that is of it. Whether there was one.
    pub fn delete_topic(&mut self, name: &str) -> bool {
        let Some(at) = self.topics.iter().position(|topic| topic.name == name) else {
            return false;
        };
        let number = self.topics.remove(at).number;
        self.head += 1;
        let head = self.head;
        self.notes.retain(|note| note.topic_number != Some(number));
        let floor = self.floors.get(&number).copied().unwrap_or_default();
        for person in self.people.values_mut() {
            for entry in person.inbox.iter_mut().filter(|entry| entry.topic_number == Some(number)) {
                // Its end stays what it was: a stream may have begun between that and this.
                entry.deleted_at = Some(head);
                entry.over = entry.over.or(Some((head, Over::Deleted)));
            }
            if person.spans.iter().any(|span| span.topic_number == number) {
                person.deleted_floor = person.deleted_floor.max(floor);
            }
            person.spans.retain(|span| span.topic_number != number);
            person.muted.retain(|muted| *muted != number);
            note_counts(person, head);
        }
        true
    }

    /// Whether that changed anything; only then it takes a position. `None` where nobody has made the topic.
    pub fn mute(&mut self, topic: &str, user: &str, on: bool) -> Option<bool> {
        let number = self.topic(topic)?.number;
        self.appear(user);
        let head = self.head + 1;
        let person = self.person_mut(user);
        if person.muted.contains(&number) == on {
            return Some(false);
        }
        if on {
            person.muted.push(number);
        } else {
            person.muted.retain(|muted| *muted != number);
        }
        note_counts(person, head);
        self.head = head;
        Some(true)
    }

    /// Topics that a person follows or has muted and that the token sees, in order of their names.
    pub fn followed(&self, user: &str, token: &Token) -> Vec<Followed> {
        let seen = self.topics().into_iter().filter(|topic| token.sees(Some(topic.name)));
        let listed = seen.map(|topic| Followed {
            topic: topic.name,
            category: topic.category,
            following: topic.followers.contains(&user),
            muted: self.has_muted(user, topic),
            rule: topic.rule,
        });
        listed.filter(|listed| listed.following || listed.muted).collect()
    }

    pub fn has_muted(&self, user: &str, topic: &Topic) -> bool {
        self.person(user).muted.contains(&topic.number)
    }

    /// Whether anything bears a person's name: an inbox, or a notification that waits.
    pub fn is_named(&self, user: &'static str) -> bool {
        let names = |to: &To| matches!(to, To::Users(users) if users.contains(&user));
        self.person(user).appeared || self.waiting.iter().any(|waiting| names(&waiting.sending.to))
    }

    /// Forgets a person: they are someone new from now on.
    pub fn erase(&mut self, user: &'static str) {
        for topic in &mut self.topics {
            topic.followers.retain(|follower| *follower != user);
        }
        let alone = |to: &mut To| match to {
            To::Users(users) => {
                users.retain(|named| *named != user);
                users.is_empty()
            }
            To::Topic(_) | To::Everyone => false,
        };
        self.notes.retain_mut(|note| !alone(&mut note.to));
        self.waiting.retain_mut(|waiting| !alone(&mut waiting.sending.to));
        *self.person_mut(user) = Person::default();
        // Of others retention may have taken it before.
        self.forget_unheld();
    }

    /// Direct ones that are in no inbox any more are gone.
    fn forget_unheld(&mut self) {
        let held = |id| self.people.values().any(|person| person.inbox.iter().any(|e| e.id == id && e.is_kept()));
        self.notes.retain(|note| !matches!(note.to, To::Users(_)) || held(note.id));
    }

    /// Takes what is too old or too many (semantics 15): of topics the oldest, of direct entries the oldest read before
    /// the oldest unread. What leaves together takes one position.
    pub fn retain(&mut self) {
        self.has_retained = true;
        let cutoff = self.keep.hours.map(|hours| self.now.before(Duration::from_hours(hours)));
        let mut numbers: Vec<usize> = self.topics.iter().map(|topic| topic.number).collect();
        numbers.extend(self.everyone.iter().map(|(_, number)| *number));
        numbers.sort_unstable();
        for number in numbers {
            self.retain_topic(number, cutoff);
        }
        let mut people: Vec<(usize, &'static str)> = self.people.iter().map(|(name, p)| (p.number, *name)).collect();
        people.sort_unstable();
        for (_, user) in people {
            self.retain_direct(user, cutoff);
        }
    }

    fn retain_topic(&mut self, number: usize, cutoff: Option<Timestamp>) {
        // Pruned ones count on: what is kept are the newest that were ever published.
        let published = self.published.get(&number).copied().unwrap_or_default();
        let beyond = self.keep.per_topic.map_or(0, |kept| published.saturating_sub(kept));
        let of_topic = self.notes.iter().filter(|note| note.topic_number == Some(number));
        // What is dead went when it died; so few deaths as here are told for ever, and raise no floor (semantics 4).
        let goes = |note: &&Note| {
            let too_old = cutoff.is_some_and(|cutoff| note.created_at < cutoff);
            note.death.is_none() && (note.ordinal <= beyond || too_old)
        };
        let taken: Vec<Note> = of_topic.filter(goes).cloned().collect();
        for some in taken.chunks(TAKEN_AT_ONCE) {
            self.head += 1;
            let head = self.head;
            for note in some {
                let floor = self.floors.entry(number).or_default();
                *floor = (*floor).max(note.seq);
                self.notes.retain(|known| known.id != note.id);
            }
            for person in self.people.values_mut() {
                let gone = person.inbox.iter_mut().filter(|entry| some.iter().any(|note| note.id == entry.id));
                gone.filter(|entry| entry.is_alive()).for_each(|entry| entry.over = Some((head, Over::Pruned)));
                note_counts(person, head);
            }
        }
    }

    /// Each rule looks at what the one before has left.
    fn retain_direct(&mut self, user: &'static str, cutoff: Option<Timestamp>) {
        let Keep { per_user, of_loans, .. } = self.keep;
        let is_old = |entry: &&Entry| cutoff.is_some_and(|cutoff| entry.created_at < cutoff);
        let old: Vec<NotificationId> = self.direct(user, None).filter(is_old).map(|entry| entry.id).collect();
        self.take_direct(user, &old);
        for (category, kept) in [(Some("loans"), of_loans), (None, per_user)] {
            let Some(kept) = kept else { continue };
            let mut entries: Vec<&Entry> = self.direct(user, category).collect();
            entries.sort_by_key(|entry| (entry.counts_unread(), entry.seq));
            let surplus = entries.len().saturating_sub(kept);
            let taken: Vec<NotificationId> = entries.iter().take(surplus).map(|entry| entry.id).collect();
            self.take_direct(user, &taken);
        }
    }

    /// Direct entries that are alive, oldest first.
    fn direct(&self, user: &str, category: Option<&'static str>) -> impl Iterator<Item = &Entry> {
        let inbox = self.person(user).inbox.iter().filter(|entry| entry.topic.is_none() && entry.is_alive());
        inbox.filter(move |entry| category.is_none_or(|category| category == entry.category))
    }

    fn take_direct(&mut self, user: &'static str, taken: &[NotificationId]) {
        for some in taken.chunks(TAKEN_AT_ONCE) {
            self.head += 1;
            let head = self.head;
            let person = self.person_mut(user);
            for entry in person.inbox.iter_mut().filter(|entry| some.contains(&entry.id)) {
                entry.over = Some((head, Over::Pruned));
            }
            note_counts(person, head);
            self.forget_unheld();
        }
    }

    /// A person marks entries (semantics 11), as far as the token sees them.
    pub fn mark(&mut self, user: &str, token: &Token, mark: MarkAs, target: &Target, category: Option<&str>) -> Marked {
        self.appear(user);
        let (now, next) = (self.now, self.head + 1);
        let person = self.person_mut(user);
        let mut changed = 0;
        let mut met = Vec::new();
        for entry in person.inbox.iter_mut().filter(|entry| entry.is_alive()) {
            let meant = match target {
                Target::Upto(upto) => entry.seq <= *upto,
                Target::Ids(ids) => ids.contains(&entry.id),
            };
            if !meant || !token.sees(entry.topic) || category.is_some_and(|category| category != entry.category) {
                continue;
            }
            met.push(entry.id);
            let before = entry.state;
            let state = &mut entry.state;
            match mark {
                MarkAs::Seen => state.seen_at = state.seen_at.or(Some(now)),
                MarkAs::Read => {
                    state.read_at = state.read_at.or(Some(now));
                    state.seen_at = state.seen_at.or(Some(now));
                }
                MarkAs::Unread => state.read_at = None,
                MarkAs::Archived => state.archived_at = state.archived_at.or(Some(now)),
                MarkAs::Unarchived => state.archived_at = None,
            }
            changed += u64::from(*state != before);
            if state.archived_at.is_some() != before.archived_at.is_some() {
                entry.archived.push((next, state.archived_at.is_some()));
            }
        }
        if changed > 0 {
            note_counts(person, next);
            self.head = next;
        }
        let unknown = match target {
            Target::Upto(_) => Vec::new(),
            Target::Ids(ids) => ids.iter().copied().filter(|id| !met.contains(id)).collect(),
        };
        Marked { changed, unknown }
    }

    /// Every entry that a person has or had and that a token may see, oldest first.
    pub fn entries<'w>(&'w self, user: &str, token: &'w Token) -> impl DoubleEndedIterator<Item = &'w Entry> {
        self.person(user).inbox.iter().filter(|entry| token.sees(entry.topic))
    }

    /// Those of them that are alive.
    pub fn inbox<'w>(&'w self, user: &str, token: &'w Token) -> impl DoubleEndedIterator<Item = &'w Entry> {
        self.entries(user, token).filter(|entry| entry.is_alive())
    }

    /// Whether a cursor may, and whether it must, be answered `pruned` by a stream that begins at `head` (semantics 4).
    pub fn pruned_above(&self, user: &str, token: &Token, seq: u64, head: u64) -> (bool, bool) {
        // Of a topic that is deleted nothing is missed: whoever resumes is told that all of it is gone.
        let deleted = |entry: &Entry| entry.deleted_at.is_some_and(|at| at <= head);
        let taken = |entry: &Entry| matches!(entry.over, Some((at, Over::Pruned)) if at <= head) && entry.seq > seq;
        let must = self.entries(user, token).any(|entry| taken(entry) && !deleted(entry));
        let dead_above = |entry: &Entry| matches!(entry.over, Some((at, Over::Dead(_))) if at > seq);
        let person = self.person(user);
        let joined = |number: usize| match self.everyone.iter().any(|(_, of_all)| *of_all == number) {
            true => Some(0),
            false => person.spans.iter().filter(|span| span.topic_number == number).map(|span| span.joined).min(),
        };
        let floor_above =
            |(number, floor): (&usize, &u64)| joined(*number).is_some_and(|joined| *floor > seq.max(joined));
        // A death that is told no more is missed as much as an entry.
        // Nor is one wrong that began to open before the topic was deleted, and says so.
        let may = self.entries(user, token).any(taken)
            || self.floors.iter().any(floor_above)
            || person.deleted_floor > seq
            || (self.has_retained && self.entries(user, token).any(|entry| entry.topic.is_none() && dead_above(entry)));
        (may, must)
    }

    /// A person's counts as of a position.
    pub fn counts_at(&self, user: &str, token: &Token, seq: u64) -> Counts {
        self.person(user).counts_at(token, seq)
    }

    /// A person's counts now.
    pub fn counts(&self, user: &str, token: &Token) -> Counts {
        self.counts_at(user, token, self.head)
    }
}

/// When something is over that begins at a moment.
fn end_of(expiry: When, begins: Timestamp) -> Timestamp {
    match expiry {
        When::In(seconds) => begins.after(Duration::from_secs(seconds)),
        When::At(at) => at,
    }
}

/// A notification as it first is in an inbox.
fn entry_of(note: &Note) -> Entry {
    let topic = match note.to {
        To::Users(_) => None,
        To::Topic(name) => Some(name),
        To::Everyone => Some(EVERYONE),
    };
    Entry {
        seq: note.seq,
        id: note.id,
        topic,
        category: note.category,
        title: note.title.clone(),
        created_at: note.created_at,
        state: EntryState::default(),
        since: note.seq,
        given: false,
        deleted_at: None,
        archived: Vec::new(),
        over: note.death.map(|(at, death)| (at, Over::Dead(death))),
        topic_number: note.topic_number,
        collapse: note.collapse,
    }
}

/// Counts an inbox entry by entry, and keeps the result with the position it is as of.
fn note_counts(person: &mut Person, seq: u64) {
    let mut breakdown = Breakdown::new();
    let muted = |entry: &Entry| entry.topic_number.is_some_and(|number| person.muted.contains(&number));
    for entry in person.inbox.iter().filter(|entry| entry.is_alive() && !muted(entry)) {
        let pair = (u64::from(entry.counts_unread()), u64::from(entry.counts_unseen()));
        if pair != (0, 0) {
            let of_source = breakdown.entry((entry.topic, entry.category)).or_default();
            *of_source = (of_source.0 + pair.0, of_source.1 + pair.1);
        }
    }
    if person.counts.last().is_none_or(|(_, newest)| *newest != breakdown) {
        person.counts.push((seq, breakdown));
    }
}

//! What everybody should see, written from `semantics.md` with vectors and no cleverness: every entry is copied into
//! the inbox of each person it reaches, and every answer is found by looking at all of them.
//!
//! It shares the words of `tidings::model` (names, times, states) and none of its rules.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings::model::{EntryState, MarkAs, NotificationId, Timestamp};

/// How far back `everyone` reaches for someone new.
pub const EVERYONE_HORIZON: Duration = Duration::from_hours(7 * 24);
/// How long a publish is remembered by its key.
pub const ANSWERS_KEPT: Duration = Duration::from_hours(24);

const GENERAL: &str = "general";

/// Whom a publish is for, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Users(Vec<&'static str>),
    Topic(&'static str),
    Everyone,
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
}

impl Entry {
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

#[derive(Default)]
struct Person {
    appeared: bool,
    /// In seq order.
    inbox: Vec<Entry>,
    /// After each commit that may have changed them.
    counts: Vec<(u64, Breakdown)>,
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
}

struct Topic {
    name: &'static str,
    category: &'static str,
    followers: Vec<&'static str>,
}

/// What a token may see.
#[derive(Clone, Debug, Default)]
pub struct Token {
    /// Patterns of topics, `None` for all. Direct entries and `everyone` are always seen.
    pub topics: Option<Vec<&'static str>>,
}

impl Token {
    pub fn sees(&self, topic: Option<&str>) -> bool {
        let (Some(topic), Some(patterns)) = (topic, &self.topics) else { return true };
        topic == "everyone" || patterns.iter().any(|pattern| matches(pattern, topic))
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
    /// The topic bears this category.
    CategoryConflict(&'static str),
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

/// Everything that was ever committed.
pub struct World {
    pub now: Timestamp,
    /// The newest position.
    pub head: u64,
    people: BTreeMap<&'static str, Person>,
    topics: Vec<Topic>,
    everyone: Vec<Entry>,
    ids: Vec<NotificationId>,
}

impl World {
    pub fn new(now: Timestamp, people: &[&'static str]) -> Self {
        let people = people.iter().map(|name| (*name, Person::default())).collect();
        Self { now, head: 0, people, topics: Vec::new(), everyone: Vec::new(), ids: Vec::new() }
    }

    /// All notifications, oldest first.
    pub fn ids(&self) -> &[NotificationId] {
        &self.ids
    }

    fn person(&self, user: &str) -> &Person {
        self.people.get(user).unwrap_or_else(|| panic!("{user} is not in this world"))
    }

    fn person_mut(&mut self, user: &str) -> &mut Person {
        self.people.get_mut(user).unwrap_or_else(|| panic!("{user} is not in this world"))
    }

    fn topic(&mut self, name: &'static str, category: &'static str) -> &mut Topic {
        let known = self.topics.iter().position(|topic| topic.name == name);
        let at = known.unwrap_or_else(|| {
            self.topics.push(Topic { name, category, followers: Vec::new() });
            self.topics.len() - 1
        });
        &mut self.topics[at]
    }

    /// Someone is named, connects, reads or marks: what was sent to everyone of late is theirs (semantics 16).
    pub fn appear(&mut self, user: &str) {
        let newcomer = self.newcomer();
        let person = self.person_mut(user);
        if !person.appeared {
            *person = newcomer;
        }
    }

    /// Who appears now.
    fn newcomer(&self) -> Person {
        let since = self.now.before(EVERYONE_HORIZON);
        let inbox = self.everyone.iter().filter(|entry| entry.created_at >= since).cloned().collect();
        let mut person = Person { appeared: true, inbox, counts: Vec::new() };
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

    /// What a publish of this kind must be answered.
    pub fn judge(&self, to: &To, category: Option<&'static str>) -> Verdict {
        match to {
            To::Users(users) => Verdict::Accepted(Some(users.len() as u64)),
            To::Everyone => Verdict::Accepted(None),
            To::Topic(name) => match self.topics.iter().find(|topic| topic.name == *name) {
                Some(topic) if category.is_some_and(|category| category != topic.category) => {
                    Verdict::CategoryConflict(topic.category)
                }
                Some(topic) => Verdict::Accepted(Some(topic.followers.len() as u64)),
                None => Verdict::Accepted(Some(0)),
            },
        }
    }

    /// A publish that was accepted takes the next position.
    pub fn publish(&mut self, to: &To, category: Option<&'static str>, title: &str, id: NotificationId) {
        self.head += 1;
        let (seq, now) = (self.head, self.now);
        let category = category.unwrap_or(GENERAL);
        let (topic, category, reached) = match to {
            To::Users(users) => {
                for user in users {
                    self.appear(user);
                }
                (None, category, users.clone())
            }
            To::Topic(name) => {
                let topic = self.topic(name, category);
                (Some(*name), topic.category, topic.followers.clone())
            }
            To::Everyone => {
                let here = self.people.iter().filter(|(_, person)| person.appeared).map(|(name, _)| *name);
                (Some("everyone"), category, here.collect())
            }
        };
        let title = title.to_owned();
        let entry = Entry { seq, id, topic, category, title, created_at: now, state: EntryState::default() };
        self.ids.push(id);
        for user in reached {
            let person = self.person_mut(user);
            person.inbox.push(entry.clone());
            note_counts(person, seq);
        }
        if *to == To::Everyone {
            self.everyone.push(entry);
        }
    }

    /// Whether the follow is new; only then it takes a position.
    pub fn follow(&mut self, topic: &'static str, user: &'static str) -> bool {
        self.appear(user);
        let followers = &mut self.topic(topic, GENERAL).followers;
        if followers.contains(&user) {
            return false;
        }
        followers.push(user);
        self.head += 1;
        true
    }

    /// Whether there was a follow to end; `None` where nobody has made the topic.
    pub fn unfollow(&mut self, topic: &str, user: &str) -> Option<bool> {
        let followers = &mut self.topics.iter_mut().find(|known| known.name == topic)?.followers;
        let found = followers.iter().position(|follower| *follower == user);
        if let Some(at) = found {
            followers.remove(at);
            self.head += 1;
        }
        Some(found.is_some())
    }

    /// A person marks entries (semantics 11), as far as the token sees them.
    pub fn mark(&mut self, user: &str, token: &Token, mark: MarkAs, target: &Target, category: Option<&str>) -> Marked {
        self.appear(user);
        let (now, next) = (self.now, self.head + 1);
        let person = self.person_mut(user);
        let mut changed = 0;
        let mut met = Vec::new();
        for entry in &mut person.inbox {
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

    /// The entries of a person that a token may see, oldest first.
    pub fn inbox<'w>(&'w self, user: &str, token: &'w Token) -> impl DoubleEndedIterator<Item = &'w Entry> {
        self.person(user).inbox.iter().filter(|entry| token.sees(entry.topic))
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

/// Counts an inbox entry by entry, and keeps the result with the position it is as of.
fn note_counts(person: &mut Person, seq: u64) {
    let mut breakdown = Breakdown::new();
    for entry in &person.inbox {
        let pair = (u64::from(entry.counts_unread()), u64::from(entry.counts_unseen()));
        if pair != (0, 0) {
            let of_source = breakdown.entry((entry.topic, entry.category)).or_default();
            *of_source = (of_source.0 + pair.0, of_source.1 + pair.1);
        }
    }
    person.counts.push((seq, breakdown));
}

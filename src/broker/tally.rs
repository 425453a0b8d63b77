//! The rows that online users' counts follow from, kept at hand so that a publish to ten thousand followers costs no
//! ten thousand reads.
//!
//! It is a copy of rows, not a second way of counting: each row comes from the store (read at attach, then from the
//! commit feed, absolute and with its seq), and [`Tally::counts`] makes numbers of it as it does for the store.
//! **Invariant**: of two rows the one with the later seq stays, so load and feed may arrive in any order.

use std::collections::HashMap;

use crate::model::{Category, Counts, Seq, SourceKey, Tally, TopicKey, TopicName, UserKey};
use crate::store::{Sight, Standing};

/// Everything at hand.
#[derive(Default)]
pub(super) struct Tallies {
    users: HashMap<UserKey, Basis>,
    topics: HashMap<TopicKey, Total>,
    /// The topics of `everyone`, one for each category: few.
    everyone: Vec<TopicKey>,
}

/// One online user's rows.
#[derive(Default)]
struct Basis {
    rows: HashMap<(SourceKey, Seq), Row>,
    subscribers: usize,
    loaded: bool,
}

struct Row {
    standing: Standing,
    as_of: Seq,
}

struct Total {
    total: u64,
    category: Category,
    as_of: Seq,
}

impl Tallies {
    /// A subscriber of this user is attaching: from here on the feed's rows are kept.
    pub(super) fn attach(&mut self, user: UserKey) {
        self.users.entry(user).or_default().subscribers += 1;
    }

    /// A subscriber of this user is gone.
    pub(super) fn detach(&mut self, user: UserKey) {
        if let Some(basis) = self.users.get_mut(&user) {
            basis.subscribers -= 1;
            if basis.subscribers == 0 {
                self.users.remove(&user);
            }
        }
    }

    /// Takes the rows that were read at `as_of`; later ones that the feed brought meanwhile stay.
    pub(super) fn load(&mut self, sight: &Sight, as_of: Seq) {
        let Some(basis) = self.users.get_mut(&sight.user) else { return };
        basis.loaded = true;
        let mut totals = Vec::new();
        for span in &sight.spans {
            let standing = Standing {
                tally: span.tally,
                joined: span.joined,
                category: span.category.clone(),
                topic: span.topic.clone(),
            };
            basis.put(standing, as_of);
            if let (Some(topic), Some(name)) = (span.source.as_topic(), &span.topic) {
                totals.push((topic, name, &span.category, span.total));
            }
        }
        for (topic, name, category, total) in totals {
            self.total(topic, name, category, total, as_of);
        }
    }

    /// A row of the commit feed. Whether the user is online.
    pub(super) fn standing(&mut self, user: UserKey, standing: Standing, seq: Seq) -> bool {
        match self.users.get_mut(&user) {
            Some(basis) => {
                basis.put(standing, seq);
                true
            }
            None => false,
        }
    }

    /// A topic's total.
    pub(super) fn total(&mut self, topic: TopicKey, name: &TopicName, category: &Category, total: u64, as_of: Seq) {
        match self.topics.get_mut(&topic) {
            Some(known) if known.as_of >= as_of => {}
            Some(known) => {
                known.total = total;
                known.as_of = as_of;
            }
            None => {
                self.topics.insert(topic, Total { total, category: category.clone(), as_of });
                if name.is_everyone() {
                    self.everyone.push(topic);
                }
            }
        }
    }

    /// An online user's counts, over what `visible` lets through. `None` until the rows are loaded.
    pub(super) fn counts(&self, user: UserKey, visible: impl Fn(&TopicName) -> bool) -> Option<Counts> {
        let basis = self.users.get(&user).filter(|basis| basis.loaded)?;
        let mut counts = Counts::default();
        for Row { standing, .. } in basis.rows.values() {
            if standing.topic.as_ref().is_some_and(|topic| !visible(topic)) {
                continue;
            }
            let total = match (standing.tally.own_total, standing.tally.source.as_topic()) {
                (None, Some(topic)) => self.topics.get(&topic).map_or(0, |topic| topic.total),
                _ => 0,
            };
            counts.add(&standing.category, standing.tally.counts(total));
        }
        // A category that `everyone` was first told of after the rows were read: all of it is new to this user.
        for topic in self.everyone.iter().filter(|topic| !basis.knows(**topic)) {
            if let Some(Total { total, category, .. }) = self.topics.get(topic) {
                let source = SourceKey::topic(*topic);
                let all_new = Tally { source, own_total: None, unread_gone: 0, unseen_gone: 0 };
                counts.add(category, all_new.counts(*total));
            }
        }
        Some(counts)
    }
}

impl Basis {
    fn put(&mut self, standing: Standing, as_of: Seq) {
        let key = (standing.tally.source, standing.joined);
        if self.rows.get(&key).is_none_or(|known| known.as_of < as_of) {
            self.rows.insert(key, Row { standing, as_of });
        }
    }

    /// Whether a topic of `everyone` has a row: there, a user has joined once and for all.
    fn knows(&self, topic: TopicKey) -> bool {
        let source = SourceKey::topic(topic);
        self.rows.keys().any(|(known, _)| *known == source)
    }
}

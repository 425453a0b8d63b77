//! The rows that online users' counts follow from, kept at hand so that a publish to ten thousand followers costs no
//! ten thousand reads.
//!
//! It is a copy of rows, not a second way of counting: each row comes from the store (read at attach, then from the
//! commit feed, absolute and with its seq), and [`Tally::counts`] makes numbers of it as it does for the store.
//! **Invariant**: of two rows the one with the later seq stays, so load and feed may arrive in any order.
//!
//! Where entries of a topic died, rows read before are stale: only the store knows who had them unread. Users who are
//! online are read again, by a task of its own; until then their counts are not told. **Invariant**: rows that are being
//! read have a subscriber, or whoever reads them again stands for one, from before the read until they are loaded: so
//! nothing that the feed brings meanwhile is lost on them.
//!
//! A read may be ahead of the feed, and know that rows are gone before the feed says so; the user's other devices were told
//! counts with them. **Invariant**: whoever was read ahead of the feed is told of what befalls any topic until the feed gets
//! there, and what the feed says of before the read brings no row back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Inner;
use crate::interleave;
use crate::lifecycle::Lifecycle;
use crate::model::{Category, Counts, Seq, SourceKey, Tally, TopicKey, TopicName, UserKey};
use crate::store::{Sight, Standing};

/// Users that one read brings up to date.
const REREAD: usize = 64;

/// Everything at hand.
#[derive(Default)]
pub(super) struct Tallies {
    users: HashMap<UserKey, Basis>,
    topics: HashMap<TopicKey, Total>,
    /// The topics of `everyone`, one for each category: few.
    everyone: Vec<TopicKey>,
    /// Who has a row of a topic.
    holders: HashMap<TopicKey, HashSet<UserKey>>,
    /// Users whose rows are being read for the first time.
    reading: HashSet<UserKey>,
    /// Topics whose totals are kept for those alone.
    unheld: HashSet<TopicKey>,
    /// Users whose rows are to be read again.
    stale: HashSet<UserKey>,
    /// The head of the last commit all of which the feed has brought.
    reached: Seq,
    /// Users whose rows were read ahead of that, and where.
    ahead: HashMap<UserKey, Seq>,
    /// Wakes whoever reads them.
    wake: Arc<Notify>,
}

/// One online user's rows.
#[derive(Default)]
struct Basis {
    rows: HashMap<(SourceKey, Seq), Row>,
    subscribers: usize,
    /// The head that the rows were read at; `None` until they are.
    read_at: Option<Seq>,
    /// Rows read before this position are stale.
    stale_since: Seq,
    /// Where a topic was deleted last of which it had rows, or may be brought some by a read from before.
    deleted_at: Seq,
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

/// Whether a row is among a user's, be it in this state or a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

/// Whether an online user can see an entry of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    Yes,
    No,
    /// The rows are being read.
    Unknown,
}

impl Tallies {
    /// A subscriber of this user is attaching: from here on the feed's rows are kept.
    pub(super) fn attach(&mut self, user: UserKey) {
        let basis = self.users.entry(user).or_default();
        basis.subscribers += 1;
        if basis.read_at.is_none() {
            self.reading.insert(user);
        }
    }

    /// A subscriber of this user is gone.
    pub(super) fn detach(&mut self, user: UserKey) {
        let Some(basis) = self.users.get_mut(&user) else { return };
        basis.subscribers -= 1;
        if basis.subscribers > 0 {
            return;
        }
        let topics: Vec<TopicKey> = basis.topics().collect();
        self.users.remove(&user);
        self.stale.remove(&user);
        self.ahead.remove(&user);
        for topic in topics {
            self.let_go(topic, user);
        }
        self.has_read(user);
    }

    /// The user's rows are not being read any more.
    fn has_read(&mut self, user: UserKey) {
        self.reading.remove(&user);
        if self.reading.is_empty() {
            for topic in std::mem::take(&mut self.unheld) {
                if !self.holders.contains_key(&topic) {
                    self.topics.remove(&topic);
                }
            }
        }
    }

    fn let_go(&mut self, topic: TopicKey, user: UserKey) {
        let Some(holders) = self.holders.get_mut(&topic) else { return };
        holders.remove(&user);
        if holders.is_empty() {
            self.holders.remove(&topic);
            // What nobody online has a row of is read again when somebody has. One who is being read may bring a row with a
            // total that is older than this.
            if !self.everyone.contains(&topic) {
                self.unheld.insert(topic);
            }
        }
    }

    /// Takes the rows that were read at `as_of`; later ones that the feed brought meanwhile stay.
    pub(super) fn load(&mut self, sight: &Sight, as_of: Seq) {
        let Some(basis) = self.users.get_mut(&sight.user) else { return };
        // Rows that were read later know of everything up to then: these could only bring back what is gone.
        if basis.read_at.is_none_or(|read_at| read_at <= as_of) {
            basis.read_at = Some(as_of);
            if as_of < basis.deleted_at {
                // They may be of a topic that was deleted meanwhile.
                basis.stale_since = basis.stale_since.max(basis.deleted_at);
            }
            if basis.is_fresh() {
                self.stale.remove(&sight.user);
            } else {
                self.grow_stale(sight.user);
            }
            if as_of > self.reached {
                self.ahead.insert(sight.user, as_of);
            }
            self.forget_rows(sight, as_of);
            for span in &sight.spans {
                self.put(sight.user, Standing::of(span), as_of);
                if let (Some(topic), Some(name)) = (span.source.as_topic(), &span.topic) {
                    self.total(topic, name, &span.category, span.total, as_of);
                }
            }
        }
        self.has_read(sight.user);
    }

    /// Lets go of rows that are not there any more: their topic was deleted, or all of a past follow was pruned.
    fn forget_rows(&mut self, sight: &Sight, as_of: Seq) {
        let Some(basis) = self.users.get_mut(&sight.user) else { return };
        let known = |key: &(SourceKey, Seq)| sight.spans.iter().any(|span| (span.source, span.joined) == *key);
        let gone: Vec<(SourceKey, Seq)> =
            basis.rows.iter().filter(|(key, row)| row.as_of <= as_of && !known(key)).map(|(key, _)| *key).collect();
        for key in &gone {
            basis.rows.remove(key);
        }
        for topic in gone.iter().filter_map(|(source, _)| source.as_topic()) {
            if !self.users.get(&sight.user).is_some_and(|basis| basis.knows(topic)) {
                self.let_go(topic, sight.user);
            }
        }
    }

    fn put(&mut self, user: UserKey, standing: Standing, as_of: Seq) {
        let Some(basis) = self.users.get_mut(&user) else { return };
        let topic = standing.tally.source.as_topic();
        let kept = basis.put(standing, as_of);
        if let (Some(topic), Kept::Yes) = (topic, kept) {
            self.holders.entry(topic).or_default().insert(user);
        }
    }

    /// A row of the commit feed. Whether the user is online.
    pub(super) fn standing(&mut self, user: UserKey, standing: Standing, seq: Seq) -> bool {
        let online = self.users.contains_key(&user);
        self.put(user, standing, seq);
        online
    }

    /// A topic's total.
    pub(super) fn total(&mut self, topic: TopicKey, name: &TopicName, category: &Category, total: u64, as_of: Seq) {
        match self.topics.get_mut(&topic) {
            Some(known) if known.as_of >= as_of => {}
            Some(known) => {
                known.total = total;
                known.as_of = as_of;
            }
            None if name.is_everyone() || self.holders.contains_key(&topic) => {
                self.topics.insert(topic, Total { total, category: category.clone(), as_of });
                if name.is_everyone() {
                    self.everyone.push(topic);
                }
            }
            // Nobody online has a row of it, but one who is being read may bring one, with a total that is older than this.
            None if !self.reading.is_empty() => {
                self.topics.insert(topic, Total { total, category: category.clone(), as_of });
                self.unheld.insert(topic);
            }
            None => {}
        }
    }

    /// All that a commit changed is in.
    pub(super) fn reached(&mut self, head: Seq) {
        self.reached = head;
        self.ahead.retain(|_, read_at| *read_at > head);
    }

    /// Entries of a topic died or were pruned: rows read before are read again. Whose counts it may have changed.
    pub(super) fn shrunk(&mut self, topic: TopicKey, seq: Seq) -> Vec<UserKey> {
        let concerned = self.holders(topic);
        for user in &concerned {
            if let Some(basis) = self.users.get_mut(user) {
                basis.stale_since = seq.max(basis.stale_since);
                if !basis.is_fresh() {
                    self.grow_stale(*user);
                }
            }
        }
        concerned
    }

    /// A topic is gone, with everybody's rows of it. Whose counts it may have changed.
    pub(super) fn deleted(&mut self, topic: TopicKey, seq: Seq) -> Vec<UserKey> {
        let concerned = self.holders(topic);
        self.holders.remove(&topic);
        self.topics.remove(&topic);
        // A read from before may bring such rows back, for whoever has them and for whoever is being read: what it brings
        // is read once more.
        for user in &concerned {
            if let Some(basis) = self.users.get_mut(user) {
                basis.rows.retain(|(source, _), _| source.as_topic() != Some(topic));
                basis.deleted_at = seq.max(basis.deleted_at);
            }
        }
        concerned
    }

    fn grow_stale(&mut self, user: UserKey) {
        self.stale.insert(user);
        self.wake.notify_one();
    }

    /// Users whose rows are to be read again, some of them.
    fn take_stale(&mut self) -> Vec<UserKey> {
        let mut taken: Vec<UserKey> = self.stale.iter().take(REREAD).copied().collect();
        // Always in the same order, so that a seed of the interleavings repeats it.
        taken.sort_unstable();
        for user in &taken {
            self.stale.remove(user);
        }
        taken
    }

    /// Wakes whoever reads stale rows again.
    fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Online users who may see entries of a topic, or may have been told counts with them: those who left it included,
    /// those who are being read, as of before or after now, and those whose rows know already what the feed has yet to say.
    pub(super) fn holders(&self, topic: TopicKey) -> Vec<UserKey> {
        if self.everyone.contains(&topic) {
            return self.users.keys().copied().collect();
        }
        let mut holders: Vec<UserKey> = self
            .holders
            .get(&topic)
            .into_iter()
            .flatten()
            .chain(&self.reading)
            .chain(self.ahead.keys())
            .copied()
            .collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Whether an online user can see an entry of a topic.
    pub(super) fn sees(&self, user: UserKey, topic: TopicKey, entry: Seq) -> Sees {
        let Some(basis) = self.users.get(&user) else { return Sees::No };
        let source = SourceKey::topic(topic);
        let mut rows = basis.rows.iter().filter(|((of, _), _)| *of == source).peekable();
        match (rows.peek().is_some(), basis.read_at) {
            (_, None) => Sees::Unknown,
            // A category of `everyone` that is newer than the rows: all of it is this user's.
            (false, Some(_)) if self.everyone.contains(&topic) => Sees::Yes,
            _ if rows.any(|(_, row)| row.standing.contains(entry)) => Sees::Yes,
            _ => Sees::No,
        }
    }

    /// An online user's counts, over what `visible` lets through. `None` until the rows are read, and while they are stale.
    pub(super) fn counts(&self, user: UserKey, visible: impl Fn(&TopicName) -> bool) -> Option<Counts> {
        let basis = self.users.get(&user).filter(|basis| basis.is_fresh())?;
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
                let all_new = Tally { source, own_total: None, unread_gone: 0, unseen_gone: 0, muted: false };
                counts.add(category, all_new.counts(*total));
            }
        }
        Some(counts)
    }
}

impl Basis {
    fn put(&mut self, standing: Standing, as_of: Seq) -> Kept {
        let key = (standing.tally.source, standing.joined);
        let is_news = match self.rows.get(&key) {
            Some(known) => known.as_of < as_of,
            // What is not among rows that were read later was gone by then.
            None => self.read_at.is_none_or(|read_at| read_at <= as_of),
        };
        #[cfg(test)]
        let is_news = is_news || interleave::has_fault(interleave::Fault::LastRowWins);
        if is_news {
            self.rows.insert(key, Row { standing, as_of });
        }
        if self.rows.contains_key(&key) { Kept::Yes } else { Kept::No }
    }

    fn is_fresh(&self) -> bool {
        self.read_at.is_some_and(|read_at| read_at >= self.stale_since)
    }

    /// The topics that it has rows of.
    fn topics(&self) -> impl Iterator<Item = TopicKey> {
        self.rows.keys().filter_map(|(source, _)| source.as_topic())
    }

    /// Whether it has a row of the topic.
    fn knows(&self, topic: TopicKey) -> bool {
        let source = SourceKey::topic(topic);
        self.rows.keys().any(|(known, _)| *known == source)
    }
}

/// A user's rows are kept for as long as it lives: a subscriber's place in the tallies, or that of a read.
pub(super) struct TallyGuard {
    tallies: Arc<Mutex<Tallies>>,
    user: UserKey,
}

impl TallyGuard {
    /// For a subscriber that is attaching.
    pub(super) fn attach(tallies: &Arc<Mutex<Tallies>>, user: UserKey) -> Self {
        tallies.lock().attach(user);
        Self { tallies: tallies.clone(), user }
    }

    /// For those whose rows are to be read again, some of them.
    fn of_stale(tallies: &Arc<Mutex<Tallies>>) -> Vec<Self> {
        let mut locked = tallies.lock();
        let users = locked.take_stale();
        let guard = |user| {
            locked.attach(user);
            Self { tallies: tallies.clone(), user }
        };
        users.into_iter().map(guard).collect()
    }
}

impl Drop for TallyGuard {
    fn drop(&mut self) {
        interleave::point("a tally is let go");
        self.tallies.lock().detach(self.user);
    }
}

/// Reads stale rows again, until the drain begins or the broker is gone.
pub(super) async fn reread(broker: Weak<Inner>, lifecycle: Lifecycle) {
    let Some(wake) = broker.upgrade().map(|inner| inner.tallies.lock().wake()) else { return };
    loop {
        tokio::select! {
            () = lifecycle.draining() => return,
            () = wake.notified() => {}
        }
        loop {
            let Some(inner) = broker.upgrade() else { return };
            // Should the last subscriber of one leave meanwhile, and another come: what is loaded would be older than
            // what the feed brought while nobody was there.
            let guards = TallyGuard::of_stale(&inner.tallies);
            if guards.is_empty() {
                break;
            }
            let users: Vec<UserKey> = guards.iter().map(|guard| guard.user).collect();
            let reading = inner.clone();
            let stale = users.clone();
            let read = inner.store.read(move |session| {
                session.snapshot(|reader| {
                    for user in users {
                        let sight = reader.sight(user)?;
                        interleave::point("read again, not loaded");
                        reading.tallies.lock().load(&sight, reader.head());
                    }
                    Ok(())
                })
            });
            if let Err(error) = read.await {
                tracing::warn!(%error, "counts of users who are online could not be read; it is tried again");
                inner.tallies.lock().stale.extend(stale);
                drop(guards);
                tokio::time::sleep(super::fanout::COALESCE).await;
            }
        }
    }
}

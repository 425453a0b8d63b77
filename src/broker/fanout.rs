//! The fan-out: one task that drains the commit feed in order, encodes each event once and puts it into the queues of
//! those it reaches.
//!
//! Subscribers are woken once, after the last frame of a commit, so that what was committed together is written
//! together, the counts behind it included.
//!
//! **Invariant**: it never waits for a subscriber.

use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::newest::Newest;
use super::outbox::Signals;
use super::tally::{Sees, Tallies};
use crate::hub::{Ended, Hub, Pushed, Subscriber};
use crate::interleave;
use crate::metrics::Metrics;
use crate::model::{Epoch, Locale, Notification, Seq, StreamId, TopicName, UserKey};
use crate::store::{Change, Commit, Reach};
use crate::wire::event::ByeReason;
use crate::wire::frame::{Frame, SharedFrame};

/// Counts go to one subscriber no more often than this; what changes in between travels in the next.
pub(super) const COALESCE: Duration = Duration::from_millis(50);

pub(super) struct Fanout {
    epoch: Epoch,
    hub: Arc<Hub>,
    tallies: Arc<Mutex<Tallies>>,
    newest: Arc<Newest>,
    metrics: Arc<Metrics>,
    outbox: Arc<Signals>,
    /// The newest position that was fanned out.
    head: Seq,
    /// How many commits it has seen.
    turns: watch::Sender<u64>,
    /// Subscribers whose counts are due later.
    due: BinaryHeap<Reverse<(Instant, StreamId)>>,
}

/// A death, as far as it matters who is told.
struct Dead<'d> {
    entry: Seq,
    topic: Option<&'d TopicName>,
    reach: &'d Reach,
}

/// What one commit touched.
#[derive(Default)]
struct Touched {
    subscribers: Vec<Arc<Subscriber>>,
    /// Users whose standing changed, whether or not a frame reached them.
    users: HashSet<UserKey>,
}

impl Touched {
    fn add(&mut self, subscriber: &Arc<Subscriber>) {
        if subscriber.touch() {
            self.subscribers.push(subscriber.clone());
        }
    }
}

impl Fanout {
    pub(super) fn new(
        epoch: Epoch,
        hub: Arc<Hub>,
        tallies: Arc<Mutex<Tallies>>,
        newest: Arc<Newest>,
        metrics: Arc<Metrics>,
        outbox: Arc<Signals>,
        turns: watch::Sender<u64>,
    ) -> Self {
        Self { epoch, hub, tallies, newest, metrics, outbox, head: Seq::ZERO, turns, due: BinaryHeap::new() }
    }

    /// Runs until the commit feed ends.
    pub(super) async fn run(mut self, mut feed: mpsc::Receiver<Commit>) {
        loop {
            let due = self.due.peek().map(|Reverse((at, _))| *at);
            let commit = match due {
                Some(at) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => {
                        self.send_due();
                        continue;
                    }
                    commit = feed.recv() => commit,
                },
                None => feed.recv().await,
            };
            match commit {
                Some(commit) => {
                    self.commit(commit);
                    self.turns.send_modify(|turns| *turns += 1);
                }
                None => return,
            }
        }
    }

    fn commit(&mut self, commit: Commit) {
        let mut touched = Touched::default();
        for change in commit.changes {
            interleave::point("a change is fanned out");
            self.change(change, commit.at, &mut touched);
        }
        self.head = commit.head;
        self.tallies.lock().reached(commit.head);
        for user in std::mem::take(&mut touched.users) {
            self.hub.of_user(user, |subscriber| touched.add(subscriber));
        }
        interleave::point("fanned out, not counted");
        self.send_counts(&touched.subscribers, Instant::now());
        interleave::point("counted, not woken");
        for subscriber in touched.subscribers {
            subscriber.wake();
        }
    }

    fn change(&self, change: Change, committed: std::time::Instant, touched: &mut Touched) {
        match change {
            Change::Total { topic, name, category, total, seq } => {
                self.tallies.lock().total(topic, &name, &category, total, seq);
            }
            Change::Standing { user, seq, standing } => {
                if self.tallies.lock().standing(user, standing, seq) {
                    touched.users.insert(user);
                }
            }
            Change::Followed { user, topic, name, .. } => self.hub.follow(user, topic, &name),
            Change::Left { user, topic, seq } => self.hub.leave(user, topic, seq),
            Change::Shrunk { topic, seq } => touched.users.extend(self.tallies.lock().shrunk(topic, seq)),
            Change::TopicDeleted { topic, seq } => {
                touched.users.extend(self.tallies.lock().deleted(topic, seq));
                self.hub.forget(topic, seq);
            }
            Change::Outbox { medium, event, count } => self.outbox.note(&self.metrics, medium, event, count),
            Change::Expands => self.outbox.expand.notify_one(),
            Change::Listens { user, locale } => {
                self.hub.of_user(user, |subscriber| subscriber.listen(locale.clone()));
            }
            Change::Erased { user } => {
                self.hub.of_user(user, |subscriber| subscriber.end(Ended::alone(ByeReason::Revoked)));
            }
            Change::Died { change, entry, topic, category, reach } => {
                self.newest.forget(entry);
                self.metrics.deaths.get_or_create(&[("death", change.became.as_str())]).inc();
                let dead = Dead { entry, topic: topic.as_ref(), reach: &reach };
                let frame = LazyCell::new(|| {
                    Arc::new(Frame::death(&self.epoch, &change, topic.as_ref(), &category, committed))
                });
                self.bury(&dead, || &frame, touched);
            }
            Change::Marked { user, change } => {
                let frame = LazyCell::new(|| Arc::new(Frame::state(&self.epoch, &change, Some(committed))));
                self.hub.of_user(user, |subscriber| self.push(subscriber, &frame, touched));
            }
            Change::Published { notification, reach } if !notification.content.wordings.is_empty() => {
                self.publish_worded(&notification, &reach, committed, touched);
            }
            Change::Published { notification, reach } => {
                // Most of what is published finds nobody online.
                let frame = LazyCell::new(|| Arc::new(Frame::live(&self.epoch, &notification, committed)));
                self.reach(&reach, || &frame, touched);
            }
        }
    }

    /// Encodes the frame if there is somebody to reach.
    fn reach<'f>(&self, reach: &Reach, frame: impl Fn() -> &'f SharedFrame, touched: &mut Touched) {
        self.each(reach, |subscriber| self.push(subscriber, frame(), touched));
    }

    fn each(&self, reach: &Reach, mut work: impl FnMut(&Arc<Subscriber>)) {
        match reach {
            Reach::Users(users) => {
                for user in users {
                    self.hub.of_user(*user, &mut work);
                }
            }
            Reach::Topic(topic) => self.hub.of_topic(*topic, work),
            Reach::Everyone(_) => self.hub.all(work),
        }
    }

    /// Tells everybody in their language, with one frame for each that somebody listens in.
    fn publish_worded(
        &self,
        notification: &Notification,
        reach: &Reach,
        committed: std::time::Instant,
        touched: &mut Touched,
    ) {
        let wordings = &notification.content.wordings;
        let mut frames: HashMap<Option<Locale>, SharedFrame> = HashMap::new();
        self.each(reach, |subscriber| {
            let Some(listens) = subscriber.locale() else {
                // It is just beginning, and the log knows its language.
                subscriber.lag();
                return touched.add(subscriber);
            };
            let told = listens.and_then(|locale| locale.best(wordings));
            let frame = frames.entry(told.map(|(locale, _)| locale.clone())).or_insert_with(|| {
                let worded =
                    told.map_or_else(|| notification.clone(), |(_, wording)| notification.clone().worded(wording));
                Arc::new(Frame::live(&self.epoch, &worded, committed))
            });
            self.push(subscriber, frame, touched);
        });
    }

    /// Tells a death to those who can see the entry: also to those who have left its topic since, and not to those who
    /// followed it later.
    fn bury<'f>(&self, dead: &Dead<'_>, frame: impl Fn() -> &'f SharedFrame, touched: &mut Touched) {
        let users = match dead.reach {
            Reach::Users(users) => {
                return self.reach(&Reach::Users(users.clone()), frame, touched);
            }
            Reach::Topic(topic) | Reach::Everyone(topic) => self.tallies.lock().holders(*topic),
        };
        let (Reach::Topic(topic) | Reach::Everyone(topic)) = dead.reach else { return };
        for user in users {
            let sees = self.tallies.lock().sees(user, *topic, dead.entry);
            self.hub.of_user(user, |subscriber| {
                if dead.topic.is_some_and(|topic| !subscriber.may_see(topic)) {
                    return;
                }
                match sees {
                    Sees::Yes => self.push(subscriber, frame(), touched),
                    Sees::No => {}
                    // It is just beginning, and the log knows.
                    Sees::Unknown => {
                        subscriber.lag();
                        touched.add(subscriber);
                    }
                }
            });
        }
    }

    fn push(&self, subscriber: &Arc<Subscriber>, frame: &SharedFrame, touched: &mut Touched) {
        if subscriber.push(frame) == Pushed::Overran {
            self.metrics.lags.inc();
        }
        // Touched even where the frame was filtered out: it may have changed the counts.
        touched.add(subscriber);
    }

    /// Sends counts to those who may have them now, and notes when the others may.
    fn send_counts(&mut self, subscribers: &[Arc<Subscriber>], now: Instant) {
        let tallies = self.tallies.clone();
        let tallies = tallies.lock();
        // Devices of one user share one frame.
        let mut made: HashMap<UserKey, SharedFrame> = HashMap::new();
        for subscriber in subscribers {
            match subscriber.counts_slot(now, COALESCE) {
                None => {}
                Some(Err(at)) => self.due.push(Reverse((at, subscriber.stream))),
                Some(Ok(())) => match self.counts_frame(&tallies, subscriber, &mut made) {
                    Some(frame) => subscriber.push_counts(self.head, frame, now),
                    // Its rows are being read, maybe as of a head before this commit: it is asked again.
                    None => {
                        subscriber.owe_counts();
                        self.due.push(Reverse((now + COALESCE, subscriber.stream)));
                    }
                },
            }
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        let mut subscribers = Vec::new();
        while let Some(Reverse((at, stream))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            subscribers.extend(self.hub.stream(stream));
        }
        let tallies = self.tallies.clone();
        let tallies = tallies.lock();
        let mut made = HashMap::new();
        for subscriber in subscribers {
            match self.counts_frame(&tallies, &subscriber, &mut made) {
                Some(frame) => {
                    subscriber.push_counts(self.head, frame, now);
                    subscriber.wake();
                }
                None => self.due.push(Reverse((now + COALESCE, subscriber.stream))),
            }
        }
    }

    fn counts_frame(
        &self,
        tallies: &Tallies,
        subscriber: &Subscriber,
        made: &mut HashMap<UserKey, SharedFrame>,
    ) -> Option<SharedFrame> {
        let restricted = subscriber.topics().is_some();
        if let Some(frame) = made.get(&subscriber.user).filter(|_| !restricted) {
            return Some(frame.clone());
        }
        let counts = tallies.counts(subscriber.user, |topic| subscriber.may_see(topic))?;
        let frame = Arc::new(Frame::unread(&self.epoch, &counts, self.head));
        if !restricted {
            made.insert(subscriber.user, frame.clone());
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{self, Attach, Filter};
    use crate::lifecycle::Lifecycle;
    use crate::model::{Category, SourceKey, Tally};
    use crate::store::{Sight, Standing};

    const USER: UserKey = UserKey(1);

    /// A publish that leaves the user with one unread entry.
    fn one_unread(seq: Seq) -> Commit {
        let tally =
            Tally { source: SourceKey::direct(1), own_total: Some(1), unread_gone: 0, unseen_gone: 0, muted: false };
        let standing = Standing { tally, joined: Seq::ZERO, parted: None, category: Category::default(), topic: None };
        Commit {
            head: seq,
            at: std::time::Instant::now(),
            changes: vec![Change::Standing { user: USER, seq, standing }],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_that_change_while_a_subscribers_rows_are_read_follow_once_they_are() {
        let (hub, tallies) = (Hub::new(hub::Config::default()), Arc::new(Mutex::new(Tallies::default())));
        let epoch = Epoch::new("k7x2m").expect("an epoch");
        let metrics = Arc::new(Metrics::default());
        let newest = Arc::new(Newest::new(metrics.clone()));
        let fanout =
            Fanout::new(epoch, hub.clone(), tallies.clone(), newest, metrics, Arc::default(), watch::channel(0).0);
        let (commits, feed) = mpsc::channel(1);
        Lifecycle::default().spawn_core(fanout.run(feed));
        tallies.lock().attach(USER);
        let attach = Attach {
            user: USER,
            stream: StreamId(1),
            filter: Filter::default(),
            topics: None,
            expires: None,
            seats: Vec::new(),
        };
        let attachment = hub.attach(attach).unwrap_or_else(|full| panic!("has room: {full:?}"));

        // The commit is fanned out while the rows are read as of the head before it …
        commits.send(one_unread(Seq(2))).await.unwrap_or_else(|_| panic!("the fan-out runs"));
        tokio::time::sleep(COALESCE * 3).await;
        let read = Sight { user: USER, spans: Vec::new(), direct_floor: Seq::ZERO };
        tallies.lock().load(&read, Seq(1));

        // … and what `hello` could not count is told without another commit.
        let take = std::future::poll_fn(|cx| attachment.subscriber().poll_take(cx));
        let taken = tokio::time::timeout(COALESCE * 2, take).await.expect("counts follow");
        let (as_of, frame) = taken.counts.expect("counts were taken");
        assert_eq!(as_of, Seq(2));
        let told = String::from_utf8_lossy(frame.object()).into_owned();
        assert!(told.contains("\"unread\":1,\"unseen\":1"), "{told}");
    }
}

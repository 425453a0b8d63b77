//! Who is connected right now: a sharded registry of live subscribers, each with a bounded queue of shared frames.
//!
//! The fan-out walks the subscribers of a user, of a topic, or all, and puts frames into their queues; each
//! subscriber's feed empties its own. **Invariant**: nothing here waits for a subscriber. A queue that is full is
//! emptied and marked as lagging; its feed then reads the log, so nothing is lost.
//!
//! **Invariant**: locks are taken in the order shard, then subscriber; never two shards at once.
//!
//! It does not know the log, nor who may see what beyond the patterns it is handed.
//!
//! Rank 2: imports `model`, `wire`, `interleave`.

mod filter;
mod subscriber;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use filter::Filter;
pub use subscriber::{Ended, Pushed, Subscriber, Taken};

use crate::interleave;
use crate::model::{Seq, StreamId, Timestamp, TopicKey, TopicName, TopicPattern, UserKey};
use crate::wire::event::ByeReason;

/// Locks that users, and that topics, are spread over.
const SHARDS: usize = 16;

/// Limits of the hub.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Subscribers at once; one more is refused softly.
    pub max_subscribers: usize,
    /// Frames in one queue.
    pub queue_frames: usize,
    /// Bytes in one queue. Frames are shared, so this bounds what a stalled reader can hold alone.
    pub queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_subscribers: 19_000, queue_frames: 256, queue_bytes: 64 * 1024 }
    }
}

type Members = HashMap<StreamId, Arc<Subscriber>>;
type Shards<K> = [Mutex<HashMap<K, Members>>; SHARDS];

/// The registry.
pub struct Hub {
    config: Config,
    hasher: RandomState,
    users: Shards<UserKey>,
    topics: Shards<TopicKey>,
    streams: Mutex<Members>,
    /// Who holds each seat.
    seats: Mutex<HashMap<Seat, Arc<Subscriber>>>,
    count: AtomicUsize,
}

/// The hub holds as many subscribers as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Who attaches, and what they want.
#[derive(Clone, Debug)]
pub struct Attach {
    pub user: UserKey,
    pub stream: StreamId,
    pub filter: Filter,
    /// Topics the token may see; `None` is all.
    pub topics: Option<Arc<[TopicPattern]>>,
    pub expires: Option<Timestamp>,
    /// Seats it takes: whoever held one of them ends.
    pub seats: Vec<Seat>,
}

/// What only one live subscriber may hold at a time. The newest wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seat {
    /// The one live stream of a ticket.
    Ticket(Arc<str>),
    /// The one long poll of a client that names itself.
    Client(UserKey, Arc<str>),
}

impl Hub {
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            config,
            hasher: RandomState::new(),
            users: Default::default(),
            topics: Default::default(),
            streams: Mutex::default(),
            seats: Mutex::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// Attaches a subscriber: from here on it gets what is sent to its user and to everyone.
    ///
    /// # Errors
    /// [`Full`].
    pub fn attach(self: &Arc<Self>, attach: Attach) -> Result<Attachment, Full> {
        if self.count.fetch_add(1, Ordering::AcqRel) >= self.config.max_subscribers {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return Err(Full);
        }
        let subscriber = Arc::new(Subscriber::new(attach, self.config));
        for seat in &subscriber.seats {
            let older = self.seats.lock().insert(seat.clone(), subscriber.clone());
            if let Some(older) = older {
                older.end(Ended::alone(ByeReason::Replaced));
            }
        }
        let (stream, user) = (subscriber.stream, subscriber.user);
        self.streams.lock().insert(stream, subscriber.clone());
        interleave::point("a subscriber is half attached");
        self.users[self.shard(&user)].lock().entry(user).or_default().insert(stream, subscriber.clone());
        Ok(Attachment { hub: self.clone(), subscriber })
    }

    fn shard<K: std::hash::Hash>(&self, key: &K) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default()
    }

    /// Visits the live subscribers of a user.
    pub fn of_user(&self, user: UserKey, mut visit: impl FnMut(&Arc<Subscriber>)) {
        if let Some(members) = self.users[self.shard(&user)].lock().get(&user) {
            members.values().for_each(&mut visit);
        }
    }

    /// Visits the live subscribers that follow a topic.
    pub fn of_topic(&self, topic: TopicKey, mut visit: impl FnMut(&Arc<Subscriber>)) {
        if let Some(members) = self.topics[self.shard(&topic)].lock().get(&topic) {
            members.values().for_each(&mut visit);
        }
    }

    /// Visits every live subscriber.
    pub fn all(&self, mut visit: impl FnMut(&Arc<Subscriber>)) {
        for shard in &self.users {
            shard.lock().values().flat_map(HashMap::values).for_each(&mut visit);
        }
    }

    /// All who are here now.
    pub fn streams(&self) -> Vec<Arc<Subscriber>> {
        self.streams.lock().values().cloned().collect()
    }

    /// The subscriber with this stream's id.
    pub fn stream(&self, stream: StreamId) -> Option<Arc<Subscriber>> {
        self.streams.lock().get(&stream).cloned()
    }

    /// A user follows a topic from `seq` on: the user's subscribers join it, as far as their tokens may see it.
    pub fn follow(&self, user: UserKey, topic: TopicKey, name: &TopicName) {
        for subscriber in self.subscribers_of(user) {
            if subscriber.may_see(name) {
                self.join_topic(&subscriber, topic, Seq::MAX);
            }
        }
    }

    /// A user left a topic at `seq`.
    pub fn leave(&self, user: UserKey, topic: TopicKey, seq: Seq) {
        for subscriber in self.subscribers_of(user) {
            let mut shard = self.topics[self.shard(&topic)].lock();
            subscriber.left(topic, seq);
            remove_member(&mut shard, &topic, subscriber.stream);
        }
    }

    /// A topic is gone: nobody is in it any more.
    pub fn forget(&self, topic: TopicKey, seq: Seq) {
        let members = self.topics[self.shard(&topic)].lock().remove(&topic).unwrap_or_default();
        for subscriber in members.values() {
            subscriber.left(topic, seq);
        }
    }

    /// Users with at least one live subscriber.
    pub fn users_online(&self) -> usize {
        self.users.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Live subscribers of each user who has any.
    pub fn online(&self) -> Vec<(UserKey, usize)> {
        let mut online = Vec::new();
        for shard in &self.users {
            online.extend(shard.lock().iter().map(|(user, members)| (*user, members.len())));
        }
        online
    }

    /// Bytes of frames that wait in all queues. A frame that is shared counts in each.
    pub fn queued_bytes(&self) -> usize {
        let mut bytes = 0;
        self.all(|subscriber| bytes += subscriber.queued_bytes());
        bytes
    }

    /// Live subscribers.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn subscribers_of(&self, user: UserKey) -> Vec<Arc<Subscriber>> {
        let mut found = Vec::new();
        self.of_user(user, |subscriber| found.push(subscriber.clone()));
        found
    }

    /// Joins, unless the user has left the topic at a later position than the joiner knows of.
    fn join_topic(&self, subscriber: &Arc<Subscriber>, topic: TopicKey, as_of: Seq) {
        let mut shard = self.topics[self.shard(&topic)].lock();
        if subscriber.joins(topic, as_of) {
            shard.entry(topic).or_default().insert(subscriber.stream, subscriber.clone());
        }
    }

    fn detach(&self, subscriber: &Arc<Subscriber>) {
        let stream = subscriber.stream;
        interleave::point("a subscriber goes");
        for topic in subscriber.detached() {
            interleave::point("a topic is left");
            remove_member(&mut self.topics[self.shard(&topic)].lock(), &topic, stream);
        }
        remove_member(&mut self.users[self.shard(&subscriber.user)].lock(), &subscriber.user, stream);
        self.streams.lock().remove(&stream);
        for seat in &subscriber.seats {
            let mut seats = self.seats.lock();
            if seats.get(seat).is_some_and(|holder| holder.stream == stream) {
                seats.remove(seat);
            }
        }
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

fn remove_member<K: std::hash::Hash + Eq>(shard: &mut HashMap<K, Members>, key: &K, stream: StreamId) {
    if let Some(members) = shard.get_mut(key) {
        members.remove(&stream);
        if members.is_empty() {
            shard.remove(key);
        }
    }
}

/// A subscriber's place in the hub; dropping it detaches.
pub struct Attachment {
    hub: Arc<Hub>,
    subscriber: Arc<Subscriber>,
}

impl Attachment {
    pub fn subscriber(&self) -> &Arc<Subscriber> {
        &self.subscriber
    }

    /// Joins the topics that the user followed as of a position. What changed later is already known here, and wins.
    pub fn join(&self, topics: impl IntoIterator<Item = TopicKey>, as_of: Seq) {
        for topic in topics {
            interleave::point("a topic is joined");
            self.hub.join_topic(&self.subscriber, topic, as_of);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.hub.detach(&self.subscriber);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Attach {
        Attach {
            user: UserKey(0),
            stream: StreamId(0),
            filter: Filter::default(),
            topics: None,
            expires: None,
            seats: Vec::new(),
        }
    }

    fn attach(hub: &Arc<Hub>, user: i64, stream: u128) -> Attachment {
        let attach = Attach { user: UserKey(user), stream: StreamId(stream), ..nobody() };
        hub.attach(attach).unwrap_or_else(|Full| panic!("has room"))
    }

    fn topic_members(hub: &Hub, topic: i64) -> usize {
        let mut members = 0;
        hub.of_topic(TopicKey(topic), |_| members += 1);
        members
    }

    #[test]
    fn whoever_is_dropped_leaves_nothing_behind() {
        let hub = Hub::new(Config::default());
        let attachment = attach(&hub, 1, 1);
        attachment.join([TopicKey(5), TopicKey(6)], Seq(1));
        assert_eq!((hub.len(), topic_members(&hub, 5)), (1, 1));
        drop(attachment);
        assert_eq!((hub.len(), topic_members(&hub, 5)), (0, 0));
        assert!(hub.topics.iter().all(|shard| shard.lock().is_empty()));
        assert!(hub.users.iter().all(|shard| shard.lock().is_empty()));
        assert!(hub.streams.lock().is_empty());
    }

    #[test]
    fn whoever_takes_a_seat_ends_its_holder_and_no_other() {
        let hub = Hub::new(Config::default());
        let sit = |stream, user, client: &str| {
            let seats = vec![Seat::Client(UserKey(user), client.into())];
            let attach = Attach { seats, user: UserKey(user), stream: StreamId(stream), ..nobody() };
            hub.attach(attach).unwrap_or_else(|Full| panic!("has room"))
        };
        let (first, other_user, other_client) = (sit(1, 1, "a"), sit(2, 2, "a"), sit(3, 1, "b"));
        let second = sit(4, 1, "a");
        assert_eq!(first.subscriber().ending(), Some(Ended::alone(ByeReason::Replaced)));
        drop(first);
        for seated in [&other_user, &other_client, &second] {
            assert_eq!(seated.subscriber().ending(), None);
        }
        assert_eq!(hub.seats.lock().len(), 3, "the one that was replaced took nobody's seat with it");
        drop((other_user, other_client, second));
        assert!(hub.seats.lock().is_empty());
    }

    #[test]
    fn a_stale_view_does_not_join_what_was_left_meanwhile() {
        let hub = Hub::new(Config::default());
        let attachment = attach(&hub, 1, 1);
        hub.leave(UserKey(1), TopicKey(5), Seq(10));
        attachment.join([TopicKey(5)], Seq(9));
        assert_eq!(topic_members(&hub, 5), 0);
        hub.follow(UserKey(1), TopicKey(5), &TopicName::new("ops").expect("a topic"));
        assert_eq!(topic_members(&hub, 5), 1);
    }

    #[test]
    fn one_more_than_fits_is_refused() {
        let hub = Hub::new(Config { max_subscribers: 1, ..Config::default() });
        let first = attach(&hub, 1, 1);
        let second = Attach { user: UserKey(2), stream: StreamId(2), ..nobody() };
        assert!(hub.attach(second.clone()).is_err());
        drop(first);
        assert!(hub.attach(second).is_ok());
    }
}

//! One session with RabbitMQ, from its opening to its loss or the drain.
//!
//! Messages are worked on side by side, in the order in which they came as far as they enter the writer's queue, and are
//! acknowledged as they become durable, many at once (`acks`). A message that can't be taken now waits here, unacknowledged,
//! and takes up one of the places that `prefetch` gives: so a full disk stops the intake by itself, and nothing is sent back
//! and forth.
//!
//! **Invariant**: bodies that are held come to `prefetch` × `max_message` bytes at most, and to one message beside that. RabbitMQ
//! counts messages and not bytes, so those beyond `max_message` are counted here: where they come to more, nothing more is read
//! and the connection is cut. Everything unacknowledged goes back into the queue, and the next session is careful: it takes one
//! message at a time until as many as were on their way have been ordinary ones.
//! **Invariant**: however a session ends, what is being worked on has [`FINISH`] to be settled and acknowledged first. What comes
//! again although it was published is known by its name; without one it may be taken for another that says the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use parking_lot::Mutex;

use super::acks::{Acks, Words};
use super::attempts::{Attempts, Earlier};
use super::backoff::Backoff;
use super::letters::{Letters, Posted};
use super::line::{Line, Lost, within};
use super::verdict::{Poison, Verdict};
use super::{Config, Declare, message};
use crate::broker::{Broker, Idempotency, IntakeState, Meanwhile, Untaken, Went, hash_body};
use crate::lifecycle::Lifecycle;
use crate::model::{Identity, Timestamp};
use crate::wire::queue;

/// How long the end of a session waits for messages that came, and then for RabbitMQ to hear of it.
const FINISH: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_secs(1);
/// Waits between two attempts at a message that can't be taken now.
const RETRIES: Backoff =
    Backoff { least: Duration::from_millis(100), first: Duration::from_millis(500), longest: Duration::from_secs(5) };
/// Names the route to idempotency keys: the same key may be used over HTTP.
const ROUTE: &str = "queue";
/// "OK" to RabbitMQ when a connection is closed (AMQP 0-9-1, `reply-success`).
const SUCCESS: u16 = 200;
/// Messages on their way in a careful session.
const ONE: u16 = 1;

/// How many messages are taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As many as settings allow.
    Ordinary,
    /// One, whatever its size.
    Careful,
}

/// How a session ended.
pub(super) enum Ended {
    /// The server shuts down; what was being published is settled.
    Drained,
    /// It was careful, and need not be any more.
    Calm,
    /// So many messages were settled before.
    Lost { settled: u64, lost: Lost },
}

/// A session that is open.
pub(super) struct Session {
    broker: Broker,
    config: Config,
    lifecycle: Lifecycle,
    pace: Pace,
    letters: Option<Letters>,
    settled: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Messages that can't be taken now.
#[derive(Default)]
struct Waiting {
    messages: usize,
    since: Option<Timestamp>,
}

/// A message that was carried through to its end, as far as it came.
struct Done {
    /// Its number on the channel.
    tag: u64,
    bytes: u64,
    end: End,
}

enum End {
    /// It is to be acknowledged, and counted as this.
    Taken(&'static str),
    /// RabbitMQ was told.
    Rejected,
    /// It comes again.
    Left,
    /// It comes again, and the session with it: what it takes to settle it is lost.
    Failed(Lost),
}

/// What is on its way in a session.
#[derive(Default)]
struct Held {
    /// Of bodies.
    bytes: u64,
    acks: Acks,
    /// Messages of ordinary size that were settled one after the other.
    calm: u64,
    /// Why the session ends, where a message was what found that out.
    failed: Option<Lost>,
}

impl Session {
    /// Connects and consumes until the connection is lost or the drain begins.
    pub async fn run(broker: Broker, config: Config, lifecycle: Lifecycle, pace: Pace) -> Ended {
        let opened = tokio::select! {
            biased;
            () = lifecycle.draining() => return Ended::Drained,
            opened = open(&config, pace) => opened,
        };
        let (line, channel, consumer, letters) = match opened {
            Ok(opened) => opened,
            Err(lost) => return Ended::Lost { settled: 0, lost },
        };
        match pace {
            Pace::Ordinary => tracing::info!(queue = config.queue, host = config.address.host, "Consuming the queue"),
            Pace::Careful => tracing::info!(
                queue = config.queue,
                host = config.address.host,
                "Consuming the queue, one message at a time for a while"
            ),
        }
        broker.tell_intake(IntakeState::Consuming);
        let (settled, waiting) = (AtomicU64::new(0), Mutex::default());
        let this = Self { broker, config, lifecycle, pace, letters, settled, waiting };
        let ended = this.consume(&line, &channel, consumer).await;
        // What was not acknowledged goes back into the queue with the connection. Cut off at once, RabbitMQ might lose sight of
        // what was acknowledged last; so it is told first, though on a line that is on hold its answer is not heard.
        let _ = tokio::time::timeout(CLOSE, line.connection.close(SUCCESS, "OK".into())).await;
        if ended.is_err() {
            line.cut();
        }
        match ended {
            Ok(ended) => ended,
            Err(lost) => Ended::Lost { settled: this.settled.load(Ordering::Relaxed), lost },
        }
    }

    /// Takes messages until the drain, until there is no need to be careful, or until the session is lost; then settles those that
    /// have come.
    async fn consume(&self, line: &Line, channel: &Channel, mut consumer: Consumer) -> Result<Ended, Lost> {
        let mut working = FuturesUnordered::new();
        let mut held = Held::default();
        let ended = loop {
            tokio::select! {
                biased;
                () = self.lifecycle.draining() => break Ok(Ended::Drained),
                Some(first) = working.next(), if !working.is_empty() => {
                    let mut done = vec![first];
                    // What became durable with the same commit is told with it.
                    while let Some(Some(next)) = working.next().now_or_never() {
                        done.push(next);
                    }
                    let told = self.tell(channel, &mut held, done).await;
                    if let Some(lost) = told.err().or_else(|| held.failed.take()) {
                        break Err(lost);
                    }
                    if self.pace == Pace::Careful && held.calm >= u64::from(self.config.prefetch) {
                        break Ok(Ended::Calm);
                    }
                }
                delivery = consumer.next() => match delivery {
                    Some(Ok(delivery)) => {
                        let bytes = held.bytes + size(&delivery);
                        if let Err(flooded) = self.check_room(bytes) {
                            break Err(flooded);
                        }
                        held.bytes = bytes;
                        working.push(self.settle(delivery));
                    }
                    Some(Err(source)) => break Err(Lost::Amqp { doing: "consuming", source: Box::new(source) }),
                    None => break Err(Lost::Cancelled),
                },
            }
        };
        let finish = async {
            if ended.is_ok() {
                channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.ok();
                // What was sent ahead is settled too.
                while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
                    held.bytes += size(&delivery);
                    working.push(self.settle(delivery));
                }
            } else {
                // Each acknowledgement would let RabbitMQ send one more.
                line.hold();
            }
            while let Some(done) = working.next().await {
                self.tell(channel, &mut held, vec![done]).await?;
            }
            Ok(())
        };
        // What is not settled by then comes again.
        let finished = tokio::time::timeout(FINISH, finish).await.unwrap_or(Ok(()));
        ended.and_then(|ended| finished.map(|()| ended))
    }

    /// Whether so many bytes may be held.
    fn check_room(&self, bytes: u64) -> Result<(), Lost> {
        let most = u64::from(self.config.prefetch) * u64::try_from(self.config.max_message).unwrap_or(u64::MAX);
        if self.pace == Pace::Ordinary && bytes > most { Err(Lost::Flooded(most)) } else { Ok(()) }
    }

    /// Carries one message through to its end. Its body goes with it.
    async fn settle(&self, delivery: Delivery) -> Done {
        let (tag, bytes) = (delivery.delivery_tag, size(&delivery));
        Done { tag, bytes, end: self.end(&delivery).await.unwrap_or_else(End::Failed) }
    }

    async fn end(&self, delivery: &Delivery) -> Result<End, Lost> {
        Ok(match self.decided(delivery).await {
            None | Some(Verdict::Later(_) | Verdict::Failed) => End::Left,
            Some(Verdict::Published) => End::Taken("published"),
            Some(Verdict::Duplicate) => End::Taken("duplicate"),
            Some(Verdict::Poison(poison)) => match &self.letters {
                Some(letters) => match self.post(letters, delivery, &poison).await? {
                    Some(()) => End::Taken("dead_lettered"),
                    None => End::Left,
                },
                None => {
                    self.tell_poison(delivery, &poison, Went::Rejected);
                    let options = BasicRejectOptions { requeue: false };
                    match delivery.acker.reject(options).await {
                        Ok(true) => End::Rejected,
                        // It comes again.
                        Ok(false) => return Err(Lost::Cancelled),
                        Err(source) => return Err(Lost::Amqp { doing: "rejecting", source: Box::new(source) }),
                    }
                }
            },
        })
    }

    /// Acknowledges what is settled, in as few words as that takes.
    async fn tell(&self, channel: &Channel, held: &mut Held, done: Vec<Done>) -> Result<(), Lost> {
        let (mut settled, mut outcomes) = (Vec::with_capacity(done.len()), Vec::with_capacity(done.len()));
        for Done { tag, bytes, end } in done {
            held.bytes -= bytes;
            let is_ordinary = usize::try_from(bytes).is_ok_and(|bytes| bytes <= self.config.max_message);
            held.calm = if is_ordinary { held.calm + 1 } else { 0 };
            match end {
                End::Taken(outcome) => {
                    settled.push(tag);
                    outcomes.push(outcome);
                }
                End::Rejected => {
                    held.acks.told(tag);
                    outcomes.push("rejected");
                }
                End::Left => {}
                End::Failed(lost) => {
                    held.failed.get_or_insert(lost);
                }
            }
        }
        let Words { upto, single } = held.acks.settle(settled);
        let words = upto.map(|tag| (tag, true)).into_iter().chain(single.into_iter().map(|tag| (tag, false)));
        let told = words.map(|(tag, multiple)| channel.basic_ack(tag, BasicAckOptions { multiple }));
        // Where it can't be sent the connection is lost, and what is not told comes again.
        try_join_all(told).await.map_err(|source| Lost::Amqp { doing: "acknowledging", source: Box::new(source) })?;
        for outcome in outcomes {
            self.settled.fetch_add(1, Ordering::Relaxed);
            self.broker.metrics().intake.get_or_create(&[("outcome", outcome)]).inc();
        }
        Ok(())
    }

    /// Tries until it is known what becomes of the message; `None` where the drain came first.
    async fn decided(&self, delivery: &Delivery) -> Option<Verdict> {
        let mut trouble = Trouble { session: self, attempt: 0 };
        let mut attempts = Attempts::default();
        loop {
            let panicked = || {
                self.broker.metrics().panics.inc();
            };
            let attempt = self.publish(delivery, attempts.earlier());
            match attempts.make(attempt, panicked).await {
                Verdict::Later(why) => trouble.wait(&why).await?,
                verdict => {
                    trouble.over();
                    return Some(verdict);
                }
            }
        }
    }

    /// One attempt.
    async fn publish(&self, delivery: &Delivery, earlier: Earlier) -> Verdict {
        let (bytes, most) = (delivery.data.len(), self.config.max_message);
        if bytes > most {
            return Verdict::Poison(Poison::too_large(bytes, most));
        }
        let read = match queue::parse(&delivery.data, message::wrapping(&delivery.properties)) {
            Ok(read) => read,
            Err(error) => return Verdict::Poison(error.into()),
        };
        let body_hash = hash_body(&delivery.data);
        let named = message::key(read.id.as_deref(), &delivery.properties);
        // A message without a name that comes for the first time is new, whatever was sent before it. One that comes again
        // is taken for the one that says the same; so is one whose attempt before this may have published it.
        let is_new = named.is_none() && !delivery.redelivered && earlier == Earlier::Nothing;
        let again = is_new.then(|| read.body.clone());
        let key = named.unwrap_or_else(|| message::nameless_key(&body_hash));
        let idempotency = Idempotency { key, route: ROUTE, body_hash, meanwhile: Meanwhile::Wait };
        let published = self.broker.publish_body(&Identity::Operator, read.body, Some(idempotency)).await;
        match (published, again) {
            (Ok(published), _) if !published.replayed => Verdict::Published,
            (Ok(_), None) => Verdict::Duplicate,
            (Ok(_), Some(body)) => match self.broker.publish_body(&Identity::Operator, body, None).await {
                Ok(_) => Verdict::Published,
                Err(error) => error.into(),
            },
            (Err(error), _) => error.into(),
        }
    }

    /// Posts a dead letter, again and again until a queue holds it; `None` where the drain came first.
    async fn post(&self, letters: &Letters, delivery: &Delivery, poison: &Poison) -> Result<Option<()>, Lost> {
        let mut trouble = Trouble { session: self, attempt: 0 };
        while letters.post(delivery, poison).await? == Posted::Nowhere {
            if trouble.wait("nothing is bound to the dead-letter exchange, or RabbitMQ is full").await.is_none() {
                return Ok(None);
            }
        }
        trouble.over();
        self.tell_poison(delivery, poison, Went::DeadLettered);
        Ok(Some(()))
    }

    /// Never what the message says: only what is wrong with it.
    fn tell_poison(&self, delivery: &Delivery, poison: &Poison, went: Went) {
        let id = delivery.properties.message_id().as_ref().map(|id| id.as_str());
        let (reason, detail, bytes) = (poison.reason, poison.detail.as_str(), size(delivery));
        match went {
            Went::DeadLettered => {
                tracing::warn!(reason, detail, id, bytes, "A message of the queue went to the dead letters");
            }
            Went::Rejected => tracing::warn!(reason, detail, id, bytes, "A message of the queue was rejected"),
        }
        let (at, id) = (self.broker.clock().now(), id.map(str::to_owned));
        self.broker.tell_untaken(Untaken { at, reason, detail: detail.to_owned(), id, bytes, went });
    }
}

fn size(delivery: &Delivery) -> u64 {
    u64::try_from(delivery.data.len()).unwrap_or(u64::MAX)
}

async fn open(config: &Config, pace: Pace) -> Result<(Line, Channel, Consumer, Option<Letters>), Lost> {
    let letters = match &config.dead_letter_exchange {
        Some(exchange) => Some(Letters::open(config, exchange).await?),
        None => None,
    };
    let line = Line::open(config, "tidings").await?;
    let channel = within("opening a channel", line.connection.create_channel()).await?;
    if config.declare == Declare::Durable {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(config.queue.as_str().into(), options, FieldTable::default());
        within("declaring the queue", declared).await?;
    }
    let ahead = match pace {
        Pace::Ordinary => config.prefetch,
        Pace::Careful => ONE,
    };
    within("bounding what is sent ahead", channel.basic_qos(ahead, BasicQosOptions::default())).await?;
    let consumer = channel.basic_consume(
        config.queue.as_str().into(),
        "tidings".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let consumer = within("consuming the queue", consumer).await?;
    Ok((line, channel, consumer, letters))
}

/// A message that can't be taken now, as long as that is so.
struct Trouble<'s> {
    session: &'s Session,
    attempt: u32,
}

impl Trouble<'_> {
    /// Waits before the next attempt; `None` where the drain came first.
    async fn wait(&mut self, why: &str) -> Option<()> {
        if self.attempt == 0 {
            self.session.begin_waiting(why);
        }
        let wait = RETRIES.thrown(self.attempt);
        self.attempt += 1;
        tokio::select! {
            biased;
            () = self.session.lifecycle.draining() => None,
            () = tokio::time::sleep(wait) => Some(()),
        }
    }

    /// The message is decided. Where the session ends first, nobody is told anything.
    fn over(self) {
        if self.attempt > 0 {
            self.session.end_waiting();
        }
    }
}

impl Session {
    fn begin_waiting(&self, why: &str) {
        let mut waiting = self.waiting.lock();
        waiting.messages += 1;
        if waiting.since.is_none() {
            let since = self.broker.clock().now();
            waiting.since = Some(since);
            tracing::warn!(queue = self.config.queue, "Messages of the queue wait, and nothing is lost: {why}");
            self.broker.tell_intake(IntakeState::Waiting { since, why: why.to_owned() });
        }
    }

    fn end_waiting(&self) {
        let mut waiting = self.waiting.lock();
        waiting.messages -= 1;
        if waiting.messages == 0 {
            waiting.since = None;
            tracing::info!(queue = self.config.queue, "Messages of the queue are taken again");
            self.broker.tell_intake(IntakeState::Consuming);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker;
    use crate::clock::Clock;
    use crate::intake::{Address, Scheme};
    use crate::metrics::Metrics;

    /// A session as one is that was opened; what is published here needs no RabbitMQ.
    async fn session(directory: &std::path::Path) -> Session {
        let (lifecycle, metrics) = (Lifecycle::default(), Arc::new(Metrics::default()));
        let opened = Broker::open(directory, broker::Config::default(), Clock::system(), metrics, &lifecycle).await;
        let address = Address {
            scheme: Scheme::Amqp,
            user: "guest".to_owned(),
            host: "mq.example".to_owned(),
            port: 5672,
            vhost: "/".to_owned(),
        };
        let config = Config {
            address,
            password_file: None,
            password: None,
            ca_file: None,
            queue: "centre".to_owned(),
            declare: Declare::Passive,
            dead_letter_exchange: None,
            prefetch: 16,
            max_message: 1_024,
        };
        Session {
            broker: opened.expect("a new database opens"),
            config,
            lifecycle,
            pace: Pace::Ordinary,
            letters: None,
            settled: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn a_message_without_a_name_whose_attempt_panicked_behind_its_commit_is_published_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let session = session(directory.path()).await;
        let published = || session.broker.metrics().publishes.get();
        let said = br#"{"to":"user:alice","title":"the same"}"#;
        let message = |tag| Delivery::mock(tag, "".into(), "centre".into(), false, said.to_vec());

        let (first, mut attempts) = (message(1), Attempts::default());
        let dies = async {
            let verdict = session.publish(&first, Earlier::Nothing).await;
            panic!("a fault of ours behind the commit: {verdict:?}")
        };
        assert!(matches!(attempts.make(dies, || ()).await, Verdict::Later(_)));
        assert_eq!(published(), 1, "it is durable");
        let earlier = attempts.earlier();
        assert_eq!(attempts.make(session.publish(&first, earlier), || ()).await, Verdict::Duplicate);
        assert_eq!(published(), 1, "and is not published again");

        // Another that says the same is another all the same, also where it had to wait.
        let (second, mut attempts) = (message(2), Attempts::default());
        attempts.make(async { Verdict::Later("the disk is full".to_owned()) }, || ()).await;
        let earlier = attempts.earlier();
        assert_eq!(attempts.make(session.publish(&second, earlier), || ()).await, Verdict::Published);
        assert_eq!(published(), 2);

        let Session { broker, lifecycle, .. } = session;
        lifecycle.drain();
        drop(broker);
        assert!(lifecycle.core_ended(FINISH * 20).await, "the writer ends with its last user");
    }
}

//! One connection to RabbitMQ, from its opening to its loss or the drain.
//!
//! Messages are worked on side by side, in the order in which they came as far as they enter the writer's queue, and are
//! acknowledged in whatever order they are durable. A message that can't be taken now waits here, unacknowledged, and takes
//! up one of the places that `prefetch` gives: so a full disk stops the intake by itself, and nothing is sent back and forth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use parking_lot::Mutex;

use super::backoff::Backoff;
use super::letters::{Letters, Posted};
use super::verdict::{Poison, Verdict};
use super::{Config, Declare, message};
use crate::broker::{Broker, Idempotency, IntakeState, Meanwhile, hash_body};
use crate::lifecycle::Lifecycle;
use crate::model::{Identity, Timestamp};
use crate::wire::queue;

/// How long RabbitMQ may take for one step of opening or closing.
const ANSWER: Duration = Duration::from_secs(15);
/// Silence after which a connection counts as lost is twice this; RabbitMQ may ask for less.
const HEARTBEAT_S: u16 = 20;
/// How long the drain waits for messages that are being published, and then for RabbitMQ to hear of it.
const FINISH: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_secs(1);
/// Waits between two attempts at a message that can't be taken now.
const RETRIES: Backoff =
    Backoff { least: Duration::from_millis(100), first: Duration::from_millis(500), longest: Duration::from_secs(5) };
/// The password of RabbitMQ's own user.
const GUEST: &str = "guest";
/// Names the route to idempotency keys: the same key may be used over HTTP.
const ROUTE: &str = "queue";
/// "OK" to RabbitMQ when a connection is closed (AMQP 0-9-1, `reply-success`).
const SUCCESS: u16 = 200;

/// Why the queue is not consumed any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("RabbitMQ did not answer in time while {0}")]
    Silent(&'static str),
    #[error("{doing} failed: {source}")]
    Amqp { doing: &'static str, source: Box<lapin::Error> },
    #[error("RabbitMQ ended the consumer: was the queue deleted, or its node stopped?")]
    Cancelled,
    #[error("the session panicked; the log has where")]
    Panic,
}

/// How a session ended.
pub(super) enum Ended {
    /// The server shuts down; what was being published is settled.
    Drained,
    /// So many messages were settled before.
    Lost { settled: u64, lost: Lost },
}

/// Gives a step of the protocol its time.
pub(super) async fn within<T>(
    doing: &'static str,
    step: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Lost> {
    let done = tokio::time::timeout(ANSWER, step).await.map_err(|_| Lost::Silent(doing))?;
    done.map_err(|source| Lost::Amqp { doing, source: Box::new(source) })
}

/// Connects. `name` is what RabbitMQ shows of the connection.
pub(super) async fn connect(config: &Config, name: &str) -> Result<Connection, Lost> {
    let address = &config.address;
    let password = config.password.as_ref().map_or(GUEST, |password| &password.0);
    let uri = AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: address.user.clone(), password: password.to_owned() },
            host: address.host.clone(),
            port: address.port,
        },
        vhost: address.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(HEARTBEAT_S),
            connection_timeout: u64::try_from(ANSWER.as_millis()).ok(),
            ..AMQPQueryString::default()
        },
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    within("connecting", Connection::connect_uri(uri, properties)).await
}

/// A connection that consumes.
pub(super) struct Session {
    broker: Broker,
    config: Config,
    lifecycle: Lifecycle,
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

impl Session {
    /// Connects and consumes until the connection is lost or the drain begins.
    pub async fn run(broker: Broker, config: Config, lifecycle: Lifecycle) -> Ended {
        let opened = tokio::select! {
            biased;
            () = lifecycle.draining() => return Ended::Drained,
            opened = open(&config) => opened,
        };
        let (connection, channel, consumer, letters) = match opened {
            Ok(opened) => opened,
            Err(lost) => return Ended::Lost { settled: 0, lost },
        };
        tracing::info!(queue = config.queue, host = config.address.host, "Consuming the queue");
        broker.tell_intake(IntakeState::Consuming);
        let this = Self { broker, config, lifecycle, letters, settled: AtomicU64::new(0), waiting: Mutex::default() };
        let ended = this.consume(&channel, consumer).await;
        // What was not acknowledged goes back into the queue with the connection.
        let _ = tokio::time::timeout(CLOSE, connection.close(SUCCESS, "OK".into())).await;
        match ended {
            Ok(()) => Ended::Drained,
            Err(lost) => Ended::Lost { settled: this.settled.load(Ordering::Relaxed), lost },
        }
    }

    /// Takes messages until the drain; then settles those that are being published.
    async fn consume(&self, channel: &Channel, mut consumer: Consumer) -> Result<(), Lost> {
        let mut working = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.lifecycle.draining() => break,
                Some(settled) = working.next(), if !working.is_empty() => settled?,
                delivery = consumer.next() => match delivery {
                    Some(Ok(delivery)) => working.push(self.settle(delivery)),
                    Some(Err(source)) => return Err(Lost::Amqp { doing: "consuming", source: Box::new(source) }),
                    None => return Err(Lost::Cancelled),
                },
            }
        }
        let finish = async {
            channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.ok();
            while let Some(settled) = working.next().await {
                settled?;
            }
            Ok(())
        };
        // What is not settled by then comes again.
        tokio::time::timeout(FINISH, finish).await.unwrap_or(Ok(()))
    }

    /// Carries one message through to its end. Without one it is left to come again.
    async fn settle(&self, delivery: Delivery) -> Result<(), Lost> {
        let Some(verdict) = self.decided(&delivery).await else { return Ok(()) };
        let outcome = match verdict {
            Verdict::Published => "published",
            Verdict::Duplicate => "duplicate",
            Verdict::Later(_) => return Ok(()),
            Verdict::Poison(poison) => match &self.letters {
                Some(letters) => match self.post(letters, &delivery, &poison).await? {
                    Some(()) => "dead_lettered",
                    None => return Ok(()),
                },
                None => {
                    tell_poison(&delivery, &poison, "A message of the queue was rejected");
                    let options = BasicRejectOptions { requeue: false };
                    acknowledged("rejecting", delivery.acker.reject(options).await)?;
                    self.count("rejected");
                    return Ok(());
                }
            },
        };
        acknowledged("acknowledging", delivery.acker.ack(BasicAckOptions::default()).await)?;
        self.count(outcome);
        Ok(())
    }

    fn count(&self, outcome: &'static str) {
        self.settled.fetch_add(1, Ordering::Relaxed);
        self.broker.metrics().intake.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Tries until it is known what becomes of the message; `None` where the drain came first.
    async fn decided(&self, delivery: &Delivery) -> Option<Verdict> {
        let mut trouble = Trouble { session: self, attempt: 0 };
        loop {
            match self.publish(delivery).await {
                Verdict::Later(why) => trouble.wait(&why).await?,
                verdict => {
                    trouble.over();
                    return Some(verdict);
                }
            }
        }
    }

    /// One attempt.
    async fn publish(&self, delivery: &Delivery) -> Verdict {
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
        // is taken for the one that says the same.
        let is_new = named.is_none() && !delivery.redelivered;
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
        tell_poison(delivery, poison, "A message of the queue went to the dead letters");
        Ok(Some(()))
    }
}

async fn open(config: &Config) -> Result<(Connection, Channel, Consumer, Option<Letters>), Lost> {
    let letters = match &config.dead_letter_exchange {
        Some(exchange) => Some(Letters::open(config, exchange).await?),
        None => None,
    };
    let connection = connect(config, "tidings").await?;
    let channel = within("opening a channel", connection.create_channel()).await?;
    if config.declare == Declare::Durable {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(config.queue.as_str().into(), options, FieldTable::default());
        within("declaring the queue", declared).await?;
    }
    within("bounding what is sent ahead", channel.basic_qos(config.prefetch, BasicQosOptions::default())).await?;
    let consumer = channel.basic_consume(
        config.queue.as_str().into(),
        "tidings".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let consumer = within("consuming the queue", consumer).await?;
    Ok((connection, channel, consumer, letters))
}

/// An acknowledgement that could not be sent means that the connection is lost: the message comes again.
fn acknowledged(doing: &'static str, sent: Result<bool, lapin::Error>) -> Result<(), Lost> {
    match sent {
        Ok(true) => Ok(()),
        Ok(false) => Err(Lost::Cancelled),
        Err(source) => Err(Lost::Amqp { doing, source: Box::new(source) }),
    }
}

/// Never what the message says: only what is wrong with it.
fn tell_poison(delivery: &Delivery, poison: &Poison, told: &'static str) {
    let id = delivery.properties.message_id().as_ref().map(|id| id.as_str());
    tracing::warn!(reason = poison.reason, detail = poison.detail, id, bytes = delivery.data.len(), "{told}");
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

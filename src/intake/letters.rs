//! Dead letters: messages that never can be taken go to an exchange, as they came, with the reason in their headers.
//!
//! **Invariant**: a dead letter is posted only when RabbitMQ has confirmed that a queue holds it. On a connection of its own:
//! RabbitMQ stops reading from one that publishes when its memory or disk runs short, and acknowledgements must not stop too.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};

use super::Config;
use super::line::{Line, Lost, within};
use super::verdict::Poison;

/// How long RabbitMQ may take to confirm a dead letter.
const CONFIRM: Duration = Duration::from_secs(30);
/// Stored on disk (AMQP 0-9-1, `delivery-mode`).
const PERSISTENT: u8 = 2;

/// Sets one property.
type With = fn(BasicProperties, ShortString) -> BasicProperties;

/// Where dead letters are posted.
pub(super) struct Letters {
    channel: Channel,
    exchange: ShortString,
    queue: String,
    /// Closes the channel when it goes.
    _line: Line,
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// A queue holds it.
    Held,
    /// Nobody has bound a queue to the exchange, or RabbitMQ could not take it.
    Nowhere,
}

impl Letters {
    /// Connects, and makes sure that the exchange is there.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn open(config: &Config, exchange: &str) -> Result<Self, Lost> {
        let line = Line::open(config, "tidings dead letters").await?;
        let channel = within("opening a channel for dead letters", line.connection.create_channel()).await?;
        let exchange = ShortString::from(exchange);
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        // RabbitMQ looks at the name alone.
        let declared = channel.exchange_declare(exchange.clone(), ExchangeKind::Fanout, passive, FieldTable::default());
        within("looking for the dead-letter exchange", declared).await?;
        within("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { channel, exchange, queue: config.queue.clone(), _line: line })
    }

    /// Posts a message with the reason. It bears the routing key that it came with.
    ///
    /// # Errors
    /// [`Lost`], where RabbitMQ does not answer; it may hold the letter all the same.
    pub async fn post(&self, message: &Delivery, poison: &Poison) -> Result<Posted, Lost> {
        let properties = self.properties(&message.properties, poison);
        // Comes back where no queue is bound.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let post = async {
            let (exchange, key) = (self.exchange.clone(), message.routing_key.clone());
            self.channel.basic_publish(exchange, key, options, &message.data, properties).await?.await
        };
        let confirmed =
            tokio::time::timeout(CONFIRM, post).await.map_err(|_| Lost::Silent("confirming a dead letter"))?;
        match confirmed.map_err(|source| Lost::Amqp { doing: "posting a dead letter", source: Box::new(source) })? {
            Confirmation::Ack(None) => Ok(Posted::Held),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => Ok(Posted::Nowhere),
        }
    }

    /// The message's own, with the reason. Left out is what would let it expire among the dead letters, and what RabbitMQ
    /// only takes from the user who sent it.
    fn properties(&self, own: &BasicProperties, poison: &Poison) -> BasicProperties {
        let text = |value: &str| AMQPValue::LongString(value.into());
        let mut headers = own.headers().clone().unwrap_or_default();
        headers.insert("x-tidings-reason".into(), text(poison.reason));
        headers.insert("x-tidings-detail".into(), text(&poison.detail));
        headers.insert("x-tidings-queue".into(), text(&self.queue));
        let mut kept = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
        let texts: [(&Option<ShortString>, With); 7] = [
            (own.content_type(), BasicProperties::with_content_type),
            (own.content_encoding(), BasicProperties::with_content_encoding),
            (own.correlation_id(), BasicProperties::with_correlation_id),
            (own.reply_to(), BasicProperties::with_reply_to),
            (own.message_id(), BasicProperties::with_message_id),
            (own.kind(), BasicProperties::with_type),
            (own.app_id(), BasicProperties::with_app_id),
        ];
        for (value, with) in texts {
            if let Some(value) = value {
                kept = with(kept, value.clone());
            }
        }
        if let Some(at) = own.timestamp() {
            kept = kept.with_timestamp(*at);
        }
        if let Some(priority) = own.priority() {
            kept = kept.with_priority(*priority);
        }
        kept
    }
}

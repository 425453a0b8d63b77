//! The queue as a way in: how many messages a second go from a RabbitMQ that is full of them into the log, beside a consumer
//! that only takes and acknowledges them, in one run. Each message is durable before it is acknowledged.
//!
//! RabbitMQ is a node of its own on the same cores: `apt-get install rabbitmq-server`.

mod support;

#[allow(dead_code, clippy::print_stdout)] // the tests' node, which they use all of
#[path = "../tests/promises/queue/node.rs"]
mod node;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use node::Node;
use support::process::{Tidings, cpu_seconds};
use support::report::Table;
use support::{Role, Size, http, progress, scratch};

const QUEUE: &str = "centre";
const USERS: usize = 1_000;
const PREFETCH: [u16; 2] = [256, 1_000];
/// Messages on their way to RabbitMQ before it is asked whether it has them.
const UNCONFIRMED: usize = 1_000;
/// Written to the disk, as the producers of a message centre do (AMQP 0-9-1, `delivery-mode`).
const PERSISTENT: u8 = 2;
/// How often it is looked how far the server is.
const LOOK: Duration = Duration::from_millis(20);
/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    match support::role()? {
        Role::Bench => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(bench(Size::from_environment()))
        }
        Role::Played | Role::Nothing => Ok(()),
    }
}

async fn bench(size: Size) -> anyhow::Result<()> {
    let messages = size.pick(5_000, 100_000);
    let node = Node::start(None);
    let address = format!("amqp://127.0.0.1:{}", node.port());
    let connection = Connection::connect(&format!("{address}/%2f"), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), durable, FieldTable::default()).await?;
    let columns = ["messages/s", "server µs each"];
    let mut table = Table::new(format!("{messages} messages out of a RabbitMQ that is full of them"), &columns);
    // A server knows a message by its id, and here each one is new.
    let mut fills = 0..;
    let mut next = || fills.next().unwrap_or_default();
    for round in 1..=size.rounds {
        for prefetch in PREFETCH {
            progress(&format!("round {round}, prefetch {prefetch}: the floor"));
            fill(&channel, messages, next()).await?;
            table.add(
                &format!("floor, prefetch {prefetch}"),
                &[floor(&connection, messages, prefetch).await?, f64::NAN],
            );
            progress(&format!("round {round}, prefetch {prefetch}: Tidings"));
            fill(&channel, messages, next()).await?;
            table.add(&format!("Tidings, prefetch {prefetch}"), &tidings(&address, messages, prefetch).await?);
        }
    }
    table.print(&["floor, prefetch 256", "floor, prefetch 1000"]);
    Ok(())
}

/// Puts so many messages into the queue, each confirmed as written.
async fn fill(channel: &Channel, messages: usize, fill: usize) -> anyhow::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_content_type("application/json".into());
    let padding = "Nothing is lost and nothing comes twice. ".repeat(4);
    let mut unconfirmed = Vec::with_capacity(UNCONFIRMED);
    for number in 0..messages {
        let user = number % USERS;
        let body = format!(r#"{{"to":{{"user":"u{user}"}},"title":"{fill}/{number}","body":"{padding}"}}"#);
        let properties = properties.clone().with_message_id(format!("{fill}-{number}").into());
        let sent = channel
            .basic_publish("".into(), QUEUE.into(), BasicPublishOptions::default(), body.as_bytes(), properties)
            .await?;
        unconfirmed.push(sent);
        if unconfirmed.len() == UNCONFIRMED || number + 1 == messages {
            for sent in unconfirmed.drain(..) {
                ensure!(sent.await?.is_ack(), "RabbitMQ did not take a message");
            }
        }
    }
    Ok(())
}

/// Takes and acknowledges all of it, and does nothing with it; messages a second.
async fn floor(connection: &Connection, messages: usize, prefetch: u16) -> anyhow::Result<f64> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let begun = Instant::now();
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(QUEUE.into(), "floor".into(), options, FieldTable::default()).await?;
    for _ in 0..messages {
        let delivery = consumer.next().await.context("RabbitMQ ended the consumer")??;
        delivery.acker.ack(BasicAckOptions::default()).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    channel.close(200, "OK".into()).await?;
    #[expect(clippy::cast_precision_loss)]
    Ok(messages as f64 / seconds)
}

/// Has a new server consume all of it; messages a second, and what one takes of its CPU time.
async fn tidings(address: &str, messages: usize, prefetch: u16) -> anyhow::Result<[f64; 2]> {
    let directory = scratch()?;
    let settings = |command: &mut Command| {
        command.env("TIDINGS_AMQP_URL", address).env("TIDINGS_AMQP_QUEUE", QUEUE);
        command.env("TIDINGS_AMQP_PREFETCH", prefetch.to_string());
    };
    let server = Tidings::start_with(directory.path(), settings)?;
    let wanted = u64::try_from(messages)?;
    let mut moved = (Instant::now(), 0);
    let mut first = None;
    let (begun, before, cpu) = loop {
        let taken = taken(&server)?;
        // What it had taken when it was first looked at belongs to its start.
        let (begun, before, cpu) = *first.get_or_insert_with(|| (Instant::now(), taken, cpu_seconds(server.id())));
        if taken >= wanted {
            break (begun, before, cpu_seconds(server.id()) - cpu);
        }
        if taken > moved.1 {
            moved = (Instant::now(), taken);
        }
        ensure!(moved.0.elapsed() < PATIENCE, "only {taken} of {messages} were taken");
        tokio::time::sleep(LOOK).await;
    };
    let seconds = begun.elapsed().as_secs_f64();
    server.stop()?;
    #[expect(clippy::cast_precision_loss)]
    let taken = (wanted - before) as f64;
    Ok([taken / seconds, cpu * 1e6 / taken])
}

/// Messages that the server has settled.
fn taken(server: &Tidings) -> anyhow::Result<u64> {
    let metrics = String::from_utf8(http::get(server.address, "/metrics")?)?;
    let counts = metrics.lines().filter(|line| line.starts_with("tidings_intake_total{"));
    counts.map(|line| Ok(line.rsplit(' ').next().context("a sample has a value")?.parse::<u64>()?)).sum()
}

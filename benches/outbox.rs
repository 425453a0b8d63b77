//! What deliveries that wait do to the inbox: from a publish to the frame that its reader's feed hands to the socket, with
//! none pending and with many, in one process and one run.
//!
//! The other side is a script that takes its time, so that the worker is busy all the while and most of them stay pending.

#![allow(clippy::print_stderr, clippy::print_stdout)] // progress, and the ratio

#[allow(dead_code, clippy::print_stdout)] // the tables, of all that the socket benches share
#[path = "support/report.rs"]
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tidings::broker::{self, Broker, FeedItem, FeedRequest, Filter};
use tidings::clock::Clock;
use tidings::deliver::{self, Adapter, Outcome, Progress, SetUp};
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{
    Credential, Edit, Email, Identity, Mail, Media, Medium, NotificationId, Parcel, ProfileEdit, UserId, UserIdentity,
};
use tidings::wire::cursor::Resume;
use tidings::wire::delivery::Asked;
use tidings::wire::publish::{Place, parse};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use report::Table;

/// How long the other side takes for a parcel.
const TAKES: Duration = Duration::from_millis(20);
/// Between two publishes.
const PACE: Duration = Duration::from_millis(5);
const DOMAINS: u64 = 200;
const CALLERS: u64 = 64;

fn main() -> anyhow::Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(()); // built and started to see that it builds
    }
    let full = std::env::var("TIDINGS_BENCH").is_ok_and(|size| size == "full");
    let (users, publishes) = if full { (100_000, 4_000) } else { (5_000, 400) };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(users, publishes))
}

/// Takes its time, and takes everything.
struct Slow;

impl Adapter for Slow {
    fn medium(&self) -> Medium {
        Medium::Email
    }

    fn most_together(&self, _: &str) -> usize {
        1
    }

    fn at_once(&self) -> usize {
        1
    }

    fn set_up(&self) -> SetUp {
        SetUp::OfMedium
    }

    fn pause(&self, _: &str) -> Duration {
        Duration::ZERO
    }

    fn send<'a>(&'a self, _: &'a str, parcels: Vec<Parcel>, _: &'a Progress) -> BoxFuture<'a, Vec<Outcome>> {
        async move {
            tokio::time::sleep(TAKES).await;
            parcels.iter().map(|_| Outcome::Sent { answer: "250".to_owned() }).collect()
        }
        .boxed()
    }
}

async fn run(users: u64, publishes: usize) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("bench").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (metrics, lifecycle) = (Arc::new(Metrics::default()), Lifecycle::default());
    let media = Media { email: Some(Mail { domain: "bench.example".to_owned() }), dingtalk: None };
    let config = broker::Config { media, ..broker::Config::default() };
    let broker = Broker::open(directory.path(), config, Clock::system(), metrics, &lifecycle).await?;
    eprintln!("  {users} users");
    know(&broker, users).await?;
    deliver::start(broker.clone(), vec![Arc::new(Slow)], deliver::Workers::default(), &lifecycle);

    let mut table =
        Table::new("From a publish to its reader's feed".to_owned(), &["pending", "p50 ms", "p99 ms", "max ms"]);
    eprintln!("  nothing pending");
    let without = measure(&broker, publishes).await?;
    table.add("no deliveries", &[0.0, without[0], without[1], without[2]]);
    let id = publish(&broker, r#"{"to":"everyone","title":"x","category":"letter","via":["email"]}"#).await?;
    while tallied(&broker, id).await?.1 {
        tokio::time::sleep(PACE).await;
    }
    let (pending, _) = tallied(&broker, id).await?;
    eprintln!("  {pending} pending");
    let with = measure(&broker, publishes).await?;
    let (left, _) = tallied(&broker, id).await?;
    #[expect(clippy::cast_precision_loss)]
    table.add("many, and the worker at work", &[pending as f64, with[0], with[1], with[2]]);
    table.print(&[]);
    println!(
        "p99 with many is {:.2} times that with none; {} were carried meanwhile",
        with[1] / without[1],
        pending - left
    );
    lifecycle.drain();
    drop(broker);
    lifecycle.edges_ended(Duration::from_secs(10)).await;
    lifecycle.core_ended(Duration::from_secs(10)).await;
    Ok(())
}

async fn know(broker: &Broker, users: u64) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for caller in 0..CALLERS {
        let broker = broker.clone();
        tasks.spawn(async move {
            for i in (caller..users).step_by(usize::try_from(CALLERS)?) {
                let email = Email::new(&format!("u{i}@d{}.example", i % DOMAINS))?;
                let edit = ProfileEdit { email: Edit::Set(email), ..ProfileEdit::default() };
                broker.put_profile(&Identity::Operator, &UserId::new(&format!("u{i}"))?, edit).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn publish(broker: &Broker, body: &str) -> anyhow::Result<NotificationId> {
    let draft = parse(body.as_bytes(), Place::Request)?.draft;
    Ok(broker.publish(&Identity::Operator, draft, None).await?.id)
}

/// How many deliveries of a notification are pending, and whether more are being made.
async fn tallied(broker: &Broker, id: NotificationId) -> anyhow::Result<(u64, bool)> {
    let asked = Asked { notification: Some(id), ..Asked::default() };
    let page = broker.deliveries(&Identity::Operator, asked, None, 1).await?;
    let tallied = page.tallied.unwrap_or_default();
    Ok((tallied.pending, tallied.expanding))
}

/// Milliseconds from a publish to its frame: half of them, 99 of 100, all of them.
async fn measure(broker: &Broker, publishes: usize) -> anyhow::Result<[f64; 3]> {
    let user = UserId::new("reader")?;
    let who = UserIdentity {
        user,
        credential: Credential::Bearer,
        topics: None,
        publishes: false,
        expires: None,
        issued: None,
    };
    let request = FeedRequest { resume: Resume::Now, snapshot: 0, filter: Filter::default() };
    let mut feed = broker.open_feed(who, request).map_err(|ended| anyhow::anyhow!("{ended:?}"))?;
    // `hello` comes alone.
    feed.next().await;
    let mut spans = Vec::with_capacity(publishes);
    let mut pace = tokio::time::interval(PACE);
    while spans.len() < publishes {
        pace.tick().await;
        let started = Instant::now();
        publish(broker, r#"{"to":"user:reader","title":"tick"}"#).await?;
        loop {
            let Some(FeedItem::Frames(frames)) = feed.next().await else { anyhow::bail!("the feed ended") };
            if frames.iter().any(|frame| frame.seq.is_some()) {
                break;
            }
        }
        spans.push(started.elapsed());
    }
    spans.sort_unstable();
    let at = |share: usize| spans[(spans.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
    Ok([at(50), at(99), at(100)])
}

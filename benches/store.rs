//! Durable publishes through the broker, in this process: what the log can take when nothing stands before it.
//!
//! So many callers wait for the answer to one publish each before they make the next. The writer commits what waits as
//! one group, so the rate rises with the callers while each commit stays one fsync.

#![allow(clippy::print_stderr)] // progress

#[allow(dead_code, clippy::print_stdout)] // the tables, of all that the socket benches share
#[path = "support/report.rs"]
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tidings::broker::{Broker, Config};
use tidings::clock::Clock;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::Identity;
use tidings::wire::publish::{Place, parse};
use tokio::task::JoinSet;

use report::Table;

const CALLERS: [u64; 4] = [1, 8, 64, 1_024];
const USERS: u64 = 10_000;

fn main() -> anyhow::Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(()); // built and started to see that it builds
    }
    let full = std::env::var("TIDINGS_BENCH").is_ok_and(|size| size == "full");
    let rounds = std::env::var("TIDINGS_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = rounds.unwrap_or(if full { 3 } else { 1 });
    let span = Duration::from_secs(if full { 4 } else { 1 });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (name, to_users) in [("a topic", false), ("single users", true)] {
        let columns = ["publishes/s", "publishes a commit", "ms a commit"];
        let mut table = Table::new(format!("Durable publishes in process, to {name}"), &columns);
        for round in 1..=rounds {
            for callers in CALLERS {
                eprintln!("  to {name}, round {round}: {callers} in flight");
                let figures = runtime.block_on(publish(callers, to_users, span))?;
                table.add(&format!("{callers} in flight"), &figures);
            }
        }
        table.print(&[]);
    }
    Ok(())
}

async fn publish(callers: u64, to_users: bool, span: Duration) -> anyhow::Result<[f64; 3]> {
    let directory = tempfile::Builder::new().prefix("bench").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (metrics, lifecycle) = (Arc::new(Metrics::default()), Lifecycle::default());
    let clock = Clock::system();
    let broker = Broker::open(directory.path(), Config::default(), clock, metrics.clone(), &lifecycle).await?;
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (broker, stop, made) = (broker.clone(), stop.clone(), made.clone());
        tasks.spawn(async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let user = (caller + number * callers).wrapping_mul(7_919) % USERS;
                let to = if to_users { format!("user:u{user}") } else { "topic:bench".to_owned() };
                let draft = parse(notification(&to).as_bytes(), Place::Request).expect("a publish").draft;
                broker.publish(&Identity::Operator, draft, None).await?;
                made.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(span).await;
    let (count, seconds) = (made.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let text = metrics.text();
    let figure = |name: &str| -> anyhow::Result<f64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(value.with_context(|| format!("no {name}"))?.trim().parse()?)
    };
    let (commits, batched) = (figure("tidings_commit_batch_count")?, figure("tidings_commit_batch_sum")?);
    let took = figure("tidings_commit_seconds_sum")?;
    #[expect(clippy::cast_precision_loss)]
    let rate = count as f64 / seconds;
    lifecycle.drain();
    drop(broker);
    lifecycle.core_ended(Duration::from_secs(10)).await;
    Ok([rate, batched / commits, took * 1_000.0 / commits])
}

fn notification(to: &str) -> String {
    let body = "Nothing is lost and nothing comes twice. ".repeat(5);
    format!(r#"{{"to":"{to}","title":"Build finished","body":"{}"}}"#, &body[..200])
}

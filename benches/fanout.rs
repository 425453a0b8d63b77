//! One topic, many subscribers on real sockets: how many deliveries a second, at what cost, how late.
//!
//! Tidings commits each message before it delivers it and knows each subscriber by a token. Beside it in the same run
//! stand the floor (one prebuilt frame a socket, nothing else) and, where it is installed, nchan, which keeps messages
//! in memory and asks nobody who they are.
//!
//! `cargo bench --bench fanout` is a quick look; `TIDINGS_BENCH=full` adds 10,000 subscribers, fixed rates and rounds.

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;

use support::client::{Broadcast, Load, Outcome, Pace, Spec, load};
use support::process::{Floor, Nchan, Tidings};
use support::report::Table;
use support::{Role, Size, progress, scratch};

const TOPIC: &str = "bench";
const SATURATED: Pace = Pace::Window(4);

fn main() -> anyhow::Result<()> {
    match support::role()? {
        Role::Bench => bench(Size::from_environment()),
        Role::Played | Role::Nothing => Ok(()),
    }
}

/// A server as the clients see it.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    id: u32,
    path: String,
    publish: String,
    key: Option<String>,
    around: (String, String),
    ready: &'static str,
    tokens: Option<PathBuf>,
}

fn bench(size: Size) -> anyhow::Result<()> {
    let sizes = size.pick(vec![100, 1_000], vec![100, 1_000, 10_000]);
    let most = sizes.last().copied().unwrap_or_default();
    let directory = scratch()?;
    let tidings = Tidings::start(directory.path())?;
    let key = tidings.key()?;
    progress(&format!("{most} followers"));
    tidings.follow(&key, TOPIC, most)?;
    let tokens = tidings.tokens(most)?;
    let nchan = Nchan::start()?;
    let floor = Floor::start()?;

    let durable = |name, query: &str| Subject {
        name,
        address: tidings.address,
        id: tidings.id(),
        path: format!("/v1/stream?cursor=now&snapshot=0{query}"),
        publish: "/v1/notifications".to_owned(),
        key: Some(key.clone()),
        around: (format!(r#"{{"to":"topic:{TOPIC}","title":"t","body":""#), r#""}"#.to_owned()),
        ready: "event: hello",
        tokens: Some(tokens.clone()),
    };
    let bare = |name, address, id, ready| Subject {
        name,
        address,
        id,
        path: "/sub".to_owned(),
        publish: "/pub".to_owned(),
        key: None,
        around: (String::new(), String::new()),
        ready,
        tokens: None,
    };
    let mut subjects = vec![durable("tidings", "&events=notification"), durable("tidings, with counts", "")];
    subjects.push(bare("floor", floor.address, floor.id(), ": hello"));
    if let Some(nchan) = &nchan {
        subjects.push(bare("nchan", nchan.address, nchan.id(), "\r\n\r\n"));
    } else {
        progress("nchan is not installed; going on without");
    }

    for subscribers in sizes {
        saturate(size, subscribers, &subjects)?;
        if let Some(rate) = rate(size, subscribers) {
            keep_pace(size, subscribers, rate, &subjects)?;
        }
    }
    drop((nchan, floor));
    tidings.stop()
}

fn rate(size: Size, subscribers: usize) -> Option<f64> {
    match subscribers {
        1_000 => Some(20.0),
        10_000 if size.full => Some(2.0),
        _ => None,
    }
}

fn saturate(size: Size, subscribers: usize, subjects: &[Subject]) -> anyhow::Result<()> {
    let columns = ["deliveries/s", "server µs each", "p50 ms", "p99 ms", "counts/s", "connects/s"];
    let mut table = Table::new(format!("{subscribers} subscribers, saturated"), &columns);
    for round in 1..=size.rounds {
        for subject in subjects {
            progress(&format!("{subscribers} subscribers, saturated, round {round}: {}", subject.name));
            let outcome = run(subject, subscribers, SATURATED, size.pick(2.0, 5.0))?;
            table.add(subject.name, &figures(&outcome, subscribers));
        }
    }
    table.print(&["nchan", "floor"]);
    Ok(())
}

#[expect(clippy::cast_precision_loss)]
fn figures(outcome: &Outcome, subscribers: usize) -> [f64; 6] {
    [
        outcome.rate(),
        outcome.cost_us(),
        outcome.p50_ms,
        outcome.p99_ms,
        outcome.counts as f64 / outcome.seconds,
        subscribers as f64 / outcome.connected_s,
    ]
}

fn keep_pace(size: Size, subscribers: usize, rate: f64, subjects: &[Subject]) -> anyhow::Result<()> {
    let columns = ["p50 ms", "p99 ms", "server µs each"];
    let mut table = Table::new(format!("{subscribers} subscribers, {rate} messages/s"), &columns);
    for round in 1..=size.rounds {
        for subject in subjects {
            progress(&format!("{subscribers} subscribers, {rate}/s, round {round}: {}", subject.name));
            let outcome = run(subject, subscribers, Pace::Rate(rate), size.pick(2.0, 8.0))?;
            table.add(subject.name, &[outcome.p50_ms, outcome.p99_ms, outcome.cost_us()]);
        }
    }
    table.print(&["nchan", "floor"]);
    Ok(())
}

fn run(subject: &Subject, subscribers: usize, pace: Pace, seconds: f64) -> anyhow::Result<Outcome> {
    let broadcast = Broadcast {
        path: subject.publish.clone(),
        key: subject.key.clone(),
        around: subject.around.clone(),
        pace,
        seconds,
        warm_up: if matches!(pace, Pace::Rate(_)) { 2 } else { 20 },
    };
    load(&Spec {
        address: subject.address,
        subscribers,
        path: subject.path.clone(),
        tokens: subject.tokens.clone(),
        ready: subject.ready.to_owned(),
        server: subject.id,
        load: Load::Broadcast(broadcast),
    })
}

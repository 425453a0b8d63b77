//! What it costs to be there: the start on a log with rows in it, memory when idle and for each idle stream, and the
//! replay of what many clients missed, all at once. The size of the binary stands beside them.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use support::client::{Client, Load, Spec, load};
use support::post::notification;
use support::process::{Tidings, resident_kib};
use support::report::Table;
use support::{Role, Size, binary, progress, scratch};

const TOPIC: &str = "bench";
/// Notifications that each client has missed.
const MISSED: usize = 100;

fn main() -> anyhow::Result<()> {
    match support::role()? {
        Role::Bench => bench(Size::from_environment()),
        Role::Played | Role::Nothing => Ok(()),
    }
}

fn bench(size: Size) -> anyhow::Result<()> {
    let rows = size.pick(20_000, 100_000);
    let directory = scratch()?;
    progress(&format!("writing {rows} rows"));
    let tidings = Tidings::start(directory.path())?;
    let key = tidings.key()?;
    tidings.fill(&key, rows, |number| notification("topic:archive", number as u64))?;
    tidings.stop()?;

    start(size, directory.path(), rows)?;
    idle(size)?;
    replay(size)
}

fn start(size: Size, data: &Path, rows: usize) -> anyhow::Result<()> {
    let mut table = Table::new(
        format!("Start on a log of {rows} rows"),
        &["ms to ready", "ms to the first answer", "RSS MB", "binary MB"],
    );
    let binary_mb = megabytes(std::fs::metadata(binary())?.len());
    for round in 0..size.pick(5, 15) {
        let begun = Instant::now();
        let tidings = Tidings::start(data)?;
        let mut stream = TcpStream::connect(tidings.address)?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        anyhow::ensure!(stream.read(&mut [0; 1024])? > 0, "no answer");
        let answered = begun.elapsed().as_secs_f64() * 1_000.0;
        let resident = resident_kib(tidings.id())? / 1_024.0;
        // The first brings the file into the page cache.
        if round > 0 {
            let ready = tidings.ready_after.as_secs_f64() * 1_000.0;
            table.add("tidings", &[ready, answered, resident, binary_mb]);
        }
        tidings.stop()?;
    }
    table.print(&[]);
    Ok(())
}

#[expect(clippy::cast_precision_loss)]
fn idle(size: Size) -> anyhow::Result<()> {
    let mut table = Table::new("Idle streams", &["KiB each", "RSS MB before", "RSS MB with all", "connects/s"]);
    for round in 1..=size.rounds {
        for subscribers in size.pick(vec![1_000], vec![1_000, 10_000]) {
            progress(&format!("{subscribers} idle streams, round {round}"));
            let directory = scratch()?;
            let tidings = Tidings::start(directory.path())?;
            let tokens = Some(tidings.tokens(subscribers)?);
            // A user that nobody has heard of is written down at its first stream: not what is measured here.
            let key = tidings.key()?;
            tidings.follow(&key, TOPIC, subscribers)?;
            let before = resident_kib(tidings.id())?;
            let client = Client::start(&Spec {
                address: tidings.address,
                subscribers,
                path: "/v1/stream?cursor=now&snapshot=0".to_owned(),
                tokens,
                ready: "event: hello".to_owned(),
                server: tidings.id(),
                load: Load::Idle,
            })?;
            let with_all = resident_kib(tidings.id())?;
            let rate = subscribers as f64 / client.connected_s;
            client.finish()?;
            let each = (with_all - before) / subscribers as f64;
            table.add(&format!("{subscribers} streams"), &[each, before / 1_024.0, with_all / 1_024.0, rate]);
            tidings.stop()?;
        }
    }
    table.print(&[]);
    Ok(())
}

fn replay(size: Size) -> anyhow::Result<()> {
    let columns = ["seconds until all have all", "replayed/s"];
    let mut table = Table::new(format!("All back at once, {MISSED} missed each"), &columns);
    for round in 1..=size.rounds {
        for subscribers in size.pick(vec![1_000], vec![1_000, 10_000]) {
            progress(&format!("replay to {subscribers}, round {round}"));
            let directory = scratch()?;
            let tidings = Tidings::start(directory.path())?;
            let key = tidings.key()?;
            tidings.follow(&key, TOPIC, subscribers)?;
            let tokens = Some(tidings.tokens(subscribers)?);
            let seen = tidings.fill(&key, 1, |_| notification("topic:elsewhere", 0))?;
            tidings.fill(&key, MISSED, |number| notification(&format!("topic:{TOPIC}"), number as u64))?;
            let outcome = load(&Spec {
                address: tidings.address,
                subscribers,
                path: format!("/v1/stream?cursor={seen}"),
                tokens,
                ready: "event: hello".to_owned(),
                server: tidings.id(),
                load: Load::Replay(MISSED as u64),
            })?;
            table.add(&format!("{subscribers} clients"), &[outcome.seconds, outcome.rate()]);
            tidings.stop()?;
        }
    }
    table.print(&[]);
    Ok(())
}

#[expect(clippy::cast_precision_loss)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

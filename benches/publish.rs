//! Durable publishes over HTTP, with an API key: one at a time on each of many connections, and batches of lines; to a
//! topic (two rows each) and to single users (three or four rows each).

mod support;

use support::post::{Spec, To, load};
use support::process::Tidings;
use support::report::Table;
use support::{Role, Size, progress, scratch};

const USERS: usize = 10_000;

fn main() -> anyhow::Result<()> {
    match support::role()? {
        Role::Bench => bench(Size::from_environment()),
        Role::Played | Role::Nothing => Ok(()),
    }
}

fn bench(size: Size) -> anyhow::Result<()> {
    let forms: &[(usize, Option<usize>)] = size
        .pick(&[(64, None), (4, Some(1_000))], &[(1, None), (8, None), (64, None), (1, Some(1_000)), (4, Some(1_000))]);
    let columns = ["publishes/s", "server µs each", "p50 ms of a request", "p99 ms"];
    for (to, name) in [(To::Topic, "a topic"), (To::Users(USERS), "single users")] {
        let mut table = Table::new(format!("Durable publishes over HTTP, to {name}"), &columns);
        for round in 1..=size.rounds {
            let directory = scratch()?;
            let tidings = Tidings::start(directory.path())?;
            let key = tidings.key()?;
            for (connections, lines) in forms {
                let form = lines.map_or("one each".to_owned(), |lines| format!("batches of {lines} lines"));
                let row = format!("{connections} connections, {form}");
                progress(&format!("to {name}, round {round}: {row}"));
                let outcome = load(&Spec {
                    address: tidings.address,
                    key: key.clone(),
                    connections: *connections,
                    lines: *lines,
                    to,
                    seconds: size.pick(2.0, 5.0),
                    server: tidings.id(),
                })?;
                #[expect(clippy::cast_precision_loss)]
                let publishes = outcome.publishes as f64;
                let cost = outcome.server_cpu_s * 1e6 / publishes;
                table.add(&row, &[publishes / outcome.seconds, cost, outcome.p50_ms, outcome.p99_ms]);
            }
            tidings.stop()?;
        }
        table.print(&[]);
    }
    Ok(())
}

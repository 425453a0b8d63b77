//! A publish to a topic, by how many rows of followers it has and how many of them are online.
//!
//! One server holds three topics: many rows and many online, many rows and ten online, ten rows and ten online. They
//! are published to in turns, each when everybody has the one before and the counts that follow from it.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::ask::{Asker, milliseconds, number, of_most, tokens};
use crate::online::{Online, mark};
use crate::support::client::{MESSAGE, message};
use crate::support::process::Tidings;
use crate::support::report::{Table, median};
use crate::support::{Size, http, progress, scratch};

const TOPICS: [&str; 3] = ["many", "idle", "few"];
const MANY: usize = 0;
const IDLE: usize = 1;
const FEW: usize = 2;
/// In which the topics are published to, by turns: none always comes behind the same other.
const ORDERS: [[usize; 3]; 6] =
    [[MANY, IDLE, FEW], [FEW, IDLE, MANY], [IDLE, FEW, MANY], [MANY, FEW, IDLE], [FEW, MANY, IDLE], [IDLE, MANY, FEW]];
/// Who are online.
const ONLINE: usize = 1_000;
/// How many of them follow the topics that few are online for.
const SOME: usize = 10;

pub fn bench(size: Size) -> anyhow::Result<()> {
    let rows = size.pick(100_000, 1_000_000);
    let directory = scratch()?;
    let tidings = Tidings::start(directory.path())?;
    let key = tidings.key()?;
    // Ten of those who are online follow the second topic too; all others of its followers are elsewhere.
    let followers = [0..rows, ONLINE - SOME..rows + ONLINE - SOME, 0..SOME];
    let begun = Instant::now();
    for (topic, users) in TOPICS.iter().zip(&followers) {
        progress(&format!("{} follow `{topic}`", users.len()));
        follow(&tidings, &key, topic, users.clone())?;
    }
    #[expect(clippy::cast_precision_loss)]
    let rate = (2 * rows) as f64 / begun.elapsed().as_secs_f64();
    progress(&format!("{rate:.0} follows a second"));
    let tokens = tokens(&tidings.tokens(ONLINE)?)?;
    let mut online =
        Online::connect(tidings.address, &tokens, TOPICS.len(), |user, topic| followers[topic].contains(&user))?;

    let names = [
        format!("{rows} rows, {ONLINE} online"),
        format!("{rows} rows, {SOME} online"),
        format!("{SOME} rows, {SOME} online"),
    ];
    let columns = ["ms a commit", "ms a request", "ms until all online have it"];
    let mut table = Table::new("Publish to a topic", &columns);
    for round in 1..=size.rounds {
        progress(&format!("publishes in turns, round {round}"));
        for (name, figures) in names.iter().zip(publish(&tidings, &key, &mut online, size.pick(20, 100))?) {
            table.add(name, &figures);
        }
    }
    table.print(&[&names[FEW]]);
    let published = online.published().to_vec();
    ask_for_counts(&tidings, &key, rows, &published)?;
    drop(online);
    tidings.stop()?;
    check_rows(directory.path(), 2 * rows + SOME, published.iter().sum())
}

fn follow(tidings: &Tidings, key: &str, topic: &str, users: Range<usize>) -> anyhow::Result<()> {
    let all = users.len();
    let mut lines = String::new();
    for user in users {
        writeln!(lines, "{{\"user\":\"u{user}\"}}")?;
    }
    let path = format!("/v1/topics/{topic}/followers");
    let answer = http::post(tidings.address, &path, key, "application/x-ndjson", lines.as_bytes())?;
    let told: Value = serde_json::from_slice(&answer)?;
    ensure!(number(&told, "/followed")? == all as u64, "not everybody follows: {told}");
    Ok(())
}

/// So many publishes to each topic, in turns; the medians of each topic's.
fn publish(tidings: &Tidings, key: &str, online: &mut Online, each: usize) -> anyhow::Result<[[f64; 3]; 3]> {
    let mut asker = Asker::connect(tidings.address)?;
    let mut samples: [[Vec<f64>; 3]; 3] = Default::default();
    for turn in 0..each {
        for topic in ORDERS[turn % ORDERS.len()] {
            let text = mark(topic, online.published()[topic]) + &message(0, 0, MESSAGE).replace('~', " ");
            let body = format!(r#"{{"to":"topic:{}","title":"Build finished","body":"{text}"}}"#, TOPICS[topic]);
            let begun = Instant::now();
            let write = asker.write("/v1/notifications", key, &body)?;
            let received = online.receive(topic, begun)?;
            online.settle()?;
            let [commits, requests, receipts] = &mut samples[topic];
            commits.push(write.commit_ms);
            requests.push(write.request_ms);
            receipts.push(milliseconds(received));
        }
    }
    let mut figures = [[f64::NAN; 3]; 3];
    for (figures, [commits, requests, receipts]) in figures.iter_mut().zip(&samples) {
        *figures = [of_most(commits, each)?, median(requests), median(receipts)];
    }
    Ok(figures)
}

/// Those who never were online have right counts when they ask.
fn ask_for_counts(tidings: &Tidings, key: &str, rows: usize, published: &[u64]) -> anyhow::Result<()> {
    let mut asker = Asker::connect(tidings.address)?;
    let mut took = Vec::new();
    let both = published[MANY] + published[IDLE];
    let asked = (ONLINE..rows).step_by(rows / 200).map(|user| (user, both));
    let asked = asked.chain([(rows - 1, both), (rows, published[IDLE]), (rows + ONLINE - SOME - 1, published[IDLE])]);
    for (user, expected) in asked {
        let answer = asker.get(&format!("/v1/users/u{user}/counts"), key)?;
        let told = answer.json()?;
        ensure!(number(&told, "/unread")? == expected, "u{user} has {expected} unread, but was told {told}");
        took.push(milliseconds(answer.took));
    }
    let mut table = Table::new("Counts of those who were offline", &["ms a request", "asked, all right"]);
    #[expect(clippy::cast_precision_loss)]
    table.add(&format!("{both} publishes later"), &[median(&took), took.len() as f64]);
    table.print(&[]);
    Ok(())
}

/// A publish wrote one row, and none for a follower.
fn check_rows(data: &Path, follows: usize, publishes: u64) -> anyhow::Result<()> {
    let database = Connection::open_with_flags(data.join("tidings.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let count = |table: &str| -> anyhow::Result<u64> {
        Ok(database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
    };
    let expected = [("notifications", publishes), ("standings", follows as u64), ("entries", 0), ("marks", 0)];
    for (table, expected) in expected {
        let found = count(table)?;
        ensure!(found == expected, "{table} has {found} rows, not {expected}");
    }
    progress(&format!("{publishes} publishes wrote {publishes} rows of notifications and none for a follower"));
    Ok(())
}

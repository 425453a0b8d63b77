//! What unread entries cost: asking for counts, the time to `hello`, and marking all of them, for ten and for ten
//! thousand.
//!
//! Each kind of inbox stands apart: all direct, or all of one topic. Marking all is measured on fresh inboxes, also
//! where a mark of its own stands on each of the ten thousand entries: seen only, or read and taken back, which is the
//! worst, since each of those rows is set again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::ask::{Asker, milliseconds, number, of_most, tokens};
use crate::support::client::{MESSAGE, message};
use crate::support::process::Tidings;
use crate::support::report::{Table, median};
use crate::support::{Size, http, progress, scratch};

const FEW: usize = 10;
const MANY: usize = 10_000;
/// Ids that one mark takes.
const IDS: usize = 1_000;

/// Where the entries of an inbox come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Direct,
    Topic,
}

const KINDS: [(Kind, &str); 2] = [(Kind::Direct, "direct"), (Kind::Topic, "of a topic")];

/// What stands on each entry before all are marked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Seen,
    TakenBack,
}

const BEFORE: [(Before, usize, &str); 4] = [
    (Before::Nothing, FEW, "10"),
    (Before::Nothing, MANY, "10,000"),
    (Before::Seen, MANY, "10,000, each seen by its own mark"),
    (Before::TakenBack, MANY, "10,000, each read and taken back by its own marks"),
];

/// An inbox that is filled alike with others.
struct Inbox {
    user: usize,
    kind: Kind,
    entries: usize,
    before: Before,
}

pub fn bench(size: Size) -> anyhow::Result<()> {
    let marked_a_round = size.pick(2, 3);
    let mut inboxes = Vec::new();
    for (kind, _) in KINDS {
        // The first two of a kind are only asked.
        let asked = [(Before::Nothing, FEW), (Before::Nothing, MANY)].into_iter();
        let marked = BEFORE
            .into_iter()
            .flat_map(|(before, entries, _)| std::iter::repeat_n((before, entries), marked_a_round * size.rounds));
        for (before, entries) in asked.chain(marked) {
            inboxes.push(Inbox { user: inboxes.len(), kind, entries, before });
        }
    }
    let directory = scratch()?;
    let tidings = Tidings::start(directory.path())?;
    let key = tidings.key()?;
    let tokens = tokens(&tidings.tokens(inboxes.len())?)?;
    let filled = fill(&tidings, &key, &inboxes)?;

    ask(size, tidings.address, &inboxes, &tokens)?;
    mark_ids(tidings.address, &inboxes, &tokens, &filled)?;
    mark_all(size, tidings.address, &inboxes, &tokens, &filled.cursor)?;
    tidings.stop()
}

/// What was published.
struct Filled {
    /// Ids of the direct entries, and of the topic's, as far as there are many.
    ids: [Vec<String>; 2],
    /// The position behind all of it.
    cursor: String,
}

fn fill(tidings: &Tidings, key: &str, inboxes: &[Inbox]) -> anyhow::Result<Filled> {
    let mut ids = [Vec::new(), Vec::new()];
    let mut cursor = None;
    for (place, (kind, name)) in KINDS.into_iter().enumerate() {
        for entries in [FEW, MANY] {
            let meant = inboxes.iter().filter(|inbox| inbox.kind == kind && inbox.entries == entries);
            let users: Vec<String> = meant.map(|inbox| format!("u{}", inbox.user)).collect();
            progress(&format!("{entries} entries {name} for {} users", users.len()));
            let to = if kind == Kind::Direct {
                json!({ "users": users })
            } else {
                let topic = format!("t{entries}");
                let lines: Vec<String> = users.iter().map(|user| json!({ "user": user }).to_string()).collect();
                let path = format!("/v1/topics/{topic}/followers");
                http::post(tidings.address, &path, key, "application/x-ndjson", lines.join("\n").as_bytes())?;
                json!({ "topic": topic })
            };
            let line =
                json!({ "to": to, "title": "Build finished", "body": message(0, 0, MESSAGE) }).to_string() + "\n";
            let lines = line.repeat(entries);
            let answers =
                http::post(tidings.address, "/v1/notifications", key, "application/x-ndjson", lines.as_bytes())?;
            let mut made = Vec::with_capacity(entries);
            for answer in answers.split(|byte| *byte == b'\n').filter(|answer| !answer.is_empty()) {
                let answer: Value = serde_json::from_slice(answer)?;
                cursor = answer["cursor"].as_str().map(str::to_owned);
                made.push(answer["id"].as_str().with_context(|| format!("refused: {answer}"))?.to_owned());
            }
            ensure!(made.len() == entries, "only {} of {entries} were published", made.len());
            ids[place] = made;
        }
    }
    Ok(Filled { ids, cursor: cursor.context("nothing was published")? })
}

/// Counts and `hello`, of few and of many in turns.
fn ask(size: Size, address: SocketAddr, inboxes: &[Inbox], tokens: &[String]) -> anyhow::Result<()> {
    let columns = ["ms for counts", "ms to hello", "ms to hello, first visit"];
    for (kind, name) in KINDS {
        let mut table = Table::new(format!("Unread entries, {name}"), &columns);
        let of_kind = inboxes.iter().filter(|inbox| inbox.kind == kind);
        let asked: Vec<&Inbox> = of_kind.take(2).collect();
        for round in 1..=size.rounds {
            progress(&format!("counts and hello, {name}, round {round}"));
            let mut samples: [[Vec<f64>; 3]; 2] = Default::default();
            let mut asker = Asker::connect(address)?;
            for _ in 0..size.pick(50, 200) {
                for (Inbox { user, entries, .. }, samples) in asked.iter().zip(&mut samples) {
                    let token = &tokens[*user];
                    let answer = asker.get("/v1/inbox/counts", token)?;
                    let told = answer.json()?;
                    ensure!(number(&told, "/unread")? == *entries as u64, "{entries} are unread, not {told}");
                    samples[0].push(milliseconds(answer.took));
                    samples[1].push(milliseconds(hello(address, "cursor=now", token, *entries)?));
                    samples[2].push(milliseconds(hello(address, "", token, *entries)?));
                }
            }
            for (Inbox { entries, .. }, samples) in asked.iter().zip(&samples) {
                table.add(&format!("{entries} unread"), &samples.each_ref().map(|samples| median(samples)));
            }
        }
        table.print(&[&format!("{FEW} unread")]);
    }
    Ok(())
}

/// From the connect to a `hello` that says how many are unread.
fn hello(address: SocketAddr, query: &str, token: &str, unread: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    let head = format!(
        "GET /v1/stream?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the server closed a stream without a hello");
        bytes.extend_from_slice(&buffer[..read]);
        if memchr::memmem::find(&bytes, b"\n\n").is_some() {
            let took = begun.elapsed();
            let counted = format!("\"counts\":{{\"unread\":{unread},");
            ensure!(memchr::memmem::find(&bytes, counted.as_bytes()).is_some(), "a hello does not say {unread} unread");
            return Ok(took);
        }
    }
}

/// Puts a mark of its own on every entry of the inboxes that want them.
fn mark_ids(address: SocketAddr, inboxes: &[Inbox], tokens: &[String], filled: &Filled) -> anyhow::Result<()> {
    let mut asker = Asker::connect(address)?;
    let mut table = Table::new(format!("Marks of {IDS} ids, one by one"), &["ms a commit", "ms a request"]);
    progress("marks of single entries");
    for inbox in inboxes {
        let steps: &[&str] = match inbox.before {
            Before::Nothing => &[],
            Before::Seen => &["seen"],
            Before::TakenBack => &["read", "unread"],
        };
        let place = usize::from(inbox.kind == Kind::Topic);
        for step in steps {
            for ids in filled.ids[place].chunks(IDS) {
                let body = json!({ "as": step, "ids": ids }).to_string();
                let marked = asker.write("/v1/inbox/mark", &tokens[inbox.user], &body)?;
                let changed = number(&marked.answer, "/changed")?;
                ensure!(changed == ids.len() as u64, "{changed} of {} became {step}", ids.len());
                table.add(&format!("{step}, {}", KINDS[place].1), &[marked.commit_ms, marked.request_ms]);
            }
        }
    }
    table.print(&[]);
    Ok(())
}

/// Marks all entries of fresh inboxes read, each kind in turns.
fn mark_all(size: Size, address: SocketAddr, inboxes: &[Inbox], tokens: &[String], cursor: &str) -> anyhow::Result<()> {
    let body = json!({ "as": "read", "upto": cursor }).to_string();
    let mut asker = Asker::connect(address)?;
    for (kind, name) in KINDS {
        let columns = ["ms a commit", "ms of the longest", "ms a request"];
        let mut table = Table::new(format!("Mark all read, entries {name}"), &columns);
        let mut fresh: Vec<_> = BEFORE
            .iter()
            .map(|(before, entries, _)| {
                let meant =
                    move |inbox: &&Inbox| inbox.kind == kind && inbox.before == *before && inbox.entries == *entries;
                // The first of those without marks was asked, and is left alone.
                inboxes.iter().filter(meant).skip(usize::from(*before == Before::Nothing))
            })
            .collect();
        let a_round = size.pick(2, 3);
        for _ in 1..=size.rounds {
            let mut samples = vec![(Vec::new(), Vec::new()); BEFORE.len()];
            for _ in 0..a_round {
                for (fresh, (commits, requests)) in fresh.iter_mut().zip(&mut samples) {
                    let Inbox { user, entries, .. } = fresh.next().context("no fresh inbox is left")?;
                    let marked = asker.write("/v1/inbox/mark", &tokens[*user], &body)?;
                    let (changed, left) =
                        (number(&marked.answer, "/changed")?, number(&marked.answer, "/counts/unread")?);
                    ensure!(changed == *entries as u64 && left == 0, "{changed} of {entries} were marked, {left} left");
                    commits.push(marked.commit_ms);
                    requests.push(marked.request_ms);
                }
            }
            for ((_, _, row), (commits, requests)) in BEFORE.iter().zip(&samples) {
                let longest = commits.iter().copied().fold(f64::NAN, f64::max);
                table.add(row, &[of_most(commits, a_round)?, longest, median(requests)]);
            }
        }
        table.print(&[BEFORE[0].2]);
    }
    Ok(())
}

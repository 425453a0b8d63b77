//! What the size of the whole database costs: ten million entries of a hundred thousand users, beside ten thousand of a
//! hundred. Every inbox has a hundred entries in either, half of them unread.
//!
//! Two servers run side by side and are asked in turns, each time for another user.

use std::path::Path;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::ask::{Asker, milliseconds, number, of_most, tokens};
use crate::build::{Measure, build};
use crate::support::client::{MESSAGE, message};
use crate::support::process::Tidings;
use crate::support::report::{Table, median};
use crate::support::{Size, progress, scratch};

const EACH: i64 = 100;
const FEW_USERS: i64 = 100;
/// Entries of a page of the inbox.
const PAGE: usize = 50;
/// Users that are asked by turns: a different one each time, half of them read and half of them published to.
const ASKED: usize = 2_000;
/// Places of the log at which users are recounted entry by entry.
const RECOUNTED: i64 = 5;

pub fn bench(size: Size) -> anyhow::Result<()> {
    let measures = [Measure { users: FEW_USERS, each: EACH }, Measure { users: size.pick(2_000, 100_000), each: EACH }];
    let mut directories = Vec::new();
    let mut subjects = Vec::new();
    for measure in measures {
        let directory = scratch()?;
        build(directory.path(), measure)?;
        subjects.push(Subject::start(directory.path(), measure)?);
        directories.push(directory);
    }
    for subject in &mut subjects {
        subject.recount()?;
    }
    let columns =
        ["ms a publish's commit", "ms a publish", "ms a replay of 100", "ms for counts", "ms for a page of 50"];
    let mut table = Table::new("The whole database", &columns);
    for round in 1..=size.rounds {
        progress(&format!("asked in turns, round {round}"));
        let each = size.pick(50, 200);
        let mut samples: Vec<[Vec<f64>; 5]> = vec![Default::default(); measures.len()];
        for turn in 0..each {
            // Neither always comes behind the other.
            for place in [turn % 2, (turn + 1) % 2] {
                for (samples, sample) in samples[place].iter_mut().zip(subjects[place].turn()?) {
                    samples.push(sample);
                }
            }
        }
        for (subject, samples) in subjects.iter().zip(&samples) {
            let [commits, others @ ..] = samples;
            let [publish, replay, counts, page] = others.each_ref().map(|samples| median(samples));
            table.add(&subject.name, &[of_most(commits, each)?, publish, replay, counts, page]);
        }
    }
    let small = subjects[0].name.clone();
    table.print(&[&small]);
    for mut subject in subjects {
        subject.recount()?;
        subject.tidings.stop()?;
    }
    Ok(())
}

/// A server on one of the databases.
struct Subject {
    name: String,
    measure: Measure,
    tidings: Tidings,
    key: String,
    tokens: Vec<String>,
    asker: Asker,
    turn: usize,
    /// Publishes to each user so far.
    published: Vec<u64>,
}

impl Subject {
    fn start(directory: &Path, measure: Measure) -> anyhow::Result<Self> {
        let tidings = Tidings::start(directory)?;
        let bytes = std::fs::metadata(directory.join("tidings.db"))?.len();
        let name = format!("{} entries, {} users", measure.entries(), measure.users);
        progress(&format!("{name}: {} MB, ready after {:?}", bytes / 1_000_000, tidings.ready_after));
        let key = tidings.key()?;
        let asked = ASKED.min(usize::try_from(measure.users)?);
        let tokens = tokens(&tidings.tokens(asked)?)?;
        let asker = Asker::connect(tidings.address)?;
        Ok(Self { name, measure, tidings, key, tokens, asker, turn: 0, published: vec![0; asked] })
    }

    /// One publish, one replay, one look at the counts and one page, each checked.
    fn turn(&mut self) -> anyhow::Result<[f64; 5]> {
        let half = self.tokens.len() / 2;
        let (reader, other) = (self.turn % half, half + self.turn % half);
        self.turn += 1;
        let body = json!({ "to": format!("user:u{other}"), "title": "Build finished", "body": message(0, 0, MESSAGE) });
        let write = self.asker.write("/v1/notifications", &self.key, &body.to_string())?;
        self.published[other] += 1;
        let (replay, _) = self.get(reader, &format!("/v1/poll?cursor=start&wait=0&limit={EACH}"), |answer| {
            let events = answer["events"].as_array().map_or(&[][..], Vec::as_slice);
            events.iter().filter(|event| event["event"] == "notification").count() == usize::try_from(EACH).unwrap_or(0)
        })?;
        let unread = self.measure.each.unsigned_abs() / 2;
        let (counts, _) = self.get(reader, "/v1/inbox/counts", |answer| answer["unread"] == unread)?;
        let (page, _) = self.get(reader, &format!("/v1/inbox?limit={PAGE}"), |answer| {
            answer["entries"].as_array().is_some_and(|entries| entries.len() == PAGE)
        })?;
        let (_, told) = self.get(other, "/v1/inbox/counts", |_| true)?;
        ensure!(number(&told, "/unread")? == unread + self.published[other], "u{other} was told {told}");
        Ok([write.commit_ms, write.request_ms, replay, counts, page])
    }

    /// Asks for a user; how long that took, in milliseconds.
    fn get(&mut self, user: usize, path: &str, right: impl Fn(&Value) -> bool) -> anyhow::Result<(f64, Value)> {
        let answer = self.asker.get(path, &self.tokens[user])?;
        let told = answer.json()?;
        ensure!(right(&told), "{path} of u{user} is not what was written: {told}");
        Ok((milliseconds(answer.took), told))
    }

    /// Has the server count some pages of users entry by entry.
    fn recount(&mut self) -> anyhow::Result<()> {
        let mut users = 0;
        for place in 0..RECOUNTED {
            let after = self.measure.users * place / RECOUNTED;
            let told =
                self.asker.post("/v1/upkeep/recount", &self.key, &json!({ "after": after }).to_string())?.json()?;
            ensure!(told["drifted"] == json!([]), "{} does not hold its counts: {}", self.name, told["drifted"]);
            users += number(&told, "/users")?;
        }
        progress(&format!("{}: recounted {users} users, none drifted", self.name));
        Ok(())
    }
}

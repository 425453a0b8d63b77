//! `tidings topic follow` and `unfollow`: a few users by name, or any number from a file.
//!
//! Following goes in groups of lines, as the bulk route takes them. Whoever follows already is counted as unchanged, so
//! a group whose answer was lost is sent again without harm. Lines that are no JSON are sent as they are: the server
//! says what is wrong with them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use anyhow::{Context as _, bail};
use clap::Args;
use http::Method;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::client::{Ask, Client, Refusal};
use super::reach::ServerArgs;
use super::{Output, progress, say, segment, topic};
use crate::model::{TopicName, UserId};
use crate::wire::topic::MAX_LAST;

/// Lines of one group.
const GROUP_LINES: usize = 1_000;
/// Refused lines that are told by themselves; of the rest only the number.
const MAX_TOLD: u64 = 20;

/// The field of a line that says how many of the newest entries the follower begins with.
const LAST_FIELD: &str = "last";

pub(super) const FOLLOW_EXAMPLES: &str = "\
Examples:
  tidings topic follow ops alice bob --data ./state
  tidings topic follow ops alice --last 10 --data ./state
  tidings topic follow news --file users.ndjson --data ./state
  psql -Atc \"select json_build_object('user', id) from people\" |
    tidings topic follow news --file - --data ./state

A line of the file is {\"user\"} or {\"user\",\"last\"}. With --json the sums are one object:
{\"followed\",\"unchanged\",\"failed\"}.";

pub(super) const UNFOLLOW_EXAMPLES: &str = "\
Examples:
  tidings topic unfollow ops alice bob --data ./state

With --json one answer a line.";

#[derive(Debug, Args)]
pub(super) struct FollowArgs {
    /// The topic
    #[arg(value_parser = TopicName::new)]
    topic: TopicName,
    /// Who
    #[arg(value_name = "USER", value_parser = UserId::new, required_unless_present = "file", conflicts_with = "file")]
    users: Vec<UserId>,
    /// One follower a line, as JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    /// How many of the topic's newest entries they begin with, 0 to 100; a line's own number wins [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_LAST)))]
    last: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct UnfollowArgs {
    /// The topic
    #[arg(value_parser = TopicName::new)]
    topic: TopicName,
    /// Who
    #[arg(value_name = "USER", value_parser = UserId::new, required = true)]
    users: Vec<UserId>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a group came to.
#[derive(Deserialize)]
struct Outcome {
    followed: u64,
    unchanged: u64,
    failed: u64,
    /// Not all of them where there are many.
    errors: Vec<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    /// In the group, counted from 1.
    line: usize,
    problem: Refusal,
}

#[derive(Deserialize)]
struct Left {
    changed: bool,
}

struct Run<'a> {
    client: &'a Client,
    path: String,
    last: Option<u32>,
    progress: ProgressBar,
    followed: u64,
    unchanged: u64,
    failed: u64,
    told: u64,
    /// The number, in the file, of each line of the group, beginning with 1.
    numbers: Vec<u64>,
    group: Vec<u8>,
}

/// Lets users follow.
///
/// # Errors
/// Where a line was refused, the file can't be read or the server can't be reached.
pub(super) async fn follow(args: FollowArgs) -> anyhow::Result<()> {
    let lines = lines(&args)?;
    let path = format!("{}/followers", topic::path(&args.topic));
    let (followed, unchanged, failed) = args
        .server
        .ask(async |client: &Client| {
            let mut run = Run {
                client,
                path,
                last: args.last,
                progress: progress::counter("followers"),
                followed: 0,
                unchanged: 0,
                failed: 0,
                told: 0,
                numbers: Vec::new(),
                group: Vec::new(),
            };
            run.all(lines).await?;
            Ok((run.followed, run.unchanged, run.failed))
        })
        .await?;
    match Output::of(args.json) {
        Output::Json => say(json!({ "followed": followed, "unchanged": unchanged, "failed": failed }))?,
        Output::People => say(format_args!("{followed} more follow {}; {unchanged} did already", args.topic))?,
    }
    if failed > 0 {
        bail!("{failed} of {} were refused; mend them and send those again", followed + unchanged + failed);
    }
    Ok(())
}

/// Lets users leave.
///
/// # Errors
/// Where one was refused or the server can't be reached.
pub(super) async fn unfollow(args: UnfollowArgs) -> anyhow::Result<()> {
    let output = Output::of(args.json);
    args.server
        .ask(async |client: &Client| {
            for user in &args.users {
                let path = format!("{}/followers/{}", topic::path(&args.topic), segment(user.as_str()));
                let answer = client.ask(&Ask::new(Method::DELETE, path)).await.with_context(|| user.to_string())?;
                let Left { changed } = super::client::read(&answer)?;
                match (output, changed) {
                    (Output::Json, _) => say(String::from_utf8_lossy(&answer))?,
                    (Output::People, true) => say(format_args!("{user} left {}", args.topic))?,
                    (Output::People, false) => say(format_args!("{user} did not follow {}", args.topic))?,
                }
            }
            Ok(())
        })
        .await
}

/// Who is to follow, a line each.
fn lines(args: &FollowArgs) -> anyhow::Result<Box<dyn BufRead>> {
    match args.file.as_deref() {
        Some("-") => Ok(Box::new(std::io::stdin().lock())),
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("cannot read {path}"))?;
            Ok(Box::new(BufReader::new(file)))
        }
        None => {
            let line = |user: &UserId| format!("{}\n", json!({ "user": user.as_str() }));
            let lines: String = args.users.iter().map(line).collect();
            Ok(Box::new(std::io::Cursor::new(lines)))
        }
    }
}

impl Run<'_> {
    async fn all(&mut self, lines: impl BufRead) -> anyhow::Result<()> {
        let mut number = 0;
        for line in lines.lines() {
            number += 1;
            let line = line.with_context(|| format!("line {number} can't be read"))?;
            if line.trim().is_empty() {
                continue;
            }
            self.group.extend_from_slice(with_last(&line, self.last).as_bytes());
            self.group.push(b'\n');
            self.numbers.push(number);
            if self.numbers.len() == GROUP_LINES {
                self.send().await?;
            }
        }
        self.send().await?;
        self.progress.finish_and_clear();
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let numbers = std::mem::take(&mut self.numbers);
        let Some(first) = numbers.first() else { return Ok(()) };
        let ask = Ask::ndjson(self.path.clone(), std::mem::take(&mut self.group));
        let outcome: Outcome = self
            .client
            .read(&ask)
            .await
            .with_context(|| format!("lines up to {} were answered, those from {first} on were not", first - 1))?;
        let Outcome { followed, unchanged, failed, errors } = outcome;
        self.followed += followed;
        self.unchanged += unchanged;
        self.failed += failed;
        self.progress.inc(followed + unchanged + failed);
        for Failed { line, problem } in errors {
            self.tell(numbers.get(line.saturating_sub(1)).copied(), &problem);
        }
        let answered = usize::try_from(followed + unchanged + failed).unwrap_or(usize::MAX);
        if let Some(unanswered) = numbers.get(answered) {
            bail!("the server gave up at line {unanswered}; those before it are settled");
        }
        Ok(())
    }

    fn tell(&mut self, number: Option<u64>, problem: &Refusal) {
        self.told += 1;
        if self.told <= MAX_TOLD {
            let place = number.map(|number| format!("line {number}: ")).unwrap_or_default();
            self.progress.suspend(|| eprintln!("{place}{}", problem.text()));
        }
    }
}

/// The line with the number of entries to begin with, where it says none and can.
fn with_last(line: &str, last: Option<u32>) -> String {
    let Some(last) = last else { return line.to_owned() };
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<&str, &RawValue>>(line) else { return line.to_owned() };
    if fields.contains_key(LAST_FIELD) {
        return line.to_owned();
    }
    let Ok(last) = to_raw_value(&last) else { return line.to_owned() };
    fields.insert(LAST_FIELD, &last);
    serde_json::to_string(&fields).unwrap_or_else(|_| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_as_many_entries_as_it_says_itself_or_the_flag_does() {
        assert_eq!(with_last(r#"{"user":"a"}"#, Some(7)), r#"{"last":7,"user":"a"}"#);
        assert_eq!(with_last(r#"{"user":"a","last":1}"#, Some(7)), r#"{"user":"a","last":1}"#);
        assert_eq!(with_last(r#"{"user": "a"}"#, None), r#"{"user": "a"}"#);
        assert_eq!(with_last("alice", Some(7)), "alice");
    }
}

//! `tidings publish --batch`: NDJSON from standard input, in groups, with what became of each line.
//!
//! Each line gets an idempotency key where it has none, so that a group whose answer was lost is sent again without
//! doubling anything. Lines that are no JSON are sent as they are: the server says what is wrong with them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::client::{Ask, Client, Refusal};
use super::{Output, progress, say};

/// Lines and bytes of one group, whichever comes first.
const GROUP_LINES: usize = 1_000;
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Refused lines that are told by themselves; of the rest only the number.
const MAX_TOLD: u64 = 20;

/// The field of a line that holds its key.
const KEY_FIELD: &str = "idempotency_key";

/// What became of a line.
#[derive(Deserialize)]
struct Outcome {
    problem: Option<Refusal>,
}

struct Run<'a> {
    client: &'a Client,
    output: Output,
    progress: ProgressBar,
    published: u64,
    refused: u64,
    /// The number, in standard input, of each line of the group, beginning with 1.
    numbers: Vec<u64>,
    group: Vec<u8>,
}

/// Publishes standard input.
///
/// # Errors
/// Where a line was refused, or the server can't be reached.
pub(super) async fn run(client: &Client, output: Output) -> anyhow::Result<()> {
    let mut run = Run {
        client,
        output,
        progress: progress::counter("published"),
        published: 0,
        refused: 0,
        numbers: Vec::new(),
        group: Vec::new(),
    };
    let mut number = 0;
    // Standard input is read between two groups, on the thread that waits for it anyway.
    for line in std::io::stdin().lock().lines() {
        number += 1;
        let line = line.with_context(|| format!("line {number} of standard input can't be read"))?;
        if line.trim().is_empty() {
            continue;
        }
        run.group.extend_from_slice(with_key(&line).as_bytes());
        run.group.push(b'\n');
        run.numbers.push(number);
        if run.numbers.len() == GROUP_LINES || run.group.len() >= GROUP_BYTES {
            run.send().await?;
        }
    }
    run.send().await?;
    run.progress.finish_and_clear();
    if run.output == Output::People {
        say(format_args!("Published {} of {}", run.published, run.published + run.refused))?;
    }
    if run.refused > 0 {
        bail!("{} of {} lines were refused; mend them and send those again", run.refused, run.published + run.refused);
    }
    Ok(())
}

impl Run<'_> {
    async fn send(&mut self) -> anyhow::Result<()> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        let ask = Ask::ndjson("/v1/notifications", std::mem::take(&mut self.group));
        let answer = self.client.ask(&ask).await.with_context(|| {
            format!("lines up to {} were answered, those from {} on were not", self.numbers[0] - 1, self.numbers[0])
        })?;
        let numbers = std::mem::take(&mut self.numbers);
        let answers: Vec<_> = answer.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
        for (number, line) in numbers.iter().zip(&answers) {
            self.settle(*number, line)?;
        }
        if let Some(unanswered) = numbers.get(answers.len()) {
            bail!("the server gave up at line {unanswered}; the lines before it are answered above");
        }
        Ok(())
    }

    fn settle(&mut self, number: u64, line: &[u8]) -> anyhow::Result<()> {
        let outcome: Outcome = serde_json::from_slice(line).context("the server's answer can't be read")?;
        self.progress.inc(1);
        match outcome.problem {
            None => self.published += 1,
            Some(problem) => {
                self.refused += 1;
                if self.refused <= MAX_TOLD {
                    let text = format!("line {number}: {}", problem.text());
                    self.progress.suspend(|| eprintln!("{text}"));
                }
            }
        }
        if self.output == Output::Json {
            let mut out = std::io::stdout().lock();
            out.write_all(line)?;
            writeln!(out)?;
        }
        Ok(())
    }
}

/// The line with a key of its own, where it has none and can take one.
fn with_key(line: &str) -> String {
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<&str, &RawValue>>(line) else { return line.to_owned() };
    if fields.contains_key(KEY_FIELD) {
        return line.to_owned();
    }
    let Ok(key) = to_raw_value(&Uuid::now_v7().to_string()) else { return line.to_owned() };
    fields.insert(KEY_FIELD, &key);
    serde_json::to_string(&fields).unwrap_or_else(|_| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gets_a_key_and_keeps_what_it_says() {
        let line = with_key(r#"{"to":"user:a","title":"x","data":{"n": 1.0e+5}}"#);
        assert!(line.contains(r#""data":{"n": 1.0e+5}"#), "{line}");
        let parsed =
            crate::wire::publish::parse(line.as_bytes(), crate::wire::publish::Place::BatchLine).expect("valid");
        assert!(parsed.idempotency_key.is_some_and(|key| key.len() == 36));
    }

    #[test]
    fn a_line_with_a_key_or_without_json_stays() {
        for line in [r#"{"to":"user:a","idempotency_key":"k"}"#, "not json", "[1]", r#"{"a":1"#] {
            assert_eq!(with_key(line), line);
        }
    }
}

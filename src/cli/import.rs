//! `tidings user import`: profiles of any number of people from a file, in groups, with what is wrong with each bad line.
//!
//! **Invariant**: what is held in memory is one group, however long the file is and its lines are: a line over the limit is
//! skipped to its end and counted as bad. Each line is a change that does no harm the second time, so that a group whose
//! answer was lost is sent again.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::json;

use super::client::{Ask, Client, Refusal};
use super::reach::ServerArgs;
use super::table::Columns;
use super::{Output, progress, say};

/// Bytes of one line at most.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Lines and bytes of one group, whichever comes first.
const GROUP_LINES: usize = 1_000;
const GROUP_BYTES: usize = 1024 * 1024;
/// Bad lines that are told by themselves; of the rest only the number, and all in the file of `--errors`.
const MAX_TOLD: u64 = 20;

pub(super) const EXAMPLES: &str = "\
Examples:
  tidings user import people.csv --data ./state
  tidings user import people.ndjson --errors bad.ndjson --data ./state
  psql -Atc \"select json_build_object('user', id, 'email', email) from people\" |
    tidings user import - --data ./state

The first line of a CSV names its columns: user, name, email, locale, time_zone, dingtalk, and
<category>/<medium> with yes or no, such as loans/email or */email. A line of NDJSON is
{\"user\", …} as PUT /v1/users/{user} takes it. What a line does not name stays; null, or an empty
field of a CSV, clears. Lines may come again. A field of a CSV can't span lines.";

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Where the people are, a line each; `-` is standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// What the lines are [default: by the file's name, else ndjson]
    #[arg(long)]
    format: Option<Format>,
    /// Write every bad line's number and what is wrong with it there, as JSON
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Ndjson,
}

/// What became of a line.
#[derive(Deserialize)]
struct Outcome {
    status: u16,
    problem: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    added: u64,
    changed: u64,
    failed: u64,
}

struct Run<'a> {
    client: &'a Client,
    progress: ProgressBar,
    sums: Sums,
    errors: Option<BufWriter<File>>,
    /// `None` for NDJSON.
    columns: Option<Columns>,
    /// The number, in the file, of each line of the group, beginning with 1.
    numbers: Vec<u64>,
    group: Vec<u8>,
}

/// Imports a file.
///
/// # Errors
/// Where a line was refused, a file can't be read or written, or the server can't be reached.
pub(super) async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let format = args.format.unwrap_or_else(|| by_name(&args.file));
    let mut lines: Box<dyn BufRead> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(BufReader::new(File::open(path).with_context(|| format!("cannot read {path}"))?)),
    };
    let mut number = 0;
    let columns = match format {
        Format::Ndjson => None,
        Format::Csv => {
            number += 1;
            let first = match next_line(&mut lines)? {
                Some(Line::Whole(bytes)) => String::from_utf8(bytes).context("the first line is not UTF-8")?,
                Some(Line::TooLong) => bail!("the first line has more than {MAX_LINE_BYTES} bytes"),
                None => bail!("{} is empty; the first line of a CSV names its columns", args.file),
            };
            Some(Columns::parse(&first).with_context(|| format!("the first line of {}", args.file))?)
        }
    };
    let errors = args
        .errors
        .as_ref()
        .map(|path| File::create(path).map(BufWriter::new).with_context(|| format!("cannot write {}", path.display())));
    let errors = errors.transpose()?;
    let sums = args
        .server
        .ask(async |client: &Client| {
            let mut run = Run {
                client,
                progress: progress::counter("people"),
                sums: Sums::default(),
                errors,
                columns,
                numbers: Vec::new(),
                group: Vec::new(),
            };
            run.all(lines, number).await?;
            Ok(run.sums)
        })
        .await?;
    let Sums { added, changed, failed } = sums;
    match Output::of(args.json) {
        Output::Json => say(json!({ "added": added, "changed": changed, "failed": failed }))?,
        Output::People => say(format_args!("{added} people are new; {changed} were known"))?,
    }
    if failed > 0 {
        let all = added + changed + failed;
        let where_told = if args.errors.is_some() || failed <= MAX_TOLD { "" } else { " (--errors FILE names all)" };
        bail!("{failed} of {all} lines were refused{where_told}; mend them and import those again");
    }
    Ok(())
}

fn by_name(file: &str) -> Format {
    let is_csv = std::path::Path::new(file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    if is_csv { Format::Csv } else { Format::Ndjson }
}

enum Line {
    /// Without its break.
    Whole(Vec<u8>),
    /// Its bytes were skipped.
    TooLong,
}

/// The next line, never more than [`MAX_LINE_BYTES`] of it at a time.
fn next_line(lines: &mut impl BufRead) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 1;
    if lines.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
        return Ok(Some(Line::Whole(line)));
    }
    if line.len() <= MAX_LINE_BYTES {
        return Ok(Some(Line::Whole(line))); // The last one, which need not end with a break.
    }
    lines.skip_until(b'\n')?;
    Ok(Some(Line::TooLong))
}

impl Run<'_> {
    async fn all(&mut self, mut lines: impl BufRead, mut number: u64) -> anyhow::Result<()> {
        // Standard input is read between two groups, on the thread that waits for it anyway.
        while let Some(line) = next_line(&mut lines).with_context(|| format!("line {} can't be read", number + 1))? {
            number += 1;
            match self.understood(line) {
                Ok(None) => {}
                Ok(Some(line)) => {
                    self.group.extend_from_slice(line.as_bytes());
                    self.group.push(b'\n');
                    self.numbers.push(number);
                }
                Err(why) => self.refuse(number, &why)?,
            }
            if self.numbers.len() == GROUP_LINES || self.group.len() >= GROUP_BYTES {
                self.send().await?;
            }
        }
        self.send().await?;
        self.progress.finish_and_clear();
        if let Some(errors) = &mut self.errors {
            errors.flush().context("cannot write the file of bad lines")?;
        }
        Ok(())
    }

    /// The line as the server takes it; `None` for a blank one.
    fn understood(&self, line: Line) -> Result<Option<String>, String> {
        let Line::Whole(bytes) = line else { return Err(format!("has more than {MAX_LINE_BYTES} bytes")) };
        let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        match &self.columns {
            Some(columns) => columns.read(&text).map(Some).map_err(|fault| fault.to_string()),
            None => Ok(Some(text)),
        }
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let numbers = std::mem::take(&mut self.numbers);
        let Some(first) = numbers.first() else { return Ok(()) };
        let ask = Ask::ndjson("/v1/users", std::mem::take(&mut self.group));
        let answer = self
            .client
            .ask(&ask)
            .await
            .with_context(|| format!("lines up to {} were answered, those from {first} on were not", first - 1))?;
        let answers: Vec<_> = answer.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
        for (number, line) in numbers.iter().zip(&answers) {
            let outcome: Outcome = serde_json::from_slice(line).context("the server's answer can't be read")?;
            match outcome {
                Outcome { problem: Some(problem), .. } => self.refuse(*number, &problem.text())?,
                Outcome { status: 201, .. } => self.sums.added += 1,
                Outcome { .. } => self.sums.changed += 1,
            }
            self.progress.inc(1);
        }
        if let Some(unanswered) = numbers.get(answers.len()) {
            bail!("the server gave up at line {unanswered}; those before it are settled");
        }
        Ok(())
    }

    fn refuse(&mut self, number: u64, why: &str) -> anyhow::Result<()> {
        self.sums.failed += 1;
        if self.sums.failed <= MAX_TOLD {
            self.progress.suspend(|| eprintln!("line {number}: {why}"));
        } else if self.sums.failed == MAX_TOLD + 1 && std::io::stderr().is_terminal() {
            self.progress.suspend(|| eprintln!("… more lines are refused; the rest is only counted here"));
        }
        if let Some(errors) = &mut self.errors {
            writeln!(errors, "{}", json!({ "line": number, "error": why }))
                .context("cannot write the file of bad lines")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_over_the_limit_costs_itself_and_nothing_else() {
        let long = "x".repeat(MAX_LINE_BYTES + 1);
        let just = "y".repeat(MAX_LINE_BYTES);
        let mut lines = BufReader::with_capacity(7, std::io::Cursor::new(format!("a\r\n{long}\n{just}\n\nb")));
        let mut told = Vec::new();
        while let Some(line) = next_line(&mut lines).expect("memory") {
            told.push(match line {
                Line::Whole(bytes) => String::from_utf8(bytes).expect("text"),
                Line::TooLong => "too long".to_owned(),
            });
        }
        assert_eq!(told, ["a", "too long", &just, "", "b"]);
    }

    #[test]
    fn the_format_is_told_by_the_name() {
        assert_eq!(
            [by_name("a.csv"), by_name("A.CSV"), by_name("a.ndjson"), by_name("-")],
            [Format::Csv, Format::Csv, Format::Ndjson, Format::Ndjson]
        );
    }
}

//! `tidings log`: the message log. What went to whom by which medium, and what was placed in the app; what became of one
//! notification for one person; and all of it as a file.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use indicatif::BinaryBytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::client::{Ask, Client, read};
use super::delivery;
use super::notification;
use super::reach::ServerArgs;
use super::records::{self, Saved};
use super::show::number;
use super::{Output, say, segment};
use crate::clock::Clock;
use crate::model::UserId;
use crate::wire::measure::duration;

/// Lines that are shown where nobody names a number.
const DEFAULT_LIMIT: u64 = 100;
/// Lines of one page.
const PAGE: u64 = 1_000;

const LIST_EXAMPLES: &str = "\
Examples:
  tidings log --user alice --data ./state
  tidings log --template due --state dead --since 2d --data ./state
  tidings log --medium in_app --state read --user alice --json --data ./state | jq .read_at
  tidings log explain 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --user alice --data ./state
  tidings log show 4711 --data ./state
  tidings log export --since 30d --format csv --output log.csv --data ./state

The newest first. What was sent to a topic or to everyone stands in the app as one line;
with --user it is that person's, with what they did. States of in_app are stored, seen
and read, those of the others pending, leased, sent, dead, cancelled and skipped.";

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings log show 4711 --data ./state
  tidings log show 4711 --data ./state --json | jq .timeline

Each attempt is a line: when its end was known, what became of it, and the answer.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tidings log explain 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --user alice --data ./state
  tidings log explain 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --user alice --json --data ./state | jq -r '.decisions[].reason'

Each decision is a line: what it was about, what was decided, why, and when.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  tidings log export --data ./state > log.ndjson
  tidings log export --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --format csv --output november.csv --data ./state
  tidings log export --state dead --data ./state | jq -r .address

In a table, a cell that a spreadsheet would run as a formula begins with an apostrophe.";

/// The message log, and what can be done with it besides listing it.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = LIST_EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one delivery with its attempts.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(delivery::ShowArgs),
    /// Tell what became of a notification for one person, and why.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Write the log down, all of it or what the flags name.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
}

/// What is looked for.
#[derive(Debug, Default, clap::Args)]
struct Sought {
    /// Of this notification
    #[arg(long, value_name = "ID")]
    notification: Option<String>,
    /// To this person
    #[arg(long)]
    user: Option<String>,
    /// By this template
    #[arg(long)]
    template: Option<String>,
    /// About this category
    #[arg(long)]
    category: Option<String>,
    /// By this medium: email, dingtalk or `in_app` [default: any]
    #[arg(long)]
    medium: Option<String>,
    /// In this state
    #[arg(long)]
    state: Option<String>,
    /// Made then or later: a time such as 2026-11-01T00:00:00Z, or how long ago, such as 2d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Made before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    sought: Sought,
    /// So many at most [default: 100]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ExplainArgs {
    /// The notification's id, as its publish answered
    notification: String,
    /// About whom
    #[arg(long, value_parser = UserId::new)]
    user: UserId,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    sought: Sought,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// Write there, once all of it has come [default: standard output, as it comes]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// With --output: print {"lines","bytes"}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

#[derive(Debug, Deserialize)]
struct Page {
    deliveries: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// A line of the log, as far as a table shows it.
#[derive(Debug, Deserialize)]
struct Line {
    id: Option<u64>,
    created_at: String,
    medium: String,
    user: Option<String>,
    #[serde(default)]
    topic: Option<String>,
    address: Option<String>,
    state: String,
    category: String,
    template: Option<String>,
    template_version: Option<u64>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Account {
    decisions: Vec<Decision>,
}

#[derive(Debug, Deserialize)]
struct Decision {
    step: String,
    medium: Option<String>,
    decision: String,
    reason: String,
    at: Option<String>,
    next_at: Option<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        None => list(args.list).await,
        Some(Command::Show(args)) => delivery::show(args).await,
        Some(Command::Explain(args)) => explain(args).await,
        Some(Command::Export(args)) => export(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let output = Output::of(args.json);
    let path = args.sought.path("/v1/deliveries");
    let limit = args.limit.unwrap_or(DEFAULT_LIMIT);
    let (count, rest) = args.server.ask(async |client: &Client| write(client, output, &path, limit).await).await?;
    match rest {
        Rest::More => eprintln!("There is more; --limit shows it, and `tidings log export` writes all of it down"),
        Rest::Nothing if count == 0 && output == Output::People => eprintln!("There is nothing like that in the log"),
        Rest::Nothing => {}
    }
    Ok(())
}

/// Whether something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    More,
}

/// Writes page by page, so that neither side holds all of it; how many lines there were.
async fn write(client: &Client, output: Output, path: &str, limit: u64) -> anyhow::Result<(u64, Rest)> {
    let (mut count, mut before) = (0, String::new());
    loop {
        let left = (limit - count).min(PAGE);
        if left == 0 {
            return Ok((count, Rest::More));
        }
        let page: Page = client.read(&Ask::get(format!("{path}limit={left}{before}"))).await?;
        let text = match output {
            Output::Json => page.deliveries.iter().flat_map(|line| [line.get(), "\n"]).collect(),
            Output::People => {
                let lines = page.deliveries.iter().map(|line| read::<Line>(line.get().as_bytes()));
                let lines: Vec<Line> = lines.collect::<Result<_, _>>()?;
                let head = (count == 0 && !lines.is_empty()).then(head);
                table(&head.into_iter().chain(lines.iter().map(Line::cells)).collect::<Vec<_>>())
            }
        };
        count += page.deliveries.len() as u64;
        io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
        match page.next {
            Some(next) => before = format!("&before={}", segment(next)),
            None => return Ok((count, Rest::Nothing)),
        }
    }
}

async fn explain(args: ExplainArgs) -> anyhow::Result<()> {
    let path = format!("{}/explain?user={}", notification::path(&args.notification), segment(args.user.as_str()));
    let ask = Ask::get(path);
    let answer = args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => {
            let account: Account = read(&answer)?;
            say(table(&account.decisions.iter().map(Decision::cells).collect::<Vec<_>>()).trim_end())
        }
    }
}

async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let format = args.format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let ask = Ask::get(format!("{}format={format}", args.sought.path("/v1/deliveries/export")));
    let saved = records::save(&args.server, &ask, args.output.as_deref()).await?;
    let (Some(file), Some(Saved { lines, bytes })) = (&args.output, saved) else { return Ok(()) };
    let lines = lines.saturating_sub(u64::from(args.format == Format::Csv));
    match Output::of(args.json) {
        Output::Json => say(json!({ "lines": lines, "bytes": bytes })),
        Output::People => {
            say(format_args!("{} in {} ({})", number(lines, "line", "lines"), file.display(), BinaryBytes(bytes)))
        }
    }
}

impl Sought {
    /// Where it is found, up to the sign behind which further parameters stand.
    fn path(&self, route: &str) -> String {
        let pairs = [
            ("notification", self.notification.clone()),
            ("user", self.user.clone()),
            ("template", self.template.clone()),
            ("category", self.category.clone()),
            ("medium", Some(self.medium.clone().unwrap_or_else(|| "any".to_owned()))),
            ("state", self.state.clone()),
            ("since", self.since.as_deref().map(moment)),
            ("until", self.until.as_deref().map(moment)),
        ];
        let named = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}&", segment(value.as_ref()?))));
        std::iter::once(format!("{route}?")).chain(named).collect()
    }
}

/// A moment, where it is said how long ago it was; else as it stands, for the server to judge.
fn moment(text: &str) -> String {
    let ago = duration(text).filter(|_| text.ends_with(['s', 'm', 'h', 'd']));
    ago.map_or_else(|| text.to_owned(), |ago| Clock::system().now().before(ago).to_string())
}

fn head() -> Vec<String> {
    let names = ["ID", "MADE", "MEDIUM", "TO", "ADDRESS", "STATE", "CATEGORY", "TEMPLATE", "REASON"];
    names.map(str::to_owned).to_vec()
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

impl Line {
    fn cells(&self) -> Vec<String> {
        let to = self.user.clone().or_else(|| {
            let topic = self.topic.as_ref()?;
            Some(if topic == "everyone" { topic.clone() } else { format!("topic:{topic}") })
        });
        vec![
            or_dash(self.id.map(|id| id.to_string()).as_ref()),
            self.created_at.clone(),
            self.medium.clone(),
            or_dash(to.as_ref()),
            or_dash(self.address.as_ref()),
            self.state.clone(),
            self.category.clone(),
            or_dash(self.template.as_ref().map(|name| delivery::by_template(name, self.template_version)).as_ref()),
            self.reason.clone().unwrap_or_default(),
        ]
    }
}

impl Decision {
    fn cells(&self) -> Vec<String> {
        let at = self.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
        let next = self.next_at.as_ref().map(|next| format!(" (next at {next})")).unwrap_or_default();
        vec![
            self.step.clone(),
            or_dash(self.medium.as_ref()),
            self.decision.clone(),
            format!("{}{at}{next}", self.reason),
        ]
    }
}

/// Rows with their cells below each other, two spaces apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> =
        (0..columns).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let padded = row.iter().zip(&widths).map(|(cell, width)| {
            let missing = width - cell.chars().count();
            format!("{cell}{}", " ".repeat(missing))
        });
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_columns_whatever_their_letters() {
        let rows = [["ID", "TO", "REASON"], ["7", "读者", ""], ["4711", "a", "550 no"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
        assert_eq!(table(&rows), "ID    TO  REASON\n7     读者\n4711  a   550 no\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn a_line_without_a_person_is_the_topics() {
        let line = r#"{"id":null,"created_at":"t","medium":"in_app","user":null,"topic":"ops","address":null,
                       "state":"stored","category":"c","template":null,"reason":null}"#;
        let line: Line = read(line.as_bytes()).expect("a line");
        assert_eq!(line.cells(), ["-", "t", "in_app", "topic:ops", "-", "stored", "c", "-", ""]);
        let line = Line { template: Some("due".to_owned()), template_version: Some(3), ..line };
        assert_eq!(line.cells()[7], "due v3");
    }

    #[test]
    fn how_long_ago_is_a_moment_and_a_moment_stays() {
        assert_eq!(moment("2026-11-01T00:00:00Z"), "2026-11-01T00:00:00Z");
        assert_eq!(moment("soon"), "soon");
        assert_eq!(moment("17"), "17");
        let ago = crate::wire::measure::moment(&moment("2h")).expect("a moment");
        let passed = Clock::system().now().since(ago).as_secs();
        assert!((7_200..7_260).contains(&passed), "{passed}");
        let sought = Sought { user: Some("a&b".to_owned()), ..Sought::default() };
        assert_eq!(sought.path("/v1/deliveries"), "/v1/deliveries?user=a%26b&medium=any&");
    }
}

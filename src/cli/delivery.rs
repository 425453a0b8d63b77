//! `tidings delivery`: what went to whom by mail and DingTalk, and trying again what did not arrive.

use std::io::Write as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::{Ask, Client, read};
use super::reach::ServerArgs;
use super::show::{fields, number};
use super::{Output, Usage, say, segment};
use crate::wire::delivery::{RetriedBody, TalliedBody};

/// Deliveries of one page.
const PAGE: u32 = 1_000;

const LIST_EXAMPLES: &str = "\
Examples:
  tidings delivery list --data ./state --user alice
  tidings delivery list --data ./state --notification 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77
  tidings delivery list --data ./state --state dead --since 2026-11-01T00:00:00Z --json | jq .address

The newest first. A line has the number, when it was made, the medium, the person and
the address, the state, and why it is there. With --json one delivery a line.";

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings delivery show 4711 --data ./state
  tidings delivery show 4711 --data ./state --json | jq .timeline

Each attempt is a line: when its end was known, what became of it, and the answer.";

const RETRY_EXAMPLES: &str = "\
Examples:
  tidings delivery retry 4711 --data ./state
  tidings delivery retry --dead --medium email --since 2026-11-20T00:00:00Z --data ./state
  tidings delivery retry --dead --notification 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --data ./state

Only dead deliveries are tried again, by the whole schedule; what was sent is left alone.";

/// What is done with deliveries.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what went to whom, the newest first.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one delivery with its attempts.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Try dead deliveries again.
    #[command(after_help = RETRY_EXAMPLES)]
    Retry(RetryArgs),
}

/// Which deliveries are meant.
#[derive(Debug, Default, Args, Serialize)]
pub(super) struct Asked {
    /// Of this notification
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    notification: Option<String>,
    /// To this person
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// By this medium: email or dingtalk
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    medium: Option<String>,
    /// About this category
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    /// By this template
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// Made then or later, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Made before then
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    asked: Asked,
    /// In this state: pending, leased, sent, dead, cancelled or skipped
    #[arg(long)]
    state: Option<String>,
    /// So many at most [default: all]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The delivery's number
    id: u64,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// The delivery's number
    #[arg(required_unless_present = "dead", conflicts_with_all = ["dead", "notification", "user", "medium", "category", "template", "since", "until"])]
    id: Option<u64>,
    /// All that are dead, or those of them that the other flags name
    #[arg(long)]
    dead: bool,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    deliveries: Vec<Box<RawValue>>,
    next: Option<String>,
    summary: Option<TalliedBody>,
}

#[derive(Debug, Deserialize)]
struct Delivery {
    id: u64,
    notification: String,
    user: Option<String>,
    medium: String,
    address: Option<String>,
    category: String,
    template: Option<String>,
    template_version: Option<u64>,
    state: String,
    attempts: u32,
    next_at: Option<String>,
    reason: Option<String>,
    /// Why nothing goes out by its medium for now.
    held: Option<String>,
    created_at: String,
    settled_at: Option<String>,
    message_id: String,
    #[serde(default)]
    timeline: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    at: String,
    outcome: String,
    answer: String,
    next_at: Option<String>,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show(args).await,
        Command::Retry(args) => retry(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let output = Output::of(args.json);
    let path = args.asked.path(args.state.as_deref());
    let count = args.server.ask(async |client: &Client| write(client, output, &path, args.limit).await).await?;
    if count == 0 && output == Output::People {
        eprintln!("There is no such delivery");
    }
    Ok(())
}

/// Writes page by page, so that neither side holds all of it; how many there were.
async fn write(client: &Client, output: Output, path: &str, limit: Option<u64>) -> anyhow::Result<u64> {
    let (mut count, mut before) = (0, String::new());
    loop {
        let left = limit.map_or(u64::from(PAGE), |limit| (limit - count).min(u64::from(PAGE)));
        if left == 0 {
            return Ok(count);
        }
        let page: Page = client.read(&Ask::get(format!("{path}limit={left}{before}"))).await?;
        let mut text = String::new();
        for item in &page.deliveries {
            match output {
                Output::Json => text.push_str(item.get()),
                Output::People => text.push_str(&read::<Delivery>(item.get().as_bytes())?.line()),
            }
            text.push('\n');
        }
        count += page.deliveries.len() as u64;
        std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
        match page.next {
            Some(next) => before = format!("&before={}", segment(next)),
            None => {
                if let Some(summary) = page.summary.filter(|_| output == Output::People) {
                    eprintln!("{}", told(&summary));
                }
                return Ok(count);
            }
        }
    }
}

pub(super) async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let ask = Ask::get(format!("/v1/deliveries/{}", args.id));
    let answer = args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => say(read::<Delivery>(&answer)?.told()),
    }
}

async fn retry(args: RetryArgs) -> anyhow::Result<()> {
    let ask = match args.id {
        Some(id) => Ask::new(Method::POST, format!("/v1/deliveries/{id}/retry")),
        None if args.dead => Ask::new(Method::POST, "/v1/deliveries/retry").json(&args.asked)?,
        None => return Err(Usage("name a delivery, or --dead for all that are dead".to_owned()).into()),
    };
    let answer = args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => match read::<RetriedBody>(&answer)?.retried {
            0 => say("Nothing is tried again: none of them is dead, or nothing carries them now"),
            retried => say(format_args!("Trying {} again", number(retried, "delivery", "deliveries"))),
        },
    }
}

impl Asked {
    /// Where they are listed, up to the sign behind which further parameters stand.
    fn path(&self, state: Option<&str>) -> String {
        let pairs = [
            ("notification", self.notification.as_deref()),
            ("user", self.user.as_deref()),
            ("medium", self.medium.as_deref()),
            ("state", state),
            ("category", self.category.as_deref()),
            ("template", self.template.as_deref()),
            ("since", self.since.as_deref()),
            ("until", self.until.as_deref()),
        ];
        let named = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}&", segment(value.as_ref()?))));
        std::iter::once("/v1/deliveries?".to_owned()).chain(named).collect()
    }
}

/// Where the deliveries of one notification are, in a line.
fn told(summary: &TalliedBody) -> String {
    let TalliedBody { finished, expanding, pending, leased, sent, dead, cancelled, skipped } = summary;
    let state = match (finished, expanding) {
        (true, _) => "finished",
        (false, true) => "still being made",
        (false, false) => "not finished",
    };
    format!(
        "{state}: {sent} sent, {pending} pending, {leased} under way, {dead} dead, {cancelled} cancelled, {skipped} skipped"
    )
}

/// A template as people are shown it: its name, and its version where that is known.
pub(super) fn by_template(name: &str, version: Option<u64>) -> String {
    version.map_or_else(|| name.to_owned(), |version| format!("{name} v{version}"))
}

impl Delivery {
    fn line(&self) -> String {
        let Self { id, created_at, medium, state, .. } = self;
        let user = self.user.as_deref().unwrap_or("-");
        let address = self.address.as_deref().unwrap_or("-");
        let reason =
            self.held.as_ref().or(self.reason.as_ref()).map(|reason| format!("  ({reason})")).unwrap_or_default();
        format!("{id}  {created_at}  {medium}  {user}  {address}  {state}{reason}")
    }

    fn told(&self) -> String {
        let mut text = fields(&[
            ("id", Some(self.id.to_string())),
            ("notification", Some(self.notification.clone())),
            ("user", self.user.clone()),
            ("medium", Some(self.medium.clone())),
            ("address", self.address.clone()),
            ("category", Some(self.category.clone())),
            ("template", self.template.as_ref().map(|name| by_template(name, self.template_version))),
            ("state", Some(self.state.clone())),
            ("reason", self.reason.clone()),
            ("held", self.held.clone()),
            ("attempts", Some(self.attempts.to_string())),
            ("next", self.next_at.clone()),
            ("created", Some(self.created_at.clone())),
            ("settled", self.settled_at.clone()),
            ("message id", Some(self.message_id.clone())),
        ]);
        for attempt in &self.timeline {
            let next = attempt.next_at.as_ref().map(|next| format!("  (next at {next})")).unwrap_or_default();
            text.extend(["\n", &attempt.at, "  ", &attempt.outcome, "  ", &attempt.answer, &next]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"id":7,"notification":"n","user":"alice","medium":"email","address":"a@b.example",
        "category":"loans","template":null,"state":"dead","attempts":2,"next_at":null,"reason":"550 unknown",
        "created_at":"t1","settled_at":"t2","message_id":"7.k@b.example",
        "timeline":[{"number":1,"at":"t1","outcome":"later","answer":"451 busy","next_at":"t2"},
                    {"number":2,"at":"t2","outcome":"never","answer":"550 unknown","next_at":null}]}"#;

    #[test]
    fn a_delivery_is_a_line_and_its_attempts_are_more() {
        let delivery: Delivery = read(ONE.as_bytes()).expect("a delivery");
        assert_eq!(delivery.line(), "7  t1  email  alice  a@b.example  dead  (550 unknown)");
        let held: Delivery =
            read(ONE.replace("\"timeline\"", "\"held\":\"535 no\",\"timeline\"").as_bytes()).expect("one");
        assert!(held.line().ends_with("  dead  (535 no)"), "what holds it up now says more than what was");
        let told = delivery.told();
        assert!(told.ends_with("\nt1  later  451 busy  (next at t2)\nt2  never  550 unknown"), "{told}");
    }

    #[test]
    fn what_is_asked_for_stands_in_the_path() {
        let asked = Asked { user: Some("a&b".to_owned()), ..Asked::default() };
        assert_eq!(asked.path(Some("dead")), "/v1/deliveries?user=a%26b&state=dead&");
        assert_eq!(Asked::default().path(None), "/v1/deliveries?");
    }
}

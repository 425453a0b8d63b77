//! `tidings schedule`: what waits for its time, and cancelling it.

use anyhow::bail;
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;

use super::client::{Ask, Client, read};
use super::notification::{Retracted, Status, path};
use super::reach::ServerArgs;
use super::show::{List, number};
use super::{Output, say};

/// Notifications of one page.
const PAGE: u32 = 100;

const LIST_EXAMPLES: &str = "\
Examples:
  tidings schedule list --data ./state
  tidings schedule list --data ./state --json | jq -r 'select(.why).id'

The next due first. `why` says why one could not be delivered when its time came.
With --json one notification a line.";

const CANCEL_EXAMPLES: &str = "\
Examples:
  tidings schedule cancel 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --data ./state

What has been delivered is not touched; `tidings notification retract` takes that back.";

/// What is done with what waits.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the notifications that wait for their time.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Cancel one before it is delivered.
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// The notification's id, as its publish answered
    id: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One that waits.
#[derive(Debug, Deserialize)]
struct Waiting {
    id: String,
    due: String,
    why: Option<String>,
    to: To,
    title: String,
    body: String,
}

/// Whom it is for, in the long form of a publish.
#[derive(Debug, Deserialize)]
struct To {
    user: Option<String>,
    users: Option<Vec<String>>,
    topic: Option<String>,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Cancel(args) => cancel(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let (list, output) = (List { path: "/v1/scheduled".to_owned(), page: PAGE }, Output::of(args.json));
    let count = args.server.ask(async |client: &Client| list.write(client, output, Waiting::line).await).await?;
    if count == 0 && output == Output::People {
        eprintln!("Nothing waits for its time");
    }
    Ok(())
}

async fn cancel(args: CancelArgs) -> anyhow::Result<()> {
    let answer = args
        .server
        .ask(async |client: &Client| {
            // The same request takes back what has been delivered, which is not what was asked for.
            let Status { state, .. } = client.read(&Ask::get(path(&args.id))).await?;
            if !matches!(state.as_str(), "scheduled" | "failed") {
                bail!("{} does not wait: it is {state} (`tidings notification retract` takes back what came)", args.id);
            }
            client.ask(&Ask::new(Method::DELETE, path(&args.id))).await
        })
        .await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => match read::<Retracted>(&answer)?.state.as_str() {
            "cancelled" => say(format_args!("Cancelled {}", args.id)),
            // Between the two requests.
            state => say(format_args!("{} was delivered just before, and is {state} now", args.id)),
        },
    }
}

impl Waiting {
    fn line(&self) -> String {
        let Self { id, due, why, to, title, body } = self;
        let text = if title.is_empty() { body.lines().next().unwrap_or_default() } else { title };
        let why = why.as_ref().map(|why| format!("  (not delivered: {why})")).unwrap_or_default();
        format!("{due}  {id}  {}  {text}{why}", to.told())
    }
}

impl To {
    /// In the short form, where there is one.
    fn told(&self) -> String {
        match (&self.user, self.users.as_deref(), &self.topic) {
            (Some(user), ..) | (_, Some([user]), _) => format!("user:{user}"),
            (_, Some(users), _) => number(users.len() as u64, "user", "users"),
            (.., Some(topic)) => format!("topic:{topic}"),
            (None, None, None) => "everyone".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_a_line_with_when_for_whom_and_what() {
        let line = |to: &str, title: &str, why: &str| {
            let waiting = format!(r#"{{"id":"7","due":"t","why":{why},"to":{to},"title":"{title}","body":"a\nb"}}"#);
            read::<Waiting>(waiting.as_bytes()).expect("one that waits").line()
        };
        assert_eq!(line(r#"{"users":["alice"]}"#, "T", "null"), "t  7  user:alice  T");
        assert_eq!(line(r#"{"users":["a","b"]}"#, "", "null"), "t  7  2 users  a");
        assert_eq!(
            line(r#"{"topic":"ops"}"#, "T", r#""unknown-topic""#),
            "t  7  topic:ops  T  (not delivered: unknown-topic)"
        );
        assert_eq!(line(r#"{"everyone":true}"#, "T", "null"), "t  7  everyone  T");
    }
}

//! `tidings notification`: what became of one, and taking it back.

use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;

use super::client::{Ask, Client, read};
use super::reach::ServerArgs;
use super::show::{List, fields, number};
use super::{Output, say, segment};

/// Recipients of one page.
const PAGE: u32 = 1_000;

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings notification show 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --data ./state
  tidings notification show 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --recipients --json --data ./state

--recipients: who saw, read and archived it, for those that were sent to named users.
With --json the notification is the first line, and each recipient one more.";

const RETRACT_EXAMPLES: &str = "\
Examples:
  tidings notification retract 0199f0c4-5d2e-7c41-9d0f-3b6f5a1e2d77 --data ./state

It leaves every inbox and every count; one that waits for its time is cancelled.";

/// What is done with notifications.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what became of a notification.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Take a notification back, for everyone.
    #[command(after_help = RETRACT_EXAMPLES)]
    Retract(RetractArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The notification's id, as its publish answered
    id: String,
    /// Who received it, and what they did with it
    #[arg(long)]
    recipients: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RetractArgs {
    /// The notification's id, as its publish answered
    id: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A notification as its publisher sees it.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    id: String,
    cursor: Option<String>,
    pub(super) state: String,
    by: Option<String>,
    due: Option<String>,
    why: Option<String>,
    to: String,
    category: String,
    title: String,
    created_at: String,
    expires_at: Option<String>,
    recipients: Option<u64>,
    seen: Option<u64>,
    read: Option<u64>,
    archived: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Recipient {
    user: String,
    seen_at: Option<String>,
    read_at: Option<String>,
    archived_at: Option<String>,
}

/// What became of taking one back.
#[derive(Debug, Deserialize)]
pub(super) struct Retracted {
    pub(super) state: String,
    changed: bool,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show(args) => show(args).await,
        Command::Retract(args) => retract(args).await,
    }
}

/// Where a notification is.
pub(super) fn path(id: &str) -> String {
    format!("/v1/notifications/{}", segment(id))
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let output = Output::of(args.json);
    args.server
        .ask(async |client: &Client| {
            let answer = client.ask(&Ask::get(path(&args.id))).await?;
            match output {
                Output::Json => say(String::from_utf8_lossy(&answer))?,
                Output::People => say(read::<Status>(&answer)?.told())?,
            }
            if args.recipients {
                let list = List { path: format!("{}/recipients", path(&args.id)), page: PAGE };
                list.write(client, output, Recipient::line).await?;
            }
            Ok(())
        })
        .await
}

async fn retract(args: RetractArgs) -> anyhow::Result<()> {
    let ask = Ask::new(Method::DELETE, path(&args.id));
    let answer = args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => say(read::<Retracted>(&answer)?.told(&args.id)),
    }
}

impl Status {
    fn told(&self) -> String {
        let reached = self.recipients.map(|recipients| {
            let of = |count: Option<u64>| count.unwrap_or_default();
            let users = number(recipients, "user", "users");
            format!("{users}: {} seen, {} read, {} archived", of(self.seen), of(self.read), of(self.archived))
        });
        fields(&[
            ("id", Some(self.id.clone())),
            ("state", Some(self.state.clone())),
            ("by", self.by.clone()),
            ("due", self.due.clone()),
            ("why", self.why.clone()),
            ("cursor", self.cursor.clone()),
            ("to", Some(self.to.clone())),
            ("category", Some(self.category.clone())),
            ("title", (!self.title.is_empty()).then(|| self.title.clone())),
            ("created", Some(self.created_at.clone())),
            ("expires", self.expires_at.clone()),
            ("reached", reached),
        ])
    }
}

impl Recipient {
    fn line(&self) -> String {
        let states = [("seen", &self.seen_at), ("read", &self.read_at), ("archived", &self.archived_at)];
        let states = states.iter().filter_map(|(state, at)| Some(format!("\t{state} {}", at.as_ref()?)));
        std::iter::once(self.user.clone()).chain(states).collect()
    }
}

impl Retracted {
    fn told(&self, id: &str) -> String {
        match (self.state.as_str(), self.changed) {
            ("cancelled", _) => format!("Cancelled {id}; it had not been delivered"),
            ("retracted", true) => format!("Retracted {id}"),
            (state, _) => format!("{id} was {state} before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_is_told_with_what_they_did() {
        let did = |seen: Option<&str>, read: Option<&str>| {
            let own = |at: Option<&str>| at.map(str::to_owned);
            Recipient { user: "alice".into(), seen_at: own(seen), read_at: own(read), archived_at: None }.line()
        };
        assert_eq!(did(None, None), "alice");
        assert_eq!(did(Some("t1"), Some("t2")), "alice\tseen t1\tread t2");
    }

    #[test]
    fn taking_back_says_what_it_did() {
        for (state, changed, told) in [
            ("retracted", true, "Retracted x"),
            ("retracted", false, "x was retracted before"),
            ("expired", false, "x was expired before"),
            ("cancelled", true, "Cancelled x; it had not been delivered"),
        ] {
            assert_eq!(Retracted { state: state.into(), changed }.told("x"), told);
        }
    }
}

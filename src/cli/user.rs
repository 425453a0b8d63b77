//! `tidings user`: who a person is, their counts, everything that is stored about them, and its end.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::Method;
use indicatif::BinaryBytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Client, read};
use super::ops::NOBODY;
use super::reach::ServerArgs;
use super::records::{self, Saved};
use super::show::{List, number};
use super::upkeep::{Counts, compact_now};
use super::{Output, Usage, import, profile, say, segment};
use crate::model::UserId;

/// How long an erasure may take: it is as long as the inbox.
const ERASE_PATIENCE: Duration = Duration::from_mins(10);

/// Users that are asked for at a time.
const ONLINE_PAGE: u32 = 1_000;

const COUNTS_EXAMPLES: &str = "\
Examples:
  tidings user counts alice --data ./state
  tidings user counts alice --data ./state --json | jq .unread";

const EXPORT_EXAMPLES: &str = "\
Examples:
  tidings user export alice --data ./state --output alice.ndjson
  tidings user export alice --data ./state | jq 'select(.kind == \"entry\").title'

One record a line, each with its `kind`. It holds what is stored about this user and
nothing about others.";

const ERASE_EXAMPLES: &str = "\
Examples:
  tidings user erase alice --data ./state
  tidings user erase alice --yes --compact --data ./state

What is erased is in no answer any more. Traces stay in the free pages of the database
file until `tidings compact` rewrites it; --compact does so at once, and publishes wait
meanwhile. Copies of the file that you have made are yours to delete.";

const ONLINE_EXAMPLES: &str = "\
Examples:
  tidings user online --data ./state
  tidings user online --data ./state --json | jq -r .user";

const DISCONNECT_EXAMPLES: &str = "\
Examples:
  tidings user disconnect alice --data ./state

Whoever is still let in comes back within seconds, and misses nothing;
`tidings revoke --user alice` keeps them out.";

/// What is done for one user.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show who a user is to those who reach them.
    #[command(after_help = profile::SHOW_EXAMPLES)]
    Show(profile::ShowArgs),
    /// Say who a user is: address, language, time zone, preferences.
    #[command(after_help = profile::SET_EXAMPLES)]
    Set(profile::SetArgs),
    /// Say who people are, from a file.
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
    /// Show a user's unread and unseen entries.
    #[command(after_help = COUNTS_EXAMPLES)]
    Counts(CountsArgs),
    /// Show who is online, and by how many streams.
    #[command(after_help = ONLINE_EXAMPLES)]
    Online(OnlineArgs),
    /// End a user's streams.
    #[command(after_help = DISCONNECT_EXAMPLES)]
    Disconnect(DisconnectArgs),
    /// Write down everything that is stored about a user.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Erase everything that is stored about a user.
    #[command(after_help = ERASE_EXAMPLES)]
    Erase(EraseArgs),
}

#[derive(Debug, Args)]
pub(super) struct CountsArgs {
    /// Who
    #[arg(value_parser = UserId::new)]
    user: UserId,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OnlineArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON, one user a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DisconnectArgs {
    /// Who
    #[arg(value_parser = UserId::new)]
    user: UserId,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Who
    #[arg(value_parser = UserId::new)]
    user: UserId,
    /// Write there, once all of it has come [default: standard output, as it comes]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// With --output: print {"user","records","bytes"}. The records are JSON in any case
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EraseArgs {
    /// Who
    #[arg(value_parser = UserId::new)]
    user: UserId,
    /// Compact the database file as well
    #[arg(long)]
    compact: bool,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Online {
    user: String,
    streams: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Ended {
    ended: u64,
}

#[derive(Debug, Deserialize)]
struct Erased {
    entries: u64,
    notifications: u64,
    unsigned: u64,
}

async fn online(args: OnlineArgs) -> anyhow::Result<()> {
    let list = List { path: "/v1/online".to_owned(), page: ONLINE_PAGE };
    let line = |online: &Online| format!("{}  {}", online.user, number(online.streams, "stream", "streams"));
    let output = Output::of(args.json);
    let shown = async |client: &Client| {
        let online = list.write(client, output, line).await?;
        anyhow::ensure!(!client.is_own(), NOBODY);
        Ok(online)
    };
    let online = args.server.ask(shown).await?;
    if output == Output::People {
        eprintln!("{} online", number(online, "user", "users"));
    }
    Ok(())
}

async fn disconnect(args: DisconnectArgs) -> anyhow::Result<()> {
    let ask = Ask::new(Method::DELETE, format!("/v1/users/{}/streams", segment(args.user.as_str())));
    let ended: Ended = args.server.ask(async |client: &Client| client.read(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(serde_json::to_string(&ended)?),
        Output::People => say(format_args!("{} of {} ended", number(ended.ended, "stream", "streams"), args.user)),
    }
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show(args) => profile::show(args).await,
        Command::Set(args) => profile::set(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Counts(args) => counts(args).await,
        Command::Online(args) => online(args).await,
        Command::Disconnect(args) => disconnect(args).await,
        Command::Export(args) => export(args).await,
        Command::Erase(args) => erase(args).await,
    }
}

/// Where a user is.
pub(super) fn path(user: &UserId) -> String {
    format!("/v1/users/{}", segment(user.as_str()))
}

async fn counts(args: CountsArgs) -> anyhow::Result<()> {
    let ask = Ask::get(format!("{}/counts", path(&args.user)));
    let answer = args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => say(read::<Counts>(&answer)?.told()),
    }
}

async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let ask = Ask::get(format!("{}/export", path(&args.user)));
    let saved = records::save(&args.server, &ask, args.output.as_deref()).await?;
    let (Some(file), Some(Saved { lines: records, bytes })) = (&args.output, saved) else { return Ok(()) };
    match Output::of(args.json) {
        Output::Json => say(json!({ "user": args.user.as_str(), "records": records, "bytes": bytes })),
        Output::People => say(format_args!(
            "{} about {} in {} ({})",
            number(records, "record", "records"),
            args.user,
            file.display(),
            BinaryBytes(bytes)
        )),
    }
}

async fn erase(args: EraseArgs) -> anyhow::Result<()> {
    if !args.yes && !confirmed(&args.user)? {
        bail!("nothing was erased");
    }
    let ask = Ask::new(Method::DELETE, path(&args.user)).patient(ERASE_PATIENCE);
    let (answer, compacted) = args
        .server
        .ask(async |client: &Client| {
            let answer = client.ask(&ask).await?;
            let compacted = if args.compact {
                let erased = || format!("{} is erased, but the file still holds traces", args.user);
                Some(compact_now(client).await.with_context(erased)?)
            } else {
                None
            };
            Ok((answer, compacted))
        })
        .await?;
    let erased: Erased = read(&answer)?;
    match Output::of(args.json) {
        Output::Json => say(json!({
            "entries": erased.entries,
            "notifications": erased.notifications,
            "unsigned": erased.unsigned,
            "compacted": compacted,
        }))?,
        Output::People => {
            say(erased.told(&args.user))?;
            if let Some(compacted) = &compacted {
                say(compacted.told())?;
            }
        }
    }
    if compacted.is_none() {
        eprintln!("Traces stay in the database file until `tidings compact`");
    }
    eprintln!("Backups, and copies made before an upgrade (tidings.db.before-schema-…), are yours to delete");
    Ok(())
}

/// Asks the person at the terminal.
fn confirmed(user: &UserId) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Usage(format!("erasing {user} can't be undone; where nobody can be asked, say --yes")).into());
    }
    eprint!("Erase everything about {user}? It can't be undone. Type `yes`: ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}

impl Erased {
    fn told(&self, user: &UserId) -> String {
        format!(
            "Erased {user}: {}, {} to nobody else; the name was taken off {} to others",
            number(self.entries, "entry", "entries"),
            number(self.notifications, "notification", "notifications"),
            number(self.unsigned, "notification", "notifications"),
        )
    }
}

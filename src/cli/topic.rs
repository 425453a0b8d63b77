//! `tidings topic`: the topics, and who follows them.

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Client, read};
use super::followers::{self, FollowArgs, UnfollowArgs};
use super::reach::ServerArgs;
use super::show::{List, fields};
use super::{Output, say, segment};
use crate::model::TopicName;

/// Topics of one page of the list, and followers of one page of theirs.
const PAGE: u32 = 1_000;

const LIST_EXAMPLES: &str = "\
Examples:
  tidings topic list --data ./state
  tidings topic list --data ./state --json | jq -r 'select(.followers == 0).topic'

With --json one topic a line.";

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings topic show ops --data ./state";

const PUT_EXAMPLES: &str = "\
Examples:
  tidings topic put ops --data ./state
  tidings topic put news/sport --category news --follow open --data ./state

What is not named stays as it is. A topic has one category, which its entries bear.
open: users may follow and leave it by themselves; managed: only the application decides.";

const DELETE_EXAMPLES: &str = "\
Examples:
  tidings topic delete ops --data ./state

Its entries leave every inbox with it.";

const FOLLOWERS_EXAMPLES: &str = "\
Examples:
  tidings topic followers ops --data ./state
  tidings topic followers ops --data ./state --json | jq -r 'select(.muted).user'

One user a line.";

/// What is done with topics.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the topics, in order of their names.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one topic.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(OneArgs),
    /// Make a topic, or change what it is like.
    #[command(after_help = PUT_EXAMPLES)]
    Put(PutArgs),
    /// Delete a topic with its followers and its entries.
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(OneArgs),
    /// List who follows a topic.
    #[command(after_help = FOLLOWERS_EXAMPLES)]
    Followers(OneArgs),
    /// Let users follow a topic.
    #[command(after_help = followers::FOLLOW_EXAMPLES)]
    Follow(FollowArgs),
    /// Let users leave a topic; what came until now stays in their inboxes.
    #[command(after_help = followers::UNFOLLOW_EXAMPLES)]
    Unfollow(UnfollowArgs),
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
pub(super) struct OneArgs {
    /// The topic
    #[arg(value_parser = TopicName::new)]
    topic: TopicName,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The topic
    #[arg(value_parser = TopicName::new)]
    topic: TopicName,
    /// The category of its entries [default: general]
    #[arg(long)]
    category: Option<String>,
    /// Who decides who follows it [default: managed]
    #[arg(long)]
    follow: Option<Rule>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Who decides who follows a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Rule {
    Managed,
    Open,
}

/// A topic as it is shown.
#[derive(Debug, Deserialize)]
struct Shown {
    topic: String,
    category: String,
    follow: String,
    followers: u64,
    published: u64,
    created_at: String,
}

#[derive(Debug, Deserialize)]
struct Follower {
    user: String,
    muted: bool,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show(&args, &Ask::get(path(&args.topic))).await,
        Command::Put(args) => put(args).await,
        Command::Delete(args) => delete(args).await,
        Command::Followers(args) => list_followers(args).await,
        Command::Follow(args) => followers::follow(args).await,
        Command::Unfollow(args) => followers::unfollow(args).await,
    }
}

/// Where a topic is.
pub(super) fn path(topic: &TopicName) -> String {
    format!("/v1/topics/{}", segment(topic.as_str()))
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let (list, output) = (List { path: "/v1/topics".to_owned(), page: PAGE }, Output::of(args.json));
    let count = args.server.ask(async |client: &Client| list.write(client, output, Shown::line).await).await?;
    if count == 0 && output == Output::People {
        eprintln!("No topics yet; `tidings topic put` makes one, and so may a publish");
    }
    Ok(())
}

async fn show(args: &OneArgs, ask: &Ask<'_>) -> anyhow::Result<()> {
    let answer = args.server.ask(async |client: &Client| client.ask(ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => say(read::<Shown>(&answer)?.told()),
    }
}

async fn put(args: PutArgs) -> anyhow::Result<()> {
    let mut settings = serde_json::Map::new();
    if let Some(category) = args.category {
        settings.insert("category".to_owned(), category.into());
    }
    if let Some(follow) = args.follow {
        settings.insert("follow".to_owned(), serde_json::to_value(follow)?);
    }
    let ask = Ask::new(Method::PUT, path(&args.topic)).json(&settings)?;
    show(&OneArgs { topic: args.topic, server: args.server, json: args.json }, &ask).await
}

async fn delete(args: OneArgs) -> anyhow::Result<()> {
    let ask = Ask::new(Method::DELETE, path(&args.topic));
    args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(json!({ "topic": args.topic.as_str(), "deleted": true })),
        Output::People => say(format_args!("Deleted {}", args.topic)),
    }
}

async fn list_followers(args: OneArgs) -> anyhow::Result<()> {
    let (list, output) = (List { path: format!("{}/followers", path(&args.topic)), page: PAGE }, Output::of(args.json));
    let count = args.server.ask(async |client: &Client| list.write(client, output, Follower::line).await).await?;
    if count == 0 && output == Output::People {
        eprintln!("Nobody follows {}", args.topic);
    }
    Ok(())
}

impl Shown {
    fn line(&self) -> String {
        let Self { topic, category, follow, followers, published, .. } = self;
        format!("{topic:<32}  {category:<16}  {follow:<7}  {followers} followers, {published} published")
    }

    fn told(&self) -> String {
        fields(&[
            ("topic", Some(self.topic.clone())),
            ("category", Some(self.category.clone())),
            ("follow", Some(self.follow.clone())),
            ("followers", Some(self.followers.to_string())),
            ("published", Some(self.published.to_string())),
            ("created", Some(self.created_at.clone())),
        ])
    }
}

impl Follower {
    fn line(&self) -> String {
        if self.muted { format!("{}\tmuted", self.user) } else { self.user.clone() }
    }
}

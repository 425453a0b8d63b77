//! `tidings key`: makes, lists and revokes API keys, in the log of a state directory or through the server that runs on
//! it, so that a revocation works at once.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Client};
use super::local::{Directory, Unused};
use super::settings::Place;
use super::{Output, Usage, reach, say, segment};
use crate::model::Scope;
use crate::wire::manage::parse_key;
use crate::wire::ops::parse_rotation;

const CREATE_EXAMPLES: &str = "\
Examples:
  tidings key create --data ./state --name shop --scope publish --scope tickets
  tidings key create --data ./state --name sensors --scope 'publish:topic/sensors/*' --json
  tidings key create --data ./state --name loans --scope publish --scope 'templates:loan-*'
  tidings key create --data ./state --name console --all-scopes

The key is shown once; Tidings keeps only its hash.
Scopes: publish, publish:topic/<pattern>, tickets, users, templates, templates:<pattern>, admin.
A pattern is a name, or a beginning and `*`.";

const LIST_EXAMPLES: &str = "\
Examples:
  tidings key list --data ./state
  tidings key list --data ./state --json | jq -r '.keys[].name'";

const ROTATE_EXAMPLES: &str = "\
Examples:
  tidings key rotate 096cef1e695726b4 --data ./state
  tidings key rotate 096cef1e695726b4 --grace 0s --data ./state

The new key is shown once. The one before is taken for the time of grace, so that whoever
uses it can be given the new one without a gap.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  tidings key revoke 096cef1e695726b4 --data ./state

The id is what `tidings key list` shows first.";

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key; it is shown once.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List the keys, never their secrets.
    #[command(after_help = LIST_EXAMPLES)]
    List(Common),
    /// Give a key another secret; scopes and name stay.
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate(RotateArgs),
    /// Revoke a key; it stops working at once.
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// What it is for; shown in lists
    #[arg(long)]
    name: String,
    /// What it may do; may be repeated
    #[arg(long, required_unless_present = "all_scopes", conflicts_with = "all_scopes")]
    scope: Vec<String>,
    /// It may do everything
    #[arg(long)]
    all_scopes: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The key's id
    id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The key's id
    id: String,
    /// How long the secret before is still taken: 0s to 30d
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    grace: String,
    #[command(flatten)]
    common: Common,
}

/// A key as it is shown.
#[derive(Debug, Serialize, Deserialize)]
struct Shown {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    name: String,
    scopes: Vec<String>,
    created_at: String,
    revoked_at: Option<String>,
    #[serde(default)]
    last_used_at: Option<String>,
    #[serde(default)]
    old_until: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    keys: Vec<Shown>,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(args) => list(args).await,
        Command::Rotate(args) => rotate(args).await,
        Command::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let scopes = if args.all_scopes { Scope::ALL.iter().map(Scope::to_string).collect() } else { args.scope };
    let body = json!({ "name": args.name, "scopes": scopes });
    // Told before anything is opened or made, and as wrong usage.
    parse_key(body.to_string().as_bytes()).map_err(|e| Usage(format!("this key can't be made: {e}")))?;
    let made: Shown = ask(args.common.place, Ask::new(Method::POST, "/v1/keys").json(&body)?).await?;
    match Output::of(args.common.json) {
        Output::Json => say(serde_json::to_string(&made)?),
        Output::People => {
            eprintln!("Key {} ({}) may {}. It is not shown again:", made.id, made.name, made.scopes.join(", "));
            say(made.key.as_deref().context("the server's answer has no key")?)
        }
    }
}

async fn list(args: Common) -> anyhow::Result<()> {
    let listed: Listed = ask(args.place, Ask::get("/v1/keys")).await?;
    match Output::of(args.json) {
        Output::Json => say(serde_json::to_string(&listed)?),
        Output::People => say(table(&listed.keys)),
    }
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let body = json!({ "grace": args.grace });
    parse_rotation(body.to_string().as_bytes()).map_err(|e| Usage(format!("--grace {}: {e}", args.grace)))?;
    let ask_for = Ask::new(Method::POST, format!("/v1/keys/{}/rotate", segment(&args.id))).json(&body)?.once();
    let made: Shown = ask(args.common.place, ask_for).await?;
    match Output::of(args.common.json) {
        Output::Json => say(serde_json::to_string(&made)?),
        Output::People => {
            let until = made.old_until.as_deref().unwrap_or("now");
            eprintln!(
                "Key {} ({}) has another secret, not shown again; the one before is taken until {until}:",
                made.id, made.name
            );
            say(made.key.as_deref().context("the server's answer has no key")?)
        }
    }
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let revocation = Ask::new(Method::DELETE, format!("/v1/keys/{}", segment(&args.id)));
    reach::ask(client(args.common.place), async |client: &Client| client.ask(&revocation).await).await?;
    match Output::of(args.common.json) {
        Output::Json => say(json!({ "id": args.id, "revoked": true })),
        Output::People => say(format_args!("Revoked {}", args.id)),
    }
}

async fn ask<T: serde::de::DeserializeOwned>(place: Place, ask: Ask<'static>) -> anyhow::Result<T> {
    reach::ask(client(place), async |client: &Client| client.read(&ask).await).await
}

/// Keys may be made before the first start, so a directory that nobody has used will do.
fn client(place: Place) -> Client {
    Client::Directory(Directory::new(place, None, Unused::Make))
}

fn table(keys: &[Shown]) -> String {
    let widest = |of: fn(&Shown) -> &str| keys.iter().map(|key| of(key).chars().count()).max().unwrap_or(0);
    let (id, name) = (widest(|key| &key.id), widest(|key| &key.name));
    let line = |key: &Shown| {
        let end = key.revoked_at.as_ref().map(|at| format!("  revoked {at}")).unwrap_or_default();
        let used = key.last_used_at.as_ref().map_or("  never used".to_owned(), |at| format!("  used {at}"));
        format!("{:id$}  {:name$}  {}  {}{used}{end}", key.id, key.name, key.created_at, key.scopes.join(" "))
    };
    if keys.is_empty() {
        return "No keys yet; `tidings key create` makes one".to_owned();
    }
    keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, name: &str, revoked_at: Option<&str>) -> Shown {
        Shown {
            id: id.into(),
            key: None,
            name: name.into(),
            scopes: vec!["publish".into(), "users".into()],
            created_at: "2026-11-21T00:00:00.000Z".into(),
            revoked_at: revoked_at.map(str::to_owned),
            last_used_at: revoked_at.map(|_| "2026-11-21T01:00:00.000Z".to_owned()),
            old_until: None,
        }
    }

    #[test]
    fn keys_stand_in_columns() {
        assert_eq!(
            table(&[key("a", "shop", None), key("bcd", "x", Some("later"))]),
            "a    shop  2026-11-21T00:00:00.000Z  publish users  never used\n\
             bcd  x     2026-11-21T00:00:00.000Z  publish users  used 2026-11-21T01:00:00.000Z  revoked later"
        );
        assert_eq!(table(&[]), "No keys yet; `tidings key create` makes one");
    }
}

//! `tidings key`: makes, lists and revokes API keys.
//!
//! Where a server runs on the state directory, its unix socket is asked, so that a revocation works at once. Where none
//! does, the log is opened here, with the same rules of the broker and under the same lock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Client};
use super::settings::Place;
use super::{Output, Usage, say};
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::{Identity, Scope};
use crate::server::state::{StateDir, StateError};
use crate::wire::manage::{KeyBody, KeyInfo, KeyInfoBody, parse_key};

/// How long the log may take to close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

const CREATE_EXAMPLES: &str = "\
Examples:
  tidings key create --data ./state --name shop --scope publish --scope tickets
  tidings key create --data ./state --name sensors --scope 'publish:topic/sensors/*' --json
  tidings key create --data ./state --name console --all-scopes

The key is shown once; Tidings keeps only its hash.
Scopes: publish, publish:topic/<pattern>, tickets, users, templates, admin.";

const LIST_EXAMPLES: &str = "\
Examples:
  tidings key list --data ./state
  tidings key list --data ./state --json | jq -r '.keys[].name'";

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
}

#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    keys: Vec<Shown>,
}

/// Who keeps the keys right now.
enum Keeper {
    /// A server runs; its socket is asked.
    Server(Client),
    /// None does; the log is open here.
    Log { broker: Broker, lifecycle: Lifecycle, _state: StateDir },
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(args) => list(args).await,
        Command::Revoke(args) => revoke(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let scopes = if args.all_scopes { Scope::ALL.iter().map(Scope::to_string).collect() } else { args.scope };
    // The very body that a server would be sent, so that both ways have one set of rules.
    let body = serde_json::to_vec(&json!({ "name": args.name, "scopes": scopes }))?;
    let checked = parse_key(&body).map_err(|e| Usage(format!("this key can't be made: {e}")))?;
    let keeper = Keeper::open(&args.common.place.load([])?).await?;
    let made = keeper.create(body, checked).await;
    keeper.close().await;
    let made = made?;
    match Output::of(args.common.json) {
        Output::Json => say(serde_json::to_string(&made)?),
        Output::People => {
            eprintln!("Key {} ({}) may {}. It is not shown again:", made.id, made.name, made.scopes.join(", "));
            say(made.key.as_deref().context("the server's answer has no key")?)
        }
    }
}

async fn list(args: Common) -> anyhow::Result<()> {
    let keeper = Keeper::open(&args.place.load([])?).await?;
    let listed = keeper.list().await;
    keeper.close().await;
    let listed = listed?;
    match Output::of(args.json) {
        Output::Json => say(serde_json::to_string(&listed)?),
        Output::People => say(table(&listed.keys)),
    }
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let keeper = Keeper::open(&args.common.place.load([])?).await?;
    let done = keeper.revoke(&args.id).await;
    keeper.close().await;
    done?;
    match Output::of(args.common.json) {
        Output::Json => say(json!({ "id": args.id, "revoked": true })),
        Output::People => say(format_args!("Revoked {}", args.id)),
    }
}

impl Keeper {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        match StateDir::open(&config.data) {
            Ok(state) => {
                let lifecycle = Lifecycle::default();
                let (clock, metrics) = (Clock::system(), Arc::new(Metrics::default()));
                let broker = Broker::open(state.path(), config.broker.clone(), clock, metrics, &lifecycle).await?;
                Ok(Self::Log { broker, lifecycle, _state: state })
            }
            Err(StateError::Held { path, .. }) => Ok(Self::Server(Client::of_operator(Path::new(&path))?)),
            Err(e) => Err(e.into()),
        }
    }

    /// `checked` is what `body` says.
    async fn create(&self, body: Vec<u8>, checked: KeyBody) -> anyhow::Result<Shown> {
        match self {
            Self::Server(client) => read(&client.ask(&ask(Method::POST, "/v1/keys", body)).await?),
            Self::Log { broker, .. } => {
                let (info, key) = broker.create_key(&Identity::Operator, checked).await?;
                shown(&info, Some(&key))
            }
        }
    }

    async fn list(&self) -> anyhow::Result<Listed> {
        match self {
            Self::Server(client) => read(&client.ask(&ask(Method::GET, "/v1/keys", Vec::new())).await?),
            Self::Log { broker, .. } => {
                let keys = broker.keys(&Identity::Operator).await?;
                Ok(Listed { keys: keys.iter().map(|info| shown(info, None)).collect::<anyhow::Result<_>>()? })
            }
        }
    }

    async fn revoke(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Server(client) => {
                let path = format!("/v1/keys/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
                client.ask(&ask(Method::DELETE, &path, Vec::new())).await.map(drop)
            }
            Self::Log { broker, .. } => Ok(broker.revoke_key(&Identity::Operator, id).await?),
        }
    }

    /// Lets the log commit and close.
    async fn close(self) {
        if let Self::Log { broker, lifecycle, _state } = self {
            lifecycle.drain();
            drop(broker);
            lifecycle.core_ended(CLOSE_DEADLINE).await;
        }
    }
}

fn ask(method: Method, path: &str, body: Vec<u8>) -> Ask<'_> {
    Ask { method, path, content_type: "application/json", headers: &[], body: Bytes::from(body) }
}

fn read<T: for<'a> Deserialize<'a>>(answer: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(answer).context("the server's answer can't be read")
}

/// Both ways show a key alike: as the wire has it.
fn shown(info: &KeyInfo, key: Option<&str>) -> anyhow::Result<Shown> {
    read(&serde_json::to_vec(&KeyInfoBody::new(info, key))?)
}

fn table(keys: &[Shown]) -> String {
    let widest = |of: fn(&Shown) -> &str| keys.iter().map(|key| of(key).chars().count()).max().unwrap_or(0);
    let (id, name) = (widest(|key| &key.id), widest(|key| &key.name));
    let line = |key: &Shown| {
        let end = key.revoked_at.as_ref().map(|at| format!("  revoked {at}")).unwrap_or_default();
        format!("{:id$}  {:name$}  {}  {}{end}", key.id, key.name, key.created_at, key.scopes.join(" "))
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
        }
    }

    #[test]
    fn keys_stand_in_columns() {
        assert_eq!(
            table(&[key("a", "shop", None), key("bcd", "x", Some("later"))]),
            "a    shop  2026-11-21T00:00:00.000Z  publish users\n\
             bcd  x     2026-11-21T00:00:00.000Z  publish users  revoked later"
        );
        assert_eq!(table(&[]), "No keys yet; `tidings key create` makes one");
    }
}

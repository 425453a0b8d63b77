//! `tidings doctor` and `tidings compact`: whether what is stored is right, and a smaller file. What stands in front of
//! the server is `via`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;
use indicatif::BinaryBytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::client::{Ask, Client, read};
use super::reach::ServerArgs;
use super::show::number;
use super::via::ViaArgs;
use super::{Output, progress, say};

/// How long compacting may take: it rewrites the whole file.
const COMPACT_PATIENCE: Duration = Duration::from_hours(4);

const DOCTOR_EXAMPLES: &str = "\
Examples:
  tidings doctor --counts --data ./state
  tidings doctor --counts --repair --data ./state
  tidings doctor --counts --json --data ./state | jq -r .user
  tidings doctor --via https://app.example/tidings --data ./state
  tidings doctor --via https://localhost:8443 --ca proxy.crt --idle 0 --data ./state

--counts: recounts every user's entries one by one, beside the running server, and
compares. Ends with 0 where every count is right or was repaired, else with 1.
With --json one drifted user a line: {\"user\",\"stored\",\"recounted\"}.

--via: goes through the proxy as a browser does, publishes to the user tidings-doctor, and
measures: connection, HTTP version, buffering, compression, headers, WebSocket, silence.
Ends with 0 where nothing is at fault, else with 1 and what to change in nginx, HAProxy or
Caddy. A key needs the scopes tickets and publish, and users to leave no trace of the user.
With --json one object: {\"faults\",\"warnings\",\"findings\",\"figures\"}.";

const COMPACT_EXAMPLES: &str = "\
Examples:
  tidings compact --data ./state

Rewrites the file, so that nothing deleted can be found in it any more. It needs as much
free space again as the file has, and publishes wait meanwhile.";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Whether the stored counts are what a recount gives
    #[arg(long, required_unless_present = "via")]
    counts: bool,
    /// Put right what is not
    #[arg(long, requires = "counts")]
    repair: bool,
    #[command(flatten)]
    via: ViaArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = COMPACT_EXAMPLES)]
pub(super) struct CompactArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A page of a recount.
#[derive(Deserialize)]
struct Recounted {
    /// Looked at on this page.
    users: u64,
    /// All there are.
    of: u64,
    drifted: Vec<Box<RawValue>>,
    next: Option<i64>,
}

#[derive(Deserialize)]
struct Drifted {
    user: String,
    stored: Counts,
    recounted: Counts,
}

/// A user's counts.
#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    #[serde(flatten)]
    total: Tally,
    by_category: BTreeMap<String, Tally>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct Tally {
    unread: u64,
    unseen: u64,
}

/// The file's bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Compacted {
    before: u64,
    after: u64,
}

/// Compares what is stored with what a recount gives, or looks at what stands in front of the server.
///
/// # Errors
/// Where something is wrong and stays so, or the server can't be reached.
pub(super) async fn doctor(args: DoctorArgs) -> anyhow::Result<()> {
    let output = Output::of(args.json);
    if args.via.is_given() {
        return args.server.ask(async |client: &Client| args.via.run(client, output).await).await;
    }
    let (users, drifted) = args.server.ask(async |client: &Client| recount(client, args.repair, output).await).await?;
    if drifted > 0 && !args.repair {
        bail!(
            "the counts of {} out of {users} are wrong; `tidings doctor --counts --repair` puts them right",
            number(drifted, "user", "users")
        );
    }
    if output == Output::People {
        let mended =
            if drifted > 0 { format!("; {drifted} were wrong and have been put right") } else { String::new() };
        say(format_args!("The counts of {} are right{mended}", number(users, "user", "users")))?;
    }
    Ok(())
}

/// Rewrites the database file.
///
/// # Errors
/// Where it could not be rewritten, or the server can't be reached.
pub(super) async fn compact(args: CompactArgs) -> anyhow::Result<()> {
    let compacted = args.server.ask(compact_now).await?;
    match Output::of(args.json) {
        Output::Json => say(serde_json::to_string(&compacted)?),
        Output::People => say(compacted.told()),
    }
}

/// Asks for it and waits for as long as it takes.
///
/// # Errors
/// As [`compact`].
pub(super) async fn compact_now(client: &Client) -> anyhow::Result<Compacted> {
    let spinner = progress::spinner("Compacting; publishes wait");
    let compacted = client.read(&Ask::new(Method::POST, "/v1/upkeep/compact").patient(COMPACT_PATIENCE)).await;
    spinner.finish_and_clear();
    compacted
}

/// Puts wrong counts right and says nothing of it.
///
/// # Errors
/// Those of the client.
pub(super) async fn repair_counts(client: &Client) -> anyhow::Result<()> {
    let mut next = Some(0);
    while let Some(after) = next {
        let ask = Ask::new(Method::POST, "/v1/upkeep/recount").json(&json!({ "after": after, "repair": true }))?;
        next = client.read::<Recounted>(&ask).await?.next;
    }
    Ok(())
}

/// Recounts page by page and tells who drifted; how many users there were, and how many of them drifted.
async fn recount(client: &Client, repair: bool, output: Output) -> anyhow::Result<(u64, u64)> {
    let progress = progress::bar("users");
    let (mut users, mut drifted, mut next) = (0, 0, Some(0));
    while let Some(after) = next {
        let ask = Ask::new(Method::POST, "/v1/upkeep/recount").json(&json!({ "after": after, "repair": repair }))?;
        let page: Recounted = client.read(&ask).await?;
        users += page.users;
        drifted += page.drifted.len() as u64;
        progress.set_length(page.of);
        progress.set_position(users);
        for raw in &page.drifted {
            let line = match output {
                Output::Json => raw.get().to_owned(),
                Output::People => read::<Drifted>(raw.get().as_bytes())?.told(),
            };
            progress.suspend(|| say(line))?;
        }
        next = page.next;
    }
    progress.finish_and_clear();
    Ok((users, drifted))
}

impl Drifted {
    /// What differs, and nothing else.
    fn told(&self) -> String {
        let (stored, recounted) = (&self.stored, &self.recounted);
        let categories: BTreeSet<_> = stored.by_category.keys().chain(recounted.by_category.keys()).collect();
        let tally = |counts: &Counts, name: &String| counts.by_category.get(name).copied().unwrap_or_default();
        let each = categories.iter().map(|name| (name.as_str(), tally(stored, name), tally(recounted, name)));
        let differences: Vec<_> = std::iter::once(("in all", stored.total, recounted.total))
            .chain(each)
            .filter(|(_, stored, recounted)| stored != recounted)
            .map(|(what, stored, recounted)| format!("{what} stored {stored}, recounted {recounted}"))
            .collect();
        format!("{}: {}", self.user, differences.join("; "))
    }
}

impl Counts {
    pub(super) fn told(&self) -> String {
        let each = self.by_category.iter().map(|(name, tally)| format!("{name}: {tally}"));
        std::iter::once(self.total.to_string()).chain(each).collect::<Vec<_>>().join("\n")
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} unread, {} unseen", self.unread, self.unseen)
    }
}

impl Compacted {
    pub(super) fn told(&self) -> String {
        format!("The file has {}; it had {}", BinaryBytes(self.after), BinaryBytes(self.before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifted_user_is_told_with_what_differs() {
        let drifted: Drifted = read(
            br#"{"user":"alice",
                "stored":{"unread":3,"unseen":1,
                    "by_category":{"loans":{"unread":2,"unseen":1},"news":{"unread":1,"unseen":0}}},
                "recounted":{"unread":2,"unseen":1,"by_category":{"loans":{"unread":2,"unseen":1}}}}"#,
        )
        .expect("a drifted user");
        assert_eq!(
            drifted.told(),
            "alice: in all stored 3 unread, 1 unseen, recounted 2 unread, 1 unseen; \
             news stored 1 unread, 0 unseen, recounted 0 unread, 0 unseen"
        );
    }

    #[test]
    fn sizes_are_told_for_people() {
        assert_eq!(Compacted { before: 3 << 20, after: 1536 }.told(), "The file has 1.50 KiB; it had 3.00 MiB");
    }
}

//! `tidings status`, `tidings reload`, `tidings revoke`: a running server, at a glance and in hand.

use anyhow::bail;
use clap::Args;
use http::Method;
use indicatif::{BinaryBytes, HumanCount};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Ask, Client, read};
use super::reach::ServerArgs;
use super::show::number;
use super::{Output, say, segment};
use crate::model::UserId;

const STATUS_EXAMPLES: &str = "\
Examples:
  tidings status --data /var/lib/tidings
  tidings status --data ./state --json | jq .users_online
  tidings status --url http://127.0.0.1:8383 --key-file admin.key

Ends with 1 where the server is not ready, and says why, or where none runs.";

/// Said where a question is for a server that runs, and this process had to be one.
pub(super) const NOBODY: &str = "no server runs there; `tidings serve`, or `systemctl start tidings`, starts one";

const RELOAD_EXAMPLES: &str = "\
Examples:
  tidings reload --data /var/lib/tidings
  tidings config check && tidings reload --data /var/lib/tidings

Reads the settings again, as SIGHUP does: all of what can change while the server runs, or,
where a file is wrong, nothing. Names the settings that have changed and need a restart.";

const REVOKE_EXAMPLES: &str = "\
Examples:
  tidings revoke --user alice --data ./state
  tidings revoke --user alice --lift --data ./state

Every token, cookie and ticket of the user that was made until now is refused from here on,
and open streams end. A token that does not say when it was made (`iat`) counts as made
before, so put `iat` into yours. Where a proxy signs people in, end the session there too.";

/// Flags of `status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `reload`.
#[derive(Debug, Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `revoke`.
#[derive(Debug, Args)]
#[command(after_help = REVOKE_EXAMPLES)]
pub(super) struct RevokeArgs {
    /// Whose access is taken back
    #[arg(long, value_parser = UserId::new)]
    user: UserId,
    /// Give it back: what was refused is good again until it runs out
    #[arg(long)]
    lift: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Messages of the queue that were not taken, as many as fit the screen, and what is shown of each; `--json` has more.
const MAX_UNTAKEN: usize = 3;
const MAX_DETAIL_CHARS: usize = 30;

/// How a server is, as far as it is shown.
#[derive(Deserialize)]
struct Status {
    version: String,
    status: String,
    why: Option<String>,
    started_at: String,
    uptime_s: u64,
    listens: Vec<String>,
    cursor: String,
    users_online: u64,
    connections: Connections,
    sockets: u64,
    sockets_max: u64,
    publishes: u64,
    deliveries: u64,
    errors: u64,
    limited: u64,
    lags: u64,
    panics: u64,
    count_drift: u64,
    revocations: u64,
    queue_bytes: u64,
    database_bytes: u64,
    wal_bytes: u64,
    disk_free_bytes: Option<u64>,
    resident_memory_bytes: u64,
    open_files: u64,
    open_files_max: u64,
    intake: Option<Intake>,
}

#[derive(Deserialize)]
struct Intake {
    state: String,
    why: Option<String>,
    untaken: Vec<Untaken>,
}

#[derive(Deserialize)]
struct Untaken {
    at: String,
    reason: String,
    detail: String,
}

#[derive(Deserialize)]
struct Connections {
    sse: u64,
    poll: u64,
    ws: u64,
}

#[derive(Deserialize)]
struct Reloaded {
    needs_restart: Vec<String>,
}

#[derive(Deserialize)]
struct Revoked {
    revoked: bool,
    ended: usize,
}

/// Shows how the server is.
///
/// # Errors
/// Where it is not ready, or can't be reached.
pub(super) async fn status(args: StatusArgs) -> anyhow::Result<()> {
    let ask = Ask::get("/v1/status");
    let (raw, own): (Box<RawValue>, bool) =
        args.server.ask(async |client: &Client| Ok((client.read(&ask).await?, client.is_own()))).await?;
    if own {
        bail!("{NOBODY}");
    }
    let status: Status = read(raw.get().as_bytes())?;
    match Output::of(args.json) {
        Output::Json => say(&raw)?,
        Output::People => say(status.told())?,
    }
    match (status.status.as_str(), status.why) {
        ("ready", _) => Ok(()),
        (other, why) => bail!("the server is {other}: {}", why.unwrap_or_else(|| "it is shutting down".to_owned())),
    }
}

/// Has the settings read again.
///
/// # Errors
/// Every fault of the settings, or that the server can't be reached.
pub(super) async fn reload(args: ReloadArgs) -> anyhow::Result<()> {
    let ask = Ask::new(Method::POST, "/v1/upkeep/reload");
    let raw: Box<RawValue> = args.server.ask(async |client: &Client| client.read(&ask).await).await?;
    let Reloaded { needs_restart } = read(raw.get().as_bytes())?;
    match Output::of(args.json) {
        Output::Json => say(&raw),
        Output::People if needs_restart.is_empty() => say("The settings were read again"),
        Output::People => say(format_args!(
            "The settings were read again; these have changed and count only after a restart: {}",
            needs_restart.join(", ")
        )),
    }
}

/// Takes a user's access back, or gives it back.
///
/// # Errors
/// Where the server refuses or can't be reached.
pub(super) async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let method = if args.lift { Method::DELETE } else { Method::PUT };
    let ask = Ask::new(method, format!("/v1/users/{}/revocation", segment(args.user.as_str())));
    let raw: Box<RawValue> = args.server.ask(async |client: &Client| client.read(&ask).await).await?;
    let Revoked { revoked, ended } = read(raw.get().as_bytes())?;
    match Output::of(args.json) {
        Output::Json => say(&raw),
        Output::People if revoked => say(format_args!(
            "What {} was let in with until now is refused; {} ended",
            args.user,
            number(ended as u64, "stream", "streams")
        )),
        Output::People => say(format_args!("What {} was let in with is good again until it runs out", args.user)),
    }
}

impl Status {
    fn told(&self) -> String {
        let count = HumanCount;
        let bytes = |bytes: u64| BinaryBytes(bytes).to_string();
        let free = self.disk_free_bytes.map(|free| format!("; {} free", bytes(free))).unwrap_or_default();
        let listens = if self.listens.is_empty() { "nowhere".to_owned() } else { self.listens.join(" and ") };
        let Connections { sse, poll, ws } = self.connections;
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let mut lines = vec![
            ("Tidings", format!("{} is {}{why}", self.version, self.status)),
            ("since", format!("{} ({})", self.started_at, uptime(self.uptime_s))),
            ("listens on", listens),
            (
                "online",
                format!(
                    "{} by {}",
                    number(self.users_online, "user", "users"),
                    format_args!("{} SSE, {} long poll, {} WebSocket", count(sse), count(poll), count(ws))
                ),
            ),
            ("sockets", format!("{} of {}", count(self.sockets), count(self.sockets_max))),
            (
                "since then",
                format!(
                    "{}, {}",
                    number(self.publishes, "publish", "publishes"),
                    number(self.deliveries, "frame delivered", "frames delivered")
                ),
            ),
            (
                "refused",
                format!(
                    "{}, {} by a limit, {}",
                    number(self.errors, "request", "requests"),
                    count(self.limited),
                    number(self.revocations, "user's access taken back", "users' access taken back")
                ),
            ),
            ("waiting", format!("{} in queues; {}", bytes(self.queue_bytes), number(self.lags, "lag", "lags"))),
            (
                "log",
                format!(
                    "at {}; {}, write-ahead log {}{free}",
                    self.cursor,
                    bytes(self.database_bytes),
                    bytes(self.wal_bytes)
                ),
            ),
            (
                "process",
                format!(
                    "{}, {} of {} files",
                    bytes(self.resident_memory_bytes),
                    count(self.open_files),
                    count(self.open_files_max)
                ),
            ),
            (
                "faults",
                format!(
                    "{}, {}",
                    number(self.panics, "panic", "panics"),
                    number(self.count_drift, "user with wrong counts", "users with wrong counts")
                ),
            ),
        ];
        if let Some(Intake { state, why, untaken }) = &self.intake {
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            lines.push(("queue", format!("{state}{why}")));
            lines.extend(untaken.iter().take(MAX_UNTAKEN).map(|Untaken { at, reason, detail }| {
                let more = if detail.chars().count() > MAX_DETAIL_CHARS { "…" } else { "" };
                let detail: String = detail.chars().take(MAX_DETAIL_CHARS).collect();
                ("not taken", format!("{at} {reason}: {detail}{more}"))
            }));
        }
        let lines: Vec<String> = lines.into_iter().map(|(name, value)| format!("{name:>10}  {value}")).collect();
        lines.join("\n")
    }
}

/// The two largest units.
fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{} {hours} h", number(days, "day", "days")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uptime_has_two_units() {
        assert_eq!([5, 65, 3_700, 90_000].map(uptime), ["5 s", "1 min 5 s", "1 h 1 min", "1 day 1 h"]);
    }

    #[test]
    fn a_status_fits_one_screen_and_says_why() {
        let status: Status = read(
            br#"{"version":"0.1.0","status":"degraded","why":"the disk is full","started_at":"2026-11-22T00:00:00.000Z",
            "uptime_s":65,"listens":["http://127.0.0.1:8383"],"cursor":"k7.5","users_online":2,
            "connections":{"sse":1200,"poll":0,"ws":1},"sockets":1203,"sockets_max":19872,"publishes":1,"deliveries":3,
            "errors":4,"limited":0,"lags":0,"panics":0,"count_drift":0,"revocations":1,"queue_bytes":0,
            "database_bytes":1536,"wal_bytes":0,"disk_free_bytes":1048576,"resident_memory_bytes":1048576,
            "open_files":12,"open_files_max":20000,"intake":{"state":"consuming","why":null,"untaken":[
              {"at":"2026-11-22T00:00:01.000Z","reason":"invalid","detail":"/titel: is no field of a publish; did you mean title?"},
              {"at":"2026-11-22T00:00:00.000Z","reason":"bad-json","detail":"it is empty"}]}}"#,
        )
        .expect("a status");
        let told = status.told();
        assert!(told.lines().count() <= 24 && told.lines().all(|line| line.chars().count() <= 80), "{told}");
        assert!(told.starts_with("   Tidings  0.1.0 is degraded: the disk is full\n"), "{told}");
        assert!(told.contains("1,200 SSE, 0 long poll, 1 WebSocket"), "{told}");
        let queue = "     queue  consuming\n not taken  2026-11-22T00:00:01.000Z invalid: /titel: is no field of a publi…\n not taken  \
                     2026-11-22T00:00:00.000Z bad-json: it is empty";
        assert!(told.ends_with(queue), "{told}");
    }
}

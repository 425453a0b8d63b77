//! `tidings publish`: the outside script's way to ring a bell, over TCP with a key or over the unix socket as operator.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args as ClapArgs;
use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::client::{Ask, Client, read};
use super::reach::ServerArgs;
use super::{Output, Usage, batch, say};
use crate::model::MAX_BODY_CHARS;

/// Bytes that are read of a body: four for each character, and one to see that there is more.
const MAX_BODY_BYTES: u64 = 4 * MAX_BODY_CHARS as u64 + 1;

const EXAMPLES: &str = "\
Examples:
  tidings publish --data ./state --to user:alice --title Due 'It ends on Friday'
  df -h | tidings publish --to topic:ops --title Disk --key-file ./key
  tidings publish --to everyone --title 'Closed on Monday' --priority 4
  tidings publish --to topic:ops --collapse disk --expires-in 2h --title 'Disk is full'
  tidings publish --to everyone --deliver-at 2026-12-24T08:00:00Z --title 'Closed today'
  tidings publish --to user:alice --via email --title Due 'It ends on Friday'
  tidings publish --batch --json < notifications.ndjson

Which server: --url, --socket or --data; else TIDINGS_URL; else http://127.0.0.1:8383.
As whom: --key-file, --key or TIDINGS_KEY; with --data as its operator.
Without --idempotency-key one is made, so that a try without an answer is repeated
and doubles nothing.";

/// Flags of `publish`.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// For whom: user:<id>, topic:<name> or everyone
    #[arg(long, value_name = "AUDIENCE", required_unless_present = "batch")]
    to: Option<String>,
    /// One line
    #[arg(long)]
    title: Option<String>,
    /// The text; `-`, or nothing while something is piped in, reads standard input
    #[arg(conflicts_with = "body_file")]
    body: Option<String>,
    /// Read the text from a file
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// What kind of thing it is about, such as loans [default: general]
    #[arg(long)]
    category: Option<String>,
    /// 1 (least) to 5 (most) [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    priority: Option<u8>,
    /// Where a click leads: http, https or mailto
    #[arg(long, value_name = "URL")]
    click: Option<String>,
    /// A picture beside it
    #[arg(long, value_name = "URL")]
    icon: Option<String>,
    /// Who says it
    #[arg(long, value_name = "NAME")]
    sender: Option<String>,
    /// JSON for your own page, kept as given (the field `data`)
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// What it is about: the newer of two with the same key takes the older one's place
    #[arg(long, value_name = "KEY")]
    collapse: Option<String>,
    /// Deliver it so much later: 90s, 10m, 2h, 7d
    #[arg(long, value_name = "DURATION", conflicts_with = "deliver_at")]
    delay: Option<String>,
    /// Deliver it then, such as 2026-12-24T08:00:00Z
    #[arg(long, value_name = "TIME")]
    deliver_at: Option<String>,
    /// Take it out of lists and counts so long after its delivery
    #[arg(long, value_name = "DURATION", conflicts_with = "expires_at")]
    expires_in: Option<String>,
    /// Take it out of lists and counts then
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Send it by this medium too: email, dingtalk; may be given more than once
    #[arg(long, value_name = "MEDIUM")]
    via: Vec<String>,
    /// Names this publish: a repetition with the same key changes nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Publish one notification a line of standard input, as POST /v1/notifications takes them
    #[arg(long, conflicts_with_all = ["to", "title", "body", "body_file", "category", "priority", "click", "icon", "sender", "payload", "collapse", "delay", "deliver_at", "expires_in", "expires_at", "via", "idempotency_key"])]
    batch: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    via: &'a [String],
}

#[derive(Deserialize)]
struct Published {
    id: String,
    /// Where it stands in the log; not yet where it is scheduled.
    cursor: Option<String>,
    /// When it is delivered, where it is scheduled.
    due: Option<String>,
    recipients: Option<u64>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    if args.batch {
        return args.server.ask(async |client: &Client| batch::run(client, Output::of(args.json)).await).await;
    }
    let text = args.text()?;
    let body = args.to_json(text.as_deref())?;
    let key = args.idempotency_key.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let headers = [(HeaderName::from_static("idempotency-key"), key.as_str())];
    let ask = Ask { body: Bytes::from(body), ..Ask::new(Method::POST, "/v1/notifications") }.with_headers(&headers);
    let answer = args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    if args.json {
        return say(String::from_utf8_lossy(&answer));
    }
    say(read::<Published>(&answer)?.told())
}

impl Published {
    fn told(&self) -> String {
        if let Some(due) = &self.due {
            return format!("Scheduled {} for {due}", self.id);
        }
        let reached = match self.recipients {
            None => "to everyone".to_owned(),
            Some(1) => "to 1 person".to_owned(),
            Some(many) => format!("to {many} people"),
        };
        format!("Published {} {reached} at {}", self.id, self.cursor.as_deref().unwrap_or_default())
    }
}

impl Args {
    /// What the notification says: the argument, a file, or what is piped in.
    fn text(&self) -> anyhow::Result<Option<String>> {
        let stdin = std::io::stdin();
        let piped = match (&self.body, &self.body_file) {
            (Some(text), _) if text != "-" => return Ok(Some(text.clone())),
            (None, Some(path)) => {
                let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                return read_text(file).with_context(|| format!("cannot read {}", path.display())).map(Some);
            }
            (None, None) if stdin.is_terminal() => return Ok(None),
            _ => read_text(stdin).context("cannot read standard input")?,
        };
        // A script that runs without a terminal has an empty standard input, and a title is enough.
        Ok((!piped.is_empty()).then_some(piped))
    }

    fn to_json(&self, text: Option<&str>) -> anyhow::Result<Vec<u8>> {
        let data = self.payload.as_deref().map(serde_json::from_str::<&RawValue>).transpose();
        let body = Body {
            to: self.to.as_deref().unwrap_or_default(),
            title: self.title.as_deref(),
            body: text,
            category: self.category.as_deref(),
            priority: self.priority,
            click: self.click.as_deref(),
            icon: self.icon.as_deref(),
            sender: self.sender.as_deref(),
            data: data.map_err(|e| Usage(format!("--payload must be JSON: {e}")))?,
            collapse: self.collapse.as_deref(),
            delay: self.delay.as_deref(),
            deliver_at: self.deliver_at.as_deref(),
            expires_in: self.expires_in.as_deref(),
            expires_at: self.expires_at.as_deref(),
            via: &self.via,
        };
        Ok(serde_json::to_vec(&body)?)
    }
}

/// Reads no more than a body may have and a little, so that the server can say that it is too long.
fn read_text(from: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX_BODY_BYTES).read_to_string(&mut text)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from(["publish"].iter().chain(line)).map(|line| line.args)
    }

    #[test]
    fn flags_become_the_fields_of_the_contract() {
        let given =
            args(&["--to", "user:alice", "--title", "T", "--priority", "5", "--payload", "{\"n\": 1.0}", "text"]);
        let given = given.expect("valid flags");
        let text = given.text().expect("no file is read");
        let json = String::from_utf8(given.to_json(text.as_deref()).expect("valid JSON")).expect("UTF-8");
        assert_eq!(json, r#"{"to":"user:alice","title":"T","body":"text","priority":5,"data":{"n": 1.0}}"#);
        let body = crate::wire::publish::parse(json.as_bytes(), crate::wire::publish::Place::Request);
        assert!(body.is_ok_and(|b| b.draft.content.data.as_deref() == Some("{\"n\":1.0}")));
    }

    #[test]
    fn wrong_flags_are_refused() {
        assert!(args(&["--title", "nobody"]).is_err());
        assert!(args(&["--to", "everyone", "--priority", "6"]).is_err());
        assert!(args(&["--batch", "--to", "everyone"]).is_err());
        assert!(args(&["--to", "everyone", "--url", "http://x", "--data", "d"]).is_err());
        assert!(args(&["--batch"]).is_ok());
        let bad = args(&["--to", "everyone", "--payload", "{"]).expect("flags are fine");
        assert!(bad.to_json(None).is_err_and(|e| e.is::<Usage>()));
    }

    #[test]
    fn texts_lose_their_last_line_break_and_are_read_in_bounds() {
        assert_eq!(read_text("a\n\n".as_bytes()).expect("UTF-8"), "a");
        let long = "x".repeat(100_000);
        let read = read_text(long.as_bytes()).expect("UTF-8").len();
        assert!(read > MAX_BODY_CHARS && read < 100_000);
    }
}

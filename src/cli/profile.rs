//! `tidings user set` and `show`: who a person is to those who reach them.

use std::collections::BTreeMap;

use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{Ask, Client, read};
use super::reach::ServerArgs;
use super::show::fields;
use super::user::path;
use super::{Output, Usage, say};
use crate::model::{About, Medium, UserId};

pub(super) const SHOW_EXAMPLES: &str = "\
Examples:
  tidings user show alice --data ./state
  tidings user show alice --data ./state --json | jq -r .email";

pub(super) const SET_EXAMPLES: &str = "\
Examples:
  tidings user set alice --email alice@example.com --locale zh-CN --data ./state
  tidings user set alice --time-zone Asia/Shanghai --prefer loans/email=no --data ./state
  tidings user set alice --clear dingtalk --prefer loans/email= --data ./state

What is not named stays. A preference is <category>/<medium>=yes|no, `*` being every category
without a word of its own; without a value it is taken back.";

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
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
pub(super) struct SetArgs {
    /// Who
    #[arg(value_parser = UserId::new)]
    user: UserId,
    /// What the person is called
    #[arg(long)]
    name: Option<String>,
    /// Where mail goes
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// The language (BCP 47), such as zh-Hant-TW
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// The time zone, such as Asia/Shanghai
    #[arg(long, value_name = "NAME")]
    time_zone: Option<String>,
    /// The `userid` or mobile number in DingTalk
    #[arg(long, value_name = "ID")]
    dingtalk: Option<String>,
    /// What is wanted, as <category>/<medium>=yes|no; can be given more than once
    #[arg(long = "prefer", value_name = "WISH")]
    preferences: Vec<String>,
    /// A field to clear: name, email, locale, `time_zone`, dingtalk or preferences; can be given more than once
    #[arg(long, value_name = "FIELD")]
    clear: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A profile as it is shown.
#[derive(Debug, Deserialize)]
struct Shown {
    user: String,
    name: Option<String>,
    email: Option<String>,
    locale: Option<String>,
    time_zone: Option<String>,
    dingtalk: Option<String>,
    preferences: BTreeMap<String, BTreeMap<String, bool>>,
}

pub(super) async fn show(args: ShowArgs) -> anyhow::Result<()> {
    tell(&args.server, &Ask::get(path(&args.user)), Output::of(args.json)).await
}

pub(super) async fn set(args: SetArgs) -> anyhow::Result<()> {
    let ask = Ask::new(Method::PUT, path(&args.user)).json(&change(&args)?)?;
    tell(&args.server, &ask, Output::of(args.json)).await
}

async fn tell(server: &ServerArgs, ask: &Ask<'_>, output: Output) -> anyhow::Result<()> {
    let answer = server.ask(async |client: &Client| client.ask(ask).await).await?;
    match output {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => say(read::<Shown>(&answer)?.told()),
    }
}

/// The change that the flags ask for.
fn change(args: &SetArgs) -> anyhow::Result<Map<String, Value>> {
    let mut change = Map::new();
    for field in &args.clear {
        change.insert(field.clone(), Value::Null);
    }
    let named = [
        ("name", &args.name),
        ("email", &args.email),
        ("locale", &args.locale),
        ("time_zone", &args.time_zone),
        ("dingtalk", &args.dingtalk),
    ];
    for (field, value) in named {
        if let Some(value) = value {
            change.insert(field.to_owned(), value.as_str().into());
        }
    }
    if !args.preferences.is_empty() {
        let mut preferences: Map<String, Value> = Map::new();
        for text in &args.preferences {
            let (about, medium, wish) = wish(text)?;
            let media = preferences.entry(about).or_insert_with(|| Map::new().into());
            media.as_object_mut().and_then(|media| media.insert(medium, wish));
        }
        change.insert("preferences".to_owned(), preferences.into());
    }
    if change.is_empty() {
        return Err(Usage("nothing to set; name a field, such as --email".to_owned()).into());
    }
    Ok(change)
}

/// Reads `loans/email=no`.
fn wish(text: &str) -> Result<(String, String, Value), Usage> {
    let read = || {
        let (of, wish) = text.split_once('=')?;
        let (about, medium) = of.split_once('/')?;
        let wish = match wish {
            "yes" => Value::Bool(true),
            "no" => Value::Bool(false),
            "" => Value::Null,
            _ => return None,
        };
        Some((About::parse(about)?.as_str().to_owned(), Medium::parse(medium)?.as_str().to_owned(), wish))
    };
    read().ok_or_else(|| Usage(format!("`{text}` is no <category>/<medium>=yes|no; the media are {}", Medium::NAMES)))
}

impl Shown {
    fn told(&self) -> String {
        let mut lines = vec![
            ("user", Some(self.user.clone())),
            ("name", self.name.clone()),
            ("email", self.email.clone()),
            ("locale", self.locale.clone()),
            ("time zone", self.time_zone.clone()),
            ("dingtalk", self.dingtalk.clone()),
        ];
        let wishes: Vec<String> = self
            .preferences
            .iter()
            .flat_map(|(about, media)| {
                media
                    .iter()
                    .map(move |(medium, wanted)| format!("{about}/{medium}={}", if *wanted { "yes" } else { "no" }))
            })
            .collect();
        lines.push(("wants", (!wishes.is_empty()).then(|| wishes.join(" "))));
        fields(&lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_and_taken_back() {
        let told = |text: &str| wish(text).map(|(about, medium, wish)| format!("{about} {medium} {wish}")).ok();
        assert_eq!(told("loans/email=no").as_deref(), Some("loans email false"));
        assert_eq!(told("*/dingtalk=yes").as_deref(), Some("* dingtalk true"));
        assert_eq!(told("loans/email=").as_deref(), Some("loans email null"));
        for bad in ["", "loans/email", "loans/fax=no", "a b/email=no", "loans=no", "loans/email=maybe"] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }
}

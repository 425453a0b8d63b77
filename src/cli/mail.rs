//! `tidings mail check`: sends one mail step by step and says at the first step that fails what is wrong and what to do.
//!
//! It needs no running server and no state directory: it reads the settings that a server would read, and connects to the
//! relay from here. **Invariant**: no password is printed.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::settings::Place;
use super::{Output, Usage, say};
use crate::clock::Clock;
use crate::deliver::email::{Email, Trial};
use crate::model::{Bulk, Category, DeliveryId, Letter, Locale, Medium, NotificationId, Parcel, UserId};
use crate::server::secrets;

const CHECK_EXAMPLES: &str = "\
Examples:
  tidings mail check --to you@example.org            with the settings of the installed server
  tidings mail check --to you@example.org --config tidings.toml
  tidings mail check --to you@example.org --json     for scripts

A mail goes out. Each step is told as it went; at the first that fails, what to do, and the
exit code is 1. Settings that name no relay end with 64.
With --json: {\"ok\",\"relay\",\"steps\":[{\"step\",\"ok\",\"told\"}],\"advice\"}.";

/// What is done about mail.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Send one mail, and say what is wrong with the set-up where it does not go out.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    place: Place,
    /// Whom to write to
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// What a check came to, for scripts.
#[derive(Serialize)]
struct Checked<'a> {
    ok: bool,
    relay: &'a str,
    steps: Vec<StepTold>,
    advice: &'a str,
}

#[derive(Serialize)]
struct StepTold {
    step: &'static str,
    ok: bool,
    told: String,
}

/// The mail did not go out; which step failed stands above it.
#[derive(Debug, thiserror::Error)]
#[error("mail can't be sent as it is set up")]
struct Unsent;

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Check(args) => check(args).await,
    }
}

async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let to = crate::model::Email::new(&args.to).map_err(|e| Usage(format!("--to {}: {e}", args.to)))?;
    let config = args.place.load([])?;
    let mut mail = config.deliver.email.ok_or_else(|| {
        Usage("mail is not set up: name a relay in [email] url, such as smtp://library@mail.example:587".to_owned())
    })?;
    if let Some(path) = &mail.password_file {
        mail.relay.set_password(secrets::password(path)?);
    }
    let relay = mail.relay.to_string();
    let email = Email::new(*mail)?;
    let trial = email.try_out(&parcel(&to, &relay)?).await;
    let steps = told(&trial);
    match Output::of(args.json) {
        Output::Json => {
            let checked = Checked { ok: trial.fault.is_none(), relay: &relay, steps, advice: trial.advice };
            say(serde_json::to_string(&checked)?)?;
        }
        Output::People => {
            for StepTold { step, ok, told } in &steps {
                say(format_args!("{:4} {step:10} {told}", if *ok { "ok" } else { "FAIL" }))?;
            }
            if trial.fault.is_none() {
                say(format_args!("The relay has taken it. Look whether it arrives at {to}, and in which folder."))?;
            } else {
                say(trial.advice)?;
            }
        }
    }
    if trial.fault.is_some() { Err(Unsent.into()) } else { Ok(()) }
}

fn told(trial: &Trial) -> Vec<StepTold> {
    let passed =
        trial.passed.iter().map(|passed| StepTold { step: passed.step.as_str(), ok: true, told: passed.told.clone() });
    let failed =
        trial.fault.iter().map(|fault| StepTold { step: fault.step.as_str(), ok: false, told: fault.why.to_string() });
    passed.chain(failed).collect()
}

/// A mail that belongs to no notification.
fn parcel(to: &crate::model::Email, relay: &str) -> anyhow::Result<Parcel> {
    let now = Clock::system().now();
    let letter = Letter {
        subject: "Tidings can send mail".to_owned(),
        text: format!(
            "This mail was sent by `tidings mail check` through {relay}, to see whether mail is set up right."
        ),
        ..Letter::default()
    };
    Ok(Parcel {
        delivery: DeliveryId(0),
        medium: Medium::Email,
        address: to.to_string(),
        lane: to.domain().to_ascii_lowercase(),
        message_id: format!("check-{}@tidings.invalid", now.as_millis()),
        attempt: 1,
        notification: NotificationId(uuid::Uuid::nil()),
        user: UserId::new("check").context("a user's id")?,
        category: Category::default(),
        locale: None,
        written_in: Some(Locale::new("en").context("a language")?),
        published_at: now,
        bulk: Bulk::Personal,
        letter,
    })
}

//! `tidings token`: signs users in from the command line, without a running server. Thousands at once for load tests.

use std::io::{BufWriter, Write};

use anyhow::{Context as _, anyhow};
use clap::Args as ClapArgs;
use serde::Serialize;

use super::settings::Place;
use super::{Output, Usage};
use crate::broker::{JwtConfig, TokenClaims, mint_token};
use crate::clock::Clock;
use crate::config::duration;
use crate::model::{Timestamp, TopicPattern, UserId};
use crate::server::state;

const EXAMPLES: &str = "\
Examples:
  tidings token --data ./state --user alice
  tidings token --data ./state --user alice --ttl 1h --topics 'orders/*,ops'
  tidings token --data ./state --user alice --scope publish --json
  seq -f 'user%g' 5000 | tidings token --data ./state --users - > tokens

The secret is token.key in the state directory (made at the first need), or the file
that [auth] jwt_secret_file names; audience and issuer come from the same settings.
`tidings revoke --user` takes back all that a user has until then.";

/// Flags of `token`.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Whose token
    #[arg(long, value_name = "ID", required_unless_present = "users", conflicts_with = "users")]
    user: Option<String>,
    /// One token a line for the ids in a file, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    users: Option<String>,
    /// How long it is good: 90s, 10m, 2h, 7d
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    ttl: String,
    /// Topics it may see, as names or beginnings with `*`, with commas [default: all that the user follows]
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    topics: Option<Vec<String>>,
    /// What it may do besides reading; there is `publish`
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Print {"user","token","expires"}, one a line
    #[arg(long)]
    json: bool,
}

/// What all tokens of one run have in common.
struct Mint {
    jwt: JwtConfig,
    issued: Timestamp,
    expires: Timestamp,
    topics: Option<Vec<TopicPattern>>,
    scope: Option<String>,
    output: Output,
}

#[derive(Serialize)]
struct Line<'a> {
    user: &'a str,
    token: &'a str,
    expires: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mint = Mint::from(args)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    match (&args.user, args.users.as_deref()) {
        (Some(user), _) => mint.write(user, &mut out)?,
        (None, Some("-")) => mint.write_all(std::io::stdin().lock(), &mut out)?,
        (None, path) => {
            let path = path.unwrap_or_default();
            let file = std::fs::File::open(path).with_context(|| format!("cannot read {path}"))?;
            mint.write_all(std::io::BufReader::new(file), &mut out)?;
        }
    }
    out.flush().context("cannot write to standard output")
}

impl Mint {
    fn from(args: &Args) -> anyhow::Result<Self> {
        let ttl = duration(&args.ttl).filter(|ttl| !ttl.is_zero());
        let ttl =
            ttl.ok_or_else(|| Usage(format!("--ttl {} is not a duration, such as 90s, 10m, 2h or 7d", args.ttl)))?;
        let pattern = |text: &String| {
            TopicPattern::new(text)
                .ok_or_else(|| Usage(format!("--topics: {text} is neither a topic nor a beginning of one with `*`")))
        };
        if let Some(unknown) = args.scope.iter().find(|scope| *scope != "publish") {
            return Err(Usage(format!("--scope {unknown}: a user's token may have `publish` and nothing else")).into());
        }
        let topics = args.topics.as_ref().map(|topics| topics.iter().map(pattern).collect()).transpose()?;
        let config = args.place.load([])?;
        let secret = state::token_secret(&config.data, config.jwt_secret_file.as_deref())?;
        let issued = Clock::system().now();
        Ok(Self {
            jwt: JwtConfig { secret, ..config.broker.jwt },
            issued,
            // A token tells its end in whole seconds, and so do we.
            expires: Timestamp::from_seconds(issued.after(ttl).as_seconds()),
            topics,
            scope: (!args.scope.is_empty()).then(|| args.scope.join(" ")),
            output: Output::of(args.json),
        })
    }

    fn write_all(&self, users: impl std::io::BufRead, out: &mut impl Write) -> anyhow::Result<()> {
        for (index, user) in users.lines().enumerate() {
            let user = user.with_context(|| format!("line {} can't be read", index + 1))?;
            let user = user.trim();
            if !user.is_empty() {
                self.write(user, out).with_context(|| format!("line {}", index + 1))?;
            }
        }
        Ok(())
    }

    fn write(&self, user: &str, out: &mut impl Write) -> anyhow::Result<()> {
        let claims = TokenClaims {
            user: UserId::new(user).map_err(|e| anyhow!(Usage(format!("{user:?}: {e}"))))?,
            expires: self.expires,
            issued: self.issued,
            topics: self.topics.clone(),
            scope: self.scope.clone(),
        };
        let token = mint_token(&self.jwt, &claims);
        match self.output {
            Output::People => writeln!(out, "{token}")?,
            Output::Json => {
                let line = Line { user, token: &token, expires: self.expires.to_string() };
                writeln!(out, "{}", serde_json::to_string(&line)?)?;
            }
        }
        Ok(())
    }
}

//! What makes `tidings demo` a demo: three users with tokens, a key, a topic they follow, and what the terminal shows.
//! The inbox begins empty: the first notification is the visitor's own.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::serve;
use crate::broker::{Broker, Credentials, TokenClaims, mint_token};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{self, DemoUser};
use crate::model::{FollowRule, Identity, Scope, TopicName, UserId};
use crate::server::state::{self, StateDir};
use crate::wire::manage::KeyBody;
use crate::wire::topic::TopicSettings;

/// Ids and names.
const USERS: [(&str, &str); 3] = [("alice", "Alice"), ("bob", "Bob"), ("carol", "Carol")];
/// What the demo's key is called.
const KEY_NAME: &str = "demo";
/// Where its text is kept, so that a line that was pasted once works after a restart too.
const KEY_FILE: &str = "demo.key";
/// The topic that the three follow.
const TOPIC: &str = "library";
/// How long the demo's tokens are good.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 86_400);

/// What scripts learn from the demo besides the rest.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    pub(super) key: String,
    pub(super) users: Vec<User>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct User {
    pub(super) id: String,
    #[serde(skip)]
    pub(super) name: &'static str,
    pub(super) token: String,
}

/// The users with fresh tokens, which may publish.
pub(super) fn users(config: &Config, state: &StateDir) -> anyhow::Result<Vec<User>> {
    let mut jwt = config.broker.jwt.clone();
    jwt.secret = state::token_secret(state.path(), config.jwt_secret_file.as_deref())?;
    let issued = Clock::system().now();
    let expires = issued.after(TOKEN_TTL);
    let mint = |(id, name)| {
        let claims = TokenClaims { user: user(id), expires, issued, topics: None, scope: Some("publish".to_owned()) };
        User { id: String::from(id), name, token: mint_token(&jwt, &claims) }
    };
    Ok(USERS.into_iter().map(mint).collect())
}

/// The users as the page of the demo offers them.
pub(super) fn sign_in(users: &[User]) -> http::Demo {
    let offer = |u: &User| DemoUser { id: u.id.clone(), name: u.name.to_owned(), token: u.token.clone() };
    http::Demo { users: users.iter().map(offer).collect() }
}

/// Makes the key and the topic with its followers. Doing it again changes nothing.
pub(super) async fn prepare(broker: &Broker, state: &StateDir, users: Vec<User>) -> anyhow::Result<Ready> {
    let operator = Identity::Operator;
    let key = match state.kept(KEY_FILE) {
        Some(key) if broker.authenticate(Credentials::Bearer(&key)).await.is_ok() => key,
        _ => {
            let body = KeyBody { name: KEY_NAME.to_owned(), scopes: Scope::ALL.to_vec() };
            let (_, key) = broker.create_key(&operator, body).await?;
            state.keep(KEY_FILE, &key)?;
            key
        }
    };
    let topic = TopicName::new(TOPIC).context("the demo's topic")?;
    // Open, so that the inbox shows how one leaves it; whoever has left is not put back by the next start.
    let settings = TopicSettings { follow: Some(FollowRule::Open), ..TopicSettings::default() };
    let (_, made) = broker.put_topic(&operator, &topic, settings).await?;
    for (id, _) in USERS.iter().filter(|_| made) {
        broker.follow(&operator, &topic, &user(id), 0).await?;
    }
    Ok(Ready { key, users })
}

fn user(id: &str) -> UserId {
    UserId::new(id).expect("the demo's ids are valid; a test makes them")
}

/// What a person sees in the terminal.
pub(super) fn welcome(ready: &serve::Ready, demo: &Ready) -> String {
    let mut text = format!("Tidings demo, with its data in {}\n\n", ready.data);
    let key = &demo.key;
    // Writing into a String can't fail.
    let _ = match &ready.url {
        Some(url) => write!(
            text,
            "  Sign in   {url}/demo     one click as Alice, Bob or Carol\n\
             \x20 Inbox     {url}/\n\
             \x20 Publish   {url}/publish\n\n\
             Ring Alice's bell from another terminal:\n\n\
             \x20 curl -u :{key} -H 'To: user:alice' -H 'Title: Hello' -d 'The first of many' {url}/v1/publish\n\n\
             or that of all three, who follow the topic {TOPIC}:\n\n\
             \x20 curl -u :{key} -d 'The library opens at ten' {url}/v1/publish/{TOPIC}\n\n"
        ),
        None => write!(
            text,
            "Listening on the unix socket only. Ring Alice's bell from another terminal:\n\n\
             \x20 tidings publish --data '{}' --to user:alice --title Hello 'The first of many'\n\n",
            ready.data
        ),
    };
    text.push_str("Ctrl-C ends it; the data stays.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_has_lines_that_can_be_pasted() {
        let ready = |url: Option<&str>| serve::Ready {
            ops: None,
            url: url.map(str::to_owned),
            socket: None,
            data: "/d".into(),
            demo: Some(Ready { key: "tk_1_2".into(), users: Vec::new() }),
        };
        let with = ready(Some("http://127.0.0.1:8383/base"));
        let text = welcome(&with, with.demo.as_ref().expect("it is a demo"));
        assert!(text.contains("\n  curl -u :tk_1_2 -H 'To: user:alice'"), "{text}");
        assert!(text.contains(" http://127.0.0.1:8383/base/v1/publish\n"), "{text}");
        assert!(text.contains("\n  Publish   http://127.0.0.1:8383/base/publish\n"), "{text}");
        let without = ready(None);
        assert!(welcome(&without, without.demo.as_ref().expect("it is a demo")).contains("--data '/d'"));
    }

    #[test]
    fn the_users_are_valid() {
        assert_eq!(USERS.map(|(id, _)| user(id).to_string()), ["alice", "bob", "carol"]);
        assert!(TopicName::new(TOPIC).is_ok());
    }
}

//! A publish as JSON, and its answer.

use serde::Serialize;
use serde_json::value::RawValue;

use super::event::Text;
use super::json::{BodyError, Fields, compact};
use crate::model::{
    Action, Audience, Category, Content, Cursor, Draft, MAX_RECIPIENTS, NotificationId, Priority, TopicName, UserId,
};

/// Characters of an idempotency key at most.
pub const MAX_IDEMPOTENCY_KEY: usize = 128;

/// A parsed publish. A line of a batch carries its own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishBody {
    pub draft: Draft,
    pub idempotency_key: Option<String>,
}

/// Where the body stands: only a line of a batch has a field for the key, since a request has a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Request,
    BatchLine,
}

/// Reads a publish.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn parse(body: &[u8], place: Place) -> Result<PublishBody, BodyError> {
    let mut fields = Fields::parse(body)?;
    let to = audience(&mut fields);
    let category = category(&mut fields, "category");
    let content = Content {
        title: fields.string("title").unwrap_or_default(),
        body: fields.string("body").unwrap_or_default(),
        priority: priority(&mut fields),
        data: fields.take("data").map(|raw| compact(raw.get())),
        icon: fields.string("icon"),
        click: fields.string("click"),
        actions: actions(&mut fields),
        sender: fields.string("sender"),
        category: category.clone().unwrap_or_default(),
    };
    let idempotency_key = match place {
        Place::Request => None,
        Place::BatchLine => fields.string("idempotency_key"),
    };
    if idempotency_key.as_deref().is_some_and(|key| !is_idempotency_key(key)) {
        fields.refuse("idempotency_key", IDEMPOTENCY_KEY_RULE);
    }
    let content = content.check().unwrap_or_else(|errors| {
        fields.absorb(errors);
        Content::default()
    });
    let errors = fields.finish();
    match to {
        Some(to) if errors.is_empty() => {
            Ok(PublishBody { draft: Draft { to, content, category_named: category.is_some() }, idempotency_key })
        }
        _ => Err(BodyError::Fields(errors)),
    }
}

/// What an idempotency key must be, for people.
pub const IDEMPOTENCY_KEY_RULE: &str = "must be 1 to 128 printable ASCII characters";

/// Whether a text may be an idempotency key.
pub fn is_idempotency_key(key: &str) -> bool {
    (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()) && key.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

fn audience(fields: &mut Fields<'_>) -> Option<Audience> {
    let Some(raw) = fields.take("to") else {
        fields.refuse(
            "to",
            "says who it is for: {\"user\":…}, {\"users\":[…]}, {\"topic\":…}, {\"everyone\":true}, or \"user:alice\"",
        );
        return None;
    };
    let found = if let Ok(short) = serde_json::from_str::<String>(raw.get()) {
        parse_short(&short).map_err(|detail| vec![("to".to_owned(), detail)])
    } else {
        long_audience(raw)
    };
    match found {
        Ok(audience) => Some(audience),
        Err(faults) => {
            for (name, detail) in faults {
                // Names here are paths below `to`, so the slash in them is meant.
                let pointer = fields.pointer(&name);
                fields.absorb([crate::model::ContentError { pointer, detail }]);
            }
            None
        }
    }
}

/// Reads the short form: `user:alice`, `topic:ops`, `everyone`.
///
/// # Errors
/// The rule that it breaks, in words.
pub fn parse_short(text: &str) -> Result<Audience, String> {
    match text.split_once(':') {
        Some(("user", user)) => UserId::new(user).map(|u| Audience::Users(vec![u])).map_err(|e| e.to_string()),
        Some(("topic", topic)) => topic_audience(topic),
        _ if text == TopicName::EVERYONE => Ok(Audience::Everyone),
        _ => Err("must be `user:<id>`, `topic:<name>` or `everyone`".to_owned()),
    }
}

/// The audience of a topic's name; `everyone` is a topic too.
///
/// # Errors
/// The rule that the name breaks, in words.
pub fn topic_audience(topic: &str) -> Result<Audience, String> {
    let topic = TopicName::new(topic).map_err(|e| e.to_string())?;
    Ok(if topic.is_everyone() { Audience::Everyone } else { Audience::Topic(topic) })
}

type Faults = Vec<(String, String)>;

fn long_audience(raw: &RawValue) -> Result<Audience, Faults> {
    let Some(mut inner) = Fields::inside("/to".to_owned(), raw) else {
        return Err(vec![("to".to_owned(), "must be an object or a short string such as \"user:alice\"".to_owned())]);
    };
    let one = |name: &str, detail: String| vec![(format!("to/{name}"), detail)];
    let user = inner.string("user");
    let users: Option<Vec<String>> = inner.read("users", "a list of user ids");
    let topic = inner.string("topic");
    let everyone: Option<bool> = inner.read("everyone", "true");
    let errors = inner.finish();
    if !errors.is_empty() {
        return Err(errors.into_iter().map(|e| (e.pointer[1..].to_owned(), e.detail)).collect());
    }
    match (user, users, topic, everyone) {
        (Some(user), None, None, None) => {
            UserId::new(&user).map(|u| Audience::Users(vec![u])).map_err(|e| one("user", e.to_string()))
        }
        (None, Some(users), None, None) => named_users(&users),
        (None, None, Some(topic), None) => topic_audience(&topic).map_err(|detail| one("topic", detail)),
        (None, None, None, Some(true)) => Ok(Audience::Everyone),
        _ => Err(vec![("to".to_owned(), "needs exactly one of user, users, topic, everyone:true".to_owned())]),
    }
}

fn named_users(users: &[String]) -> Result<Audience, Faults> {
    if users.is_empty() || users.len() > MAX_RECIPIENTS {
        let detail = format!("has {} users; 1 to {MAX_RECIPIENTS} are allowed", users.len());
        return Err(vec![("to/users".to_owned(), detail)]);
    }
    let mut faults = Vec::new();
    let mut known = std::collections::HashSet::with_capacity(users.len());
    let mut named = Vec::with_capacity(users.len());
    for (i, user) in users.iter().enumerate() {
        match UserId::new(user) {
            // A user named twice is one recipient.
            Ok(user) if known.insert(user.clone()) => named.push(user),
            Ok(_) => {}
            Err(e) => faults.push((format!("to/users/{i}"), e.to_string())),
        }
    }
    if faults.is_empty() { Ok(Audience::Users(named)) } else { Err(faults) }
}

/// Takes a category, where it is there.
pub fn category(fields: &mut Fields<'_>, name: &str) -> Option<Category> {
    let text = fields.string(name)?;
    Category::new(&text).map_err(|e| fields.refuse(name, e.to_string())).ok()
}

fn priority(fields: &mut Fields<'_>) -> Priority {
    let Some(value) = fields.read::<u64>("priority", "a whole number from 1 to 5") else { return Priority::default() };
    Priority::new(value).unwrap_or_else(|| {
        fields.refuse("priority", "must be a whole number from 1 to 5");
        Priority::default()
    })
}

fn actions(fields: &mut Fields<'_>) -> Vec<Action> {
    let Some(raws) = fields.read::<Vec<&RawValue>>("actions", "a list of {\"label\",\"click\"}") else {
        return Vec::new();
    };
    let mut actions = Vec::with_capacity(raws.len().min(8));
    for (i, raw) in raws.into_iter().enumerate() {
        let at = fields.pointer(&format!("actions/{i}"));
        let Some(mut inner) = Fields::inside(at.clone(), raw) else {
            fields.absorb([crate::model::ContentError { pointer: at, detail: "must be an object".to_owned() }]);
            continue;
        };
        let action = Action {
            label: inner.string("label").unwrap_or_default(),
            click: inner.string("click").unwrap_or_default(),
        };
        fields.absorb(inner.finish());
        actions.push(action);
    }
    actions
}

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub id: NotificationId,
    pub cursor: Cursor,
    /// Users reached when it was committed; `None` for everyone, who also are those who come later.
    pub recipients: Option<u64>,
    /// Whether this is the stored answer to an earlier request with the same key.
    pub replayed: bool,
}

/// [`Published`] as a body; in a batch with its status.
#[derive(Serialize)]
pub struct PublishedBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    id: Text<'a, NotificationId>,
    seq: u64,
    cursor: Text<'a, Cursor>,
    recipients: Option<u64>,
}

impl<'a> PublishedBody<'a> {
    pub fn new(published: &'a Published, place: Place) -> Self {
        Self {
            status: (place == Place::BatchLine).then_some(201),
            id: Text(&published.id),
            seq: published.cursor.seq.0,
            cursor: Text(&published.cursor),
            recipients: published.recipients,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(body: &str) -> Vec<String> {
        match parse(body.as_bytes(), Place::Request) {
            Err(BodyError::Fields(errors)) => errors.into_iter().map(|e| e.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_audience_is_read_in_both_forms() {
        let to =
            |to: &str| parse(format!(r#"{{"to":{to},"title":"x"}}"#).as_bytes(), Place::Request).map(|p| p.draft.to);
        let alice = || UserId::new("alice").expect("a user");
        assert_eq!(to(r#""user:alice""#), Ok(Audience::Users(vec![alice()])));
        assert_eq!(to(r#"{"user":"alice"}"#), Ok(Audience::Users(vec![alice()])));
        assert_eq!(to(r#"{"users":["alice","alice"]}"#), Ok(Audience::Users(vec![alice()])));
        assert_eq!(to(r#""topic:ops""#), Ok(Audience::Topic(TopicName::new("ops").expect("a topic"))));
        assert_eq!(to(r#"{"everyone":true}"#), Ok(Audience::Everyone));
        assert_eq!(to(r#""everyone""#), Ok(Audience::Everyone));
        assert_eq!(to(r#""topic:everyone""#), Ok(Audience::Everyone));
    }

    #[test]
    fn bad_audiences_are_pointed_at() {
        for (to, pointer) in [
            (r#""alice""#, "/to"),
            ("{}", "/to"),
            (r#"{"everyone":false}"#, "/to"),
            (r#"{"user":"a","topic":"b"}"#, "/to"),
            (r#"{"topic":"a b"}"#, "/to/topic"),
            (r#"{"users":["a",""]}"#, "/to/users/1"),
            (r#"{"users":[]}"#, "/to/users"),
            (r#"{"usr":"a"}"#, "/to/usr"),
            ("7", "/to"),
        ] {
            assert!(faults(&format!(r#"{{"to":{to},"title":"x"}}"#)).contains(&pointer.to_owned()), "{to}");
        }
        assert!(faults(r#"{"title":"x"}"#).contains(&"/to".to_owned()));
    }

    #[test]
    fn unknown_and_not_yet_built_fields_are_refused() {
        for field in ["collapse", "deliver_at", "expires_in", "via", "titel", "idempotency_key"] {
            assert_eq!(faults(&format!(r#"{{"to":"user:a","title":"x","{field}":"y"}}"#)), [format!("/{field}")]);
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let told =
            faults(r#"{"to":"x","title":1,"priority":9,"category":"a b","actions":[{"label":"a","clik":"b"},3]}"#);
        for pointer in ["/to", "/title", "/priority", "/category", "/actions/0/clik", "/actions/1"] {
            assert!(told.contains(&pointer.to_owned()), "{pointer} in {told:?}");
        }
    }
}

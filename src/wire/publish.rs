//! A publish as JSON, and its answer.

use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::event::{Text, Texts};
use super::json::{BodyError, Fields, compact};
use super::measure::{DURATION_RULE, MOMENT_RULE, duration, moment};
use super::template::template_use;
use crate::model::{
    Action, Audience, Category, CollapseKey, Content, Cursor, Deliver, Draft, Expiry, Life, MAX_RECIPIENTS, Media,
    Medium, NotificationId, Priority, TemplateUse, Timestamp, TopicName, UserId, Via,
};

/// The least and the most that `expires_in` may be.
pub const MIN_EXPIRES_IN: Duration = Duration::from_secs(1);
pub const MAX_EXPIRES_IN: Duration = Duration::from_hours(10 * 365 * 24);

/// Characters of an idempotency key at most.
pub const MAX_IDEMPOTENCY_KEY: usize = 128;

/// A parsed publish. A line of a batch carries its own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishBody {
    pub draft: Draft,
    /// What fills title and body, where it was not the publisher.
    pub template: Option<TemplateUse>,
    pub idempotency_key: Option<String>,
    pub intent: Intent,
}

/// Whether a publish is meant, or only asks what would become of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Intent {
    #[default]
    Publish,
    DryRun,
}

/// Where the body stands: only a line of a batch, and a message of a queue, has a field for the key, since a request has a
/// header; and only a request can be tried, since nobody waits for what the others would come to.
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
    let to = audience(&mut fields)?;
    let category = category(&mut fields, "category");
    let template = template_use(&mut fields);
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
        ..Content::default()
    };
    let life = LifeTexts {
        collapse: fields.string("collapse"),
        deliver_at: fields.text("deliver_at"),
        delay: fields.text("delay"),
        expires_in: fields.text("expires_in"),
        expires_at: fields.text("expires_at"),
    };
    let life = life.read(|name, detail| fields.refuse(name, detail));
    let via = Via { media: via(&mut fields), ..Via::default() };
    let idempotency_key = match place {
        Place::Request => None,
        Place::BatchLine => fields.string("idempotency_key"),
    };
    if idempotency_key.as_deref().is_some_and(|key| !is_idempotency_key(key)) {
        fields.refuse("idempotency_key", IDEMPOTENCY_KEY_RULE);
    }
    let intent = match place {
        Place::Request => intent(&mut fields),
        Place::BatchLine => {
            if fields.take("dry_run").is_some() {
                fields.refuse("dry_run", DRY_RUN_RULE);
            }
            Intent::Publish
        }
    };
    let content = if template.is_some() { by_template(content, &mut fields) } else { content };
    let content = content.check().unwrap_or_else(|errors| {
        fields.absorb(errors);
        Content::default()
    });
    let draft = to.map(|to| Draft { to, content, category_named: category.is_some(), life, via });
    fields.close(draft.map(|draft| PublishBody { draft, template, idempotency_key, intent }))
}

/// What a publish by a template says itself. The title stands in for the one that the template will give.
fn by_template(content: Content, fields: &mut Fields<'_>) -> Content {
    for (name, text) in [("title", &content.title), ("body", &content.body)] {
        if !text.is_empty() {
            fields.refuse(name, "stands beside `template`, which says it; give one of them");
        }
    }
    Content { title: "-".to_owned(), body: String::new(), ..content }
}

/// The fields of a notification's life as they were sent, before they are held against each other.
#[derive(Clone, Debug, Default)]
pub struct LifeTexts {
    pub collapse: Option<String>,
    pub deliver_at: Option<String>,
    pub delay: Option<String>,
    pub expires_in: Option<String>,
    pub expires_at: Option<String>,
}

impl LifeTexts {
    /// Reads them; `refuse` is told each field that breaks a rule. What depends on the clock is the broker's to check.
    pub fn read(self, mut refuse: impl FnMut(&str, String)) -> Life {
        let collapse = self.collapse.and_then(|text| {
            let key = CollapseKey::new(&text);
            if key.is_none() {
                let max = CollapseKey::MAX_CHARS;
                refuse("collapse", format!("must be 1 to {max} characters without control characters"));
            }
            key
        });
        let deliver_at = checked("deliver_at", self.deliver_at, moment, MOMENT_RULE, &mut refuse);
        let delay = checked("delay", self.delay, duration, DURATION_RULE, &mut refuse);
        let expires_at = checked("expires_at", self.expires_at, moment, MOMENT_RULE, &mut refuse);
        let expires_in = checked("expires_in", self.expires_in, duration, DURATION_RULE, &mut refuse);
        if expires_in.is_some_and(|span| !(MIN_EXPIRES_IN..=MAX_EXPIRES_IN).contains(&span)) {
            refuse("expires_in", "must be 1 second to 10 years (3650d)".to_owned());
        }
        if deliver_at.is_some() && delay.is_some() {
            refuse("delay", "stands beside `deliver_at`; give one of them".to_owned());
        }
        if expires_at.is_some() && expires_in.is_some() {
            refuse("expires_in", "stands beside `expires_at`; give one of them".to_owned());
        }
        Life {
            collapse,
            deliver: deliver_at.map(Deliver::At).or(delay.map(Deliver::After)).unwrap_or_default(),
            expiry: expires_at.map(Expiry::At).or(expires_in.map(Expiry::After)),
        }
    }
}

/// A field's value, where it is there and reads as it must.
fn checked<T>(
    name: &str,
    text: Option<String>,
    read: fn(&str) -> Option<T>,
    rule: &str,
    refuse: &mut impl FnMut(&str, String),
) -> Option<T> {
    let text = text?;
    let value = read(&text);
    if value.is_none() {
        refuse(name, rule.to_owned());
    }
    value
}

/// Takes the media besides the inbox; a fault stands at the place of the name that it is about.
fn via(fields: &mut Fields<'_>) -> Vec<Medium> {
    let named = fields.read::<Vec<String>>("via", "a list of media, such as [\"email\"]").unwrap_or_default();
    let mut media = Vec::with_capacity(Media::KNOWN.len());
    for (i, name) in named.iter().enumerate().take(MAX_VIA) {
        match medium(name) {
            Ok(medium) if media.contains(&medium) => {}
            Ok(medium) => media.push(medium),
            Err(detail) => {
                let pointer = fields.pointer(&format!("via/{i}"));
                fields.absorb([crate::model::ContentError { pointer, detail }]);
            }
        }
    }
    if named.len() > MAX_VIA {
        fields.refuse("via", format!("names {} media; at most {MAX_VIA} are taken", named.len()));
    }
    media
}

/// Names that `via` may hold, one named twice counted twice.
const MAX_VIA: usize = 16;

/// Reads the name of a medium that a publish may ask for.
///
/// # Errors
/// Which there are, in words.
pub fn medium(name: &str) -> Result<Medium, String> {
    let known = Medium::parse(name).filter(|medium| Media::KNOWN.contains(medium));
    known.ok_or_else(|| format!("must be one of {}", Media::KNOWN.map(Medium::as_str).join(", ")))
}

/// What an idempotency key must be, for people.
pub const IDEMPOTENCY_KEY_RULE: &str = "must be 1 to 128 printable ASCII characters";

/// Whether a text may be an idempotency key.
pub fn is_idempotency_key(key: &str) -> bool {
    (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()) && key.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

/// Takes the audience; faults of its fields are noted and leave `None`.
fn audience(fields: &mut Fields<'_>) -> Result<Option<Audience>, BodyError> {
    let Some(raw) = fields.take("to") else {
        fields.refuse(
            "to",
            "says who it is for: {\"user\":…}, {\"users\":[…]}, {\"topic\":…}, {\"everyone\":true}, or \"user:alice\"",
        );
        return Ok(None);
    };
    let found = if let Ok(short) = serde_json::from_str::<String>(raw.get()) {
        parse_short(&short).map_err(|detail| Unread::Faults(vec![("to".to_owned(), detail)]))
    } else {
        long_audience(raw)
    };
    match found {
        Ok(audience) => Ok(Some(audience)),
        Err(Unread::TooMany(users)) => Err(BodyError::TooManyRecipients(users)),
        Err(Unread::Faults(faults)) => {
            for (name, detail) in faults {
                // Names here are paths below `to`, so the slash in them is meant.
                let pointer = fields.pointer(&name);
                fields.absorb([crate::model::ContentError { pointer, detail }]);
            }
            Ok(None)
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

/// Why an audience could not be read.
enum Unread {
    /// What is wrong, by path.
    Faults(Vec<(String, String)>),
    /// It names so many users.
    TooMany(usize),
}

impl Unread {
    fn fault(path: &str, detail: impl Into<String>) -> Self {
        Self::Faults(vec![(path.to_owned(), detail.into())])
    }
}

fn long_audience(raw: &RawValue) -> Result<Audience, Unread> {
    let Some(mut inner) = Fields::inside("/to".to_owned(), raw) else {
        return Err(Unread::fault("to", "must be an object or a short string such as \"user:alice\""));
    };
    let user = inner.string("user");
    let users: Option<Vec<String>> = inner.read("users", "a list of user ids");
    let topic = inner.string("topic");
    let everyone: Option<bool> = inner.read("everyone", "true");
    let errors = inner.finish();
    if !errors.is_empty() {
        return Err(Unread::Faults(errors.into_iter().map(|e| (e.pointer[1..].to_owned(), e.detail)).collect()));
    }
    match (user, users, topic, everyone) {
        (Some(user), None, None, None) => {
            UserId::new(&user).map(|u| Audience::Users(vec![u])).map_err(|e| Unread::fault("to/user", e.to_string()))
        }
        (None, Some(users), None, None) => named_users(&users),
        (None, None, Some(topic), None) => topic_audience(&topic).map_err(|detail| Unread::fault("to/topic", detail)),
        (None, None, None, Some(true)) => Ok(Audience::Everyone),
        _ => Err(Unread::fault("to", "needs exactly one of user, users, topic, everyone:true")),
    }
}

/// How many there are is told before any name is looked at.
fn named_users(users: &[String]) -> Result<Audience, Unread> {
    match users.len() {
        0 => return Err(Unread::fault("to/users", format!("names nobody; 1 to {MAX_RECIPIENTS} users are allowed"))),
        many if many > MAX_RECIPIENTS => return Err(Unread::TooMany(many)),
        _ => {}
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
    if faults.is_empty() { Ok(Audience::Users(named)) } else { Err(Unread::Faults(faults)) }
}

/// An audience in the long form that a publish takes.
pub struct AudienceBody<'a>(pub &'a Audience);

impl Serialize for AudienceBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self.0 {
            Audience::Users(users) => match users.as_slice() {
                [user] => map.serialize_entry("user", user.as_str())?,
                users => map.serialize_entry("users", &Texts(users))?,
            },
            Audience::Topic(topic) => map.serialize_entry("topic", topic.as_str())?,
            Audience::Everyone => map.serialize_entry("everyone", &true)?,
        }
        map.end()
    }
}

/// Where `dry_run` does not stand, for people.
const DRY_RUN_RULE: &str = "only one publish by itself can be tried, as one request over HTTP";

fn intent(fields: &mut Fields<'_>) -> Intent {
    let tried: Option<bool> = fields.read("dry_run", "true or false");
    if tried == Some(true) { Intent::DryRun } else { Intent::Publish }
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
    /// Where it stands in the log; `None` while it is scheduled.
    pub cursor: Option<Cursor>,
    /// When it is delivered, for one that is scheduled.
    pub due: Option<Timestamp>,
    /// Users reached when it was committed; `None` for everyone, who also are those who come later, and for one that is
    /// scheduled.
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
    seq: Option<u64>,
    cursor: Option<Text<'a, Cursor>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    recipients: Option<u64>,
}

impl<'a> PublishedBody<'a> {
    pub fn new(published: &'a Published, place: Place) -> Self {
        Self {
            status: (place == Place::BatchLine).then_some(201),
            id: Text(&published.id),
            seq: published.cursor.as_ref().map(|cursor| cursor.seq.0),
            cursor: published.cursor.as_ref().map(Text),
            due: published.due.map(|due| due.to_string()),
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
        for field in ["escalate", "via", "titel", "idempotency_key"] {
            assert_eq!(faults(&format!(r#"{{"to":"user:a","title":"x","{field}":"y"}}"#)), [format!("/{field}")]);
        }
    }

    #[test]
    fn a_publish_can_be_tried_and_a_line_of_a_batch_not() {
        let intent = |field: &str, place| {
            let body = format!(r#"{{"to":"user:a","title":"x"{field}}}"#);
            parse(body.as_bytes(), place).map(|body| body.intent).ok()
        };
        assert_eq!(intent("", Place::Request), Some(Intent::Publish));
        assert_eq!(intent(r#","dry_run":false"#, Place::Request), Some(Intent::Publish));
        assert_eq!(intent(r#","dry_run":true"#, Place::Request), Some(Intent::DryRun));
        assert_eq!(intent(r#","dry_run":"yes""#, Place::Request), None);
        assert_eq!(intent(r#","dry_run":true"#, Place::BatchLine), None);
    }

    #[test]
    fn media_are_named_once_and_what_is_none_is_pointed_at() {
        let via = |via: &str| {
            let body = format!(r#"{{"to":"user:a","title":"x","via":{via}}}"#);
            parse(body.as_bytes(), Place::Request).map(|parsed| parsed.draft.via.media)
        };
        assert_eq!(via("null"), Ok(vec![]));
        assert_eq!(via(r#"["email","dingtalk","email"]"#), Ok(vec![Medium::Email, Medium::DingTalk]));
        for (via, pointers) in
            [(r#"["fax","email","webhook"]"#, &["/via/0", "/via/2"][..]), (r#""email""#, &["/via"]), ("[1]", &["/via"])]
        {
            assert_eq!(faults(&format!(r#"{{"to":"user:a","title":"x","via":{via}}}"#)), pointers, "{via}");
        }
        let many = format!(r#"{{"to":"user:a","title":"x","via":[{}"email"]}}"#, r#""email","#.repeat(MAX_VIA));
        assert_eq!(faults(&many), ["/via"]);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let told =
            faults(r#"{"to":"x","title":1,"priority":9,"category":"a b","actions":[{"label":"a","clik":"b"},3]}"#);
        for pointer in ["/to", "/title", "/priority", "/category", "/actions/0/clik", "/actions/1"] {
            assert!(told.contains(&pointer.to_owned()), "{pointer} in {told:?}");
        }
    }

    fn life(fields: &str) -> Life {
        let body = parse(format!(r#"{{"to":"user:a","title":"x",{fields}}}"#).as_bytes(), Place::Request);
        body.unwrap_or_else(|e| panic!("{fields}: {e}")).draft.life
    }

    #[test]
    fn a_life_is_read_from_durations_and_moments() {
        let at = Timestamp::from_millis(1_777_626_000_000);
        let deliver = |fields: &str| life(fields).deliver;
        assert_eq!(life(r#""delay":null"#), Life::default());
        assert_eq!(deliver(r#""deliver_at":"2026-05-01T11:00:00+02:00""#), Deliver::At(at));
        assert_eq!(deliver(r#""delay":"10m""#), Deliver::After(Duration::from_mins(10)));
        assert_eq!(deliver(r#""delay":90"#), Deliver::After(Duration::from_secs(90)));
        assert_eq!(deliver(r#""delay":0"#), Deliver::After(Duration::ZERO));
        let expiry = |fields: &str| life(fields).expiry;
        assert_eq!(expiry(r#""expires_at":"2026-05-01T09:00:00Z""#), Some(Expiry::At(at)));
        assert_eq!(expiry(r#""expires_in":"3650d""#), Some(Expiry::After(MAX_EXPIRES_IN)));
        assert_eq!(expiry(r#""expires_in":1,"expires_at":null"#), Some(Expiry::After(MIN_EXPIRES_IN)));
        let key = life(r#""collapse":"磁盘 1""#).collapse;
        assert_eq!(key.as_ref().map(CollapseKey::as_str), Some("磁盘 1"));
    }

    #[test]
    fn a_life_that_can_not_be_is_pointed_at() {
        for (fields, pointers) in [
            (r#""collapse":"""#, &["/collapse"][..]),
            (r#""collapse":"a\u0000""#, &["/collapse"]),
            (r#""collapse":7"#, &["/collapse"]),
            (r#""delay":-1"#, &["/delay"]),
            (r#""delay":1.5"#, &["/delay"]),
            (r#""delay":"soon""#, &["/delay"]),
            (r#""delay":["90s"]"#, &["/delay"]),
            (r#""deliver_at":1777626000"#, &["/deliver_at"]),
            (r#""deliver_at":"2026-05-01""#, &["/deliver_at"]),
            (r#""deliver_at":"2026-05-01T09:00:00Z","delay":1"#, &["/delay"]),
            (r#""expires_in":0"#, &["/expires_in"]),
            (r#""expires_in":"3651d""#, &["/expires_in"]),
            (r#""expires_in":true"#, &["/expires_in"]),
            (r#""expires_at":"2026-05-01T09:00:00Z","expires_in":1"#, &["/expires_in"]),
            (r#""expires_at":"never","delay":"x","collapse":"""#, &["/collapse", "/delay", "/expires_at"]),
        ] {
            assert_eq!(faults(&format!(r#"{{"to":"user:a","title":"x",{fields}}}"#)), pointers, "{fields}");
        }
    }

    #[test]
    fn too_many_recipients_are_counted_before_a_name_is_checked() {
        let publish = |users: usize| {
            let body = serde_json::json!({ "to": { "users": vec![" "; users] }, "title": "x" }).to_string();
            parse(body.as_bytes(), Place::BatchLine).err()
        };
        assert_eq!(publish(MAX_RECIPIENTS + 1), Some(BodyError::TooManyRecipients(MAX_RECIPIENTS + 1)));
        assert!(matches!(publish(MAX_RECIPIENTS), Some(BodyError::Fields(errors)) if errors.len() == MAX_RECIPIENTS));
    }

    #[test]
    fn an_audience_is_written_as_it_is_read() {
        for to in [r#"{"user":"alice"}"#, r#"{"users":["a","b"]}"#, r#"{"topic":"ops"}"#, r#"{"everyone":true}"#] {
            let draft = parse(format!(r#"{{"to":{to},"title":"x"}}"#).as_bytes(), Place::Request).expect("good").draft;
            assert_eq!(serde_json::to_string(&AudienceBody(&draft.to)).expect("JSON"), to);
        }
    }
}

//! What became of a notification, as its publisher sees it; and those that wait for their time.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::event::{Actions, Text};
use super::json::stored;
use super::publish::AudienceBody;
use super::topic::Listing;
use crate::model::{
    Audience, Category, Content, Cursor, Death, Expiry, Life, NotificationId, Timestamp, TopicName, UserId, Via,
};

/// Where a notification is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits for its time.
    Scheduled {
        due: Timestamp,
    },
    /// Could not be delivered when its time came.
    Failed {
        due: Timestamp,
        why: FailedDelivery,
    },
    Delivered,
    Dead {
        death: Death,
        at: Cutoff,
    },
}

/// The position at which an entry died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoff(pub crate::model::Seq);

/// Why a scheduled notification was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedDelivery {
    UnknownTopic,
    UnknownUser,
    CategoryConflict,
    TooManyCategories,
}

impl FailedDelivery {
    pub const ALL: [Self; 4] = [Self::UnknownTopic, Self::UnknownUser, Self::CategoryConflict, Self::TooManyCategories];

    /// The code on the wire: that of the problem which a publish at that moment would have met.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTopic => "unknown-topic",
            Self::UnknownUser => "unknown-user",
            Self::CategoryConflict => "category-conflict",
            Self::TooManyCategories => "too-many",
        }
    }
}

/// Whom a notification was sent to, without the names of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentTo {
    Users,
    Topic(TopicName),
    Everyone,
}

/// How many users it reached, and what they did with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Engagement {
    /// Users whose inbox it is or was in; for everyone, those who have appeared.
    pub recipients: u64,
    pub seen: u64,
    pub read: u64,
    pub archived: u64,
}

/// A notification as its publisher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub id: NotificationId,
    /// `None` while it is scheduled.
    pub cursor: Option<Cursor>,
    pub stage: Stage,
    pub to: SentTo,
    pub category: Category,
    pub title: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// `None` while it is scheduled.
    pub engagement: Option<Engagement>,
}

/// One recipient of a notification to named users, with what they did; `None` where they did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub user: UserId,
    pub seen_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
    pub archived_at: Option<Timestamp>,
}

/// What taking a notification back did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retracted {
    /// It is out of every inbox.
    Now,
    /// It was scheduled, and will not be delivered.
    Cancelled,
    /// It was dead already.
    Before(Death),
}

/// A notification that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub id: NotificationId,
    pub due: Timestamp,
    pub failed: Option<FailedDelivery>,
    pub to: Audience,
    pub content: Content,
    pub category_named: bool,
    pub life: Life,
    pub via: Via,
    pub created_at: Timestamp,
}

/// A page of scheduled notifications, the next due first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledPage {
    pub items: Vec<Scheduled>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<(Timestamp, NotificationId)>,
}

/// [`Status`] as a body.
pub struct StatusBody<'a>(pub &'a Status);

impl Serialize for StatusBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Status { id, cursor, stage, to, category, title, created_at, expires_at, engagement } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &Text(id))?;
        map.serialize_entry("seq", &cursor.as_ref().map(|cursor| cursor.seq.0))?;
        map.serialize_entry("cursor", &cursor.as_ref().map(Text))?;
        write_stage(&mut map, *stage)?;
        match to {
            SentTo::Users => map.serialize_entry("to", "users")?,
            SentTo::Topic(topic) => map.serialize_entry("to", &format!("topic:{topic}"))?,
            SentTo::Everyone => map.serialize_entry("to", TopicName::EVERYONE)?,
        }
        map.serialize_entry("category", category.as_str())?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("created_at", &Text(created_at))?;
        map.serialize_entry("expires_at", &expires_at.as_ref().map(Text))?;
        map.serialize_entry("recipients", &engagement.map(|engagement| engagement.recipients))?;
        map.serialize_entry("seen", &engagement.map(|engagement| engagement.seen))?;
        map.serialize_entry("read", &engagement.map(|engagement| engagement.read))?;
        map.serialize_entry("archived", &engagement.map(|engagement| engagement.archived))?;
        map.end()
    }
}

fn write_stage<M: SerializeMap>(map: &mut M, stage: Stage) -> Result<(), M::Error> {
    match stage {
        Stage::Scheduled { due } => {
            map.serialize_entry("state", "scheduled")?;
            map.serialize_entry("due", &Text(&due))
        }
        Stage::Failed { due, why } => {
            map.serialize_entry("state", "failed")?;
            map.serialize_entry("due", &Text(&due))?;
            map.serialize_entry("why", why.as_str())
        }
        Stage::Delivered => map.serialize_entry("state", "delivered"),
        Stage::Dead { death, at: _ } => {
            map.serialize_entry("state", death.as_str())?;
            match death {
                Death::Replaced { by } => map.serialize_entry("by", &Text(&by)),
                Death::Retracted | Death::Expired => Ok(()),
            }
        }
    }
}

/// A page of recipients.
#[derive(Serialize)]
pub struct RecipientsBody<'a> {
    recipients: Vec<RecipientBody<'a>>,
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct RecipientBody<'a> {
    user: &'a str,
    seen_at: Option<Text<'a, Timestamp>>,
    read_at: Option<Text<'a, Timestamp>>,
    archived_at: Option<Text<'a, Timestamp>>,
}

impl<'a> From<&'a Listing<Recipient>> for RecipientsBody<'a> {
    fn from(page: &'a Listing<Recipient>) -> Self {
        let body = |recipient: &'a Recipient| RecipientBody {
            user: recipient.user.as_str(),
            seen_at: recipient.seen_at.as_ref().map(Text),
            read_at: recipient.read_at.as_ref().map(Text),
            archived_at: recipient.archived_at.as_ref().map(Text),
        };
        Self { recipients: page.items.iter().map(body).collect(), next: page.next.as_deref() }
    }
}

/// The answer to taking a notification back.
#[derive(Serialize)]
pub struct RetractedBody<'a> {
    id: Text<'a, NotificationId>,
    /// What it is now.
    state: &'static str,
    changed: bool,
}

impl<'a> RetractedBody<'a> {
    pub fn new(id: &'a NotificationId, retracted: Retracted) -> Self {
        let (state, changed) = match retracted {
            Retracted::Now => (Death::Retracted.as_str(), true),
            Retracted::Cancelled => ("cancelled", true),
            Retracted::Before(death) => (death.as_str(), false),
        };
        Self { id: Text(id), state, changed }
    }
}

/// [`Scheduled`] as a body. What a publish takes stands under the names that a publish has for it, so that a client can
/// change a field and send the rest back.
pub struct ScheduledBody<'a>(pub &'a Scheduled);

impl Serialize for ScheduledBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Scheduled { id, due, failed, to, content, category_named, life, via, created_at } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &Text(id))?;
        map.serialize_entry("due", &Text(due))?;
        if let Some(why) = failed {
            map.serialize_entry("why", why.as_str())?;
        }
        map.serialize_entry("to", &AudienceBody(to))?;
        map.serialize_entry("title", &content.title)?;
        map.serialize_entry("body", &content.body)?;
        map.serialize_entry("data", &content.data.as_deref().and_then(stored))?;
        map.serialize_entry("category", &category_named.then(|| content.category.as_str()))?;
        map.serialize_entry("icon", &content.icon)?;
        map.serialize_entry("click", &content.click)?;
        map.serialize_entry("actions", &Actions(&content.actions))?;
        map.serialize_entry("priority", &content.priority.as_u8())?;
        map.serialize_entry("sender", &content.sender)?;
        map.serialize_entry("collapse", &life.collapse.as_ref().map(|key| key.as_str()))?;
        match &life.expiry {
            Some(Expiry::After(span)) => map.serialize_entry("expires_in", &span.as_secs())?,
            Some(Expiry::At(at)) => map.serialize_entry("expires_at", &Text(at))?,
            None => {}
        }
        if !via.media.is_empty() {
            let named: Vec<&str> = via.media.iter().map(|medium| medium.as_str()).collect();
            map.serialize_entry("via", &named)?;
        }
        map.serialize_entry("created_at", &Text(created_at))?;
        map.end()
    }
}

/// [`ScheduledPage`] as a body.
#[derive(Serialize)]
pub struct ScheduledPageBody<'a> {
    scheduled: Vec<ScheduledBody<'a>>,
    next: Option<String>,
}

impl<'a> From<&'a ScheduledPage> for ScheduledPageBody<'a> {
    fn from(page: &'a ScheduledPage) -> Self {
        let next = page.next.map(|(due, id)| format!("{}.{id}", due.as_millis()));
        Self { scheduled: page.items.iter().map(ScheduledBody).collect(), next }
    }
}

/// Reads the `next` of a [`ScheduledPageBody`], which clients hand back as it came. `None` where it is none.
pub fn parse_next(text: &str) -> Option<(Timestamp, NotificationId)> {
    let (due, id) = text.split_once('.')?;
    Some((Timestamp::from_millis(due.parse().ok()?), NotificationId::parse(id)?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::publish::{Place, parse};
    use super::*;
    use crate::model::{Deliver, Epoch, Seq};

    const ID: &str = "0190b9f0-7b1a-7000-8000-000000000001";

    fn id() -> NotificationId {
        NotificationId::parse(ID).expect("an id")
    }

    fn value(body: &impl Serialize) -> Value {
        serde_json::to_value(body).expect("JSON")
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn status(stage: Stage) -> Status {
        let delivered = matches!(stage, Stage::Delivered | Stage::Dead { .. });
        let cursor = Cursor { epoch: Epoch::new("k7").expect("an epoch"), seq: Seq(9) };
        Status {
            id: id(),
            cursor: delivered.then_some(cursor),
            stage,
            to: SentTo::Topic(TopicName::new("ops/eu").expect("a topic")),
            category: Category::default(),
            title: "磁盘".into(),
            created_at: at(1),
            expires_at: None,
            engagement: delivered.then_some(Engagement { recipients: 3, seen: 2, read: 1, archived: 0 }),
        }
    }

    #[test]
    fn a_delivered_one_is_told_with_its_numbers() {
        let expected = json!({
            "id": ID, "seq": 9, "cursor": "k7.9", "state": "delivered", "to": "topic:ops/eu", "category": "general",
            "title": "磁盘", "created_at": "1970-01-01T00:00:01.000Z", "expires_at": null,
            "recipients": 3, "seen": 2, "read": 1, "archived": 0,
        });
        assert_eq!(value(&StatusBody(&status(Stage::Delivered))), expected);
    }

    #[test]
    fn each_stage_says_what_belongs_to_it() {
        let due = "1970-01-01T00:01:00.000Z";
        let failed = Stage::Failed { due: at(60), why: FailedDelivery::UnknownTopic };
        let dead = |death| Stage::Dead { death, at: Cutoff(Seq(11)) };
        for (stage, expected) in [
            (Stage::Scheduled { due: at(60) }, json!(["scheduled", due, null, null, null, null])),
            (failed, json!(["failed", due, "unknown-topic", null, null, null])),
            (dead(Death::Retracted), json!(["retracted", null, null, null, 9, 3])),
            (dead(Death::Expired), json!(["expired", null, null, null, 9, 3])),
            (dead(Death::Replaced { by: id() }), json!(["replaced", null, null, ID, 9, 3])),
        ] {
            let body = value(&StatusBody(&status(stage)));
            let told = ["state", "due", "why", "by", "seq", "recipients"].map(|name| body[name].clone());
            assert_eq!(json!(told), expected);
        }
    }

    #[test]
    fn taking_back_says_what_it_is_now_and_whether_that_is_new() {
        let told = |retracted| value(&RetractedBody::new(&id(), retracted));
        assert_eq!(told(Retracted::Now), json!({ "id": ID, "state": "retracted", "changed": true }));
        assert_eq!(told(Retracted::Cancelled), json!({ "id": ID, "state": "cancelled", "changed": true }));
        let before = Retracted::Before(Death::Replaced { by: id() });
        assert_eq!(told(before), json!({ "id": ID, "state": "replaced", "changed": false }));
    }

    #[test]
    fn what_waits_can_be_sent_back_as_it_came() {
        let sent = r#"{"to":{"users":["a","b"]},"title":"t","body":"b","data":{"n":1.50},"category":"loans",
            "icon":"/i.png","click":"/loans","actions":[{"label":"l","click":"/c"}],"priority":5,"sender":"Shop",
            "collapse":"due","expires_in":"2h","via":["email"]}"#;
        let draft = parse(sent.as_bytes(), Place::Request).expect("a publish").draft;
        let scheduled = |draft: crate::model::Draft| Scheduled {
            id: id(),
            due: at(60),
            failed: None,
            to: draft.to,
            content: draft.content,
            category_named: draft.category_named,
            life: draft.life,
            via: draft.via,
            created_at: at(1),
        };
        let text = serde_json::to_string(&ScheduledBody(&scheduled(draft.clone()))).expect("JSON");
        assert!(text.contains(r#""data":{"n":1.50}"#), "{text}");
        let mut body: Value = serde_json::from_str(&text).expect("JSON");
        for ours in ["id", "due", "created_at"] {
            assert!(body.as_object_mut().expect("an object").remove(ours).is_some(), "{ours}");
        }
        let mut again = parse(body.to_string().as_bytes(), Place::Request).expect("a publish").draft;
        // A number's spelling does not survive this test's own way through a value.
        again.content.data.clone_from(&draft.content.data);
        assert_eq!(again, draft);

        let plain = parse(br#"{"to":"topic:ops","title":"t"}"#, Place::Request).expect("a publish").draft;
        let life = Life { expiry: Some(Expiry::At(at(90))), deliver: Deliver::After(Duration::ZERO), collapse: None };
        let failed = Some(FailedDelivery::CategoryConflict);
        let plain = value(&ScheduledBody(&Scheduled { failed, life, ..scheduled(plain) }));
        assert_eq!(
            (&plain["category"], &plain["collapse"], &plain["data"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        assert_eq!(plain["expires_at"], "1970-01-01T00:01:30.000Z");
        assert_eq!((plain.get("expires_in"), &plain["why"]), (None, &json!("category-conflict")));
    }

    #[test]
    fn the_place_of_a_page_is_read_as_it_was_written() {
        for due in [at(60), Timestamp::from_millis(-1)] {
            let page = ScheduledPage { items: Vec::new(), next: Some((due, id())) };
            let body = value(&ScheduledPageBody::from(&page));
            assert_eq!(parse_next(body["next"].as_str().expect("a text")), Some((due, id())));
        }
        for bad in ["", ".", "1", "1.x", ID, &format!("x.{ID}"), &format!("1.{ID} ")] {
            assert_eq!(parse_next(bad), None, "{bad}");
        }
    }
}

//! What operators do with the store: recount, erase, compact.

use serde::Serialize;

use super::delivery::{Attempt, Delivery, TimelineBody};
use super::event::{CountsBody, NotificationBody, Text};
use super::inbox::{Entry, EntryBody};
use super::json::{BodyError, Fields};
use super::profile::ProfileBody;
use super::status::{Scheduled, ScheduledBody};
use crate::model::{
    Category, Counts, Cursor, DeliveryId, MarkAs, Notification, NotificationId, Profile, Seq, Timestamp, TopicName,
    UserId,
};

/// A user whose stored counts were not what a recount gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drifted {
    pub user: UserId,
    pub stored: Counts,
    pub recounted: Counts,
}

/// What a recount does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Report,
    Repair,
}

/// One page of a recount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recounted {
    /// Users looked at on this page.
    pub users: u64,
    /// All users there are.
    pub of: u64,
    pub drifted: Vec<Drifted>,
    /// Where the next page begins: the number of the last user; `None` at the end.
    pub next: Option<i64>,
}

/// What an erasure took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Entries of the user's inbox.
    pub entries: u64,
    /// Notifications that were nobody else's.
    pub notifications: u64,
    /// Notifications to others from which the user's name was taken.
    pub unsigned: u64,
}

/// What compacting the database file did; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub before: u64,
    pub after: u64,
}

/// Where a page of an export begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFrom {
    /// Who the user is: follows, mutes, watermarks, tickets.
    Profile,
    /// Entries of the inbox after this position.
    Entries(Seq),
    /// Notifications that the user published, after this position.
    Published(Seq),
    /// Notifications that wait for their time, by this user or for this user alone, after this id.
    Scheduled(Option<NotificationId>),
    /// What went to the user by other media than the inbox, before this one; the newest first.
    Deliveries(Option<DeliveryId>),
}

/// One thing that is stored about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportRecord {
    User {
        user: UserId,
        appeared_at: Timestamp,
    },
    Profile {
        user: UserId,
        profile: Profile,
    },
    Follow {
        topic: TopicName,
        following: bool,
        muted: bool,
    },
    /// "Everything up to here": a mark of the whole inbox, or of a category.
    Watermark {
        mark: MarkAs,
        category: Option<Category>,
        upto: Cursor,
        at: Timestamp,
    },
    Ticket {
        created_at: Timestamp,
        used_at: Option<Timestamp>,
        expires_at: Timestamp,
    },
    Entry(Entry),
    Published(Notification),
    Scheduled(Box<Scheduled>),
    /// With its attempts.
    Delivery(Box<Delivery>, Vec<Attempt>),
}

/// A page of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportPage {
    pub records: Vec<ExportRecord>,
    pub next: Option<ExportFrom>,
}

/// What `POST /v1/upkeep/recount` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecountBody {
    /// The number of the last user of the page before; 0 begins.
    pub after: i64,
    pub repair: Repair,
}

/// Reads `{"after","repair"}`, or nothing.
///
/// # Errors
/// [`BodyError`].
pub fn parse_recount(body: &[u8]) -> Result<RecountBody, BodyError> {
    if body.is_empty() {
        return Ok(RecountBody { after: 0, repair: Repair::Report });
    }
    let mut fields = Fields::parse(body)?;
    let after = fields.read("after", "a whole number: `next` of the page before").unwrap_or_default();
    if after < 0 {
        fields.refuse("after", "must not be negative; it is `next` of the page before");
    }
    let repair = match fields.read("repair", "true or false") {
        Some(true) => Repair::Repair,
        Some(false) | None => Repair::Report,
    };
    fields.close(Some(RecountBody { after, repair }))
}

/// [`Recounted`] as a body.
#[derive(Serialize)]
pub struct RecountedBody<'a> {
    users: u64,
    of: u64,
    drifted: Vec<DriftedBody<'a>>,
    next: Option<i64>,
}

#[derive(Serialize)]
struct DriftedBody<'a> {
    user: &'a str,
    stored: CountsBody<'a>,
    recounted: CountsBody<'a>,
}

impl<'a> From<&'a Recounted> for RecountedBody<'a> {
    fn from(page: &'a Recounted) -> Self {
        let body = |drifted: &'a Drifted| DriftedBody {
            user: drifted.user.as_str(),
            stored: CountsBody(&drifted.stored),
            recounted: CountsBody(&drifted.recounted),
        };
        Self { users: page.users, of: page.of, drifted: page.drifted.iter().map(body).collect(), next: page.next }
    }
}

/// [`Compacted`] as a body.
#[derive(Serialize)]
pub struct CompactedBody {
    before: u64,
    after: u64,
}

impl From<Compacted> for CompactedBody {
    fn from(Compacted { before, after }: Compacted) -> Self {
        Self { before, after }
    }
}

/// [`Erased`] as a body.
#[derive(Serialize)]
pub struct ErasedBody {
    entries: u64,
    notifications: u64,
    unsigned: u64,
}

impl From<Erased> for ErasedBody {
    fn from(Erased { entries, notifications, unsigned }: Erased) -> Self {
        Self { entries, notifications, unsigned }
    }
}

/// [`ExportRecord`] as a line.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RecordBody<'a> {
    User {
        user: &'a str,
        appeared_at: Text<'a, Timestamp>,
    },
    Profile(ProfileBody<'a>),
    Follow {
        topic: &'a str,
        following: bool,
        muted: bool,
    },
    Watermark {
        #[serde(rename = "as")]
        mark: &'static str,
        category: Option<&'a str>,
        upto: Text<'a, Cursor>,
        at: Text<'a, Timestamp>,
    },
    Ticket {
        created_at: Text<'a, Timestamp>,
        used_at: Option<Text<'a, Timestamp>>,
        expires_at: Text<'a, Timestamp>,
    },
    Entry(EntryBody<'a>),
    Published(NotificationBody<'a>),
    Scheduled(ScheduledBody<'a>),
    Delivery(TimelineBody<'a>),
}

impl<'a> From<&'a ExportRecord> for RecordBody<'a> {
    fn from(record: &'a ExportRecord) -> Self {
        match record {
            ExportRecord::User { user, appeared_at } => {
                Self::User { user: user.as_str(), appeared_at: Text(appeared_at) }
            }
            ExportRecord::Profile { user, profile } => Self::Profile(ProfileBody::new(user, profile)),
            ExportRecord::Follow { topic, following, muted } => {
                Self::Follow { topic: topic.as_str(), following: *following, muted: *muted }
            }
            ExportRecord::Watermark { mark, category, upto, at } => Self::Watermark {
                mark: mark.as_str(),
                category: category.as_ref().map(Category::as_str),
                upto: Text(upto),
                at: Text(at),
            },
            ExportRecord::Ticket { created_at, used_at, expires_at } => Self::Ticket {
                created_at: Text(created_at),
                used_at: used_at.as_ref().map(Text),
                expires_at: Text(expires_at),
            },
            ExportRecord::Entry(entry) => Self::Entry(EntryBody(entry)),
            ExportRecord::Published(notification) => {
                Self::Published(NotificationBody { notification, state: None, replayed: true })
            }
            ExportRecord::Scheduled(scheduled) => Self::Scheduled(ScheduledBody(scheduled)),
            ExportRecord::Delivery(delivery, attempts) => Self::Delivery(TimelineBody::new(delivery, attempts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Audience, Content, EntryState, Epoch, Life};

    fn line(record: &ExportRecord) -> String {
        serde_json::to_string(&RecordBody::from(record)).expect("JSON")
    }

    #[test]
    fn every_record_is_a_line_that_names_its_kind() {
        let user = UserId::new("alice").expect("a user");
        let at = Timestamp::from_seconds(1);
        let id = NotificationId::parse("0190b9f0-7b1a-7000-8000-000000000001").expect("an id");
        let content = Content { title: "a\nb".into(), data: Some("{\"n\":1.50}".into()), ..Content::default() };
        let topic = TopicName::new("ops").expect("a topic");
        let notification = Notification {
            seq: Seq(7),
            id,
            topic: Some(topic.clone()),
            content: Arc::new(content.clone()),
            created_at: at,
        };
        let upto = Cursor { epoch: Epoch::new("k7").expect("an epoch"), seq: Seq(7) };
        let scheduled = Scheduled {
            id,
            due: at,
            failed: None,
            to: Audience::Users(vec![user.clone()]),
            content,
            category_named: false,
            life: Life::default(),
            via: crate::model::Via::default(),
            created_at: at,
        };
        for (kind, record) in [
            ("profile", ExportRecord::Profile { user: user.clone(), profile: Profile::default() }),
            ("user", ExportRecord::User { user, appeared_at: at }),
            ("follow", ExportRecord::Follow { topic, following: true, muted: false }),
            ("watermark", ExportRecord::Watermark { mark: MarkAs::Read, category: None, upto, at }),
            ("ticket", ExportRecord::Ticket { created_at: at, used_at: None, expires_at: at }),
            ("entry", ExportRecord::Entry(Entry { notification: notification.clone(), state: EntryState::default() })),
            ("published", ExportRecord::Published(notification)),
            ("scheduled", ExportRecord::Scheduled(Box::new(scheduled))),
        ] {
            let line = line(&record);
            assert!(line.starts_with(&format!("{{\"kind\":\"{kind}\",")) && !line.contains('\n'), "{line}");
            let kept = line.contains(r#""data":{"n":1.50}"#);
            assert_eq!(kept, matches!(kind, "entry" | "published" | "scheduled"), "{line}");
            assert_eq!(line.contains(r#""as":"read","category":null,"upto":"k7.7""#), kind == "watermark", "{line}");
        }
    }

    #[test]
    fn a_recount_begins_at_the_first_user_and_repairs_nothing_unasked() {
        let plain = RecountBody { after: 0, repair: Repair::Report };
        for body in [&b""[..], b"{}", br#"{"after":0,"repair":false}"#] {
            assert_eq!(parse_recount(body), Ok(plain));
        }
        let body = parse_recount(br#"{"after":7,"repair":true}"#);
        assert_eq!(body, Ok(RecountBody { after: 7, repair: Repair::Repair }));
        for bad in [r#"{"after":-1}"#, r#"{"after":1.5}"#, r#"{"repair":"yes"}"#, r#"{"repairs":true}"#] {
            assert!(matches!(parse_recount(bad.as_bytes()), Err(BodyError::Fields(e)) if e.len() == 1), "{bad}");
        }
    }
}

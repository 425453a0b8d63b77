//! Deliveries as those ask who look for what became of one: items, pages, timelines, and what a retry did.

use serde::{Deserialize, Serialize};

use super::event::Text;
use super::json::{BodyError, Fields};
use super::measure::{MOMENT_RULE, moment};
use crate::model::{
    AttemptOutcome, Category, DeliveryId, DeliveryState, Medium, NotificationId, TemplateName, Timestamp, UsedTemplate,
    UserId,
};

/// Which deliveries are asked for. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub notification: Option<NotificationId>,
    pub user: Option<UserId>,
    pub medium: Option<Medium>,
    pub state: Option<DeliveryState>,
    pub category: Option<Category>,
    pub template: Option<TemplateName>,
    /// Made at or after this moment.
    pub since: Option<Timestamp>,
    /// Made before this moment.
    pub until: Option<Timestamp>,
}

impl Asked {
    /// The names of what can be asked for, as a query and as a body have them.
    pub const FIELDS: [&'static str; 8] =
        ["notification", "user", "medium", "state", "category", "template", "since", "until"];

    /// Reads one of [`Asked::FIELDS`].
    ///
    /// # Errors
    /// What it must be, in words.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name {
            "notification" => {
                self.notification = Some(NotificationId::parse(text).ok_or("must be a notification's id")?);
            }
            "user" => self.user = Some(UserId::new(text).map_err(|e| e.to_string())?),
            "medium" => {
                let medium = Medium::parse(text).ok_or_else(|| format!("must be one of {}", Medium::NAMES))?;
                self.medium = Some(medium);
            }
            "state" => {
                let state = DeliveryState::parse(text);
                self.state = Some(state.ok_or_else(|| format!("must be one of {}", DeliveryState::NAMES))?);
            }
            "category" => self.category = Some(Category::new(text).map_err(|e| e.to_string())?),
            "template" => self.template = Some(TemplateName::new(text).map_err(|e| e.to_string())?),
            "since" => self.since = Some(moment(text).ok_or(MOMENT_RULE)?),
            "until" => self.until = Some(moment(text).ok_or(MOMENT_RULE)?),
            _ => return Err("is not known here".to_owned()),
        }
        Ok(())
    }

    /// Reads a body: an object with these fields, all of which may be left out; nothing is the same as an empty one.
    ///
    /// # Errors
    /// [`BodyError`] with every broken field.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let body = if body.is_empty() { b"{}" } else { body };
        let mut fields = Fields::parse(body)?;
        let mut asked = Self::default();
        for name in Self::FIELDS {
            if let Some(text) = fields.string(name)
                && let Err(rule) = asked.set(name, &text)
            {
                fields.refuse(name, rule);
            }
        }
        fields.close(Some(asked))
    }

    /// Whether what was published by this template is asked for.
    pub fn is_by(&self, used: Option<&UsedTemplate>) -> bool {
        self.template.as_ref().is_none_or(|asked| used.is_some_and(|used| used.name == *asked))
    }

    /// Whether a delivery is asked for, apart from whose it is.
    pub fn is_met(&self, row: &Delivery) -> bool {
        self.notification.is_none_or(|notification| notification == row.notification)
            && self.medium.is_none_or(|medium| medium == row.medium)
            && self.state.is_none_or(|state| state == row.state)
            && self.category.as_ref().is_none_or(|category| *category == row.category)
            && self.is_by(row.template.as_ref())
            && self.since.is_none_or(|since| row.created_at >= since)
            && self.until.is_none_or(|until| row.created_at < until)
    }
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub notification: NotificationId,
    /// `None` while the user is being erased.
    pub user: Option<UserId>,
    pub medium: Medium,
    /// `None` where none was known.
    pub address: Option<String>,
    pub category: Category,
    pub template: Option<UsedTemplate>,
    pub state: DeliveryState,
    /// Attempts that were begun.
    pub attempts: u32,
    /// When the next attempt is due, for one that is pending.
    pub next_at: Option<Timestamp>,
    /// Why it is where it is, in words for people.
    pub reason: Option<String>,
    pub created_at: Timestamp,
    /// Since when nothing more is tried.
    pub settled_at: Option<Timestamp>,
}

/// One try at a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When its end was known.
    pub at: Timestamp,
    pub outcome: AttemptOutcome,
    /// What the other side said, or what went wrong, in one line.
    pub answer: String,
    /// When the next one was due then.
    pub next_at: Option<Timestamp>,
}

/// How many deliveries of one notification are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    pub pending: u64,
    pub leased: u64,
    pub sent: u64,
    pub dead: u64,
    pub cancelled: u64,
    pub skipped: u64,
    /// Whether more are still being made.
    pub expanding: bool,
}

impl Tallied {
    /// Whether nothing more will happen by itself.
    pub const fn is_finished(&self) -> bool {
        self.pending == 0 && self.leased == 0 && !self.expanding
    }
}

/// A delivery, with the identity that its messages bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub delivery: Delivery,
    /// The `Message-ID` of its mails; the same at each attempt.
    pub message_id: String,
    /// Whether its medium carries anything now, so that it goes on.
    pub carried: Carried,
}

/// Whether anything carries a medium here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    Yes,
    /// Not for now, for this reason; it goes on by itself when that is mended.
    Held(String),
    /// The medium was taken out of the settings; what is pending waits for it to come back.
    No,
}

/// A page of deliveries, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryPage {
    pub items: Vec<Told>,
    /// Before which the next page begins; `None` at the end.
    pub next: Option<DeliveryId>,
    /// Where one notification was asked for.
    pub tallied: Option<Tallied>,
}

/// One delivery with its attempts, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    pub told: Told,
    pub attempts: Vec<Attempt>,
}

/// One delivery as a body, or as a line of an export.
#[derive(Serialize)]
pub struct DeliveryBody<'a> {
    id: u64,
    notification: Text<'a, NotificationId>,
    user: Option<&'a str>,
    medium: &'static str,
    address: Option<&'a str>,
    category: &'a str,
    template: Option<Text<'a, TemplateName>>,
    template_version: Option<u32>,
    state: &'static str,
    attempts: u32,
    next_at: Option<Text<'a, Timestamp>>,
    reason: Option<&'a str>,
    /// There only where it is true: the medium is not set up any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    stranded: Option<bool>,
    /// Why nothing goes out by its medium for now; there only where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<&'a str>,
    created_at: Text<'a, Timestamp>,
    settled_at: Option<Text<'a, Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
}

impl<'a> From<&'a Told> for DeliveryBody<'a> {
    fn from(told: &'a Told) -> Self {
        let Told { delivery, message_id, carried } = told;
        let waits = matches!(delivery.state, DeliveryState::Pending | DeliveryState::Leased);
        Self {
            stranded: (waits && *carried == Carried::No).then_some(true),
            held: match carried {
                Carried::Held(why) if waits => Some(why),
                _ => None,
            },
            message_id: Some(message_id),
            ..Self::from(delivery)
        }
    }
}

impl<'a> From<&'a Delivery> for DeliveryBody<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            id: delivery.id.0,
            notification: Text(&delivery.notification),
            user: delivery.user.as_ref().map(UserId::as_str),
            medium: delivery.medium.as_str(),
            address: delivery.address.as_deref(),
            category: delivery.category.as_str(),
            template: delivery.template.as_ref().map(|used| Text(&used.name)),
            template_version: delivery.template.as_ref().and_then(|used| used.version),
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            next_at: delivery.next_at.as_ref().map(Text),
            reason: delivery.reason.as_deref(),
            stranded: None,
            held: None,
            created_at: Text(&delivery.created_at),
            settled_at: delivery.settled_at.as_ref().map(Text),
            message_id: None,
        }
    }
}

/// [`Tallied`] as a part of a body, as it is written and as the command line reads it.
#[derive(Debug, Serialize, Deserialize)]
pub struct TalliedBody {
    pub finished: bool,
    pub expanding: bool,
    pub pending: u64,
    pub leased: u64,
    pub sent: u64,
    pub dead: u64,
    pub cancelled: u64,
    pub skipped: u64,
}

impl From<Tallied> for TalliedBody {
    fn from(tallied: Tallied) -> Self {
        let Tallied { pending, leased, sent, dead, cancelled, skipped, expanding } = tallied;
        Self { finished: tallied.is_finished(), expanding, pending, leased, sent, dead, cancelled, skipped }
    }
}

#[derive(Serialize)]
struct AttemptBody<'a> {
    number: u32,
    at: Text<'a, Timestamp>,
    outcome: &'static str,
    answer: &'a str,
    next_at: Option<Text<'a, Timestamp>>,
}

/// [`Timeline`] as a body: the delivery, and `timeline` beside its other fields.
#[derive(Serialize)]
pub struct TimelineBody<'a> {
    #[serde(flatten)]
    delivery: DeliveryBody<'a>,
    timeline: Vec<AttemptBody<'a>>,
}

impl<'a> From<&'a Timeline> for TimelineBody<'a> {
    fn from(timeline: &'a Timeline) -> Self {
        Self { delivery: DeliveryBody::from(&timeline.told), timeline: attempts(&timeline.attempts) }
    }
}

impl<'a> TimelineBody<'a> {
    /// A delivery as its person's export tells it.
    pub fn new(delivery: &'a Delivery, tried: &'a [Attempt]) -> Self {
        Self { delivery: DeliveryBody::from(delivery), timeline: attempts(tried) }
    }
}

fn attempts(attempts: &[Attempt]) -> Vec<AttemptBody<'_>> {
    attempts.iter().map(AttemptBody::from).collect()
}

impl<'a> From<&'a Attempt> for AttemptBody<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        let Attempt { number, at, outcome, answer, next_at } = attempt;
        Self { number: *number, at: Text(at), outcome: outcome.as_str(), answer, next_at: next_at.as_ref().map(Text) }
    }
}

/// What a retry did.
#[derive(Debug, Serialize, Deserialize)]
pub struct RetriedBody {
    /// Deliveries that were dead and are tried again.
    pub retried: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_by_name_and_every_fault_is_told() {
        let asked = Asked::parse(br#"{"user":"alice","medium":"email","state":"dead","since":"2026-05-01T09:00:00Z"}"#);
        let asked = asked.expect("it can be asked");
        assert_eq!((asked.medium, asked.state), (Some(Medium::Email), Some(DeliveryState::Dead)));
        assert_eq!(Asked::parse(b""), Ok(Asked::default()));
        let Err(BodyError::Fields(errors)) =
            Asked::parse(br#"{"medium":"fax","state":"x","until":"soon","limit":"1"}"#)
        else {
            panic!("it is refused")
        };
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/medium", "/state", "/until", "/limit"]);
    }

    #[test]
    fn finished_is_when_nothing_more_will_happen() {
        assert!(Tallied { sent: 3, dead: 1, skipped: 2, cancelled: 1, ..Tallied::default() }.is_finished());
        for open in [
            Tallied { pending: 1, ..Tallied::default() },
            Tallied { leased: 1, ..Tallied::default() },
            Tallied { expanding: true, ..Tallied::default() },
        ] {
            assert!(!open.is_finished(), "{open:?}");
        }
    }
}

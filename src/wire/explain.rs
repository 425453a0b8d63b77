//! Decisions about one person and why they fell: what a publish would do (`dry_run`), and what one has done.

use serde::Serialize;

use super::event::Text;
use crate::model::{Category, Content, DeliveryId, NotificationId, Timestamp, UserId};

/// People at most of whom each decision is told.
pub const MAX_EXPLAINED: usize = 100;

/// What is decided, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Audience,
    Template,
    Preference,
    Dedupe,
    Medium,
    /// One try at a delivery.
    Attempt,
    /// What the person did with it in the app.
    InApp,
}

/// One decision about one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub step: Step,
    /// A word of a few.
    pub decision: &'static str,
    /// Why, for people.
    pub reason: String,
    /// The name of the medium that it is about.
    pub medium: Option<&'static str>,
    pub delivery: Option<DeliveryId>,
    /// Since when it is so.
    pub at: Option<Timestamp>,
    /// When the next attempt is due, or was then.
    pub next_at: Option<Timestamp>,
}

impl Decision {
    pub fn new(step: Step, decision: &'static str, reason: impl Into<String>) -> Self {
        Self { step, decision, reason: reason.into(), medium: None, delivery: None, at: None, next_at: None }
    }

    /// About a medium, by its name.
    #[must_use]
    pub const fn by(mut self, medium: &'static str) -> Self {
        self.medium = Some(medium);
        self
    }

    /// Since a moment.
    #[must_use]
    pub const fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// About a delivery.
    #[must_use]
    pub const fn of(mut self, delivery: DeliveryId) -> Self {
        self.delivery = Some(delivery);
        self
    }
}

/// What became of a notification for one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub notification: NotificationId,
    pub user: UserId,
    /// In the order in which they fell; what the person did comes last.
    pub decisions: Vec<Decision>,
}

/// What would become of it for one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub user: UserId,
    pub decisions: Vec<Decision>,
}

/// What a publish would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// As it would be stored, in the default language.
    pub content: Content,
    pub category: Category,
    pub due: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// Whom it would reach now; `None` for everyone, and for one that waits.
    pub recipients: Option<u64>,
    /// The first of those who are named, [`MAX_EXPLAINED`] at most; nobody for a topic and for everyone. `None` where the
    /// caller may not read who people are.
    pub people: Option<Vec<Person>>,
}

/// [`Rehearsal`] as a body.
#[derive(Serialize)]
pub struct RehearsalBody<'a> {
    dry_run: bool,
    category: Text<'a, Category>,
    title: &'a str,
    body: &'a str,
    click: Option<&'a str>,
    due: Option<String>,
    expires_at: Option<String>,
    recipients: Option<u64>,
    people: Option<Vec<PersonBody<'a>>>,
}

#[derive(Serialize)]
struct PersonBody<'a> {
    user: Text<'a, UserId>,
    decisions: Vec<DecisionBody<'a>>,
}

#[derive(Serialize)]
struct DecisionBody<'a> {
    step: Step,
    #[serde(skip_serializing_if = "Option::is_none")]
    medium: Option<&'static str>,
    decision: &'static str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Text<'a, Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<Text<'a, Timestamp>>,
}

impl<'a> From<&'a Decision> for DecisionBody<'a> {
    fn from(decision: &'a Decision) -> Self {
        let Decision { step, decision: word, reason, medium, delivery, at, next_at } = decision;
        Self {
            step: *step,
            medium: *medium,
            decision: word,
            reason,
            delivery: delivery.map(|DeliveryId(id)| id),
            at: at.as_ref().map(Text),
            next_at: next_at.as_ref().map(Text),
        }
    }
}

/// [`Account`] as a body.
#[derive(Serialize)]
pub struct AccountBody<'a> {
    notification: Text<'a, NotificationId>,
    user: Text<'a, UserId>,
    decisions: Vec<DecisionBody<'a>>,
}

impl<'a> From<&'a Account> for AccountBody<'a> {
    fn from(account: &'a Account) -> Self {
        let Account { notification, user, decisions } = account;
        let decisions = decisions.iter().map(DecisionBody::from).collect();
        Self { notification: Text(notification), user: Text(user), decisions }
    }
}

impl<'a> From<&'a Rehearsal> for RehearsalBody<'a> {
    fn from(rehearsal: &'a Rehearsal) -> Self {
        let Rehearsal { content, category, due, expires_at, recipients, people } = rehearsal;
        let person = |person: &'a Person| PersonBody {
            user: Text(&person.user),
            decisions: person.decisions.iter().map(DecisionBody::from).collect(),
        };
        Self {
            dry_run: true,
            category: Text(category),
            title: &content.title,
            body: &content.body,
            click: content.click.as_deref(),
            due: due.map(|at| at.to_string()),
            expires_at: expires_at.map(|at| at.to_string()),
            recipients: *recipients,
            people: people.as_ref().map(|people| people.iter().map(person).collect()),
        }
    }
}

//! What a publish would do, and why: the answer to one with `dry_run`.

use serde::Serialize;

use super::event::Text;
use crate::model::{Category, Content, Timestamp, UserId};

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
}

/// One decision about one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub step: Step,
    /// A word of a few.
    pub decision: &'static str,
    /// Why, for people.
    pub reason: String,
}

impl Decision {
    pub fn new(step: Step, decision: &'static str, reason: impl Into<String>) -> Self {
        Self { step, decision, reason: reason.into() }
    }
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
    decisions: &'a [Decision],
}

impl<'a> From<&'a Rehearsal> for RehearsalBody<'a> {
    fn from(rehearsal: &'a Rehearsal) -> Self {
        let Rehearsal { content, category, due, expires_at, recipients, people } = rehearsal;
        let person = |person: &'a Person| PersonBody { user: Text(&person.user), decisions: &person.decisions };
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

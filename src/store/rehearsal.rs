//! A publish that is only tried: everything that a publish checks, in the writer's order, and nothing written.

use rusqlite::{OptionalExtension, params};

use super::deaths::Owner;
use super::publish::Publish;
use super::reader::Reader;
use super::writer::{OpError, Operation, Tx};
use super::{Refusal, StoreError, When, schedule, topics};
use crate::model::{Audience, Category, CollapseKey, NotificationId, UserKey};

/// The living notification that the newest of a key would take the place of.
const SELECT_REPLACED: &str = "
    SELECT n.id FROM collapses c JOIN notifications n ON n.seq = c.seq
    WHERE c.owner = ?1 AND c.key = ?2 AND n.died IS NULL";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[SELECT_REPLACED];

/// Checks a publish. Its idempotency key is not looked at.
#[derive(Clone, Debug)]
pub struct Rehearse(pub Publish);

/// What a publish would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    pub when: When,
    /// A topic's own goes before the publish's.
    pub category: Category,
    /// Whom it would reach now; `None` for everyone, and for one that waits.
    pub recipients: Option<u64>,
}

impl Operation for Rehearse {
    type Output = Rehearsed;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Rehearsed, OpError> {
        let Publish { draft, when, .. } = &self.0;
        let when = when.clone().map_err(Refusal::Untimely)?;
        self.0.outgoing(when).check(tx)?;
        let (category, reached) = match &draft.to {
            Audience::Users(names) => (draft.content.category.clone(), u64::try_from(names.len()).ok()),
            Audience::Everyone => (draft.content.category.clone(), None),
            Audience::Topic(name) => match topics::find(tx, name)? {
                Some(topic) => (topic.category, Some(topic.followers)),
                None if draft.category_named => (draft.content.category.clone(), Some(0)),
                None => (Category::default(), Some(0)),
            },
        };
        if when.due.is_some() {
            schedule::check_room(tx)?;
        } else {
            topics::check_room(tx, &category)?;
        }
        Ok(Rehearsed { when, category, recipients: reached.filter(|_| when.due.is_none()) })
    }
}

impl Reader<'_> {
    /// The direct notification of a user that one with this key would take the place of.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn replaced_by(&self, user: UserKey, key: &CollapseKey) -> Result<Option<NotificationId>, StoreError> {
        let wanted = params![Owner::User(user).column(), key.as_str()];
        Ok(self.sql(SELECT_REPLACED)?.query_row(wanted, |row| row.get(0)).optional()?)
    }
}

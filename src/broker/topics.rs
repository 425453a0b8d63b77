//! Topics and their followers, managed by backends.

use super::{Broker, BrokerError};
use crate::model::{Category, Identity, Scope, TopicName, UserId};
use crate::store::{Follow, FollowOutcome, PutTopic, Unfollow};
use crate::wire::manage::Topic;

impl Broker {
    /// Makes sure that a topic is there. Returns it, and whether it was made now.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn put_topic(
        &self,
        by: &Identity,
        name: &TopicName,
        category: Option<Category>,
    ) -> Result<(Topic, bool), BrokerError> {
        may_manage(by, name)?;
        let now = self.inner.clock.now();
        let (row, created) = self.inner.store.write(PutTopic { name: name.clone(), category, now }).await?;
        let topic =
            Topic { name: name.clone(), category: row.category, followers: row.followers, published: row.published };
        Ok((topic, created))
    }

    /// Lets a user follow a topic, from the head on. Returns whether that is new.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn follow(&self, by: &Identity, topic: &TopicName, user: &UserId) -> Result<bool, BrokerError> {
        may_manage(by, topic)?;
        let operation = Follow {
            topic: topic.clone(),
            user: user.clone(),
            now: self.inner.clock.now(),
            everyone_horizon: self.inner.config.everyone_horizon,
            unknown: self.inner.config.unknown_topics,
        };
        Ok(self.inner.store.write(operation).await? == FollowOutcome::Changed)
    }

    /// Ends a follow; what came until now stays in the user's inbox. Returns whether there was one.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn unfollow(&self, by: &Identity, topic: &TopicName, user: &UserId) -> Result<bool, BrokerError> {
        may_manage(by, topic)?;
        let operation = Unfollow { topic: topic.clone(), user: user.clone() };
        Ok(self.inner.store.write(operation).await? == FollowOutcome::Changed)
    }
}

fn may_manage(by: &Identity, topic: &TopicName) -> Result<(), BrokerError> {
    if !by.has(&Scope::Users) {
        return Err(BrokerError::Forbidden("managing topics and followers needs the scope `users`"));
    }
    if topic.is_everyone() { Err(BrokerError::TopicReserved) } else { Ok(()) }
}

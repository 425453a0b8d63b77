//! Topics and their followers, managed by backends; and what users decide for themselves.

use super::{Broker, BrokerError};
use crate::model::{Credential, Identity, Scope, TopicName, UserId, UserIdentity};
use crate::store::{
    self, AskedBy, DeleteTopic, Follow, FollowOutcome, FollowedRow, Muting, PutTopic, TopicRow, Unfollow,
};
use crate::wire::topic::{FollowedTopic, Follower, Listing, MAX_LAST, Topic, TopicSettings};

impl Broker {
    /// Makes sure that a topic is there with these settings. Returns it, and whether it was made now.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn put_topic(
        &self,
        by: &Identity,
        name: &TopicName,
        settings: TopicSettings,
    ) -> Result<(Topic, bool), BrokerError> {
        may_manage(by, name)?;
        let TopicSettings { category, follow } = settings;
        let operation = PutTopic { name: name.clone(), category, follow, now: self.inner.clock.now() };
        let (row, made) = self.inner.store.write(operation).await?;
        Ok((told(row), made))
    }

    /// One topic.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn topic(&self, by: &Identity, name: &TopicName) -> Result<Topic, BrokerError> {
        may_manage(by, name)?;
        let name = name.clone();
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.topic(&name)));
        read.await?.map(told).ok_or(BrokerError::NotFound("topic"))
    }

    /// A page of all topics, in order of their names.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn topics(
        &self,
        by: &Identity,
        after: Option<TopicName>,
        limit: usize,
    ) -> Result<Listing<Topic>, BrokerError> {
        is_manager(by)?;
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| reader.topics(after.as_ref().map_or("", TopicName::as_str), limit + 1))
        });
        let items: Vec<Topic> = read.await?.into_iter().map(told).collect();
        Ok(listing(items, limit, |topic| topic.name.to_string()))
    }

    /// Removes a topic, its followers and its entries.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn delete_topic(&self, by: &Identity, name: &TopicName) -> Result<(), BrokerError> {
        may_manage(by, name)?;
        Ok(self.inner.store.write(DeleteTopic { name: name.clone() }).await?)
    }

    /// A page of a topic's followers, in order of their names.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn followers(
        &self,
        by: &Identity,
        topic: &TopicName,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Listing<Follower>, BrokerError> {
        may_manage(by, topic)?;
        let topic = topic.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let Some(row) = reader.topic(&topic)? else { return Ok(None) };
                Ok(Some(reader.followers(row.key, after.as_ref().map_or("", UserId::as_str), limit + 1)?))
            })
        });
        let found = read.await?.ok_or(BrokerError::NotFound("topic"))?;
        let items = found.into_iter().map(|(user, muted)| Follower { user, muted }).collect();
        Ok(listing(items, limit, |follower: &Follower| follower.user.to_string()))
    }

    /// Lets a user follow a topic, from the head on or beginning with its newest `last` entries. Returns whether that
    /// is new.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn follow(
        &self,
        by: &Identity,
        topic: &TopicName,
        user: &UserId,
        last: u32,
    ) -> Result<bool, BrokerError> {
        may_manage(by, topic)?;
        self.begin_follow(topic, user, AskedBy::Manager, last).await
    }

    /// Ends a follow; what came until now stays in the user's inbox. Returns whether there was one.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn unfollow(&self, by: &Identity, topic: &TopicName, user: &UserId) -> Result<bool, BrokerError> {
        may_manage(by, topic)?;
        let operation = Unfollow { topic: topic.clone(), user: user.clone(), by: AskedBy::Manager };
        Ok(self.inner.store.write(operation).await? == FollowOutcome::Changed)
    }

    /// A user follows a topic that is open to that, as far as the token sees it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn follow_own(&self, who: &UserIdentity, topic: &TopicName, last: u32) -> Result<bool, BrokerError> {
        may_decide(who, topic)?;
        self.begin_follow(topic, &who.user, AskedBy::User, last).await
    }

    /// A user leaves a topic that is open.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn unfollow_own(&self, who: &UserIdentity, topic: &TopicName) -> Result<bool, BrokerError> {
        may_decide(who, topic)?;
        let operation = Unfollow { topic: topic.clone(), user: who.user.clone(), by: AskedBy::User };
        Ok(self.inner.store.write(operation).await? == FollowOutcome::Changed)
    }

    /// Takes a topic out of the user's counts, or back into them. Returns whether that changed anything.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn mute(&self, who: &UserIdentity, topic: &TopicName, mute: Muting) -> Result<bool, BrokerError> {
        may_decide(who, topic)?;
        let operation = store::Mute {
            topic: topic.clone(),
            user: who.user.clone(),
            mute,
            now: self.inner.clock.now(),
            everyone_horizon: self.inner.config().everyone_horizon,
        };
        Ok(self.inner.store.write(operation).await? == FollowOutcome::Changed)
    }

    /// The topics that a user follows or has muted, in order of their names; at most as many as a user may follow.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn followed(&self, who: &UserIdentity) -> Result<Vec<FollowedTopic>, BrokerError> {
        let seer = who.clone();
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| match reader.user(&seer.user)? {
                Some(user) => reader.followed(user),
                None => Ok(Vec::new()),
            })
        });
        let mut followed: Vec<FollowedTopic> = read
            .await?
            .into_iter()
            .filter(|row| who.may_see(&row.topic))
            .map(|FollowedRow { topic, category, follow, following, muted }| FollowedTopic {
                topic,
                category,
                following,
                muted,
                follow,
            })
            .collect();
        followed.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        Ok(followed)
    }

    async fn begin_follow(
        &self,
        topic: &TopicName,
        user: &UserId,
        by: AskedBy,
        last: u32,
    ) -> Result<bool, BrokerError> {
        let operation = Follow {
            topic: topic.clone(),
            user: user.clone(),
            by,
            last: last.min(MAX_LAST),
            now: self.inner.clock.now(),
            everyone_horizon: self.inner.config().everyone_horizon,
            unknown: self.inner.config().unknown_topics,
        };
        Ok(self.inner.store.write(operation).await? == FollowOutcome::Changed)
    }
}

fn is_manager(by: &Identity) -> Result<(), BrokerError> {
    if by.has(&Scope::Users) {
        Ok(())
    } else {
        Err(BrokerError::Forbidden("managing topics and followers needs the scope `users`"))
    }
}

fn may_manage(by: &Identity, topic: &TopicName) -> Result<(), BrokerError> {
    is_manager(by)?;
    if topic.is_everyone() { Err(BrokerError::TopicReserved) } else { Ok(()) }
}

/// Whether a user may decide about a topic for themselves. One that the token hides is not there.
fn may_decide(who: &UserIdentity, topic: &TopicName) -> Result<(), BrokerError> {
    if matches!(who.credential, Credential::Ticket(_)) {
        return Err(BrokerError::Forbidden("a ticket reads only; following and muting need the session or a token"));
    }
    if topic.is_everyone() {
        return Err(BrokerError::TopicReserved);
    }
    if who.may_see(topic) { Ok(()) } else { Err(BrokerError::NotFound("topic")) }
}

fn told(row: TopicRow) -> Topic {
    Topic {
        name: row.name,
        category: row.category,
        follow: row.follow,
        followers: row.followers,
        published: row.published,
        created_at: row.created_at,
    }
}

/// A page of at most `limit`, made of one more where there is one.
fn listing<T>(mut items: Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> Listing<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Listing { next: items.last().filter(|_| more).map(name), items }
}

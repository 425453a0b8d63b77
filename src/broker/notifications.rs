//! What became of a notification, and taking it back.

use super::publish::may_publish;
use super::{Broker, BrokerError};
use crate::model::{Audience, Cursor, Identity, NotificationId, Principal, Scope, UserId, UserKey};
use crate::store::{About, Readership, Retract, RetractOutcome};
use crate::wire::status::{Cutoff, Engagement, Recipient, Retracted, SentTo, Stage, Status};
use crate::wire::topic::Listing;

impl Broker {
    /// What became of a notification: where it is in its life, and how many saw and read it.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`] too for one that the caller may not ask about.
    pub async fn notification(&self, by: &Identity, id: NotificationId) -> Result<Status, BrokerError> {
        if let Some(row) = self.find_scheduled(by, id).await? {
            let scheduled = row.scheduled;
            let due = scheduled.due;
            return Ok(Status {
                id,
                cursor: None,
                stage: scheduled.failed.map_or(Stage::Scheduled { due }, |why| Stage::Failed { due, why }),
                to: sent_to(&scheduled.to),
                category: scheduled.content.category,
                title: scheduled.content.title,
                created_at: scheduled.created_at,
                expires_at: row.expires_at,
                engagement: None,
            });
        }
        let about = self.about(by, id).await?;
        let engagement = self.engagement(about.clone()).await?;
        let stage = about.death().map_or(Stage::Delivered, |(at, death)| Stage::Dead { death, at: Cutoff(at) });
        Ok(Status {
            id,
            cursor: Some(Cursor { epoch: self.epoch().clone(), seq: about.seq() }),
            stage,
            to: to(&about),
            category: about.category().clone(),
            title: about.title.clone(),
            created_at: about.created_at,
            expires_at: about.expires_at,
            engagement: Some(engagement),
        })
    }

    /// Who the recipients of a notification to named users are, in order of their names, and what each did with it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn recipients(
        &self,
        by: &Identity,
        id: NotificationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Listing<Recipient>, BrokerError> {
        if !by.has(&Scope::Users) {
            return Err(BrokerError::Forbidden("reading who did what needs the scope `users`"));
        }
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let Some(about) = reader.about(id)?.filter(|about| about.topic().is_none()) else { return Ok(None) };
                Ok(Some(reader.recipients(&about)?))
            })
        });
        let all = read.await?.ok_or(BrokerError::NotFound("notification to named users"))?;
        let mut items: Vec<Recipient> = all
            .into_iter()
            .filter(|recipient| after.as_ref().is_none_or(|after| recipient.user > *after))
            .take(limit + 1)
            .collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| last.user.to_string());
        Ok(Listing { items, next })
    }

    /// Takes a notification back from every inbox, or cancels one that is scheduled.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn retract(&self, by: &Identity, id: NotificationId) -> Result<Retracted, BrokerError> {
        if self.find_scheduled(by, id).await?.is_none() {
            self.about(by, id).await?;
        }
        let now = self.inner.clock.now();
        Ok(match self.inner.store.write(Retract { id, now }).await? {
            RetractOutcome::Retracted => Retracted::Now,
            RetractOutcome::Cancelled => Retracted::Cancelled,
            RetractOutcome::DeadBefore(death) => Retracted::Before(death),
        })
    }

    /// The notification, where the caller may ask about it: whoever may publish it, and a user only what they published.
    async fn about(&self, by: &Identity, id: NotificationId) -> Result<About, BrokerError> {
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.about(id)));
        let about = read.await?.ok_or(BrokerError::NotFound("notification"))?;
        let may = match by {
            Identity::User(user) => user.publishes && about.publisher == Some(Principal::User(user.user.clone())),
            Identity::Key(_) | Identity::Operator => may_publish(by, &audience(&about)).is_ok(),
        };
        if may { Ok(about) } else { Err(BrokerError::NotFound("notification")) }
    }

    /// Counts readers page by page, each a short read of its own.
    async fn engagement(&self, about: About) -> Result<Engagement, BrokerError> {
        let mut counted = Engagement::default();
        let mut pages = match to(&about) {
            SentTo::Users => vec![Readership::Named],
            SentTo::Topic(_) => vec![Readership::Followers { after: UserKey(0) }],
            SentTo::Everyone => {
                vec![Readership::Appeared { after: UserKey(0) }, Readership::Followers { after: UserKey(0) }]
            }
        };
        while let Some(page) = pages.pop() {
            let about = about.clone();
            let read = self.inner.store.read(move |session| {
                session.snapshot(|reader| {
                    let mut counted = counted;
                    let next = reader.engagement(&about, page, &mut counted)?;
                    Ok((counted, next))
                })
            });
            let (so_far, next) = read.await?;
            counted = so_far;
            pages.extend(next);
        }
        Ok(counted)
    }
}

fn to(about: &About) -> SentTo {
    match about.topic() {
        None => SentTo::Users,
        Some(topic) if topic.is_everyone() => SentTo::Everyone,
        Some(topic) => SentTo::Topic(topic.clone()),
    }
}

/// As far as permission to publish depends on it.
fn audience(about: &About) -> Audience {
    match to(about) {
        SentTo::Users => Audience::Users(Vec::new()),
        SentTo::Topic(topic) => Audience::Topic(topic),
        SentTo::Everyone => Audience::Everyone,
    }
}

fn sent_to(to: &Audience) -> SentTo {
    match to {
        Audience::Users(_) => SentTo::Users,
        Audience::Topic(topic) => SentTo::Topic(topic.clone()),
        Audience::Everyone => SentTo::Everyone,
    }
}

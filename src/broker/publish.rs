//! Publishing: may the caller, has the key been used, then one transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::keys::sha256;
use super::{Broker, BrokerError};
use crate::model::{
    Audience, ContentError, Credential, Deliver, Draft, Expiry, Identity, Life, Media, Medium, NotificationId,
    Principal, Scope, Timestamp, TopicName,
};
use crate::store::{IdempotencyKey, Place, Publish, PublishOutcome, When};
use crate::wire::publish::Published;

/// An `Idempotency-Key` as it came with a request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    pub key: String,
    /// Names the route, since the same key may be used on another.
    pub route: &'static str,
    /// [`hash_body`] of what was sent.
    pub body_hash: [u8; 32],
    pub meanwhile: Meanwhile,
}

/// What a request does whose key is in use by one that has not been answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// It is refused at once, so that a client does not hold a connection for each of its retries.
    Refuse,
    /// It waits and gets the first one's answer: lines of one batch are worked on side by side.
    Wait,
}

/// The SHA-256 that decides whether two bodies are the same.
pub fn hash_body(body: &[u8]) -> [u8; 32] {
    sha256(body)
}

type RunningKey = (Principal, &'static str, String);

/// Keys whose first request has not been answered yet.
#[derive(Clone, Default)]
pub(super) struct Running {
    keys: Arc<Mutex<HashSet<RunningKey>>>,
}

struct Claim {
    running: Running,
    key: RunningKey,
}

impl Running {
    fn claim(&self, key: RunningKey) -> Option<Claim> {
        self.keys.lock().insert(key.clone()).then(|| Claim { running: self.clone(), key })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.running.keys.lock().remove(&self.key);
    }
}

impl Broker {
    /// Publishes. The answer means that it is durable.
    ///
    /// It enters the writer's queue when this future is first polled, so futures that are polled in order commit in
    /// order.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn publish(
        &self,
        by: &Identity,
        mut draft: Draft,
        idempotency: Option<Idempotency>,
    ) -> Result<Published, BrokerError> {
        may_publish(by, &draft.to)?;
        if let Identity::User(user) = by {
            // A person can't speak in another's name.
            draft.content.sender = Some(user.user.as_str().to_owned());
        }
        let now = self.inner.clock.now();
        let principal = by.principal();
        let _claim = match &idempotency {
            Some(i) if i.meanwhile == Meanwhile::Refuse => {
                let claim = self.inner.running.claim((principal.clone(), i.route, i.key.clone()));
                Some(claim.ok_or(BrokerError::IdempotencyRunning)?)
            }
            _ => None,
        };
        let when = self.when(&draft, now);
        let waits = when.as_ref().is_ok_and(|when| *when != When::default());
        let publish = Publish {
            id: NotificationId(Uuid::now_v7()),
            draft,
            when,
            publisher: principal,
            idempotency: idempotency.map(|i| self.idempotency_key(by, i)),
            now,
            policy: self.policy(),
        };
        let outcome = self.inner.store.write(publish).await?;
        if waits {
            self.inner.due.notify_one();
        }
        // What waits is counted when it is delivered.
        if !outcome.replayed && matches!(outcome.place, Place::Log(_)) {
            self.inner.metrics.publishes.inc();
        }
        Ok(told(outcome))
    }

    /// When a draft comes and goes, where it can be published at all: by these media, too.
    ///
    /// # Errors
    /// Every rule that is broken.
    pub(super) fn when(&self, draft: &Draft, now: Timestamp) -> Result<When, Vec<ContentError>> {
        let config = self.inner.config();
        let missing = missing_media(&config.media, &draft.via.media);
        match when(&draft.life, now, config.schedule_horizon) {
            Ok(when) if missing.is_empty() => Ok(when),
            Ok(_) => Err(missing),
            Err(errors) => Err(errors.into_iter().chain(missing).collect()),
        }
    }

    /// A caller's idempotency key as the store knows it.
    pub(super) fn idempotency_key(&self, by: &Identity, idempotency: Idempotency) -> IdempotencyKey {
        let Idempotency { key, route, body_hash, .. } = idempotency;
        let valid_after = self.inner.clock.now().before(self.inner.config().idempotency_ttl);
        IdempotencyKey { principal: by.principal(), route, key, body_hash, valid_after }
    }
}

/// The answer to a publish.
pub(super) fn told(outcome: PublishOutcome) -> Published {
    let PublishOutcome { id, place, recipients, replayed } = outcome;
    let (cursor, due) = match place {
        Place::Log(cursor) => (Some(cursor), None),
        Place::Schedule(due) => (None, Some(due)),
    };
    Published { id, cursor, due, recipients, replayed }
}

/// A fault for each medium that is asked for and not set up.
fn missing_media(media: &Media, via: &[Medium]) -> Vec<ContentError> {
    let missing = via.iter().enumerate().filter(|(_, medium)| !media.has(**medium));
    let fault = |(i, medium): (usize, &Medium)| ContentError {
        pointer: format!("/via/{i}"),
        detail: format!(
            "{} is not set up on this server: the setting {} is missing",
            medium.as_str(),
            Media::setting(*medium)
        ),
    };
    missing.map(fault).collect()
}

/// How late a moment of delivery may be and still mean now: clocks differ, and requests take their time.
const LATE: Duration = Duration::from_mins(1);
/// The longest life that can be asked for: ten years.
const MAX_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// Reads a life at a moment.
///
/// # Errors
/// Every rule that is broken.
pub(super) fn when(life: &Life, now: Timestamp, horizon: Duration) -> Result<When, Vec<ContentError>> {
    let mut errors = Vec::new();
    let mut refuse = |pointer: &str, detail: String| {
        errors.push(ContentError { pointer: pointer.to_owned(), detail });
    };
    let (due, pointer) = match life.deliver {
        Deliver::Now => (None, "/deliver_at"),
        Deliver::After(span) => (Some(now.after(span)).filter(|_| !span.is_zero()), "/delay"),
        Deliver::At(at) if at < now.before(LATE) => {
            refuse("/deliver_at", format!("lies in the past; it is {now} here"));
            (None, "/deliver_at")
        }
        Deliver::At(at) => (Some(at).filter(|at| *at > now), "/deliver_at"),
    };
    if due.is_some_and(|due| due > now.after(horizon)) {
        refuse(pointer, format!("lies beyond the horizon; the latest is {}", now.after(horizon)));
    }
    let begins = due.unwrap_or(now);
    let expires_at = match life.expiry {
        None => None,
        Some(Expiry::After(span)) if span > MAX_LIFE || span < Duration::from_secs(1) => {
            refuse("/expires_in", "must be from 1 second to 10 years".to_owned());
            None
        }
        Some(Expiry::After(span)) => Some(begins.after(span)),
        Some(Expiry::At(at)) if at <= now => {
            refuse("/expires_at", format!("lies in the past; it is {now} here"));
            None
        }
        Some(Expiry::At(at)) if at <= begins => {
            refuse("/expires_at", "lies before the notification is delivered".to_owned());
            None
        }
        Some(Expiry::At(at)) if at > begins.after(MAX_LIFE) => {
            refuse("/expires_at", "must be at most 10 years after the notification is delivered".to_owned());
            None
        }
        Some(Expiry::At(at)) => Some(at),
    };
    if errors.is_empty() { Ok(When { due, expires_at }) } else { Err(errors) }
}

pub(super) fn may_publish(by: &Identity, to: &Audience) -> Result<(), BrokerError> {
    let allowed = match by {
        Identity::Operator => true,
        Identity::User(user) => user.publishes && !matches!(user.credential, Credential::Ticket(_)),
        Identity::Key(key) => key.has(&Scope::Publish) || key.scopes.iter().any(|scope| scope_covers(scope, to)),
    };
    if allowed { Ok(()) } else { Err(BrokerError::Forbidden("publishing this needs the scope `publish`")) }
}

fn scope_covers(scope: &Scope, to: &Audience) -> bool {
    match (scope, to) {
        (Scope::PublishTopics(pattern), Audience::Topic(topic)) => pattern.matches(topic),
        // `*` means every topic that someone chose to follow; reaching all takes naming `everyone`.
        (Scope::PublishTopics(pattern), Audience::Everyone) => pattern.as_str() == TopicName::EVERYONE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const HORIZON: Duration = Duration::from_hours(24);

    fn when(deliver: Deliver, expiry: Option<Expiry>) -> Result<When, Vec<String>> {
        let life = Life { collapse: None, deliver, expiry };
        super::when(&life, NOW, HORIZON).map_err(|errors| errors.into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn what_is_hardly_late_is_delivered_now_and_what_is_late_is_refused() {
        assert_eq!(when(Deliver::At(NOW.before(LATE)), None), Ok(When { due: None, expires_at: None }));
        assert_eq!(when(Deliver::At(NOW.before(LATE * 2)), None), Err(vec!["/deliver_at".to_owned()]));
        assert_eq!(when(Deliver::After(Duration::ZERO), None), Ok(When { due: None, expires_at: None }));
    }

    #[test]
    fn a_schedule_has_a_horizon() {
        let last = NOW.after(HORIZON);
        assert_eq!(when(Deliver::At(last), None), Ok(When { due: Some(last), expires_at: None }));
        assert_eq!(when(Deliver::After(HORIZON * 2), None), Err(vec!["/delay".to_owned()]));
    }

    #[test]
    fn an_end_lies_behind_the_delivery() {
        let hour = Duration::from_hours(1);
        let late = when(Deliver::After(hour), Some(Expiry::After(hour)));
        assert_eq!(late.map(|when| when.expires_at), Ok(Some(NOW.after(hour * 2))));
        for (deliver, expiry) in [
            (Deliver::Now, Expiry::At(NOW)),
            (Deliver::After(hour), Expiry::At(NOW.after(hour))),
            (Deliver::Now, Expiry::At(NOW.after(MAX_LIFE * 2))),
        ] {
            assert_eq!(when(deliver, Some(expiry)), Err(vec!["/expires_at".to_owned()]), "{expiry:?}");
        }
        for span in [Duration::ZERO, MAX_LIFE * 2] {
            assert_eq!(when(Deliver::Now, Some(Expiry::After(span))), Err(vec!["/expires_in".to_owned()]));
        }
    }
}

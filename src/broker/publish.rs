//! Publishing: may the caller, has the key been used, then one transaction.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::keys::sha256;
use super::{Broker, BrokerError};
use crate::model::{Audience, Credential, Draft, Identity, NotificationId, Principal, Scope, TopicName};
use crate::store::{IdempotencyKey, Publish};
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
        let outcome = self
            .inner
            .store
            .write(Publish {
                id: NotificationId(Uuid::now_v7()),
                draft,
                idempotency: idempotency.map(|i| IdempotencyKey {
                    principal,
                    route: i.route,
                    key: i.key,
                    body_hash: i.body_hash,
                    valid_after: now.before(self.inner.config.idempotency_ttl),
                }),
                now,
                everyone_horizon: self.inner.config.everyone_horizon,
                unknown: self.inner.config.unknown_topics,
            })
            .await?;
        if !outcome.replayed {
            self.inner.metrics.publishes.inc();
        }
        Ok(Published {
            id: outcome.id,
            cursor: outcome.cursor,
            recipients: outcome.recipients,
            replayed: outcome.replayed,
        })
    }
}

fn may_publish(by: &Identity, to: &Audience) -> Result<(), BrokerError> {
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

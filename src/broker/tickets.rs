//! Tickets: `tt_<id>_<secret>`, for a stream's URL.
//!
//! Used first within a minute, a ticket is then good for its stream's reconnects, also across a restart, until it
//! runs out. One live stream each: the hub ends an older one. It reads only.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::keys::{fresh_secret, sha256, split_secret};
use super::{AuthError, Broker, BrokerError};
use crate::model::{Credential, Identity, Scope, Timestamp, TopicPattern, UserId, UserIdentity};
use crate::store::{AddTicket, TicketRow, UseTicket};
use crate::wire::manage::Ticket;

const TICKET_PREFIX: &str = "tt";

impl Broker {
    /// Makes a ticket: for the calling user, or for any user by a key that may.
    ///
    /// A user's ticket sees no more than the user's token and lasts no longer.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn create_ticket(&self, by: &Identity, user: Option<UserId>) -> Result<Ticket, BrokerError> {
        let now = self.inner.clock.now();
        // A key vouches for the user as of now; a token's ticket ends with what ends the token.
        let mut issued_at = now;
        let mut expires = now.after(self.inner.config().ticket_ttl);
        let (user, topics) = match (by, user) {
            (Identity::User(UserIdentity { credential: Credential::Ticket(_), .. }), _) => {
                return Err(BrokerError::Forbidden("a ticket reads only; it makes no other ticket"));
            }
            (Identity::User(token), named) => {
                if named.is_some_and(|named| named != token.user) {
                    return Err(BrokerError::Forbidden("a user's token makes tickets for that user only"));
                }
                expires = token.expires.map_or(expires, |end| end.min(expires));
                issued_at = token.issued.map_or(Timestamp::from_millis(0), |issued| issued.min(now));
                (token.user.clone(), token.topics.as_ref().map(|patterns| join(patterns)))
            }
            (key, Some(user)) if key.has(&Scope::Tickets) => (user, None),
            (key, None) if key.has(&Scope::Tickets) => {
                let detail = "says for whom the ticket is, such as {\"user\":\"alice\"}".to_owned();
                return Err(BrokerError::Invalid(vec![crate::model::ContentError {
                    pointer: "/user".to_owned(),
                    detail,
                }]));
            }
            _ => return Err(BrokerError::Forbidden("making tickets needs the scope `tickets`")),
        };
        let secret = fresh_secret(TICKET_PREFIX);
        let use_by = now.after(self.inner.config().ticket_first_use).min(expires);
        let row = TicketRow {
            hash: secret.hash,
            user: user.clone(),
            topics,
            created_at: now,
            issued_at,
            use_by,
            used_at: None,
            expires_at: expires,
        };
        self.inner.store.write(AddTicket { id: secret.id, ticket: row }).await?;
        Ok(Ticket { ticket: secret.text, user, use_by, expires })
    }

    pub(super) async fn check_ticket(&self, text: &str) -> Result<UserIdentity, AuthError> {
        let (id, secret) = split_secret(TICKET_PREFIX, text).ok_or(AuthError::Invalid)?;
        let (id, failed) = (id.to_owned(), |e: crate::store::StoreError| AuthError::Storage(e.to_string()));
        let wanted = id.clone();
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.ticket(&wanted)));
        let row = read.await.map_err(failed)?.ok_or(AuthError::Invalid)?;
        verify_slices_are_equal(&sha256(secret.as_bytes()), &row.hash).map_err(|_| AuthError::Invalid)?;
        let now = self.inner.clock.now();
        if row.expires_at <= now {
            return Err(AuthError::Expired);
        }
        if row.used_at.is_none() {
            // Too late is the same as run out: a page that slept asks for a new one.
            let in_use = self.inner.store.write(UseTicket { id: id.clone(), now }).await.map_err(failed)?;
            if !in_use {
                return Err(AuthError::Expired);
            }
        }
        let topics = row.topics.map(|text| text.split(' ').filter_map(TopicPattern::new).collect());
        let who = UserIdentity {
            user: row.user,
            credential: Credential::Ticket(Arc::from(id)),
            topics,
            publishes: false,
            expires: Some(row.expires_at),
            issued: Some(row.issued_at),
        };
        self.check_revoked(who)
    }
}

/// A pattern holds no space, so spaces keep them apart.
fn join(patterns: &[TopicPattern]) -> String {
    patterns.iter().map(TopicPattern::as_str).collect::<Vec<_>>().join(" ")
}

//! Deliveries: what became of them, and trying dead ones again. With what was placed in the app they are the message log.

use std::sync::Arc;

use super::{Broker, BrokerError};
use crate::model::{DeliveryId, DeliveryState, Identity, Scope};
use crate::store::Retry;
use crate::wire::delivery::{Asked, Carried, Delivery, DeliveryPage, Timeline, Told};

/// Dead deliveries that one transaction revives at most.
const A_PART: usize = 500;

impl Broker {
    /// A page of deliveries, the newest first. It may hold fewer than `limit` and yet not be the last.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn deliveries(
        &self,
        by: &Identity,
        asked: Asked,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<DeliveryPage, BrokerError> {
        may_look(by)?;
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let rows = reader.deliveries(&asked, before, limit)?;
                let tallied = asked.notification.map(|id| reader.tally_deliveries(id)).transpose()?;
                Ok((rows, tallied))
            })
        });
        let (rows, tallied) = read.await?;
        let items = rows.items.into_iter().map(|delivery| self.told(delivery)).collect();
        Ok(DeliveryPage { items, next: rows.next, tallied })
    }

    /// One delivery with its attempts.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn delivery(&self, by: &Identity, id: DeliveryId) -> Result<Timeline, BrokerError> {
        may_look(by)?;
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.delivery(id)));
        let (delivery, attempts) = read.await?.ok_or(BrokerError::NotFound("delivery"))?;
        Ok(Timeline { told: self.told(delivery), attempts })
    }

    /// Has a dead delivery tried again; how many it was, 0 or 1.
    ///
    /// # Errors
    /// [`BrokerError::NotFound`].
    pub async fn retry_delivery(&self, by: &Identity, id: DeliveryId) -> Result<u64, BrokerError> {
        self.delivery(by, id).await?;
        Ok(self.inner.store.write(self.retry(vec![id])).await?)
    }

    /// Has all dead deliveries tried again that are asked for; how many there were.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn retry_deliveries(&self, by: &Identity, asked: Asked) -> Result<u64, BrokerError> {
        may_look(by)?;
        if asked.state.is_some_and(|state| state != DeliveryState::Dead) {
            return Ok(0);
        }
        let asked = Asked { state: Some(DeliveryState::Dead), ..asked };
        let (mut revived, mut before) = (0, None);
        loop {
            let page = asked.clone();
            let read = self.inner.store.read(move |session| session.snapshot(|r| r.deliveries(&page, before, A_PART)));
            let rows = read.await?;
            let deliveries: Vec<DeliveryId> = rows.items.iter().map(|delivery| delivery.id).collect();
            if !deliveries.is_empty() {
                revived += self.inner.store.write(self.retry(deliveries)).await?;
            }
            match rows.next {
                Some(next) => before = Some(next),
                None => return Ok(revived),
            }
        }
    }

    fn retry(&self, deliveries: Vec<DeliveryId>) -> Retry {
        Retry { deliveries, media: Arc::new(self.inner.config().media.clone()), now: self.inner.clock.now() }
    }

    pub(super) fn told(&self, delivery: Delivery) -> Told {
        let carried = match self.held(&delivery) {
            _ if !self.config().media.has(delivery.medium) => Carried::No,
            Some(why) => Carried::Held(why),
            None => Carried::Yes,
        };
        Told { message_id: self.message_id(delivery.id), carried, delivery }
    }
}

pub(super) fn may_look(by: &Identity) -> Result<(), BrokerError> {
    if by.has(&Scope::Users) {
        Ok(())
    } else {
        Err(BrokerError::Forbidden("reading what went to whom, and sending it again, needs the scope `users`"))
    }
}

//! What operators ask of the store: whether counts are right, what is too old, and a smaller file.

use super::{Broker, BrokerError};
use crate::model::{Identity, Scope, TopicKey, UserKey};
use crate::store::{
    Backup, ClearTopic, Drift, MAX_TAKEN, PruneTopic, PruneUser, RepairTopics, RepairUser, Shrink, StoreError, Surplus,
};
use crate::wire::check::Report;
use crate::wire::upkeep::{Compacted, Drifted, Recounted, Repair};

impl Broker {
    /// Recounts the inboxes of one page of users from first principles; `after` is the number of the last user of the
    /// page before, 0 for the first. A repair begins with what topics count of their followers and their dead.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn recount(&self, by: &Identity, after: i64, repair: Repair) -> Result<Recounted, BrokerError> {
        if !by.has(&Scope::Admin) {
            return Err(BrokerError::Forbidden("recounting needs the scope `admin`"));
        }
        let read = self
            .inner
            .store
            .read(move |session| session.snapshot(|reader| Ok((reader.drift(UserKey(after))?, reader.count_users()?))));
        let ((users, found, next), of) = read.await?;
        if !found.is_empty() {
            self.inner.metrics.drift.inc_by(u64::try_from(found.len()).unwrap_or_default());
            tracing::error!(users = found.len(), "stored counts are not what a recount gives");
        }
        if repair == Repair::Repair {
            self.repair(after, &found).await?;
        }
        let drifted =
            found.into_iter().map(|Drift { user, stored, recounted }| Drifted { user, stored, recounted }).collect();
        Ok(Recounted {
            users: u64::try_from(users).unwrap_or_default(),
            of,
            drifted,
            next: next.map(|UserKey(key)| key),
        })
    }

    async fn repair(&self, after: i64, drifted: &[Drift]) -> Result<(), BrokerError> {
        if after == 0 {
            let mut topic = Some(TopicKey(0));
            while let Some(after) = topic {
                topic = self.inner.store.write(RepairTopics { after }).await?;
            }
        }
        for Drift { user, .. } in drifted {
            self.inner.store.write(RepairUser { user: user.clone() }).await?;
        }
        Ok(())
    }

    /// Rewrites the database file without what was deleted. Nothing is written meanwhile, so publishes wait.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn compact(&self, by: &Identity) -> Result<Compacted, BrokerError> {
        if !by.has(&Scope::Admin) {
            return Err(BrokerError::Forbidden("compacting the file needs the scope `admin`"));
        }
        let (before, after) = self.inner.store.compact().await?;
        Ok(Compacted { before, after })
    }

    /// A checked copy of the whole log, without what was deleted. Streams and publishes go on meanwhile.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn back_up(&self, by: &Identity) -> Result<Backup, BrokerError> {
        // It holds what every credential is compared with.
        if *by != Identity::Operator {
            return Err(BrokerError::Forbidden("a copy of everything is for the operator of this machine alone"));
        }
        let backup = self.inner.store.back_up().await?;
        let metrics = &self.inner.metrics;
        metrics.backups.inc();
        metrics.last_backup.set(self.inner.clock.now().as_seconds());
        Ok(backup)
    }

    /// Looks whether the log is whole and agrees with itself, at a copy.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn check(&self, by: &Identity) -> Result<Report, BrokerError> {
        if !by.has(&Scope::Admin) {
            return Err(BrokerError::Forbidden("checking the log needs the scope `admin`"));
        }
        let report = self.inner.store.check().await?;
        if !report.findings.is_empty() {
            tracing::error!(faults = report.findings.len(), "the log is not as it must be; `tidings check` tells what");
        }
        Ok(report)
    }

    /// Takes everything that retention does not keep, bit by bit; how many entries that were.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn retain(&self) -> Result<u64, BrokerError> {
        let mut taken = self.retain_topics().await?;
        let mut after = UserKey(0);
        loop {
            let (more, last) = self.retain_users(after).await?;
            taken += more;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        while self.inner.store.write(Shrink).await? {}
        Ok(taken)
    }

    /// Takes the oldest entries of topics that have too many, and the rows of topics that were deleted.
    pub(super) async fn retain_topics(&self) -> Result<u64, StoreError> {
        let mut taken = 0;
        let mut after = TopicKey(0);
        loop {
            let (keep, now) = (self.inner.config().retention.clone(), self.inner.clock.now());
            let read = self.inner.store.read(move |session| session.snapshot(|r| r.old_topics(after, &keep, now)));
            let (last, old) = read.await?;
            for topic in old {
                loop {
                    let pruned = self.inner.store.write(PruneTopic(topic.clone())).await?;
                    taken += u64::try_from(pruned).unwrap_or_default();
                    self.inner.metrics.pruned.inc_by(u64::try_from(pruned).unwrap_or_default());
                    if pruned < MAX_TAKEN {
                        break;
                    }
                }
            }
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        loop {
            let read = self.inner.store.read(|session| session.snapshot(|reader| reader.deleted_topic()));
            let Some(topic) = read.await? else { return Ok(taken) };
            while !self.inner.store.write(ClearTopic { topic, now: self.inner.clock.now() }).await? {}
        }
    }

    /// Takes what a page of users has too much of; the last user looked at, `None` when all have been.
    pub(super) async fn retain_users(&self, after: UserKey) -> Result<(u64, Option<UserKey>), StoreError> {
        let read = self.inner.store.read(move |session| session.snapshot(|reader| reader.users_after(after)));
        let users = read.await?;
        let last = users.last().copied();
        let mut taken = 0;
        for user in users {
            loop {
                let surplus = self.surplus(user).await?;
                if surplus.is_empty() {
                    break;
                }
                let pruned = self.inner.store.write(PruneUser { user, surplus }).await?;
                self.inner.metrics.pruned.inc_by(u64::try_from(pruned).unwrap_or_default());
                taken += u64::try_from(pruned).unwrap_or_default();
            }
        }
        Ok((taken, last))
    }

    async fn surplus(&self, user: UserKey) -> Result<Surplus, StoreError> {
        let (keep, now) = (self.inner.config().retention.clone(), self.inner.clock.now());
        let looked = self.inner.store.read(move |session| {
            // The user may have been erased meanwhile.
            session.snapshot(|reader| reader.surplus(user, &keep, now))
        });
        looked.await
    }
}

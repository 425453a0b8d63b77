//! Takes the steps of a plan on the shipped broker and on the [`World`] alike, and compares what both say.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use proptest::sample::Index;
use tempfile::TempDir;
use tidings::broker::{self, Broker, BrokerError, Idempotency, InboxQuery, InboxState, Meanwhile, hash_body};
use tidings::clock::Clock;
use tidings::hub;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{
    Audience, Category, Content, Draft, Epoch, Identity, Mark, MarkAs, MarkTarget, NotificationId, Seq, Timestamp,
    TopicName, UserId,
};
use tidings::wire::inbox::MarkBody;
use tidings::wire::publish::Published;

use super::device::{Device, identity};
use super::plan::{How, PEOPLE, Plan, PublishPlan, Shown, Step, TargetPlan};
use super::world::{ANSWERS_KEPT, Counts, EVERYONE_HORIZON, Entry, Marked, Target, To, Token, Verdict, World};
use super::{Outcome, ensure};

/// When every case begins.
const BEGIN: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// The token of a person's own session.
const EVERYTHING: Token = Token { topics: None };

/// A publish that had an idempotency key and was accepted.
struct Keyed {
    publish: PublishPlan,
    title: String,
    key: String,
    at: Timestamp,
    id: NotificationId,
    seq: u64,
    recipients: Option<u64>,
}

/// The running server. Between two of them the directory is all that stays.
struct Running {
    broker: Broker,
    lifecycle: Lifecycle,
}

pub struct Stage {
    directory: TempDir,
    config: broker::Config,
    clock: Clock,
    running: Option<Running>,
    epoch: Epoch,
    world: World,
    devices: Vec<Device>,
    keyed: Vec<Keyed>,
    titles: u64,
}

/// Runs one plan from an empty directory to the last check.
pub async fn play(plan: Plan) -> Outcome {
    let mut stage = Stage::new(&plan).await?;
    for (number, step) in plan.steps.into_iter().enumerate() {
        let told = format!("{step:?}");
        stage.step(step).await.map_err(|fault| format!("step {number}, {told}: {fault}"))?;
    }
    stage.end().await.map_err(|fault| format!("at the end: {fault}"))
}

impl Stage {
    async fn new(plan: &Plan) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let config = broker::Config {
            everyone_horizon: EVERYONE_HORIZON,
            idempotency_ttl: ANSWERS_KEPT,
            hub: hub::Config {
                queue_frames: plan.queue_frames,
                queue_bytes: plan.queue_bytes,
                ..hub::Config::default()
            },
            ..broker::Config::default()
        };
        let clock = Clock::manual(BEGIN);
        let running = start(&directory, &config, &clock).await?;
        Ok(Self {
            epoch: running.broker.epoch().clone(),
            running: Some(running),
            world: World::new(clock.now(), PEOPLE),
            devices: plan.devices.iter().cloned().map(Device::new).collect(),
            keyed: Vec::new(),
            titles: 0,
            directory,
            config,
            clock,
        })
    }

    fn broker(&self) -> &Broker {
        &self.running.as_ref().expect("between restarts it runs").broker
    }

    async fn step(&mut self, step: Step) -> Outcome {
        match step {
            Step::Publish { publish, keyed } => self.publish(publish, keyed).await,
            Step::Again { which, other_body } => self.publish_again(which, other_body).await,
            Step::Follow { topic, user } => self.follow(topic, user).await,
            Step::Unfollow { topic, user } => self.unfollow(topic, user).await,
            Step::Mark { user, token, mark, target, category } => {
                self.mark(user, &token, mark, &target, category).await
            }
            Step::MarkAhead { user, by } => {
                let upto = upto_mark(self.world.head + by, self.epoch.clone());
                self.refused_mark(user, upto, &BrokerError::Ahead).await
            }
            Step::MarkForeign { user } => {
                let foreign = Epoch::new("zz9zz9zz9").expect("an epoch");
                self.refused_mark(user, upto_mark(0, foreign), &BrokerError::UnknownEpoch).await
            }
            Step::Connect { device, how, snapshot } => self.connect(device, how, snapshot).await,
            Step::Read { device, events } => self.devices[device].read(events, &self.world).await,
            Step::Settle { device } => self.devices[device].settle(&self.world).await,
            Step::Cut { device } => self.devices[device].cut(&self.world),
            Step::Storm { publishes, device, how, events } => self.storm(publishes, device, how, events).await,
            Step::Flood { publish, count } => self.publish_at_once(vec![publish; count]).await,
            Step::Page { user, token, state, category, limit } => self.page(user, &token, state, category, limit).await,
            Step::Ask { user } => self.ask(user).await,
            Step::Pass { hours } => {
                self.clock.advance(Duration::from_hours(hours));
                self.world.now = self.clock.now();
                Ok(())
            }
            Step::Drain => self.drain().await,
            Step::Restart => self.restart().await,
        }
    }

    fn draft(&mut self, publish: &PublishPlan) -> Draft {
        self.titles += 1;
        draft(publish, &format!("n{}", self.titles))
    }

    async fn publish(&mut self, publish: PublishPlan, keyed: bool) -> Outcome {
        let draft = self.draft(&publish);
        let title = draft.content.title.clone();
        let key = keyed.then(|| format!("key-{title}"));
        let idempotency = key.as_deref().map(|key| idempotency(key, &title));
        let answer = self.broker().publish(&Identity::Operator, draft, idempotency).await;
        let published = self.settle_publish(&publish, &title, answer)?;
        if let (Some(key), Some(published)) = (key, published) {
            self.remember(publish, title, key, &published);
        }
        Ok(())
    }

    fn remember(&mut self, publish: PublishPlan, title: String, key: String, published: &Published) {
        let (at, id, seq) = (self.world.now, published.id, published.cursor.seq.0);
        let recipients = published.recipients;
        self.keyed.retain(|keyed| keyed.key != key);
        self.keyed.push(Keyed { publish, title, key, at, id, seq, recipients });
    }

    /// Compares the answer of a publish with the world's, and lets it happen there. Returns it where it was accepted.
    fn settle_publish(
        &mut self,
        publish: &PublishPlan,
        title: &str,
        answer: Result<Published, BrokerError>,
    ) -> Result<Option<Published>, String> {
        match (self.world.judge(&publish.to, publish.category), answer) {
            (Verdict::Accepted(recipients), Ok(published)) => {
                let seq = published.cursor.seq.0;
                ensure!(published.recipients == recipients, "reached {:?}, not {recipients:?}", published.recipients);
                ensure!(!published.replayed, "a new publish was answered as a repeated one");
                ensure!(seq == self.world.head + 1, "took {seq} after {}", self.world.head);
                ensure!(published.cursor.epoch == self.epoch, "is of the epoch {}", published.cursor.epoch);
                self.world.publish(&publish.to, publish.category, title, published.id);
                Ok(Some(published))
            }
            (Verdict::CategoryConflict(bears), Err(BrokerError::CategoryConflict(told))) => {
                ensure!(told.as_str() == bears, "the topic was said to bear {told}, not {bears}");
                Ok(None)
            }
            (verdict, answer) => {
                let answer = answer.map(|published| published.cursor);
                Err(format!("{publish:?} was answered {answer:?}, not {verdict:?}"))
            }
        }
    }

    async fn publish_again(&mut self, which: Index, other_body: bool) -> Outcome {
        if self.keyed.is_empty() {
            return Ok(());
        }
        let keyed = &self.keyed[which.index(self.keyed.len())];
        let (publish, key) = (keyed.publish.clone(), keyed.key.clone());
        let title = if other_body { format!("{} changed", keyed.title) } else { keyed.title.clone() };
        let remembered = keyed.at > self.world.now.before(ANSWERS_KEPT);
        let stored = (keyed.id, keyed.seq, keyed.recipients);
        let answer =
            self.broker().publish(&Identity::Operator, draft(&publish, &title), Some(idempotency(&key, &title))).await;
        match (remembered, other_body, answer) {
            (true, false, Ok(again)) => {
                let told = (again.id, again.cursor.seq.0, again.recipients);
                ensure!(told == stored && again.replayed, "answered {told:?}, not the stored {stored:?}");
                Ok(())
            }
            (true, true, Err(BrokerError::IdempotencyMismatch)) => Ok(()),
            (false, _, answer) => {
                if let Some(published) = self.settle_publish(&publish, &title, answer)? {
                    self.remember(publish, title, key, &published);
                }
                Ok(())
            }
            (true, _, answer) => Err(format!("a key used before was answered {:?}", answer.map(|p| p.cursor))),
        }
    }

    async fn follow(&mut self, topic: &'static str, user: &'static str) -> Outcome {
        let told = self.broker().follow(&Identity::Operator, &topic_name(topic), &user_id(user)).await;
        let expected = self.world.follow(topic, user);
        ensure!(told == Ok(expected), "answered {told:?}, not {expected}");
        Ok(())
    }

    async fn unfollow(&mut self, topic: &'static str, user: &'static str) -> Outcome {
        let told = self.broker().unfollow(&Identity::Operator, &topic_name(topic), &user_id(user)).await;
        let expected = self.world.unfollow(topic, user).ok_or(BrokerError::UnknownTopic);
        ensure!(told == expected, "answered {told:?}, not {expected:?}");
        Ok(())
    }

    async fn mark(
        &mut self,
        user: &'static str,
        token: &Token,
        mark: MarkAs,
        target: &TargetPlan,
        category: Option<&'static str>,
    ) -> Outcome {
        let (target, body) = match target {
            TargetPlan::Upto(index) => {
                let positions = usize::try_from(self.world.head + 1).map_err(|e| e.to_string())?;
                upto_target(index.index(positions) as u64)
            }
            TargetPlan::UptoEntry(index) => {
                let own: Vec<u64> = self.newest(user).map(|entry| entry.seq).collect();
                if own.is_empty() {
                    return Ok(());
                }
                upto_target(own[index.index(own.len())])
            }
            TargetPlan::Own(indices) => {
                let own: Vec<NotificationId> = self.newest(user).map(|entry| entry.id).collect();
                ids_target(indices, &own)
            }
            TargetPlan::Ids(indices) => ids_target(indices, self.world.ids()),
        };
        if matches!(&target, Target::Ids(ids) if ids.is_empty()) {
            return Ok(());
        }
        let epoch = matches!(body, MarkTarget::Upto(_)).then(|| self.epoch.clone());
        let body = MarkBody { mark: Mark { mark, target: body, category: category.map(category_name) }, epoch };
        let told = self.broker().mark(&identity(user, token), body).await;
        if token.topics.is_some() && matches!(target, Target::Upto(_)) {
            // It would reach what this token does not see.
            let told = told.map(|marked| marked.changed);
            ensure!(matches!(told, Err(BrokerError::Forbidden(_))), "a token that sees little was answered {told:?}");
            return Ok(());
        }
        let told = told.map_err(|error| format!("was refused: {error}"))?;
        let expected = self.world.mark(user, token, mark, &target, category);
        let answer = Marked { changed: told.changed, unknown: told.unknown };
        ensure!(answer == expected, "answered {answer:?}, not {expected:?}");
        ensure!(told.cursor.seq.0 == self.world.head, "is as of {}, not {}", told.cursor, self.world.head);
        let (counts, expected) = (counts(&told.counts), self.world.counts(user, token));
        ensure!(counts == expected, "counted {counts:?}, not {expected:?}");
        Ok(())
    }

    /// A few of a person's entries: few, so that one mark meets what another did to the same entry.
    fn newest(&self, user: &str) -> impl Iterator<Item = &Entry> {
        const FEW: usize = 5;
        self.world.inbox(user, &EVERYTHING).rev().take(FEW)
    }

    async fn refused_mark(&mut self, user: &'static str, body: MarkBody, why: &BrokerError) -> Outcome {
        let told = self.broker().mark(&identity(user, &EVERYTHING), body).await;
        let told = told.map(|marked| marked.changed);
        ensure!(told.as_ref().err() == Some(why), "answered {told:?}, not {why:?}");
        Ok(())
    }

    async fn connect(&mut self, device: usize, how: How, snapshot: usize) -> Outcome {
        self.devices[device].cut(&self.world)?;
        self.world.appear(self.devices[device].plan.user);
        let opened = self.devices[device].open(self.broker(), how, snapshot, self.world.head, 0).await?;
        self.devices[device].greet(opened, how, snapshot, &self.world)
    }

    /// A device connects and reads while publishes are in flight.
    async fn storm(&mut self, publishes: Vec<PublishPlan>, device: usize, how: How, events: usize) -> Outcome {
        const SNAPSHOT: usize = 15;
        // While the head moves, `ahead` would have to guess.
        let how = if matches!(how, How::Ahead(_)) { How::Resume } else { how };
        self.devices[device].cut(&self.world)?;
        self.world.appear(self.devices[device].plan.user);
        let drafts: Vec<Draft> = publishes.iter().map(|publish| self.draft(publish)).collect();
        let titles: Vec<String> = drafts.iter().map(|draft| draft.content.title.clone()).collect();
        let broker = self.broker().clone();
        let in_flight = drafts.into_iter().map(|draft| broker.publish(&Identity::Operator, draft, None));
        let opening = self.devices[device].open(&broker, how, SNAPSHOT, self.world.head, events);
        let (answers, opened) = join(join_all(in_flight), opening).await;
        for ((publish, title), answer) in publishes.iter().zip(&titles).zip(answers) {
            self.settle_publish(publish, title, answer)?;
        }
        self.devices[device].greet(opened?, how, SNAPSHOT, &self.world)?;
        self.devices[device].read(events, &self.world).await
    }

    async fn publish_at_once(&mut self, publishes: Vec<PublishPlan>) -> Outcome {
        let drafts: Vec<Draft> = publishes.iter().map(|publish| self.draft(publish)).collect();
        let titles: Vec<String> = drafts.iter().map(|draft| draft.content.title.clone()).collect();
        let broker = self.broker().clone();
        let in_flight = drafts.into_iter().map(|draft| broker.publish(&Identity::Operator, draft, None));
        // Publishes enter the writer's queue in the order in which they are polled first, and commit in that order.
        let answers = join_all(in_flight).await;
        for ((publish, title), answer) in publishes.iter().zip(&titles).zip(answers) {
            self.settle_publish(publish, title, answer)?;
        }
        Ok(())
    }

    /// Walks through all pages of an inbox.
    async fn page(
        &mut self,
        user: &'static str,
        token: &Token,
        state: Shown,
        category: Option<&'static str>,
        limit: usize,
    ) -> Outcome {
        self.world.appear(user);
        let who = identity(user, token);
        let mut query = InboxQuery {
            before: None,
            limit,
            state: match state {
                Shown::All => InboxState::All,
                Shown::Unread => InboxState::Unread,
                Shown::Archived => InboxState::Archived,
            },
            category: category.map(category_name),
        };
        let mut told = Vec::new();
        loop {
            let page = self.broker().inbox(&who, query.clone()).await.map_err(|error| error.to_string())?;
            let (page_counts, expected) = (counts(&page.counts), self.world.counts(user, token));
            ensure!(page_counts == expected, "a page counts {page_counts:?}, not {expected:?}");
            ensure!(page.cursor.seq.0 == self.world.head, "a page is as of {}", page.cursor);
            ensure!(page.entries.len() <= limit, "a page of {limit} has {} entries", page.entries.len());
            told.extend(
                page.entries.into_iter().map(|entry| (entry.notification.seq.0, entry.notification.id, entry.state)),
            );
            let Some(next) = page.next else { break };
            query.before = Some(tidings::model::Cursor { epoch: self.epoch.clone(), seq: next });
        }
        let shown = |entry: &&Entry| {
            category.is_none_or(|category| category == entry.category)
                && match state {
                    Shown::All => entry.state.archived_at.is_none(),
                    Shown::Unread => entry.state.archived_at.is_none() && entry.state.read_at.is_none(),
                    Shown::Archived => entry.state.archived_at.is_some(),
                }
        };
        let shown = self.world.inbox(user, token).rev().filter(shown);
        let expected: Vec<_> = shown.map(|entry| (entry.seq, entry.id, entry.state)).collect();
        ensure!(told == expected, "{user}'s {state:?} entries are {told:#?}, not {expected:#?}");
        Ok(())
    }

    async fn ask(&mut self, user: &'static str) -> Outcome {
        let told = self.broker().counts_of(&Identity::Operator, &user_id(user)).await;
        let (told, as_of) = told.map_err(|error| error.to_string())?;
        let (told, expected) = (counts(&told), self.world.counts_asked(user));
        ensure!(told == expected && as_of.seq.0 == self.world.head, "told {told:?} as of {as_of}, not {expected:?}");
        Ok(())
    }

    async fn drain(&mut self) -> Outcome {
        self.broker().drain();
        for (number, device) in self.devices.iter_mut().enumerate().filter(|(_, device)| device.is_connected()) {
            device.part("shutdown", &self.world).await.map_err(|fault| format!("device {number}: {fault}"))?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Outcome {
        self.stop().await?;
        let running = start(&self.directory, &self.config, &self.clock).await?;
        ensure!(*running.broker.epoch() == self.epoch, "a restart made a new epoch");
        self.running = Some(running);
        Ok(())
    }

    async fn stop(&mut self) -> Outcome {
        for device in &mut self.devices {
            device.cut(&self.world)?;
        }
        let Some(Running { broker, lifecycle }) = self.running.take() else { return Ok(()) };
        lifecycle.drain();
        drop(broker);
        ensure!(lifecycle.core_ended(Duration::from_secs(30)).await, "the writer or the fan-out did not end");
        Ok(())
    }

    /// Every device is brought up to date, every inbox is read, and the counts are counted anew.
    async fn end(mut self) -> Outcome {
        for device in 0..self.devices.len() {
            if !self.devices[device].is_connected() {
                self.connect(device, How::Resume, 15).await.map_err(|fault| format!("device {device}: {fault}"))?;
            }
        }
        for (number, device) in self.devices.iter_mut().enumerate() {
            device.settle(&self.world).await.map_err(|fault| format!("device {number}: {fault}"))?;
        }
        for user in PEOPLE {
            for state in [Shown::All, Shown::Unread, Shown::Archived] {
                self.page(user, &EVERYTHING, state, None, 100).await?;
            }
        }
        let drift = self.broker().drift().await.map_err(|error| error.to_string())?;
        ensure!(drift.is_empty(), "counts drifted: {drift:?}");
        self.stop().await
    }
}

async fn start(directory: &TempDir, config: &broker::Config, clock: &Clock) -> Result<Running, String> {
    let lifecycle = Lifecycle::default();
    let metrics = Arc::new(Metrics::default());
    let opened = Broker::open(directory.path(), config.clone(), clock.clone(), metrics, &lifecycle).await;
    let broker = opened.map_err(|error| format!("the broker does not open: {error}"))?;
    Ok(Running { broker, lifecycle })
}

fn draft(publish: &PublishPlan, title: &str) -> Draft {
    let to = match &publish.to {
        To::Users(users) => Audience::Users(users.iter().map(|user| user_id(user)).collect()),
        To::Topic(topic) => Audience::Topic(topic_name(topic)),
        To::Everyone => Audience::Everyone,
    };
    let category = publish.category.map(category_name);
    Draft {
        to,
        category_named: category.is_some(),
        content: Content { title: title.to_owned(), category: category.unwrap_or_default(), ..Content::default() },
    }
}

fn idempotency(key: &str, body: &str) -> Idempotency {
    Idempotency {
        key: key.to_owned(),
        route: "notifications",
        body_hash: hash_body(body.as_bytes()),
        meanwhile: Meanwhile::Refuse,
    }
}

/// The same target for the world and for the broker.
fn upto_target(upto: u64) -> (Target, MarkTarget) {
    (Target::Upto(upto), MarkTarget::Upto(Seq(upto)))
}

/// Some of these, each once; none where there are none.
fn ids_target(indices: &[Index], from: &[NotificationId]) -> (Target, MarkTarget) {
    let chosen = indices.iter().filter(|_| !from.is_empty()).map(|index| from[index.index(from.len())]);
    let mut ids: Vec<NotificationId> = chosen.collect();
    ids.sort_unstable();
    ids.dedup();
    (Target::Ids(ids.clone()), MarkTarget::Ids(ids))
}

fn upto_mark(seq: u64, epoch: Epoch) -> MarkBody {
    let mark = Mark { mark: MarkAs::Read, target: MarkTarget::Upto(Seq(seq)), category: None };
    MarkBody { mark, epoch: Some(epoch) }
}

fn counts(told: &tidings::model::Counts) -> Counts {
    let by_category =
        told.by_category.iter().map(|(name, of)| (name.as_str().to_owned(), (of.unread, of.unseen))).collect();
    Counts { unread: told.unread, unseen: told.unseen, by_category }
}

fn user_id(name: &str) -> UserId {
    UserId::new(name).expect("the people have valid names")
}

fn topic_name(name: &str) -> TopicName {
    TopicName::new(name).expect("the topics have valid names")
}

fn category_name(name: &str) -> Category {
    Category::new(name).expect("the categories have valid names")
}

//! Takes the steps of a plan on the shipped broker and on the [`World`] alike, and compares what both say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use proptest::sample::Index;
use tempfile::TempDir;
use tidings::broker::{self, Broker, BrokerError, Idempotency, InboxQuery, InboxState, Meanwhile, Mute, hash_body};
use tidings::clock::Clock;
use tidings::hub;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{
    Audience, Category, CollapseKey, Content, Deliver, Draft, Epoch, Expiry, FollowRule, Identity, Life, Mark, MarkAs,
    MarkTarget, NotificationId, Seq, Timestamp, TopicName, UserId,
};
use tidings::wire;
use tidings::wire::inbox::MarkBody;
use tidings::wire::publish::Published;
use tidings::wire::status::{self, FailedDelivery, SentTo};
use tidings::wire::topic::TopicSettings;
use tidings::wire::upkeep::Repair;

use super::device::{Device, identity};
use super::plan::{How, LifePlan, Moment, NotePlan, PEOPLE, Plan, PublishPlan, Shown, Span, Step, TargetPlan};
use super::world::{
    ANSWERS_KEPT, Counts, EVERYONE_HORIZON, Entry, Fate, Followed, Keep, Marked, Note, Retracted, Sending, Target, To,
    Token, Verdict, Waiting, When, World,
};
use super::{Outcome, ensure};

/// When every case begins.
const BEGIN: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// The token of a person's own session.
const EVERYTHING: Token = Token { topics: None };

/// How long after its moment something due may be committed (semantics 14).
const LATE_AT_MOST: Duration = Duration::from_secs(1);

/// Notifications out of which a publisher mostly chooses: few, so that what happens to one meets what happened to it.
const RECENT: usize = 8;

/// A publish that had an idempotency key and was accepted.
struct Keyed {
    sending: Sending,
    key: String,
    at: Timestamp,
    answer: Answer,
}

/// What is told of a publish: its id, its position or its moment, and how many it reached.
type Answer = (NotificationId, Option<u64>, Option<Timestamp>, Option<u64>);

fn answer(published: &Published) -> Answer {
    let seq = published.cursor.as_ref().map(|cursor| cursor.seq.0);
    (published.id, seq, published.due, published.recipients)
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
            retention: retention(&plan.keep),
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
            world: World::new(clock.now(), PEOPLE, plan.keep),
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
            Step::Follow { topic, user, last } => self.follow(topic, user, last).await,
            Step::Unfollow { topic, user } => self.unfollow(topic, user).await,
            Step::FollowOwn { topic, user, token, last } => self.follow_own(topic, user, &token, last).await,
            Step::UnfollowOwn { topic, user, token } => self.unfollow_own(topic, user, &token).await,
            Step::Mute { topic, user, on } => self.mute(topic, user, on).await,
            Step::PutTopic { topic, category, rule } => self.put_topic(topic, category, rule).await,
            Step::DeleteTopic { topic } => self.delete_topic(topic).await,
            Step::Topics { limit } => self.topics(limit).await,
            Step::Followed { user, token } => self.followed(user, &token).await,
            Step::Retract { which } => self.retract(&which).await,
            Step::Reschedule { which, publish } => self.reschedule(&which, &publish).await,
            Step::Scheduled { limit } => self.scheduled(limit).await,
            Step::Look { which, limit } => match self.choose(&which) {
                Some(id) => self.look(id, limit).await,
                None => Ok(()),
            },
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
            Step::Pass { span } => {
                self.clock.advance(self.length(&span));
                self.catch_up().await
            }
            Step::Retain => self.retain().await,
            Step::Erase { user } => self.erase(user).await,
            Step::Drain => self.drain().await,
            Step::Restart { down } => self.restart(&down).await,
        }
    }

    /// The publish of a plan, as of now.
    fn sending(&mut self, publish: &PublishPlan) -> Sending {
        self.titles += 1;
        let title = format!("n{}", self.titles);
        let when = |moment| match moment {
            Moment::In(seconds) => When::In(seconds),
            Moment::At(offset) => When::At(shifted(self.world.now, offset)),
        };
        let LifePlan { collapse, deliver, expiry } = publish.life;
        let (deliver, expiry) = (deliver.map(when), expiry.map(when));
        Sending { to: publish.to.clone(), category: publish.category, title, collapse, deliver, expiry }
    }

    async fn publish(&mut self, publish: PublishPlan, keyed: bool) -> Outcome {
        let sending = self.sending(&publish);
        let key = keyed.then(|| format!("key-{}", sending.title));
        let idempotency = key.as_deref().map(|key| idempotency(key, &sending.title));
        let told = self.broker().publish(&Identity::Operator, draft(&sending), idempotency).await;
        let published = self.settle_publish(&sending, told)?;
        if let (Some(key), Some(published)) = (key, published) {
            self.remember(sending, key, &published);
        }
        Ok(())
    }

    fn remember(&mut self, sending: Sending, key: String, published: &Published) {
        self.keyed.retain(|keyed| keyed.key != key);
        self.keyed.push(Keyed { sending, key, at: self.world.now, answer: answer(published) });
    }

    /// Compares the answer of a publish with the world's, and lets it happen there. Returns it where it was accepted.
    fn settle_publish(
        &mut self,
        sending: &Sending,
        told: Result<Published, BrokerError>,
    ) -> Result<Option<Published>, String> {
        let published = match (self.world.judge(sending), told) {
            (Verdict::Accepted(recipients), Ok(published)) => {
                let next = self.world.head + 1;
                let expected = (published.id, Some(next), None, recipients);
                ensure!(answer(&published) == expected, "was answered {published:?}, not {expected:?}");
                let epoch = published.cursor.as_ref().map(|cursor| &cursor.epoch);
                ensure!(epoch == Some(&self.epoch), "is of the epoch {epoch:?}");
                published
            }
            (Verdict::Scheduled(due), Ok(published)) => {
                let expected = (published.id, None, Some(due), None);
                ensure!(answer(&published) == expected, "was answered {published:?}, not {expected:?}");
                published
            }
            (Verdict::CategoryConflict(category), Err(BrokerError::CategoryConflict(told)))
                if told.as_str() == category =>
            {
                return Ok(None);
            }
            (Verdict::Untimely, Err(BrokerError::Invalid(_))) => return Ok(None),
            (verdict, told) => {
                return Err(format!("{sending:?} was answered {told:?}, not {verdict:?}"));
            }
        };
        ensure!(!published.replayed, "a new publish was answered as a repeated one");
        self.world.publish(sending.clone(), published.id);
        Ok(Some(published))
    }

    async fn publish_again(&mut self, which: Index, other_body: bool) -> Outcome {
        if self.keyed.is_empty() {
            return Ok(());
        }
        let keyed = &self.keyed[which.index(self.keyed.len())];
        let (mut sending, key, stored) = (keyed.sending.clone(), keyed.key.clone(), keyed.answer);
        if other_body {
            sending.title.push_str(" changed");
        }
        let remembered = keyed.at > self.world.now.before(ANSWERS_KEPT);
        let idempotency = idempotency(&key, &sending.title);
        let told = self.broker().publish(&Identity::Operator, draft(&sending), Some(idempotency)).await;
        match (remembered, other_body, told) {
            (true, false, Ok(again)) => {
                let told = answer(&again);
                ensure!(told == stored && again.replayed, "answered {told:?}, not the stored {stored:?}");
                Ok(())
            }
            (true, true, Err(BrokerError::IdempotencyMismatch)) => Ok(()),
            (false, _, told) => {
                if let Some(published) = self.settle_publish(&sending, told)? {
                    self.remember(sending, key, &published);
                }
                Ok(())
            }
            (true, _, told) => Err(format!("a key used before was answered {told:?}")),
        }
    }

    async fn follow(&mut self, topic: &'static str, user: &'static str, last: u32) -> Outcome {
        let told = self.broker().follow(&Identity::Operator, &topic_name(topic), &user_id(user), last).await;
        let expected = self.world.follow(topic, user, last as usize);
        ensure!(told == Ok(expected), "answered {told:?}, not {expected}");
        Ok(())
    }

    async fn unfollow(&mut self, topic: &'static str, user: &'static str) -> Outcome {
        let told = self.broker().unfollow(&Identity::Operator, &topic_name(topic), &user_id(user)).await;
        let expected = self.world.unfollow(topic, user).ok_or(BrokerError::UnknownTopic);
        ensure!(told == expected, "answered {told:?}, not {expected:?}");
        Ok(())
    }

    /// What a person is told who follows or leaves a topic by themselves, where that is not allowed.
    fn refused_own(&self, topic: &str, token: &Token) -> Option<BrokerError> {
        match self.world.topic(topic) {
            _ if !token.sees(Some(topic)) => Some(BrokerError::Forbidden("")),
            None => Some(BrokerError::UnknownTopic),
            Some(topic) if topic.rule == FollowRule::Managed => Some(BrokerError::TopicManaged),
            Some(_) => None,
        }
    }

    async fn follow_own(&mut self, topic: &'static str, user: &'static str, token: &Token, last: u32) -> Outcome {
        let told = self.broker().follow_own(&identity(user, token), &topic_name(topic), last).await;
        if let Some(refusal) = self.refused_own(topic, token) {
            return refused_alike(&told, &refusal);
        }
        let expected = self.world.follow(topic, user, last as usize);
        ensure!(told == Ok(expected), "answered {told:?}, not {expected}");
        Ok(())
    }

    async fn unfollow_own(&mut self, topic: &'static str, user: &'static str, token: &Token) -> Outcome {
        let told = self.broker().unfollow_own(&identity(user, token), &topic_name(topic)).await;
        if let Some(refusal) = self.refused_own(topic, token) {
            return refused_alike(&told, &refusal);
        }
        let expected = self.world.unfollow(topic, user);
        ensure!(told.as_ref().ok() == expected.as_ref(), "answered {told:?}, not {expected:?}");
        Ok(())
    }

    async fn mute(&mut self, topic: &'static str, user: &'static str, on: bool) -> Outcome {
        let mute = if on { Mute::On } else { Mute::Off };
        let told = self.broker().mute(&identity(user, &EVERYTHING), &topic_name(topic), mute).await;
        let Some(expected) = self.world.mute(topic, user, on) else {
            return refused_alike(&told, &BrokerError::UnknownTopic);
        };
        ensure!(told == Ok(expected), "answered {told:?}, not {expected}");
        self.same_head().await
    }

    async fn put_topic(
        &mut self,
        topic: &'static str,
        category: Option<&'static str>,
        rule: Option<FollowRule>,
    ) -> Outcome {
        let settings = TopicSettings { category: category.map(category_name), follow: rule };
        let told = self.broker().put_topic(&Identity::Operator, &topic_name(topic), settings).await;
        match self.world.put_topic(topic, category, rule) {
            Ok(is_new) => {
                let (told, was_made) = told.map_err(|error| format!("was refused: {error}"))?;
                ensure!(was_made == is_new, "was made: {was_made}, not {is_new}");
                self.same_topic(&told, topic)
            }
            Err(category) => refused_alike(&told, &BrokerError::CategoryConflict(category_name(category))),
        }
    }

    fn same_topic(&self, told: &wire::topic::Topic, name: &str) -> Outcome {
        let topic = self.world.topic(name).ok_or_else(|| format!("{told:?} is no topic"))?;
        let told_so = (
            (told.name.as_str(), told.category.as_str(), told.follow),
            (told.followers, told.published, told.created_at),
        );
        let expected = (
            (topic.name, topic.category, topic.rule),
            (topic.followers.len() as u64, topic.published, topic.created_at),
        );
        ensure!(told_so == expected, "{told_so:?} is told of a topic, not {expected:?}");
        Ok(())
    }

    async fn delete_topic(&mut self, topic: &'static str) -> Outcome {
        let told = self.broker().delete_topic(&Identity::Operator, &topic_name(topic)).await;
        if self.world.delete_topic(topic) {
            ensure!(told == Ok(()), "was refused: {told:?}");
            return Ok(());
        }
        refused_alike(&told, &BrokerError::UnknownTopic)
    }

    /// All topics page by page, and the followers of each.
    async fn topics(&mut self, limit: usize) -> Outcome {
        let operator = Identity::Operator;
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = self.broker().topics(&operator, after.take(), limit).await.map_err(|e| e.to_string())?;
            ensure!(page.items.len() <= limit, "a page of {limit} has {} topics", page.items.len());
            for topic in &page.items {
                self.same_topic(topic, topic.name.as_str())?;
                self.same_followers(&topic.name, limit).await?;
                names.push(topic.name.as_str().to_owned());
            }
            let Some(next) = page.next else { break };
            after = Some(topic_name(&next));
        }
        let expected: Vec<&str> = self.world.topics().iter().map(|topic| topic.name).collect();
        ensure!(names == expected, "the topics {names:?} are listed, not {expected:?}");
        Ok(())
    }

    async fn same_followers(&self, topic: &TopicName, limit: usize) -> Outcome {
        let operator = Identity::Operator;
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            let page = self.broker().followers(&operator, topic, after.take(), limit).await;
            let page = page.map_err(|error| error.to_string())?;
            ensure!(page.items.len() <= limit, "a page of {limit} has {} followers", page.items.len());
            told.extend(page.items.into_iter().map(|follower| (follower.user.as_str().to_owned(), follower.muted)));
            let Some(next) = page.next else { break };
            after = Some(user_id(&next));
        }
        let of_world = self.world.topic(topic.as_str()).ok_or("a topic that is not there has followers")?;
        let named = of_world.followers.iter();
        let mut expected: Vec<(String, bool)> =
            named.map(|user| ((*user).to_owned(), self.world.has_muted(user, of_world))).collect();
        expected.sort_unstable();
        ensure!(told == expected, "{topic} is followed by {told:?}, not {expected:?}");
        Ok(())
    }

    async fn followed(&mut self, user: &'static str, token: &Token) -> Outcome {
        let told = self.broker().followed(&identity(user, token)).await.map_err(|error| error.to_string())?;
        let told: Vec<_> =
            told.iter().map(|t| (t.topic.as_str(), t.category.as_str(), t.following, t.muted, t.follow)).collect();
        let expected = self.world.followed(user, token);
        let expected: Vec<_> = expected
            .iter()
            .map(|Followed { topic, category, following, muted, rule }| (*topic, *category, *following, *muted, *rule))
            .collect();
        ensure!(told == expected, "{user} follows {told:?}, not {expected:?}");
        Ok(())
    }

    /// The notification that a plan means; `None` where there is none to choose.
    fn choose(&self, which: &NotePlan) -> Option<NotificationId> {
        let waiting: Vec<NotificationId> = self.world.waiting().iter().map(|waiting| waiting.id).collect();
        let ids = self.world.ids();
        let (index, from) = match which {
            NotePlan::Recent(index) => (index, &ids[ids.len().saturating_sub(RECENT)..]),
            NotePlan::Any(index) => (index, ids),
            NotePlan::Waiting(index) => (index, &waiting[..]),
        };
        (!from.is_empty()).then(|| from[index.index(from.len())])
    }

    async fn retract(&mut self, which: &NotePlan) -> Outcome {
        let Some(id) = self.choose(which) else {
            return Ok(());
        };
        let told = self.broker().retract(&Identity::Operator, id).await;
        let told = match told {
            Ok(status::Retracted::Now) => Retracted::Now,
            Ok(status::Retracted::Cancelled) => Retracted::Cancelled,
            Ok(status::Retracted::Before(death)) => Retracted::Before(death),
            Err(BrokerError::NotFound(_)) => Retracted::Unknown,
            Err(error) => return Err(format!("retracting {id} was refused: {error}")),
        };
        let expected = self.world.retract(id);
        ensure!(told == expected, "retracting {id} was answered {told:?}, not {expected:?}");
        self.same_head().await
    }

    async fn reschedule(&mut self, which: &NotePlan, publish: &PublishPlan) -> Outcome {
        let Some(id) = self.choose(which) else {
            return Ok(());
        };
        let mut sending = self.sending(publish);
        if let Fate::Waits(waiting) = self.world.fate(id)
            && waiting.failed
        {
            // Its moment has passed: which of its ends lie in the past is nobody's question.
            sending.expiry = None;
        }
        // What is to be delivered by now is a publish.
        if matches!(publish.life.deliver, Some(Moment::In(0) | Moment::At(..=0))) {
            sending.deliver = Some(When::In(1));
        }
        let told = self.broker().reschedule(&Identity::Operator, id, draft(&sending)).await;
        match (self.world.reschedule(id, sending.clone()), told) {
            (None, Err(BrokerError::NotScheduled | BrokerError::NotFound(_))) => Ok(()),
            (Some(Verdict::Untimely), Err(BrokerError::Invalid(_))) => Ok(()),
            (Some(Verdict::CategoryConflict(category)), Err(BrokerError::CategoryConflict(told)))
                if told.as_str() == category =>
            {
                Ok(())
            }
            (Some(Verdict::Scheduled(_)), Ok(told)) => match self.world.fate(id) {
                Fate::Waits(waiting) => same_waiting(&told, waiting),
                fate => Err(format!("{told:?} waits, and the world says {fate:?}")),
            },
            (verdict, told) => Err(format!("{sending:?} was answered {told:?}, not {verdict:?}")),
        }?;
        // One that failed is tried again at once.
        self.catch_up().await
    }

    /// What waits, page by page.
    async fn scheduled(&mut self, limit: usize) -> Outcome {
        let operator = Identity::Operator;
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            let page = self.broker().scheduled(&operator, after.take(), limit).await.map_err(|e| e.to_string())?;
            ensure!(page.items.len() <= limit, "a page of {limit} has {} items", page.items.len());
            told.extend(page.items);
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        let expected = self.world.waiting();
        ensure!(told.len() == expected.len(), "there wait {told:?}, not {expected:?}");
        told.iter().zip(expected).try_for_each(|(told, waiting)| same_waiting(told, waiting))
    }

    /// Compares what is told of a notification, and who its recipients are.
    async fn look(&self, id: NotificationId, limit: usize) -> Outcome {
        self.look_into_inboxes(id).await?;
        let told = self.broker().notification(&Identity::Operator, id).await;
        match (self.world.fate(id), told) {
            (Fate::Unknown, Err(BrokerError::NotFound(_))) => Ok(()),
            (Fate::Waits(waiting), Ok(told)) => {
                let stage = if waiting.failed {
                    status::Stage::Failed { due: waiting.due, why: FailedDelivery::CategoryConflict }
                } else {
                    status::Stage::Scheduled { due: waiting.due }
                };
                ensure!(told.stage == stage, "{told:?} is not at {stage:?}");
                ensure!(told.cursor.is_none() && told.engagement.is_none(), "{told:?} waits and has been delivered");
                ensure!(told.expires_at == waiting.expires_at, "{told:?} does not end at {:?}", waiting.expires_at);
                ensure!(told.created_at == waiting.created_at, "{told:?} is not of {}", waiting.created_at);
                Ok(())
            }
            (Fate::Committed(note), Ok(told)) => {
                self.same_note(&told, note)?;
                self.same_recipients(note, limit).await
            }
            // Who asks late is told nothing of what died long ago.
            (Fate::Committed(note), Err(BrokerError::NotFound(_)))
                if self.world.has_retained && note.death.is_some() =>
            {
                Ok(())
            }
            (fate, told) => Err(format!("{id} is told as {told:?}, not as {fate:?}")),
        }
    }

    /// Everybody asks for one entry by its id.
    async fn look_into_inboxes(&self, id: NotificationId) -> Outcome {
        for user in PEOPLE.iter().filter(|user| self.world.has_appeared(user)) {
            let told = self.broker().entry(&identity(user, &EVERYTHING), id).await;
            let told =
                told.map(|entry| (entry.notification.seq.0, entry.notification.content.title.clone(), entry.state));
            let entry = self.world.inbox(user, &EVERYTHING).find(|entry| entry.id == id);
            let expected = entry.map(|entry| (entry.seq, entry.title.clone(), entry.state));
            ensure!(told.as_ref().ok() == expected.as_ref(), "{user} is told {told:?}, not {expected:?}");
        }
        Ok(())
    }

    fn same_note(&self, told: &status::Status, note: &Note) -> Outcome {
        let stage = note
            .death
            .map_or(status::Stage::Delivered, |(at, death)| status::Stage::Dead { death, at: status::Cutoff(Seq(at)) });
        ensure!(told.stage == stage, "{told:?} is not at {stage:?}");
        let to = match &note.to {
            To::Users(_) => SentTo::Users,
            To::Topic(name) => SentTo::Topic(topic_name(name)),
            To::Everyone => SentTo::Everyone,
        };
        ensure!(told.to == to, "{told:?} was not sent to {to:?}");
        let seq = told.cursor.as_ref().map(|cursor| cursor.seq.0);
        ensure!(seq == Some(note.seq), "{told:?} does not stand at {}", note.seq);
        let said = (told.category.as_str(), told.created_at, told.expires_at);
        let expected = (note.category, note.created_at, note.expires_at);
        ensure!(said == expected, "{told:?} does not say {expected:?}");
        let engaged = told.engagement.ok_or_else(|| format!("{told:?} has not been delivered"))?;
        let expected = self.world.engaged(note.id);
        let did = (engaged.seen, engaged.read, engaged.archived);
        ensure!(did == (expected.seen, expected.read, expected.archived), "{told:?} does not say {expected:?}");
        let reached = expected.recipients..=self.world.reached_at_most(note.id);
        ensure!(reached.contains(&engaged.recipients), "{told:?} does not say {expected:?}");
        Ok(())
    }

    async fn same_recipients(&self, note: &Note, limit: usize) -> Outcome {
        if !matches!(note.to, To::Users(_)) {
            return Ok(());
        }
        let operator = Identity::Operator;
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            let page = self.broker().recipients(&operator, note.id, after.take(), limit).await;
            let page = page.map_err(|error| error.to_string())?;
            ensure!(page.items.len() <= limit, "a page of {limit} has {} recipients", page.items.len());
            told.extend(page.items);
            let Some(next) = page.next else { break };
            after = Some(user_id(&next));
        }
        let told: Vec<_> = told
            .iter()
            .map(|recipient| (recipient.user.as_str(), recipient.seen_at, recipient.read_at, recipient.archived_at))
            .collect();
        let expected: Vec<_> = self
            .world
            .copies(note.id)
            .map(|(user, entry)| (user, entry.state.seen_at, entry.state.read_at, entry.state.archived_at))
            .collect();
        ensure!(told == expected, "{} reached {told:?}, not {expected:?}", note.id);
        Ok(())
    }

    /// How long a plan means, from now.
    fn length(&self, span: &Span) -> Duration {
        match span {
            Span::Seconds(seconds) => Duration::from_secs(*seconds),
            Span::Hours(hours) => Duration::from_hours(*hours),
            Span::Until { which, just_before } => {
                let moments = self.world.moments();
                if moments.is_empty() {
                    return Duration::ZERO;
                }
                let length = moments[which.index(moments.len())].since(self.world.now);
                length.saturating_sub(Duration::from_millis(u64::from(*just_before)))
            }
        }
    }

    /// What is due by now is committed, and nothing else is.
    async fn catch_up(&mut self) -> Outcome {
        self.world.now = self.clock.now();
        self.world.catch_up();
        tokio::time::sleep(LATE_AT_MOST).await;
        self.same_head().await
    }

    /// Whether everything was committed that the world has, and nothing more.
    async fn same_head(&self) -> Outcome {
        let told = self.broker().counts_of(&Identity::Operator, &user_id(PEOPLE[0])).await;
        let (_, as_of) = told.map_err(|error| error.to_string())?;
        ensure!(as_of.seq.0 == self.world.head, "the head is {as_of}, not {}", self.world.head);
        Ok(())
    }

    async fn retain(&mut self) -> Outcome {
        self.broker().retain().await.map_err(|error| error.to_string())?;
        self.world.retain();
        self.same_head().await?;
        self.recount().await
    }

    async fn erase(&mut self, user: &'static str) -> Outcome {
        let told = self.broker().erase(&Identity::Operator, &user_id(user)).await;
        if !self.world.is_named(user) {
            return refused_alike(&told, &BrokerError::NotFound("user"));
        }
        told.map_err(|error| format!("was refused: {error}"))?;
        for (number, device) in self.devices.iter_mut().enumerate().filter(|(_, device)| device.plan.user == user) {
            // What is still on its way was sent to someone whom the world is about to forget.
            device.forget("revoked", &self.world).await.map_err(|fault| format!("device {number}: {fault}"))?;
        }
        self.world.erase(user);
        self.same_head().await
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
        let sendings: Vec<Sending> = publishes.iter().map(|publish| self.sending(publish)).collect();
        let broker = self.broker().clone();
        let in_flight = sendings.iter().map(|sending| broker.publish(&Identity::Operator, draft(sending), None));
        let opening = self.devices[device].open(&broker, how, SNAPSHOT, self.world.head, events);
        let (answers, opened) = join(join_all(in_flight), opening).await;
        for (sending, answer) in sendings.iter().zip(answers) {
            self.settle_publish(sending, answer)?;
        }
        self.devices[device].greet(opened?, how, SNAPSHOT, &self.world)?;
        self.devices[device].read(events, &self.world).await
    }

    async fn publish_at_once(&mut self, publishes: Vec<PublishPlan>) -> Outcome {
        let sendings: Vec<Sending> = publishes.iter().map(|publish| self.sending(publish)).collect();
        let broker = self.broker().clone();
        let in_flight = sendings.iter().map(|sending| broker.publish(&Identity::Operator, draft(sending), None));
        // Publishes enter the writer's queue in the order in which they are polled first, and commit in that order.
        let answers = join_all(in_flight).await;
        for (sending, answer) in sendings.iter().zip(answers) {
            self.settle_publish(sending, answer)?;
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
        self.broker().drain().await;
        for (number, device) in self.devices.iter_mut().enumerate().filter(|(_, device)| device.is_connected()) {
            device.part("shutdown", &self.world).await.map_err(|fault| format!("device {number}: {fault}"))?;
        }
        Ok(())
    }

    async fn restart(&mut self, down: &Span) -> Outcome {
        self.stop().await?;
        self.clock.advance(self.length(down));
        self.world.now = self.clock.now();
        self.world.catch_up();
        let running = start(&self.directory, &self.config, &self.clock).await?;
        ensure!(*running.broker.epoch() == self.epoch, "a restart made a new epoch");
        self.running = Some(running);
        // What was due meanwhile is committed before anybody can ask.
        self.same_head().await?;
        self.recount().await
    }

    /// Every inbox is counted anew, page by page.
    async fn recount(&self) -> Outcome {
        let (mut users, mut after) = (0, 0);
        loop {
            let page = self.broker().recount(&Identity::Operator, after, Repair::Report).await;
            let page = page.map_err(|error| error.to_string())?;
            ensure!(page.drifted.is_empty(), "counts drifted: {:?}", page.drifted);
            users += page.users;
            let Some(next) = page.next else {
                ensure!(users == page.of, "{users} of {} were counted anew", page.of);
                return Ok(());
            };
            after = next;
        }
    }

    async fn stop(&mut self) -> Outcome {
        for device in &mut self.devices {
            device.cut(&self.world)?;
        }
        let Some(Running { broker, lifecycle }) = self.running.take() else {
            return Ok(());
        };
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
        self.recount().await?;
        self.topics(100).await?;
        self.scheduled(100).await?;
        for id in self.world.ids().iter().rev().take(RECENT) {
            self.look(*id, 100).await?;
        }
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

fn retention(keep: &Keep) -> broker::Retention {
    let loans = keep.of_loans.map(|number| (category_name("loans"), number as u64));
    broker::Retention {
        age: keep.hours.map(Duration::from_hours),
        ages: HashMap::new(),
        per_user: keep.per_user.map(|number| number as u64),
        numbers: loans.into_iter().map(|(category, most)| (category, Some(most))).collect(),
        per_topic: keep.per_topic,
    }
}

fn draft(sending: &Sending) -> Draft {
    let category = sending.category.map(category_name);
    let deliver = match sending.deliver {
        None => Deliver::Now,
        Some(When::In(seconds)) => Deliver::After(Duration::from_secs(seconds)),
        Some(When::At(at)) => Deliver::At(at),
    };
    let expiry = sending.expiry.map(|expiry| match expiry {
        When::In(seconds) => Expiry::After(Duration::from_secs(seconds)),
        When::At(at) => Expiry::At(at),
    });
    Draft {
        to: audience(&sending.to),
        category_named: category.is_some(),
        life: Life { collapse: sending.collapse.map(collapse_key), deliver, expiry },
        via: tidings::model::Via::default(),
        content: Content { title: sending.title.clone(), category: category.unwrap_or_default(), ..Content::default() },
    }
}

fn audience(to: &To) -> Audience {
    match to {
        To::Users(users) => Audience::Users(users.iter().map(|user| user_id(user)).collect()),
        To::Topic(topic) => Audience::Topic(topic_name(topic)),
        To::Everyone => Audience::Everyone,
    }
}

/// Compares one that waits as it is told with what the world has.
fn same_waiting(told: &status::Scheduled, waiting: &Waiting) -> Outcome {
    let (said, failed) = ((told.id, told.due, told.created_at), told.failed.is_some());
    let expected = (waiting.id, waiting.due, waiting.created_at);
    ensure!(said == expected && failed == waiting.failed, "{told:?} waits, not {waiting:?}");
    let sent = draft(&waiting.sending);
    ensure!(told.content == sent.content && told.to == sent.to, "{told:?} waits, not {waiting:?}");
    ensure!(told.life.collapse == sent.life.collapse, "{told:?} replaces something else than {waiting:?}");
    ensure!(told.life.expiry == waiting.expires_at.map(Expiry::At), "{told:?} ends at another time than {waiting:?}");
    Ok(())
}

/// Whether something was refused, and for this reason; what a refusal says is for people.
fn refused_alike<T: std::fmt::Debug>(told: &Result<T, BrokerError>, why: &BrokerError) -> Outcome {
    let alike = |told: &BrokerError| match (told, why) {
        // Whoever may not see a topic need not be told whether it is there.
        (BrokerError::Forbidden(_) | BrokerError::NotFound(_), BrokerError::Forbidden(_))
        | (BrokerError::NotFound(_), BrokerError::NotFound(_) | BrokerError::UnknownTopic) => true,
        (told, why) => told == why,
    };
    ensure!(told.as_ref().is_err_and(alike), "answered {told:?}, not {why:?}");
    Ok(())
}

/// A moment so many seconds later, or earlier.
fn shifted(moment: Timestamp, seconds: i64) -> Timestamp {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { moment.before(by) } else { moment.after(by) }
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

fn collapse_key(text: &str) -> CollapseKey {
    CollapseKey::new(text).expect("the keys are valid")
}

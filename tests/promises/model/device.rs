//! A subscriber as a careful client is: it keeps the id of the last event, applies what it is told to the entries it
//! knows, and believes nothing: what each connection brought is compared with the [`World`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use tidings::broker::{Broker, Feed, FeedItem, FeedRequest, Filter};
use tidings::model::{Category, Credential, Death, NotificationId, Timestamp, TopicPattern, UserId, UserIdentity};
use tidings::wire::cursor::{self, Resume};
use tidings::wire::event::EventKind;
use tidings::wire::frame::Frame;

use super::plan::{DevicePlan, How, Wants};
use super::world::{Counts, Entry, Over, Token, World, matches};
use super::{Outcome, ensure};

/// Silence after which nothing more can come: counts are held back for 50 ms at most. The clock is paused and moves
/// only while nothing is at work, so this costs no time and can't be too short on a slow machine.
const QUIET: Duration = Duration::from_millis(52);
/// Silence after which a glance at the stream ends.
const GLANCE: Duration = Duration::from_millis(2);
/// Events of ours that one page of a replay surely holds; up to here `missed` and what follows come from one look at
/// the log.
const PAGE: u64 = 64;

/// The identity that a token of this user stands for.
pub fn identity(user: &str, token: &Token) -> UserIdentity {
    let topics = token.topics.as_ref().map(|patterns| patterns.iter().map(|text| pattern(text)).collect());
    UserIdentity {
        user: UserId::new(user).expect("the people have valid names"),
        credential: Credential::Bearer,
        topics: topics.map(|patterns: Vec<TopicPattern>| Arc::from(patterns)),
        publishes: false,
        expires: None,
        // Each connection comes with a fresh token, also after an erasure.
        issued: Some(Timestamp::MAX),
    }
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::new(text).unwrap_or_else(|| panic!("{text} is no pattern"))
}

/// An event as it is on every transport.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    id: Option<String>,
    event: String,
    data: Value,
}

impl Event {
    fn of(frame: &Frame) -> Self {
        let text = frame.object();
        serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    fn text(&self, field: &str) -> &str {
        self.data[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {self:?}"))
    }
}

fn seq_of(cursor: &str) -> u64 {
    let cursor = cursor::exact(cursor.as_bytes()).unwrap_or_else(|| panic!("{cursor} is no cursor"));
    cursor.seq.0
}

fn counts_of(data: &Value) -> Counts {
    #[derive(Deserialize)]
    struct Pair {
        unread: u64,
        unseen: u64,
    }
    #[derive(Deserialize)]
    struct Body {
        unread: u64,
        unseen: u64,
        by_category: BTreeMap<String, Pair>,
    }
    let body: Body = serde_json::from_value(data.clone()).unwrap_or_else(|error| panic!("{error} in {data}"));
    let by_category = body.by_category.into_iter().map(|(name, pair)| (name, (pair.unread, pair.unseen))).collect();
    Counts { unread: body.unread, unseen: body.unseen, by_category }
}

/// An entry as the client shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    id: String,
    category: String,
    seen: bool,
    read: bool,
    archived: bool,
    /// The position as of which the state above was told: a change at or below it is part of it already.
    as_of: u64,
}

/// What a connection promised to bring.
enum Promise {
    /// Everything visible after this position.
    After(u64),
    /// These, and then everything visible after the head.
    Snapshot { entries: Vec<u64>, head: u64 },
}

/// One connection, before its `hello` was looked at.
pub struct Opened {
    /// `None` once it is cut, and while somebody else reads it.
    feed: Option<Feed>,
    hello: Event,
    waiting: VecDeque<Event>,
    over: bool,
}

impl Opened {
    fn new(feed: Option<Feed>) -> Self {
        let nothing = Event { id: None, event: String::new(), data: Value::Null };
        Self { feed, hello: nothing, waiting: VecDeque::new(), over: false }
    }

    /// Takes what comes next; whether anything more may come.
    pub async fn next(&mut self) -> bool {
        let Some(feed) = &mut self.feed else { return false };
        match feed.next().await {
            Some(FeedItem::Frames(frames)) => self.waiting.extend(frames.iter().map(|frame| Event::of(frame))),
            Some(FeedItem::Bye(_, frame)) => self.waiting.push_back(Event::of(&frame)),
            None => self.over = true,
        }
        !self.over
    }

    /// Takes what is there, until so many events wait or the stream is silent for so long.
    async fn pull(&mut self, enough: usize, silence: Duration) {
        while self.waiting.len() < enough && !self.over && self.feed.is_some() {
            if tokio::time::timeout(silence, self.next()).await.is_err() {
                return;
            }
        }
    }

    /// Takes the connection away; what was read stays.
    pub fn unplug(&mut self) -> Option<Feed> {
        self.feed.take()
    }

    /// Whether anything was read.
    pub fn has_begun(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the `hello`, which must be there.
    pub fn shake_hands(&mut self) -> Outcome {
        self.hello = self.waiting.pop_front().ok_or("nothing came, not even `hello`")?;
        Ok(())
    }
}

struct Connection {
    opened: Opened,
    promise: Promise,
    head: u64,
    /// Events that `hello` announced; `None` where it said "1000+".
    missed: Option<u64>,
    /// The position of the last event that has one.
    last: u64,
    notifications: Vec<u64>,
    /// Durable events up to the head of `hello`.
    replayed: u64,
    /// A snapshot begins with the counts.
    expects_counts: bool,
    bye: Option<String>,
}

/// A device over all its connections.
pub struct Device {
    pub plan: DevicePlan,
    cursor: Option<String>,
    known: BTreeMap<u64, Known>,
    /// The newest counts, and the position they are as of.
    counts: Option<(u64, Counts)>,
    connection: Option<Connection>,
}

impl Device {
    pub fn new(plan: DevicePlan) -> Self {
        Self { plan, cursor: None, known: BTreeMap::new(), counts: None, connection: None }
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    fn wants_counts(&self) -> bool {
        self.plan.events != Wants::Durable
    }

    fn wants_durable(&self) -> bool {
        self.plan.events != Wants::Counts
    }

    fn filter(&self) -> Filter {
        let events = match self.plan.events {
            Wants::Everything => None,
            Wants::Counts => Some(vec![EventKind::Unread]),
            Wants::Durable => Some(vec![EventKind::Notification, EventKind::State]),
        };
        let category = self.plan.category.map(|name| Category::new(name).expect("the categories have valid names"));
        Filter { events, category, topics: self.plan.topics.map(|text| vec![pattern(text)]) }
    }

    /// Whether this device is to be shown an entry that its token may see.
    fn admits(&self, entry: &Entry) -> bool {
        self.wants_durable()
            && self.plan.category.is_none_or(|category| category == entry.category)
            && self.plan.topics.is_none_or(|pattern| entry.topic.is_some_and(|topic| matches(pattern, topic)))
    }

    /// What it is, or was, to be shown, oldest first.
    fn entries<'w>(&'w self, world: &'w World) -> impl DoubleEndedIterator<Item = &'w Entry> {
        world.entries(self.plan.user, &self.plan.token).filter(|entry| self.admits(entry))
    }

    /// Asks for a stream, and reads nothing yet.
    pub fn dial(&self, broker: &Broker, how: How, snapshot: usize, head: u64) -> Result<Opened, String> {
        let resume = match (how, &self.cursor) {
            (How::Resume, Some(cursor)) => cursor::parse(cursor.as_bytes()),
            (How::Resume, None) | (How::FirstVisit, _) => Resume::FirstVisit,
            (How::Now, _) => cursor::parse(b"now"),
            (How::Start, _) => cursor::parse(b"start"),
            (How::Malformed, _) => cursor::parse(b"yesterday"),
            (How::ForeignEpoch, _) => cursor::parse(b"zz9zz9zz9.1"),
            (How::Ahead(by), _) => cursor::parse(format!("{}.{}", broker.epoch(), head + by).as_bytes()),
        };
        let request = FeedRequest { resume, snapshot, filter: self.filter() };
        let feed = broker
            .open_feed(identity(self.plan.user, &self.plan.token), request)
            .map_err(|reason| format!("the stream was refused: {}", reason.as_str()))?;
        Ok(Opened::new(Some(feed)))
    }

    /// Connects, and reads until `hello` and so many events are there.
    pub async fn open(
        &self,
        broker: &Broker,
        how: How,
        snapshot: usize,
        head: u64,
        events: usize,
    ) -> Result<Opened, String> {
        let mut opened = self.dial(broker, how, snapshot, head)?;
        opened.pull(1, QUIET).await;
        opened.shake_hands()?;
        ensure!(opened.waiting.is_empty(), "`hello` did not come alone but before {:?}", opened.waiting);
        opened.pull(events, GLANCE).await;
        Ok(opened)
    }

    /// Hands the connection to someone who reads it; `None` where there is none.
    pub fn lend(&mut self) -> Option<Opened> {
        Some(Opened::new(self.connection.as_mut()?.opened.feed.take()))
    }

    /// Takes back what was read of what was lent.
    pub fn give_back(&mut self, mut lent: Opened) {
        if let Some(connection) = &mut self.connection {
            connection.opened.waiting.append(&mut lent.waiting);
            connection.opened.over |= lent.over;
        }
    }

    /// Goes on with the connection, where it has not lost it.
    pub fn go_on(&mut self, feed: Feed) {
        if let Some(connection) = &mut self.connection {
            connection.opened.feed = Some(feed);
        }
    }

    /// Looks at the `hello` of a connection that was opened at `how`.
    pub fn greet(&mut self, opened: Opened, how: How, snapshot: usize, world: &World) -> Outcome {
        let hello = &opened.hello;
        ensure!(hello.event == "hello", "the first event is {hello:?}");
        let cursor = hello.text("cursor").to_owned();
        ensure!(hello.id.as_deref() == Some(&cursor), "the id of `hello` is not its cursor: {hello:?}");
        ensure!(hello.text("user") == self.plan.user, "`hello` is for another user: {hello:?}");
        let (after, head) = (seq_of(&cursor), seq_of(hello.text("head")));
        ensure!(head <= world.head, "`hello` tells the head {head}, which is ahead of {}", world.head);

        let reason = match (how, &self.cursor) {
            (How::Resume, Some(cursor)) => {
                let (may, must) = world.pruned_above(self.plan.user, &self.plan.token, seq_of(cursor), head);
                let told = hello.data["reason"].as_str() == Some("pruned");
                (must || (may && told)).then_some("pruned")
            }
            (How::Now | How::Start, _) => None,
            (How::Resume, None) | (How::FirstVisit, _) => Some("none"),
            (How::Malformed, _) => Some("malformed"),
            (How::ForeignEpoch, _) => Some("epoch"),
            (How::Ahead(_), _) => Some("ahead"),
        };
        ensure!(hello.data["recovered"] == Value::Bool(reason.is_none()), "{how:?} is answered {hello:?}");
        ensure!(hello.data["reason"].as_str() == reason, "{how:?} is answered {hello:?}");

        let promise = if reason.is_none() {
            let expected = match (how, &self.cursor) {
                (How::Now, _) => head,
                (How::Resume, Some(cursor)) => seq_of(cursor),
                // Floors may lie anywhere below what is kept.
                _ if world.has_retained => {
                    let kept = self.entries(world).find(|entry| entry.was_visible_at(head) && !entry.given);
                    ensure!(kept.is_none_or(|entry| entry.seq > after), "`start` is after {after}, behind {kept:?}");
                    after
                }
                _ => 0,
            };
            ensure!(after == expected, "{how:?} goes on after {after}, not after {expected}");
            Promise::After(after)
        } else {
            let shown = self.entries(world).filter(|entry| entry.seq <= head && entry.was_visible_at(head));
            let shown = shown.filter(|entry| !entry.was_archived_at(head));
            let mut entries: Vec<u64> = shown.rev().take(snapshot).map(|entry| entry.seq).collect();
            entries.reverse();
            let expected = entries.first().map_or(head, |oldest| oldest - 1);
            ensure!(after == expected, "a snapshot of {entries:?} at {head} says {after}, not {expected}");
            Promise::Snapshot { entries, head }
        };

        let counts = counts_of(&hello.data["counts"]);
        let expected = world.counts_at(self.plan.user, &self.plan.token, head);
        ensure!(counts == expected, "`hello` at {head} counts {counts:?}, not {expected:?}");

        let missed = match &hello.data["missed"] {
            Value::Number(number) => number.as_u64(),
            Value::String(text) if text == "1000+" => None,
            other => return Err(format!("`missed` is {other}")),
        };
        if !(how == How::Resume && reason.is_none()) {
            // What was known before may have changed while nobody told.
            self.known.clear();
        }
        self.counts = Some((head, counts));
        self.cursor = Some(cursor);
        self.connection = Some(Connection {
            opened,
            expects_counts: matches!(promise, Promise::Snapshot { .. }) && self.wants_counts(),
            promise,
            head,
            missed,
            last: after,
            notifications: Vec::new(),
            replayed: 0,
            bye: None,
        });
        Ok(())
    }

    /// Reads so many events, or as many as are there.
    pub async fn read(&mut self, events: usize, world: &World) -> Outcome {
        self.take(events, GLANCE, world).await
    }

    /// Reads until nothing more comes, and looks whether everything came that was promised.
    pub async fn settle(&mut self, world: &World) -> Outcome {
        if self.connection.is_none() {
            return Ok(());
        }
        self.take(usize::MAX, QUIET, world).await?;
        if let Some(bye) = self.bye() {
            ensure!(self.was_outrun(bye, world), "the stream ended by itself: {bye}");
            return self.cut(world);
        }
        self.check_promise(world, u64::MAX)?;
        self.check_state(world)
    }

    /// Reads until the stream ends, which must be for this reason, and looks whether what came has no gap.
    pub async fn part(&mut self, reason: &str, world: &World) -> Outcome {
        self.take_to_the_end(reason, world).await?;
        self.cut(world)
    }

    async fn take_to_the_end(&mut self, reason: &str, world: &World) -> Outcome {
        self.take(usize::MAX, QUIET, world).await?;
        let bye = self.bye();
        let expected = bye.is_some_and(|bye| bye == reason || self.was_outrun(bye, world));
        ensure!(expected, "the stream ended with {bye:?}, not with {reason}");
        Ok(())
    }

    fn bye(&self) -> Option<&str> {
        self.connection.as_ref().and_then(|connection| connection.bye.as_deref())
    }

    /// Retention took what a stream that lags had not read, or it is old: it says so, and the device must come back to be
    /// told.
    fn was_outrun(&self, bye: &str, world: &World) -> bool {
        let last = self.connection.as_ref().map_or(u64::MAX, |connection| connection.last);
        bye == "rotate" && (world.grows_old || world.pruned_above(self.plan.user, &self.plan.token, last, world.head).0)
    }

    /// Loses the connection. What came until now must have no gap.
    pub fn cut(&mut self, world: &World) -> Outcome {
        let Some(last) = self.connection.as_ref().map(|connection| connection.last) else {
            return Ok(());
        };
        self.check_promise(world, last)?;
        self.connection = None;
        Ok(())
    }

    /// The person is erased: the stream ends for this reason, and the device begins anew as someone else's would. What
    /// was still on its way may be gone already.
    pub async fn forget(&mut self, reason: &str, world: &World) -> Outcome {
        if self.is_connected() {
            self.take_to_the_end(reason, world).await?;
        }
        *self = Self::new(self.plan.clone());
        Ok(())
    }

    async fn take(&mut self, events: usize, silence: Duration, world: &World) -> Outcome {
        let Some(mut connection) = self.connection.take() else {
            return Ok(());
        };
        let mut taken = 0;
        let mut outcome = Ok(());
        while taken < events && outcome.is_ok() {
            if connection.opened.waiting.is_empty() {
                connection.opened.pull(1, silence).await;
            }
            let Some(event) = connection.opened.waiting.pop_front() else {
                break;
            };
            outcome = self.apply(&mut connection, &event, world).map_err(|e| format!("{e}; at {event:?}"));
            taken += 1;
        }
        self.connection = Some(connection);
        outcome
    }

    fn apply(&mut self, connection: &mut Connection, event: &Event, world: &World) -> Outcome {
        ensure!(connection.bye.is_none(), "something came after `bye`");
        let first = std::mem::take(&mut connection.expects_counts);
        ensure!(!first || event.event == "unread", "a snapshot does not begin with the counts");
        match event.event.as_str() {
            "notification" | "state" => {
                let id = event.id.as_deref().ok_or("a durable event has no id")?;
                let seq = seq_of(id);
                ensure!(seq > connection.last, "{seq} comes after {}", connection.last);
                connection.last = seq;
                connection.replayed += u64::from(seq <= connection.head);
                self.cursor = Some(id.to_owned());
                if event.event == "notification" {
                    connection.notifications.push(seq);
                    self.apply_notification(seq, event, connection.head, world)
                } else {
                    self.apply_state(seq, event, world)
                }
            }
            "unread" => {
                ensure!(event.id.is_none(), "counts have an id");
                ensure!(self.wants_counts(), "counts came unasked");
                let (as_of, counts) = (seq_of(event.text("as_of")), counts_of(&event.data));
                ensure!(!first || as_of == connection.head, "a snapshot's counts are as of {as_of}");
                let expected = world.counts_at(self.plan.user, &self.plan.token, as_of);
                let may_differ = world.is_busy && !first;
                ensure!(counts == expected || may_differ, "counts as of {as_of} are {counts:?}, not {expected:?}");
                if self.counts.as_ref().is_none_or(|(newest, _)| *newest <= as_of) {
                    self.counts = Some((as_of, counts));
                }
                Ok(())
            }
            "bye" => {
                ensure!(event.id.is_none(), "`bye` has an id");
                connection.bye = Some(event.text("reason").to_owned());
                Ok(())
            }
            _ => Err("nobody asked for this".to_owned()),
        }
    }

    fn apply_notification(&mut self, seq: u64, event: &Event, head: u64, world: &World) -> Outcome {
        let data = &event.data;
        ensure!(data["seq"].as_u64() == Some(seq), "its `seq` is not its id's");
        let entry = self.entries(world).find(|entry| entry.seq == seq);
        let entry = entry.ok_or("nothing at this position is this person's to see")?;
        // Semantics 5: what is dead is not replayed. It may have died while it was on its way.
        let was_there = seq > head || matches!(entry.over, Some((_, Over::Pruned))) || entry.was_visible_at(head);
        ensure!(was_there, "it was over before the stream began: {entry:?}");
        ensure!(data["id"].as_str() == Some(&entry.id.to_string()), "another notification stands there: {entry:?}");
        ensure!(data["title"].as_str() == Some(&entry.title), "its title is not {}", entry.title);
        ensure!(data["topic"].as_str() == entry.topic, "its topic is not {:?}", entry.topic);
        ensure!(data["category"].as_str() == Some(entry.category), "its category is not {}", entry.category);
        let replayed = data["replayed"] == Value::Bool(true);
        ensure!(replayed || seq > head, "it was there before the stream and does not say so");
        ensure!(replayed != data["state"].is_null(), "what is replayed has a state, and nothing else");
        let is_set = |field: &str| data["state"][field].is_string();
        let known = Known {
            id: entry.id.to_string(),
            category: entry.category.to_owned(),
            seen: is_set("seen_at"),
            read: is_set("read_at"),
            archived: is_set("archived_at"),
            as_of: if replayed { head } else { seq },
        };
        self.known.insert(seq, known);
        Ok(())
    }

    fn apply_state(&mut self, seq: u64, event: &Event, world: &World) -> Outcome {
        let data = &event.data;
        let upto = data["upto"].as_str().map(seq_of);
        let ids: Option<Vec<&str>> = data["ids"].as_array().map(|ids| ids.iter().filter_map(Value::as_str).collect());
        ensure!(upto.is_some() != ids.is_some(), "a `state` has either `upto` or `ids`");
        let state = event.text("state");
        if matches!(state, "retracted" | "expired" | "replaced") {
            let ids = ids.ok_or("a death names its entries")?;
            ensure!(!ids.is_empty(), "a death of nothing");
            return ids.into_iter().try_for_each(|id| self.apply_death(seq, id, event, world));
        }
        let category = data["category"].as_str();
        for (entry, known) in &mut self.known {
            let meant = upto.is_some_and(|upto| *entry <= upto)
                || ids.as_ref().is_some_and(|ids| ids.contains(&known.id.as_str()));
            // Whoever was cut in the middle of a snapshot meets changes that the snapshot had. One that is older than a
            // follow of the past never was about what the follow gave.
            if !meant || seq <= known.as_of || category.is_some_and(|category| category != known.category) {
                continue;
            }
            match state {
                "seen" => known.seen = true,
                "read" => (known.read, known.seen) = (true, true),
                // Only what was read can be unread, and read is seen: a compact replay may leave the `read` out.
                "unread" => (known.read, known.seen) = (false, true),
                "archived" => known.archived = true,
                "unarchived" => known.archived = false,
                other => return Err(format!("no mark is called {other}")),
            }
        }
        Ok(())
    }

    /// An entry died, at this position and in this way, and this person could see it.
    fn apply_death(&mut self, seq: u64, id: &str, event: &Event, world: &World) -> Outcome {
        let wanted = NotificationId::parse(id).ok_or("it is no id")?;
        let dead = world.entries(self.plan.user, &self.plan.token).find(|entry| entry.id == wanted);
        let dead = dead.ok_or_else(|| format!("{id} never was this person's to see"))?;
        let death = match dead.over {
            Some((at, Over::Dead(death))) if at == seq => Some(death),
            // What was taken later told of its death before.
            Some((_, Over::Deleted | Over::Pruned)) => None,
            over => return Err(format!("{id} did not die at {seq} but {over:?}")),
        };
        if let Some(death) = death {
            let told = (event.text("state"), event.data["by"].as_str());
            let by = match death {
                Death::Replaced { by } => Some(by.to_string()),
                Death::Retracted | Death::Expired => None,
            };
            ensure!(told == (death.as_str(), by.as_deref()), "{id} died of {death:?}");
        }
        self.known.retain(|_, known| known.id != id);
        Ok(())
    }

    /// Semantics 5: every visible entry that is alive once, in order, up to here.
    fn check_promise(&self, world: &World, upto: u64) -> Outcome {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        let promised = |entry: &&Entry| match &connection.promise {
            Promise::After(after) => entry.seq > *after && !entry.given,
            Promise::Snapshot { entries, head } => (entry.seq > *head && !entry.given) || entries.contains(&entry.seq),
        };
        let promised: Vec<&Entry> = self.entries(world).filter(|entry| entry.seq <= upto).filter(promised).collect();
        // What came and is over by now was alive when it was sent.
        let owed: Vec<u64> = promised.iter().filter(|entry| entry.is_alive()).map(|entry| entry.seq).collect();
        let came = &connection.notifications;
        let unowed = |seq: &&u64| !promised.iter().any(|entry| entry.seq == **seq);
        let (missing, unasked): (Vec<&u64>, Vec<&u64>) =
            (owed.iter().filter(|seq| !came.contains(seq)).collect(), came.iter().filter(unowed).collect());
        ensure!(
            missing.is_empty() && unasked.is_empty(),
            "up to {upto} came {came:?}, without {missing:?} and with {unasked:?}, which nobody promised"
        );
        if let Some(seq) = owed.iter().find(|seq| !self.known.contains_key(seq)) {
            return Err(format!("{seq} came and is alive, and its death was told"));
        }
        // Semantics 6, as far as hello and what followed were read in one look.
        if let Some(missed) = connection.missed.filter(|missed| *missed <= PAGE)
            && upto >= connection.head
        {
            ensure!(
                connection.replayed == missed,
                "`hello` announced {missed} events up to {}, and {} came",
                connection.head,
                connection.replayed
            );
        }
        Ok(())
    }

    /// Semantics 5 and 9: state and counts are those of one who watched.
    fn check_state(&self, world: &World) -> Outcome {
        if self.wants_durable() {
            for (seq, known) in &self.known {
                let entry = world.entries(self.plan.user, &self.plan.token).find(|entry| entry.seq == *seq);
                let entry = entry.ok_or_else(|| format!("{seq} is not this person's"))?;
                match entry.over {
                    // With its topic the word of its death is gone.
                    Some((_, Over::Dead(_))) if entry.is_deleted_dead() => continue,
                    Some((at, Over::Dead(death))) => {
                        return Err(format!("{seq} is {} since {at}, and nobody told", death.as_str()));
                    }
                    // There is no event for these: lists and counts are read anew.
                    Some((_, Over::Deleted | Over::Pruned)) => continue,
                    None => {}
                }
                let state = &entry.state;
                let expected = (state.seen_at.is_some(), state.read_at.is_some(), state.archived_at.is_some());
                ensure!(
                    (known.seen, known.read, known.archived) == expected,
                    "(seen, read, archived) of {seq} ended as {known:?}, not as {expected:?}"
                );
            }
        }
        if self.wants_counts() {
            let expected = world.counts(self.plan.user, &self.plan.token);
            let told = self.counts.as_ref().map(|(_, counts)| counts);
            ensure!(told == Some(&expected), "the last counts were {:?}, not {expected:?}", self.counts);
        }
        Ok(())
    }
}

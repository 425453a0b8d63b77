//! T6: the hand-over from replay to live, in orders that dice decide.
//!
//! The shipped writer, fan-out, readers, hub and feeds run as coroutines of one thread ([`interleave`](crate::interleave)),
//! and seeded dice say at every point who goes on: nothing here depends on a clock or on how busy the machine is, and the
//! same seed takes the same turns. A case is one database and [`ROUNDS`] rounds on it; in each, publishes, marks, follows
//! and deaths are under way while devices attach, lag, are cut and read, and at its end each device must have been told
//! what the naive world of the property test (T5) says. A round is one interleaving.
//!
//! `TIDINGS_INTERLEAVINGS=100000` makes the full run, with seeds that chance draws; a case that fails prints the line that
//! plays it again. The wrong variants of [`Fault`] must fail.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;

use super::fanout::COALESCE;
use super::{Broker, BrokerError, Config, Feed, Mute, Retention};
use crate::clock::Clock;
use crate::hub;
use crate::interleave::{self, Fault, Scheduler, TaskId};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::model::{
    Audience, Category, CollapseKey, Content, Draft, Identity, Life, Mark, MarkAs, MarkTarget, NotificationId, Seq,
    Timestamp, TopicName, UserId,
};
use crate::store;
use crate::wire::inbox::{MarkBody, Marked};
use crate::wire::publish::Published;
use crate::wire::upkeep::Repair;

use device::{Device, Opened, identity};
use plan::{DevicePlan, How, Wants};
use world::{Keep, Retracted, Sending, Target, To, Token, Verdict, World};

#[path = "../../tests/promises/model/device.rs"]
#[allow(clippy::pedantic, dead_code, reason = "a test's file, of which the property test uses the rest")]
mod device;
#[path = "../../tests/promises/model/plan.rs"]
#[allow(clippy::pedantic, dead_code, reason = "a test's file, of which the property test uses the rest")]
mod plan;
#[path = "../../tests/promises/model/world.rs"]
#[allow(clippy::pedantic, dead_code, reason = "a test's file, of which the property test uses the rest")]
mod world;

mod stories;

/// What was found wrong, in words.
type Outcome = Result<(), String>;

/// Tells what is wrong, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($told:tt)+) => {
        if !$condition {
            return Err(format!($($told)+));
        }
    };
}
use ensure;

/// Interleavings of one database.
const ROUNDS: u64 = 40;
/// Cases of the quick form …
const QUICK_CASES: u64 = 50;
/// … which are always the same.
const QUICK_SEED: u64 = 1;
/// Within so many cases each wrong variant must be found out.
const CONTROL_CASES: u64 = 200;
/// Turns of one round, far above what any takes: one that goes on for ever is told so instead.
const MAX_TURNS: u64 = 1_000_000;

const BEGIN: Timestamp = Timestamp::from_seconds(1_800_000_000);
const PEOPLE: &[&str] = &["ann", "bob", "cy"];
/// Who holds each device. Two are one person's, so that one may come while the other is there, and the last may go.
const HOLDERS: [&str; 4] = ["ann", "ann", "bob", "cy"];
const TOPICS: [&str; 2] = ["ops", "orders/1"];
const EVERYTHING: Token = Token { topics: None };
/// Connections that read.
const READERS: usize = 3;

#[test]
#[expect(clippy::print_stdout, reason = "the seed and the count are what a full run is kept for")]
fn whatever_overtakes_the_hand_over_each_subscriber_gets_what_follows_its_cursor_once() {
    let asked = number("TIDINGS_INTERLEAVINGS").map(|interleavings| interleavings.div_ceil(ROUNDS));
    let (cases, first) = asked.map_or((QUICK_CASES, QUICK_SEED), |cases| (cases, random_seed()));
    let first = number("TIDINGS_INTERLEAVE_SEED").unwrap_or(first);
    let began = Instant::now();
    // Cases know nothing of each other, so each processor plays its share.
    let (next, turns, remembered) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let play_some = || {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= cases {
                return None;
            }
            let seed = first.wrapping_add(case);
            match play(seed, None) {
                Ok(played) => {
                    remembered.fetch_add(played.remembered, Ordering::Relaxed);
                    turns.fetch_add(played.turns, Ordering::Relaxed)
                }
                Err(fault) => {
                    next.store(cases, Ordering::Relaxed);
                    return Some(format!("{fault}\nplay it again: {}", again(seed)));
                }
            };
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let fault = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(play_some)).collect();
        workers.into_iter().find_map(|worker| worker.join().expect("a worker tells its fault"))
    });
    if let Some(fault) = fault {
        panic!("{fault}");
    }
    let (interleavings, turns) = (cases * ROUNDS, turns.load(Ordering::Relaxed));
    let remembered = remembered.load(Ordering::Relaxed);
    // One case may well be without.
    assert!(remembered > 0 || cases < QUICK_CASES, "no replay took anything from memory");
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{interleavings} interleavings, {turns} turns, {remembered} entries replayed from memory, TIDINGS_INTERLEAVE_SEED={first}, {seconds:.1} s"
    );
}

fn again(seed: u64) -> String {
    format!(
        "TIDINGS_INTERLEAVE_SEED={seed} TIDINGS_INTERLEAVINGS={ROUNDS} cargo test --profile quick --lib interleavings::whatever"
    )
}

/// The controls: a test that finds none of these holds nothing.
#[test]
#[expect(clippy::print_stdout, reason = "how soon each is found is what a run is kept for")]
fn each_wrong_variant_of_the_hand_over_is_found_out() {
    let faults =
        [Fault::ReadThenSubscribe, Fault::NoDedupe, Fault::PublishBeforeCommit, Fault::QueueDrops, Fault::LastRowWins];
    for fault in faults {
        let found = (1..=CONTROL_CASES)
            .find_map(|case| play(QUICK_SEED + case - 1, Some(fault)).err().map(|told| (case, told)));
        let (case, told) = found.unwrap_or_else(|| panic!("{fault:?} was not found in {CONTROL_CASES} cases"));
        let told: String = told.chars().take(160).collect();
        println!("{fault:?}: found in case {case} of at most {CONTROL_CASES}: {told}");
    }
}

#[test]
fn a_seed_decides_every_turn() {
    let play = || play(QUICK_SEED, None).unwrap_or_else(|fault| panic!("{fault}"));
    let (once, again) = (play(), play());
    assert!(once.turns > 1_000, "hardly anything happened: {} turns", once.turns);
    for (round, (once, again)) in once.traces.iter().zip(&again.traces).enumerate() {
        let other = once.split(' ').zip(again.split(' ')).position(|(once, again)| once != again);
        assert!(once == again, "round {round} took other turns from turn {other:?} on:\n{once}\n{again}");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to be read out.
    RandomState::new().hash_one(0) % 1_000_000_000
}

/// What a case leaves.
struct Played {
    turns: u64,
    /// Entries that a replay took from memory.
    remembered: u64,
    /// Who went on from where, by round.
    traces: Vec<String>,
}

/// Plays the case of a seed.
fn play(seed: u64, fault: Option<Fault>) -> Result<Played, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    // Unconstrained: tokio's budget would end a turn where no dice were thrown.
    let played = || runtime.block_on(tokio::task::unconstrained(play_rounds(seed, fault)));
    catch_unwind(AssertUnwindSafe(played)).unwrap_or_else(|panic| {
        let told = panic.downcast_ref::<String>().cloned();
        Err(format!("a panic: {}", told.unwrap_or_else(|| "without words".to_owned())))
    })
}

async fn play_rounds(seed: u64, fault: Option<Fault>) -> Result<Played, String> {
    let mut case = Case::open(seed, fault).await?;
    let mut traces = Vec::new();
    for round in 0..ROUNDS {
        let played = case.round().await;
        played.map_err(|told| format!("seed {seed}, round {round}: {told}\nturns: {}", case.scheduler.take_trace()))?;
        traces.push(case.scheduler.take_trace());
    }
    let turns = case.turns;
    let remembered = case.broker.inner.metrics.replays.get_or_create(&[("from", "memory")]).get();
    case.close().await.map_err(|told| format!("seed {seed}, at the end: {told}"))?;
    Ok(Played { turns, remembered, traces })
}

/// `SplitMix64`: small, seeded, and good enough to choose with.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.throw() % bound.max(1) as u64).unwrap_or_default()
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Once in so many throws.
    fn once_in(&mut self, throws: usize) -> bool {
        self.below(throws) == 0
    }
}

/// Something that is done to the log.
#[derive(Clone, Debug)]
enum Act {
    Publish(Sending),
    Mark { user: &'static str, mark: MarkAs, target: Target },
    Follow { topic: &'static str, user: &'static str, last: u32 },
    Unfollow { topic: &'static str, user: &'static str },
    Mute { topic: &'static str, user: &'static str, on: bool },
    DeleteTopic(&'static str),
    Retract(NotificationId),
    Erase(&'static str),
    Retain,
}

impl Act {
    /// The operation that it is committed with.
    fn operation(&self) -> Option<&'static str> {
        match self {
            Self::Publish(_) => Some("Publish"),
            Self::Mark { .. } => Some("MarkEntries"),
            Self::Follow { .. } => Some("Follow"),
            Self::Unfollow { .. } => Some("Unfollow"),
            Self::Mute { .. } => Some("Mute"),
            Self::DeleteTopic(_) => Some("DeleteTopic"),
            Self::Retract(_) => Some("Retract"),
            // Several commits, and nothing else is written meanwhile.
            Self::Erase(_) | Self::Retain => None,
        }
    }
}

/// What was answered.
#[derive(Debug)]
enum Told {
    Published(Published),
    Marked(Marked),
    Changed(bool),
    Done,
    Refused(BrokerError),
}

async fn perform(broker: &Broker, act: Act) -> Told {
    let by = Identity::Operator;
    let told = match act {
        Act::Publish(sending) => broker.publish(&by, draft(&sending), None).await.map(Told::Published),
        Act::Mark { user, mark, target } => {
            let (target, epoch) = match target {
                Target::Upto(upto) => (MarkTarget::Upto(Seq(upto)), Some(broker.epoch().clone())),
                Target::Ids(ids) => (MarkTarget::Ids(ids), None),
            };
            let body = MarkBody { mark: Mark { mark, target, category: None }, epoch };
            broker.mark(&identity(user, &EVERYTHING), body).await.map(Told::Marked)
        }
        Act::Follow { topic, user, last } => {
            broker.follow(&by, &topic_name(topic), &user_id(user), last).await.map(Told::Changed)
        }
        Act::Unfollow { topic, user } => {
            broker.unfollow(&by, &topic_name(topic), &user_id(user)).await.map(Told::Changed)
        }
        Act::Mute { topic, user, on } => {
            let mute = if on { Mute::On } else { Mute::Off };
            broker.mute(&identity(user, &EVERYTHING), &topic_name(topic), mute).await.map(Told::Changed)
        }
        Act::DeleteTopic(topic) => broker.delete_topic(&by, &topic_name(topic)).await.map(|()| Told::Done),
        Act::Retract(id) => broker.retract(&by, id).await.map(|_| Told::Done),
        Act::Erase(user) => broker.erase(&by, &user_id(user)).await.map(|_| Told::Done),
        Act::Retain => broker.retain().await.map(|_| Told::Done),
    };
    told.unwrap_or_else(Told::Refused)
}

/// What readers are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Each as it was drawn.
    Play,
    /// All read what there is.
    Read,
    Over,
}

/// What one device does in a round.
#[derive(Clone, Copy, Debug)]
struct Conduct {
    /// How it connects; `None` where it goes on.
    dialled: Option<(How, usize)>,
    /// Items that it reads before it stalls.
    items: usize,
    /// Turns after which it is cut.
    cut_after: Option<u64>,
}

/// A device that reads in a round.
struct Reading {
    device: usize,
    conduct: Conduct,
    task: TaskId,
    /// What it has read, once it has ended.
    read: Arc<Mutex<Option<Opened>>>,
}

async fn read(
    mut opened: Opened,
    conduct: Conduct,
    mut phase: watch::Receiver<Phase>,
    slot: Arc<Mutex<Option<Opened>>>,
) {
    let mut cut = std::pin::pin!(turns(conduct.cut_after));
    let mut items = 0;
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Over {
            break;
        }
        let reads = now == Phase::Read || items < conduct.items;
        tokio::select! {
            biased;
            () = &mut cut => {
                let feed = opened.unplug();
                interleave::point("a device is cut");
                drop(feed);
                break;
            }
            _ = phase.changed() => {}
            more = opened.next(), if reads => {
                if !more {
                    break;
                }
                items += 1;
                interleave::point("a device has read");
            }
        }
    }
    *slot.lock() = Some(opened);
}

/// Comes after so many turns; never without a number.
async fn turns(left: Option<u64>) {
    let Some(mut left) = left else { return std::future::pending().await };
    std::future::poll_fn(|context| {
        if left == 0 {
            return std::task::Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// What differs between cases.
struct Setting {
    keep: Keep,
    queue_frames: usize,
    /// Commits that wait for the fan-out at most.
    feed: usize,
    /// Pages of replay that are read at once.
    replays: usize,
    max_age: Option<Duration>,
}

/// One database, and everybody around it.
struct Case {
    scheduler: Scheduler,
    dice: Dice,
    broker: Broker,
    lifecycle: Lifecycle,
    world: World,
    devices: Vec<Device>,
    titles: u64,
    turns: u64,
    /// Those of the admission while nobody opens or replays.
    places: [usize; 4],
    _directory: TempDir,
}

impl Case {
    async fn open(seed: u64, fault: Option<Fault>) -> Result<Self, String> {
        const OLD: Duration = Duration::from_millis(400);
        let mut dice = Dice(seed.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let devices = HOLDERS.map(|user| {
            let events = dice.pick(&[Wants::Everything, Wants::Everything, Wants::Counts, Wants::Durable]);
            let token = dice.pick(&[EVERYTHING, EVERYTHING, EVERYTHING, Token { topics: Some(vec!["ops"]) }]);
            DevicePlan { user, token, events, category: None, topics: None }
        });
        let keep = Keep {
            hours: None,
            per_user: dice.pick(&[None, Some(1), Some(4)]),
            of_loans: None,
            per_topic: dice.pick(&[None, Some(1), Some(4)]),
        };
        let setting = Setting {
            keep,
            queue_frames: dice.pick(&[1, 2, 4, 256]),
            feed: dice.pick(&[1, 64]),
            replays: dice.pick(&[1, 2, 32]),
            max_age: dice.pick(&[None, None, None, Some(OLD)]),
        };
        Self::open_with(dice, devices, setting, fault).await
    }

    async fn open_with(
        dice: Dice,
        devices: [DevicePlan; HOLDERS.len()],
        setting: Setting,
        fault: Option<Fault>,
    ) -> Result<Self, String> {
        let scheduler = Scheduler::install();
        scheduler.make_wrong(fault);
        let directory = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let Setting { keep, queue_frames, feed, replays, max_age } = setting;
        let config = Config {
            retention: Retention {
                per_user: keep.per_user.map(|number| number as u64),
                per_topic: keep.per_topic,
                ..Retention::default()
            },
            max_age,
            hub: hub::Config { queue_frames, ..hub::Config::default() },
            store: store::Config { readers: READERS, feed, ..store::Config::default() },
            ..Config::default()
        };
        let (clock, lifecycle) = (Clock::manual(BEGIN), Lifecycle::default());
        let opening = Broker::open(directory.path(), config, clock, Arc::new(Metrics::default()), &lifecycle);
        let (opened, ()) = join(opening, scheduler.settle()).await;
        let broker = opened.map_err(|error| format!("the broker does not open: {error}"))?;
        broker.inner.admission.narrow(replays);
        for _ in 0..READERS {
            // Each reader takes the next read, and opens its connection for it.
            let (read, ()) = join(broker.counts_of(&Identity::Operator, &user_id("ann")), scheduler.settle()).await;
            read.map_err(|error| format!("the log can't be read: {error}"))?;
        }
        let devices = devices.into_iter().map(Device::new).collect();
        let mut world = World::new(BEGIN, PEOPLE, keep);
        world.is_busy = true;
        world.grows_old = max_age.is_some();
        let (titles, turns, places) = (0, 0, broker.inner.admission.places());
        let mut case =
            Self { scheduler, dice, broker, lifecycle, world, devices, titles, turns, places, _directory: directory };
        for (topic, user) in [("ops", "ann"), ("orders/1", "ann"), ("ops", "bob")] {
            case.alone(Act::Follow { topic, user, last: 0 }).await?;
        }
        case.scheduler.take_trace();
        Ok(case)
    }

    /// Does one thing while nothing else happens.
    async fn alone(&mut self, act: Act) -> Outcome {
        let (told, ()) = join(perform(&self.broker, act.clone()), self.scheduler.settle()).await;
        self.apply(&act, told)
    }

    async fn round(&mut self) -> Outcome {
        let acts = self.draw_acts();
        let erased = acts.iter().find_map(|act| if let Act::Erase(user) = act { Some(*user) } else { None });
        let is_alone = acts.iter().any(|act| act.operation().is_none());
        let (phase, phases) = watch::channel(Phase::Play);
        let mut readings = Vec::new();
        for device in 0..self.devices.len() {
            readings.extend(self.begin_reading(device, is_alone, erased, &phases)?);
        }
        let told: Arc<Mutex<HashMap<TaskId, Told>>> = Arc::default();
        let mut asked: BTreeMap<TaskId, Act> = BTreeMap::new();
        for act in acts {
            let (broker, told, what) = (self.broker.clone(), told.clone(), act.clone());
            let task = self.scheduler.spawn("act", async move {
                let answer = perform(&broker, what).await;
                let by = interleave::current().expect("a coroutine asks");
                told.lock().insert(by, answer);
            });
            asked.insert(task, act);
        }
        self.shuffle().await;
        for next in [Phase::Read, Phase::Over] {
            phase.send_replace(next);
            self.shuffle().await;
        }
        let told = std::mem::take(&mut *told.lock());
        // What an erasure ends was sent to someone whom the world is about to forget.
        let (theirs, others): (Vec<Reading>, Vec<Reading>) =
            readings.into_iter().partition(|reading| erased == Some(self.devices[reading.device].plan.user));
        let readers =
            theirs.iter().chain(&others).map(|reading| (reading.task, self.devices[reading.device].plan.user));
        let readers: HashMap<TaskId, &'static str> = readers.collect();
        if erased.is_some() {
            for reading in theirs {
                self.judge(reading, erased).await?;
            }
            for device in self.devices.iter_mut().filter(|device| erased == Some(device.plan.user)) {
                device.forget("revoked", &self.world).await?;
            }
        } else {
            assert!(theirs.is_empty(), "nobody was erased");
        }
        self.take_over(&readers, asked, told)?;
        for reading in others {
            self.judge(reading, None).await?;
        }
        Ok(())
    }

    /// Lets the world go the way that the log went.
    fn take_over(
        &mut self,
        readers: &HashMap<TaskId, &'static str>,
        mut asked: BTreeMap<TaskId, Act>,
        mut told: HashMap<TaskId, Told>,
    ) -> Outcome {
        for journaled in self.scheduler.take_journal() {
            let of_reader = readers.get(&journaled.by).copied();
            if let ("Appear", Some(user)) = (journaled.operation, of_reader) {
                self.world.appear(user);
            }
            if asked.get(&journaled.by).is_some_and(|act| act.operation() == Some(journaled.operation)) {
                let act = asked.remove(&journaled.by).expect("it was just there");
                let answer = told.remove(&journaled.by).ok_or_else(|| format!("{act:?} was never answered"))?;
                self.apply(&act, answer)?;
            }
        }
        // What is not in the journal had nothing to write, or was several commits.
        for (task, act) in asked {
            let answer = told.remove(&task).ok_or_else(|| format!("{act:?} was never answered"))?;
            match &act {
                Act::Erase(_) | Act::Retain => self.apply(&act, answer)?,
                _ => ensure!(matches!(answer, Told::Refused(_)), "{act:?} wrote nothing and was answered {answer:?}"),
            }
        }
        Ok(())
    }

    fn begin_reading(
        &mut self,
        device: usize,
        is_alone: bool,
        erased: Option<&'static str>,
        phases: &watch::Receiver<Phase>,
    ) -> Result<Option<Reading>, String> {
        const SNAPSHOT: usize = 15;
        let dice = &mut self.dice;
        let user = self.devices[device].plan.user;
        let items = dice.pick(&[0, 1, 2, 5, usize::MAX, usize::MAX]);
        let cut_after = dice.once_in(4).then(|| dice.throw() % 60);
        let conduct = Conduct { dialled: None, items, cut_after };
        let (opened, conduct) = if let Some(lent) = self.devices[device].lend() {
            (lent, conduct)
        } else {
            // Who appears while several commits are one act of the world would appear in the middle of it.
            if dice.once_in(4) || erased == Some(user) || (is_alone && !self.world.has_appeared(user)) {
                return Ok(None);
            }
            let how = dice.pick(&[How::Resume, How::Resume, How::Resume, How::FirstVisit, How::Now, How::Start]);
            let dialled = self.devices[device].dial(&self.broker, how, SNAPSHOT, self.world.head)?;
            (dialled, Conduct { dialled: Some((how, SNAPSHOT)), ..conduct })
        };
        let slot = Arc::new(Mutex::new(None));
        let task = self.scheduler.spawn("device", read(opened, conduct, phases.clone(), slot.clone()));
        Ok(Some(Reading { device, conduct, task, read: slot }))
    }

    /// Lets the dice decide who goes on until everything rests: in some runs anyone may at each turn, in others whoever
    /// is ahead stays so for a while, which holds the rest back for long.
    async fn shuffle(&mut self) {
        let Self { scheduler, dice, turns, .. } = self;
        let is_even = dice.once_in(2);
        let mut ranks: BTreeMap<TaskId, u64> = BTreeMap::new();
        let (mut leaps, mut taken) = (3, 0);
        scheduler
            .run(|runnable| {
                taken += 1;
                assert!(taken < MAX_TURNS, "it never comes to rest");
                if leaps > 0 && dice.once_in(150) {
                    leaps -= 1;
                    return Err(COALESCE);
                }
                if is_even {
                    return Ok(dice.pick(runnable));
                }
                let mut rank = |id: TaskId| *ranks.entry(id).or_insert_with(|| dice.throw());
                let first = runnable.iter().copied().max_by_key(|id| rank(*id)).expect("somebody can go on");
                if dice.once_in(15) {
                    ranks.insert(first, dice.throw() / 16);
                }
                Ok(first)
            })
            .await;
        *turns += taken;
    }

    /// Compares what a device was told with what the world says.
    async fn judge(&mut self, reading: Reading, erased: Option<&'static str>) -> Outcome {
        let Reading { device: number, conduct, read, .. } = reading;
        let (device, world) = (&mut self.devices[number], &self.world);
        let of = |told: String| format!("device {number}, {conduct:?}: {told}");
        let Some(mut opened) = read.lock().take() else { return Err(of("it still reads".to_owned())) };
        let feed: Option<Feed> = opened.unplug();
        if let Some((how, snapshot)) = conduct.dialled {
            if !opened.has_begun() && feed.is_none() {
                // It was cut before anything came.
                return Ok(());
            }
            opened.shake_hands().map_err(of)?;
            device.greet(opened, how, snapshot, world).map_err(of)?;
        } else {
            device.give_back(opened);
        }
        match feed {
            None => {
                device.read(usize::MAX, world).await.map_err(of)?;
                device.cut(world).map_err(of)
            }
            // How that ends is judged with the erasure.
            Some(_) if erased.is_some() => Ok(()),
            Some(feed) => {
                device.settle(world).await.map_err(of)?;
                device.go_on(feed);
                Ok(())
            }
        }
    }

    fn draw_acts(&mut self) -> Vec<Act> {
        if self.dice.once_in(12) {
            return vec![Act::Retain];
        }
        if self.dice.once_in(30) {
            let user = self.dice.pick(PEOPLE);
            return if self.world.has_appeared(user) { vec![Act::Erase(user)] } else { Vec::new() };
        }
        let number = 1 + self.dice.below(7);
        (0..number).filter_map(|_| self.draw_act()).collect()
    }

    /// `None` where the dice name what is not there.
    fn draw_act(&mut self) -> Option<Act> {
        let (topic, user) = (self.dice.pick(&TOPICS), self.dice.pick(PEOPLE));
        match self.dice.below(22) {
            0..10 => Some(Act::Publish(self.draw_sending(topic, user))),
            10..15 if self.world.has_appeared(user) => {
                let own: Vec<(u64, NotificationId)> =
                    self.world.inbox(user, &EVERYTHING).rev().take(5).map(|entry| (entry.seq, entry.id)).collect();
                if own.is_empty() {
                    return None;
                }
                let (upto, id) = self.dice.pick(&own);
                let (mark, target) = if self.dice.once_in(2) {
                    (self.dice.pick(&[MarkAs::Seen, MarkAs::Read, MarkAs::Archived]), Target::Upto(upto))
                } else {
                    (self.dice.pick(&MarkAs::ALL), Target::Ids(vec![id]))
                };
                Some(Act::Mark { user, mark, target })
            }
            15 | 16 => Some(Act::Follow { topic, user, last: self.dice.pick(&[0, 0, 3]) }),
            17 => Some(Act::Unfollow { topic, user }),
            18 if self.world.has_appeared(user) => Some(Act::Mute { topic, user, on: self.dice.once_in(2) }),
            19 => Some(Act::DeleteTopic(topic)),
            20 | 21 => {
                let recent: Vec<NotificationId> = self.world.ids().iter().rev().take(6).copied().collect();
                (!recent.is_empty()).then(|| Act::Retract(self.dice.pick(&recent)))
            }
            _ => None,
        }
    }

    fn draw_sending(&mut self, topic: &'static str, user: &'static str) -> Sending {
        self.titles += 1;
        let to = match self.dice.below(10) {
            0..4 => To::Topic(topic),
            4..7 => To::Users(vec![user]),
            7 => To::Users(PEOPLE.to_vec()),
            _ => To::Everyone,
        };
        let category = if matches!(to, To::Topic(_)) { None } else { self.dice.pick(&[None, Some("loans")]) };
        let collapse = self.dice.once_in(5).then_some("disk");
        Sending { to, category, title: format!("n{}", self.titles), collapse, deliver: None, expiry: None }
    }

    /// Lets an act happen in the world, and compares the answers.
    fn apply(&mut self, act: &Act, told: Told) -> Outcome {
        let world = &mut self.world;
        let wrong = |told: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
            Err(format!("{act:?} was answered {told:?}, not {expected:?}"))
        };
        match (act, told) {
            (Act::Publish(sending), told) => match (world.judge(sending), told) {
                (Verdict::Accepted(recipients), Told::Published(published)) => {
                    let answer = (published.cursor.map(|cursor| cursor.seq.0), published.recipients);
                    let expected = (Some(world.head + 1), recipients);
                    if answer != expected {
                        return wrong(&answer, &expected);
                    }
                    world.publish(sending.clone(), published.id);
                    Ok(())
                }
                (Verdict::CategoryConflict(_), Told::Refused(BrokerError::CategoryConflict(_))) => Ok(()),
                (verdict, told) => wrong(&told, &verdict),
            },
            (Act::Mark { user, mark, target }, Told::Marked(marked)) => {
                let expected = world.mark(user, &EVERYTHING, *mark, target, None);
                let expected = (expected.changed, expected.unknown, world.head, world.counts(user, &EVERYTHING).unread);
                let answer = (marked.changed, marked.unknown, marked.cursor.seq.0, marked.counts.unread);
                if answer == expected { Ok(()) } else { wrong(&answer, &expected) }
            }
            (Act::Follow { topic, user, last }, Told::Changed(changed)) => {
                let expected = world.follow(topic, user, *last as usize);
                if changed == expected { Ok(()) } else { wrong(&changed, &expected) }
            }
            (Act::Unfollow { topic, user }, told) => match (world.unfollow(topic, user), told) {
                (Some(expected), Told::Changed(changed)) if changed == expected => Ok(()),
                (None, Told::Refused(BrokerError::UnknownTopic | BrokerError::NotFound(_))) => Ok(()),
                (expected, told) => wrong(&told, &expected),
            },
            (Act::Mute { topic, user, on }, told) => match (world.mute(topic, user, *on), told) {
                (Some(expected), Told::Changed(changed)) if changed == expected => Ok(()),
                (None, Told::Refused(BrokerError::UnknownTopic | BrokerError::NotFound(_))) => Ok(()),
                (expected, told) => wrong(&told, &expected),
            },
            (Act::DeleteTopic(topic), told) => match (world.delete_topic(topic), told) {
                (true, Told::Done) | (false, Told::Refused(BrokerError::UnknownTopic | BrokerError::NotFound(_))) => {
                    Ok(())
                }
                (expected, told) => wrong(&told, &expected),
            },
            (Act::Retract(id), told) => match (world.retract(*id), told) {
                (Retracted::Unknown, Told::Refused(BrokerError::NotFound(_)))
                | (Retracted::Now | Retracted::Before(_), Told::Done) => Ok(()),
                (expected, told) => wrong(&told, &expected),
            },
            (Act::Erase(user), Told::Done) => {
                world.erase(user);
                Ok(())
            }
            (Act::Retain, Told::Done) => {
                world.retain();
                Ok(())
            }
            (_, told) => wrong(&told, &"anything like it"),
        }
    }

    /// Every inbox is counted anew, and everybody goes.
    async fn close(self) -> Outcome {
        let Self { scheduler, broker, lifecycle, world, mut devices, places, .. } = self;
        let (recounted, ()) = join(broker.recount(&Identity::Operator, 0, Repair::Report), scheduler.settle()).await;
        let recounted = recounted.map_err(|error| error.to_string())?;
        ensure!(recounted.drifted.is_empty(), "counts drifted: {:?}", recounted.drifted);
        for device in &mut devices {
            device.cut(&world)?;
        }
        ensure!(broker.inner.hub.is_empty(), "{} subscribers stay in the hub", broker.inner.hub.len());
        let left = broker.inner.admission.places();
        ensure!(left == places, "of the places {places:?} to open and replay {left:?} are left");
        lifecycle.drain();
        drop(broker);
        scheduler.settle().await;
        ensure!(lifecycle.core_ended(Duration::from_secs(1)).await, "the writer or the fan-out did not end");
        Ok(())
    }
}

fn draft(sending: &Sending) -> Draft {
    let category = sending.category.map(|name| Category::new(name).expect("the categories have valid names"));
    let collapse = sending.collapse.map(|key| CollapseKey::new(key).expect("the keys are valid"));
    Draft {
        to: match &sending.to {
            To::Users(users) => Audience::Users(users.iter().map(|user| user_id(user)).collect()),
            To::Topic(topic) => Audience::Topic(topic_name(topic)),
            To::Everyone => Audience::Everyone,
        },
        category_named: category.is_some(),
        life: Life { collapse, ..Life::default() },
        via: crate::model::Via::default(),
        content: Content { title: sending.title.clone(), category: category.unwrap_or_default(), ..Content::default() },
    }
}

fn user_id(name: &str) -> UserId {
    UserId::new(name).expect("the people have valid names")
}

fn topic_name(name: &str) -> TopicName {
    TopicName::new(name).expect("the topics have valid names")
}

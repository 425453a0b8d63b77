//! What may happen in one case, and how cases are drawn. Positions, ids and earlier publishes are named by
//! `prop::sample::Index`, which is resolved when the step is taken: a plan is drawn before anything has happened.

use proptest::prelude::*;
use proptest::sample::Index;
use tidings::model::{FollowRule, MarkAs};

use super::world::{Keep, To, Token};

pub const PEOPLE: &[&str] = &["ann", "bob", "cy", "dee"];
pub const TOPICS: &[&str] = &["ops", "orders/1", "orders/2"];
pub const CATEGORIES: &[&str] = &["general", "loans", "alerts"];
/// Few, so that they meet.
const COLLAPSE_KEYS: &[&str] = &["disk", "磁盘 1"];

/// A device: who holds it, what its token may see and what it asks of its streams. It lives through many connections.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    pub user: &'static str,
    pub token: Token,
    pub events: Wants,
    pub category: Option<&'static str>,
    pub topics: Option<&'static str>,
}

/// Which kinds of event a device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    Everything,
    /// A bell: the counts alone.
    Counts,
    /// A list without a badge.
    Durable,
}

/// From where a device goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// From the last event it got; a first visit where it never got any.
    Resume,
    FirstVisit,
    Now,
    Start,
    Malformed,
    ForeignEpoch,
    /// So far ahead of the head.
    Ahead(u64),
}

/// A publish as drawn; the stage gives it a title.
#[derive(Clone, Debug)]
pub struct PublishPlan {
    pub to: To,
    pub category: Option<&'static str>,
    pub life: LifePlan,
}

/// How long it is to live. The default: at once, and for good.
#[derive(Clone, Copy, Debug, Default)]
pub struct LifePlan {
    pub collapse: Option<&'static str>,
    pub deliver: Option<Moment>,
    pub expiry: Option<Moment>,
}

/// A moment, in seconds.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// So much later: than the publish, or than the delivery for an end.
    In(u64),
    /// So far from the time at which the step is taken, given as a time of day.
    At(i64),
}

/// Which notification a publisher means.
#[derive(Clone, Debug)]
pub enum NotePlan {
    /// One of the newest.
    Recent(Index),
    /// Any that there ever was.
    Any(Index),
    /// One that waits, where there is one.
    Waiting(Index),
}

/// How long the world stands still for everyone else.
#[derive(Clone, Debug)]
pub enum Span {
    Seconds(u64),
    Hours(u64),
    /// Until one of the moments at which something is due, or a millisecond less.
    Until {
        which: Index,
        just_before: bool,
    },
}

#[derive(Clone, Debug)]
pub enum TargetPlan {
    /// A position from 0 to the head.
    Upto(Index),
    /// The position of one of the person's newest entries.
    UptoEntry(Index),
    /// Some of the person's newest entries.
    Own(Vec<Index>),
    /// Notifications out of all there are, this person's or not.
    Ids(Vec<Index>),
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    Publish {
        publish: PublishPlan,
        keyed: bool,
    },
    /// A publish that had a key is sent again.
    Again {
        which: Index,
        other_body: bool,
    },
    /// A backend lets a person follow, beginning with so many of the newest entries.
    Follow {
        topic: &'static str,
        user: &'static str,
        last: u32,
    },
    Unfollow {
        topic: &'static str,
        user: &'static str,
    },
    /// A person follows or leaves a topic without a backend.
    FollowOwn {
        topic: &'static str,
        user: &'static str,
        token: Token,
        last: u32,
    },
    UnfollowOwn {
        topic: &'static str,
        user: &'static str,
        token: Token,
    },
    Mute {
        topic: &'static str,
        user: &'static str,
        on: bool,
    },
    PutTopic {
        topic: &'static str,
        category: Option<&'static str>,
        rule: Option<FollowRule>,
    },
    DeleteTopic {
        topic: &'static str,
    },
    /// All topics and their followers are listed, page by page.
    Topics {
        limit: usize,
    },
    /// A person asks which topics they follow.
    Followed {
        user: &'static str,
        token: Token,
    },
    /// A notification is taken back, or cancelled.
    Retract {
        which: NotePlan,
    },
    /// One that waits is changed.
    Reschedule {
        which: NotePlan,
        publish: PublishPlan,
    },
    /// What waits is listed, page by page.
    Scheduled {
        limit: usize,
    },
    /// A publisher asks what became of a notification.
    Look {
        which: NotePlan,
        limit: usize,
    },
    Mark {
        user: &'static str,
        token: Token,
        mark: MarkAs,
        target: TargetPlan,
        category: Option<&'static str>,
    },
    /// A mark that must be refused: its `upto` is ahead of the head by so much, or of another epoch.
    MarkAhead {
        user: &'static str,
        by: u64,
    },
    MarkForeign {
        user: &'static str,
    },
    Connect {
        device: usize,
        how: How,
        snapshot: usize,
    },
    /// A device reads some of what has come.
    Read {
        device: usize,
        events: usize,
    },
    /// A device reads until nothing more comes, and must have everything then.
    Settle {
        device: usize,
    },
    /// The connection is lost; what was not read is lost with it.
    Cut {
        device: usize,
    },
    /// Publishes are in flight while a device connects and begins to read.
    Storm {
        publishes: Vec<PublishPlan>,
        device: usize,
        how: How,
        events: usize,
    },
    /// More than one page of the log at once.
    Flood {
        publish: PublishPlan,
        count: usize,
    },
    /// The inbox is read page by page.
    Page {
        user: &'static str,
        token: Token,
        state: Shown,
        category: Option<&'static str>,
        limit: usize,
    },
    /// A backend asks for a person's counts.
    Ask {
        user: &'static str,
    },
    /// Time passes.
    Pass {
        span: Span,
    },
    /// What is too old or too many is taken.
    Retain,
    /// A person is forgotten.
    Erase {
        user: &'static str,
    },
    /// The server says `bye` to every stream.
    Drain,
    /// The server stops, and starts on the same directory after so long.
    Restart {
        down: Span,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    All,
    Unread,
    Archived,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Frames that fit into a subscriber's queue.
    pub queue_frames: usize,
    /// Bytes that do.
    pub queue_bytes: usize,
    pub keep: Keep,
    pub devices: Vec<DevicePlan>,
    pub steps: Vec<Step>,
}

pub fn plans() -> impl Strategy<Value = Plan> {
    let queue_frames = prop_oneof![Just(1_usize), Just(3), Just(16), Just(256)];
    let queue_bytes = prop_oneof![4 => Just(64 * 1024_usize), 1 => Just(900)];
    (queue_frames, queue_bytes, keeps(), prop::collection::vec(devices(), 1..5)).prop_flat_map(
        |(queue_frames, queue_bytes, keep, devices)| {
            let steps = prop::collection::vec(steps(devices.len()), 5..45);
            (Just((queue_frames, queue_bytes, keep, devices)), steps).prop_map(
                |((queue_frames, queue_bytes, keep, devices), steps)| Plan {
                    queue_frames,
                    queue_bytes,
                    keep,
                    devices,
                    steps,
                },
            )
        },
    )
}

fn keeps() -> impl Strategy<Value = Keep> {
    let hours = prop::option::of(1..100_u64);
    let number = || prop::option::of(0..6_usize);
    let some = (hours, number(), number(), prop::option::of(0..6_u64))
        .prop_map(|(hours, per_user, of_loans, per_topic)| Keep { hours, per_user, of_loans, per_topic });
    prop_oneof![1 => Just(Keep::default()), 1 => some]
}

fn devices() -> impl Strategy<Value = DevicePlan> {
    let events = prop_oneof![6 => Just(Wants::Everything), 1 => Just(Wants::Counts), 1 => Just(Wants::Durable)];
    let category = prop_oneof![6 => Just(None), 1 => categories().prop_map(Some)];
    let topics = prop_oneof![6 => Just(None), 1 => patterns().prop_map(Some)];
    (people(), tokens(), events, category, topics).prop_map(|(user, token, events, category, topics)| DevicePlan {
        user,
        token,
        events,
        category,
        topics,
    })
}

fn steps(devices: usize) -> impl Strategy<Value = Step> {
    let device = 0..devices;
    prop_oneof![
        12 => (publishes(), prop::bool::weighted(0.3)).prop_map(|(publish, keyed)| Step::Publish { publish, keyed }),
        3 => (any::<Index>(), prop::bool::weighted(0.2))
            .prop_map(|(which, other_body)| Step::Again { which, other_body }),
        6 => (topics(), people(), lasts()).prop_map(|(topic, user, last)| Step::Follow { topic, user, last }),
        3 => (topics(), people()).prop_map(|(topic, user)| Step::Unfollow { topic, user }),
        8 => topic_steps(),
        8 => life_steps(),
        12 => marks(),
        1 => (people(), 1..100_u64).prop_map(|(user, by)| Step::MarkAhead { user, by }),
        1 => people().prop_map(|user| Step::MarkForeign { user }),
        8 => (device.clone(), hows(), prop_oneof![3 => Just(15_usize), 1 => 0..4_usize])
            .prop_map(|(device, how, snapshot)| Step::Connect { device, how, snapshot }),
        8 => (device.clone(), 0..20_usize).prop_map(|(device, events)| Step::Read { device, events }),
        2 => device.clone().prop_map(|device| Step::Settle { device }),
        3 => device.clone().prop_map(|device| Step::Cut { device }),
        2 => (prop::collection::vec(publishes(), 2..12), device, hows(), 0..20_usize)
            .prop_map(|(publishes, device, how, events)| Step::Storm { publishes, device, how, events }),
        1 => (publishes(), 100..300_usize).prop_map(|(publish, count)| Step::Flood { publish, count }),
        2 => pages(),
        1 => people().prop_map(|user| Step::Ask { user }),
        6 => spans().prop_map(|span| Step::Pass { span }),
        2 => Just(Step::Retain),
        1 => people().prop_map(|user| Step::Erase { user }),
        1 => Just(Step::Drain),
        1 => spans().prop_map(|down| Step::Restart { down }),
    ]
}

fn topic_steps() -> impl Strategy<Value = Step> {
    let category = || prop_oneof![2 => Just(None), 1 => categories().prop_map(Some)];
    let rule = || prop::option::of(prop::sample::select(&FollowRule::ALL[..]));
    let own_token = || prop_oneof![3 => Just(Token::default()), 1 => tokens()];
    prop_oneof![
        3 => (topics(), people(), any::<bool>()).prop_map(|(topic, user, on)| Step::Mute { topic, user, on }),
        2 => (topics(), category(), rule())
            .prop_map(|(topic, category, rule)| Step::PutTopic { topic, category, rule }),
        1 => topics().prop_map(|topic| Step::DeleteTopic { topic }),
        2 => (topics(), people(), own_token(), lasts())
            .prop_map(|(topic, user, token, last)| Step::FollowOwn { topic, user, token, last }),
        1 => (topics(), people(), own_token())
            .prop_map(|(topic, user, token)| Step::UnfollowOwn { topic, user, token }),
        1 => (1..4_usize).prop_map(|limit| Step::Topics { limit }),
        1 => (people(), own_token()).prop_map(|(user, token)| Step::Followed { user, token }),
    ]
}

fn life_steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => notes().prop_map(|which| Step::Retract { which }),
        2 => (notes_that_wait(), publishes()).prop_map(|(which, publish)| Step::Reschedule { which, publish }),
        1 => (1..4_usize).prop_map(|limit| Step::Scheduled { limit }),
        2 => (notes(), 1..4_usize).prop_map(|(which, limit)| Step::Look { which, limit }),
    ]
}

fn notes() -> impl Strategy<Value = NotePlan> {
    let recent = any::<Index>().prop_map(NotePlan::Recent);
    prop_oneof![5 => recent, 1 => any::<Index>().prop_map(NotePlan::Any), 1 => notes_that_wait()]
}

fn notes_that_wait() -> impl Strategy<Value = NotePlan> {
    let waiting = any::<Index>().prop_map(NotePlan::Waiting);
    prop_oneof![5 => waiting, 1 => any::<Index>().prop_map(NotePlan::Any)]
}

fn spans() -> impl Strategy<Value = Span> {
    let until =
        (any::<Index>(), prop::bool::weighted(0.3)).prop_map(|(which, just_before)| Span::Until { which, just_before });
    prop_oneof![2 => (0..20_u64).prop_map(Span::Seconds), 1 => (1..100_u64).prop_map(Span::Hours), 3 => until]
}

/// Mostly from the head on.
fn lasts() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0_u32), 1 => 1..6_u32]
}

fn publishes() -> impl Strategy<Value = PublishPlan> {
    let to = prop_oneof![
        3 => people().prop_map(|user| To::Users(vec![user])),
        2 => prop::sample::subsequence(PEOPLE, 2..=PEOPLE.len()).prop_map(To::Users),
        5 => topics().prop_map(To::Topic),
        2 => Just(To::Everyone),
    ];
    (to, prop_oneof![2 => Just(None), 1 => categories().prop_map(Some)], lives())
        .prop_map(|(to, category, life)| PublishPlan { to, category, life })
}

fn lives() -> impl Strategy<Value = LifePlan> {
    let collapse = prop_oneof![2 => Just(None), 1 => prop::sample::select(COLLAPSE_KEYS).prop_map(Some)];
    // A delivery may be a minute late and a year ahead; beyond both it is refused.
    let at = prop_oneof![1 => -65..=0_i64, 3 => 1..30_i64];
    let ahead = prop_oneof![8 => 0..30_u64, 2 => 3_600..400_000_u64, 1 => Just(400 * 24 * 3_600_u64)];
    let deliver = prop_oneof![2 => ahead.prop_map(Moment::In), 1 => at.clone().prop_map(Moment::At)];
    let end = prop_oneof![4 => 1..30_u64, 1 => 3_600..400_000_u64];
    let expiry = prop_oneof![3 => end.prop_map(Moment::In), 1 => at.prop_map(Moment::At)];
    let deliver = prop_oneof![3 => Just(None), 1 => deliver.prop_map(Some)];
    let expiry = prop_oneof![2 => Just(None), 1 => expiry.prop_map(Some)];
    let drawn =
        (collapse, deliver, expiry).prop_map(|(collapse, deliver, expiry)| LifePlan { collapse, deliver, expiry });
    prop_oneof![3 => Just(LifePlan::default()), 2 => drawn]
}

fn marks() -> impl Strategy<Value = Step> {
    let indices = || prop::collection::vec(any::<Index>(), 1..5);
    let by_ids = prop_oneof![3 => indices().prop_map(TargetPlan::Own), 1 => indices().prop_map(TargetPlan::Ids)];
    let forward = prop::sample::select(&[MarkAs::Seen, MarkAs::Read, MarkAs::Archived][..]);
    let upto = prop_oneof![any::<Index>().prop_map(TargetPlan::Upto), any::<Index>().prop_map(TargetPlan::UptoEntry)];
    let target = prop_oneof![2 => (forward, upto), 3 => (prop::sample::select(&MarkAs::ALL[..]), by_ids)];
    let token = prop_oneof![4 => Just(Token::default()), 1 => tokens()];
    (people(), token, target, prop_oneof![3 => Just(None), 1 => categories().prop_map(Some)])
        .prop_map(|(user, token, (mark, target), category)| Step::Mark { user, token, mark, target, category })
}

fn pages() -> impl Strategy<Value = Step> {
    let state = prop::sample::select(&[Shown::All, Shown::Unread, Shown::Archived][..]);
    let category = prop_oneof![2 => Just(None), 1 => categories().prop_map(Some)];
    (people(), tokens(), state, category, prop_oneof![1..6_usize, Just(100)])
        .prop_map(|(user, token, state, category, limit)| Step::Page { user, token, state, category, limit })
}

fn hows() -> impl Strategy<Value = How> {
    prop_oneof![
        12 => Just(How::Resume),
        2 => Just(How::FirstVisit),
        2 => Just(How::Now),
        2 => Just(How::Start),
        1 => Just(How::Malformed),
        1 => Just(How::ForeignEpoch),
        1 => (1..1_000_u64).prop_map(How::Ahead),
    ]
}

fn tokens() -> impl Strategy<Value = Token> {
    let patterns = prop::collection::vec(patterns(), 0..3);
    prop_oneof![3 => Just(None), 1 => patterns.prop_map(Some)].prop_map(|topics| Token { topics })
}

fn patterns() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["ops", "orders/*", "orders/2", "o*", "*", "elsewhere"][..])
}

/// Mostly the first, so that what happens to one person meets what happened to them before.
fn people() -> impl Strategy<Value = &'static str> {
    prop_oneof![1 => Just(PEOPLE[0]), 1 => prop::sample::select(PEOPLE)]
}

fn topics() -> impl Strategy<Value = &'static str> {
    prop_oneof![1 => Just(TOPICS[0]), 1 => prop::sample::select(TOPICS)]
}

fn categories() -> impl Strategy<Value = &'static str> {
    prop::sample::select(CATEGORIES)
}

//! What may happen in one case, and how cases are drawn. Positions, ids and earlier publishes are named by
//! `prop::sample::Index`, which is resolved when the step is taken: a plan is drawn before anything has happened.

use proptest::prelude::*;
use proptest::sample::Index;
use tidings::model::MarkAs;

use super::world::{To, Token};

pub const PEOPLE: &[&str] = &["ann", "bob", "cy", "dee"];
pub const TOPICS: &[&str] = &["ops", "orders/1", "orders/2"];
pub const CATEGORIES: &[&str] = &["general", "loans", "alerts"];

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
    Follow {
        topic: &'static str,
        user: &'static str,
    },
    Unfollow {
        topic: &'static str,
        user: &'static str,
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
        hours: u64,
    },
    /// The server says `bye` to every stream.
    Drain,
    /// The server stops and starts on the same directory.
    Restart,
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
    pub devices: Vec<DevicePlan>,
    pub steps: Vec<Step>,
}

pub fn plans() -> impl Strategy<Value = Plan> {
    let queue_frames = prop_oneof![Just(1_usize), Just(3), Just(16), Just(256)];
    let queue_bytes = prop_oneof![4 => Just(64 * 1024_usize), 1 => Just(900)];
    (queue_frames, queue_bytes, prop::collection::vec(devices(), 1..5)).prop_flat_map(
        |(queue_frames, queue_bytes, devices)| {
            let count = devices.len();
            (Just((queue_frames, queue_bytes, devices)), prop::collection::vec(steps(count), 5..45)).prop_map(
                |((queue_frames, queue_bytes, devices), steps)| Plan { queue_frames, queue_bytes, devices, steps },
            )
        },
    )
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
        6 => (topics(), people()).prop_map(|(topic, user)| Step::Follow { topic, user }),
        3 => (topics(), people()).prop_map(|(topic, user)| Step::Unfollow { topic, user }),
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
        2 => (1..100_u64).prop_map(|hours| Step::Pass { hours }),
        1 => Just(Step::Drain),
        1 => Just(Step::Restart),
    ]
}

fn publishes() -> impl Strategy<Value = PublishPlan> {
    let to = prop_oneof![
        3 => people().prop_map(|user| To::Users(vec![user])),
        2 => prop::sample::subsequence(PEOPLE, 2..=PEOPLE.len()).prop_map(To::Users),
        5 => topics().prop_map(To::Topic),
        2 => Just(To::Everyone),
    ];
    (to, prop_oneof![2 => Just(None), 1 => categories().prop_map(Some)])
        .prop_map(|(to, category)| PublishPlan { to, category })
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

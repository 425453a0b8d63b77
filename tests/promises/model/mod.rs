//! The property of the store and the feed (semantics 5): whatever happens, each subscriber sees each visible live
//! entry once, in order, and ends with the state and the counts of one who watched.
//!
//! A [`plan`] is drawn at random; [`stage`] plays it on the shipped broker and on a naive [`world`] alike; each
//! [`device`] compares what it was told with what the world says.
//!
//! The quick form plays the same 200 cases each time. `TIDINGS_MODEL_CASES=10000` (or `PROPTEST_CASES`) makes the full
//! run, of cases that chance draws. One that fails prints the line that plays it again alone.

#[allow(dead_code, reason = "the unit test of the interleavings uses the rest")]
mod device;
mod plan;
mod stage;
mod world;

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use plan::{Plan, plans};

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

const QUICK_CASES: u64 = 200;
/// Where the quick form begins, always: a red run is the commit's fault.
const QUICK_SEED: u64 = 1;

#[test]
#[expect(clippy::print_stdout, reason = "the seed and the count are what a full run is kept for")]
fn every_subscriber_ends_with_what_one_who_watched_has_seen() {
    let asked = number("TIDINGS_MODEL_CASES").or_else(|| number("PROPTEST_CASES"));
    let (cases, first) = asked.map_or_else(|| (QUICK_CASES, QUICK_SEED), |cases| (cases, random_seed()));
    let first = number("TIDINGS_MODEL_SEED").unwrap_or(first);
    let began = Instant::now();
    // Cases know nothing of each other, so each processor plays its share.
    let next = AtomicU64::new(0);
    let play_some = || {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= cases {
                return None;
            }
            if let Err(fault) = play_case(first.wrapping_add(case)) {
                next.store(cases, Ordering::Relaxed);
                return Some(fault);
            }
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
    println!("model: {cases} cases passed, TIDINGS_MODEL_SEED={first}, {:.1} s", began.elapsed().as_secs_f64());
}

/// Draws the case of a seed and plays it. A fault comes with the smallest plan that shows it.
fn play_case(seed: u64) -> Outcome {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let played = runner.run(&plans(), |plan| play(plan).map_err(TestCaseError::fail));
    played.map_err(|error| {
        let replay = format!(
            "play it again: TIDINGS_MODEL_SEED={seed} TIDINGS_MODEL_CASES=1 cargo test --profile quick --test promises model"
        );
        match error {
            TestError::Fail(reason, plan) => format!("{reason}\n{replay}\n{plan:#?}"),
            TestError::Abort(reason) => format!("the case could not be drawn: {reason}\n{replay}"),
        }
    })
}

/// Plays a plan on a runtime of its own, with a clock that moves only while nothing is at work.
fn play(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(stage::play(plan))
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

/// Plans that once showed a fault, or that chance draws too seldom.
mod stories {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::strategy::ValueTree as _;
    use tidings::model::MarkAs;

    use super::plan::{DevicePlan, How, LifePlan, Moment, NotePlan, PublishPlan, Span, Step, TargetPlan, Wants};
    use super::world::{Keep, To, Token};
    use super::*;

    const ANN: DevicePlan = DevicePlan {
        user: "ann",
        token: Token { topics: None },
        events: Wants::Everything,
        category: None,
        topics: None,
    };

    fn to_ann() -> PublishPlan {
        PublishPlan { to: To::Users(vec!["ann"]), category: None, life: LifePlan::default() }
    }

    /// Chooses among one.
    fn only() -> Index {
        let tree = any::<Index>().new_tree(&mut TestRunner::deterministic());
        tree.expect("an index can always be drawn").current()
    }

    fn mark(mark: MarkAs, target: TargetPlan) -> Step {
        Step::Mark { user: "ann", token: Token { topics: None }, mark, target, category: None }
    }

    fn publish(to: To, life: LifePlan) -> Step {
        Step::Publish { publish: PublishPlan { to, category: None, life }, keyed: false }
    }

    fn follow_ops(last: u32) -> Step {
        Step::Follow { topic: "ops", user: "ann", last }
    }

    fn tell(devices: Vec<DevicePlan>, steps: Vec<Step>) {
        let keep = Keep::default();
        let plan = Plan { queue_frames: 256, queue_bytes: 64 * 1024, keep, devices, steps };
        play(plan).unwrap_or_else(|fault| panic!("{fault}"));
    }

    #[test]
    fn a_drain_in_the_middle_of_a_replay_skips_nothing() {
        // What waited in the queue was once sent behind the pages that the drain left out.
        tell(
            vec![ANN],
            vec![
                Step::Flood { publish: to_ann(), count: 400 },
                Step::Connect { device: 0, how: How::Start, snapshot: 15 },
                Step::Read { device: 0, events: 5 },
                Step::Publish { publish: to_ann(), keyed: false },
                Step::Drain,
            ],
        );
    }

    #[test]
    fn an_entry_taken_back_is_covered_again_by_an_upto_at_its_very_position() {
        let read_upto_it = mark(MarkAs::Read, TargetPlan::UptoEntry(only()));
        let unread_it = mark(MarkAs::Unread, TargetPlan::Own(vec![only()]));
        let publish = Step::Publish { publish: to_ann(), keyed: false };
        let connect = Step::Connect { device: 0, how: How::FirstVisit, snapshot: 15 };
        let settle = Step::Settle { device: 0 };
        let marks = [read_upto_it.clone(), unread_it, read_upto_it].into_iter().flat_map(|mark| [mark, settle.clone()]);
        tell(vec![ANN], [publish, connect].into_iter().chain(marks).collect());
    }

    #[test]
    fn counts_that_change_while_a_stream_begins_are_told() {
        // The fan-out once passed a subscriber by whose rows were still being read, as of a head before the commit:
        // the badge was wrong until the next one. Chance decides who is first, so it gets many turns, and many rows
        // to read.
        let (topic, user) = ("ops", "ann");
        let rows = (0..150).flat_map(|_| [Step::Follow { topic, user, last: 0 }, Step::Unfollow { topic, user }]);
        let storm = Step::Storm { publishes: vec![to_ann(); 4], device: 0, how: How::Now, events: 0 };
        let turns = (0..60).flat_map(|_| [storm.clone(), Step::Settle { device: 0 }]);
        tell(vec![ANN], rows.chain(turns).collect());
    }

    #[test]
    fn the_dead_of_many_blocks_are_counted() {
        // The dead are summed by 256 ordinals; random plans seldom fill one block.
        let collapse = LifePlan { collapse: Some("disk"), ..LifePlan::default() };
        let flood = |life, count| {
            let publish = PublishPlan { to: To::Topic("ops"), category: None, life };
            Step::Flood { publish, count }
        };
        let settle = Step::Settle { device: 0 };
        let steps = [
            follow_ops(0),
            flood(LifePlan::default(), 300),
            Step::Connect { device: 0, how: How::Start, snapshot: 15 },
            settle.clone(),
            mark(MarkAs::Read, TargetPlan::Upto(only())),
            flood(collapse, 300),
            mark(MarkAs::Seen, TargetPlan::Upto(only())),
            Step::Retract { which: NotePlan::Any(only()) },
            settle.clone(),
            Step::Unfollow { topic: "ops", user: "ann" },
            flood(LifePlan::default(), 10),
            flood(collapse, 2),
            follow_ops(5),
            settle.clone(),
            mark(MarkAs::Unread, TargetPlan::Own(vec![only()])),
            Step::Restart { down: Span::Seconds(1) },
        ];
        tell(vec![ANN], steps.to_vec());
    }

    #[test]
    fn what_was_due_while_the_server_was_down_happened_in_the_order_of_its_moments() {
        let later = |seconds, ends: Option<u64>| LifePlan {
            collapse: Some("disk"),
            deliver: Some(Moment::In(seconds)),
            expiry: ends.map(Moment::In),
        };
        let ops = || To::Topic("ops");
        let ann = || To::Users(vec!["ann"]);
        let publishes = [
            publish(ops(), later(10, Some(5))),
            publish(ann(), later(10, Some(5))),
            publish(ops(), later(5, Some(5))),
            publish(ann(), later(5, None)),
            publish(To::Everyone, later(10, Some(1))),
            publish(To::Everyone, later(11, None)),
        ];
        let connect = Step::Connect { device: 0, how: How::Resume, snapshot: 15 };
        let steps = [follow_ops(0), connect.clone()].into_iter().chain(publishes);
        let ends = [Step::Restart { down: Span::Seconds(14) }, connect, Step::Pass { span: Span::Seconds(1) }];
        tell(vec![ANN], steps.chain(ends).collect());
    }

    #[test]
    fn who_left_a_topic_is_told_of_the_death_of_what_stayed() {
        let steps = [
            follow_ops(0),
            Step::Connect { device: 0, how: How::Now, snapshot: 15 },
            publish(To::Topic("ops"), LifePlan { expiry: Some(Moment::In(2)), ..LifePlan::default() }),
            publish(To::Topic("ops"), LifePlan::default()),
            Step::Unfollow { topic: "ops", user: "ann" },
            Step::Settle { device: 0 },
            Step::Pass { span: Span::Seconds(2) },
            Step::Retract { which: NotePlan::Recent(only()) },
            Step::Retract { which: NotePlan::Any(only()) },
            Step::Settle { device: 0 },
        ];
        tell(vec![ANN], steps.to_vec());
    }

    #[test]
    fn a_follow_that_begins_with_the_last_entries_brings_them_unread() {
        // "Everything up to here" was marked read before they were the person's.
        let steps = [
            Step::Flood { publish: PublishPlan { to: To::Topic("ops"), ..to_ann() }, count: 4 },
            Step::Publish { publish: to_ann(), keyed: false },
            mark(MarkAs::Read, TargetPlan::UptoEntry(only())),
            follow_ops(3),
            Step::Unfollow { topic: "ops", user: "ann" },
            follow_ops(5),
            mark(MarkAs::Read, TargetPlan::Own(vec![only()])),
            mark(MarkAs::Archived, TargetPlan::UptoEntry(only())),
        ];
        tell(vec![ANN], steps.to_vec());
    }

    #[test]
    fn what_retention_took_from_one_and_an_erasure_from_another_is_gone() {
        // The model once kept it for whoever asks for it.
        let to_both = PublishPlan { to: To::Users(vec!["ann", "bob"]), ..to_ann() };
        let steps = [
            Step::Publish { publish: to_both, keyed: false },
            Step::Publish { publish: to_ann(), keyed: false },
            Step::Retain,
            Step::Erase { user: "bob" },
            Step::Look { which: NotePlan::Any(only()), limit: 3 },
        ];
        let keep = Keep { per_user: Some(1), ..Keep::default() };
        let plan = Plan { queue_frames: 256, queue_bytes: 64 * 1024, keep, devices: vec![ANN], steps: steps.to_vec() };
        play(plan).unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// More than one page of a replay, of which the first is read.
    fn half_read() -> [Step; 4] {
        [
            follow_ops(0),
            Step::Flood { publish: PublishPlan { to: To::Topic("ops"), ..to_ann() }, count: 250 },
            Step::Connect { device: 0, how: How::Start, snapshot: 15 },
            Step::Read { device: 0, events: 5 },
        ]
    }

    #[test]
    fn what_dies_behind_the_first_page_of_a_replay_is_left_out_of_the_second() {
        // It was sent, and since it had been taken back, without a title.
        let retract = Step::Retract { which: NotePlan::Recent(only()) };
        tell(vec![ANN], half_read().into_iter().chain([retract, Step::Settle { device: 0 }]).collect());
    }

    #[test]
    fn a_topic_that_is_deleted_while_it_is_replayed_ends_no_stream() {
        // Its name could not be read any more, and the stream ended as if the disk had failed.
        let delete = Step::DeleteTopic { topic: "ops" };
        tell(vec![ANN], half_read().into_iter().chain([delete, Step::Settle { device: 0 }]).collect());
    }

    #[test]
    fn everyone_goes_on_without_a_person_who_was_erased() {
        // The erased person was taken off a number of followers in which they had never been counted.
        let everyone = publish(To::Everyone, LifePlan::default());
        let read = mark(MarkAs::Read, TargetPlan::UptoEntry(only()));
        let connect = Step::Connect { device: 0, how: How::Resume, snapshot: 15 };
        let erase = Step::Erase { user: "ann" };
        tell(vec![ANN], [everyone.clone(), connect.clone(), read, erase, everyone, connect].to_vec());
    }

    #[test]
    fn who_comes_back_finds_what_a_follow_began_with_unread() {
        // "Everything up to here", marked before the follow, was replayed behind the entries and covered them.
        let connect = Step::Connect { device: 0, how: How::Resume, snapshot: 15 };
        let steps = [
            connect.clone(),
            Step::Cut { device: 0 },
            Step::Flood { publish: PublishPlan { to: To::Topic("ops"), ..to_ann() }, count: 3 },
            Step::Publish { publish: to_ann(), keyed: false },
            mark(MarkAs::Read, TargetPlan::UptoEntry(only())),
            mark(MarkAs::Archived, TargetPlan::UptoEntry(only())),
            follow_ops(2),
            connect,
            Step::Settle { device: 0 },
        ];
        tell(vec![ANN], steps.to_vec());
    }

    #[test]
    fn a_stream_that_lags_behind_retention_does_not_go_on_as_if_nothing_was_missed() {
        // The death of an entry that the device shows was taken before the device read of it.
        let steps = [
            follow_ops(0),
            Step::Connect { device: 0, how: How::Now, snapshot: 15 },
            publish(To::Topic("ops"), LifePlan::default()),
            Step::Settle { device: 0 },
            Step::Retract { which: NotePlan::Recent(only()) },
            Step::Flood { publish: to_ann(), count: 3 },
            Step::Pass { span: Span::Hours(2) },
            Step::Retain,
            Step::Settle { device: 0 },
        ];
        let keep = Keep { hours: Some(1), ..Keep::default() };
        let plan = Plan { queue_frames: 1, queue_bytes: 900, keep, devices: vec![ANN], steps: steps.to_vec() };
        play(plan).unwrap_or_else(|fault| panic!("{fault}"));
    }

    #[test]
    fn what_was_taken_of_a_topic_one_has_left_is_told() {
        // With its last entry the past follow went, and with that the floor.
        let entry = || publish(To::Topic("ops"), LifePlan::default());
        let steps = [
            follow_ops(0),
            entry(),
            Step::Connect { device: 0, how: How::Resume, snapshot: 0 },
            Step::Read { device: 0, events: 0 },
            entry(),
            Step::Cut { device: 0 },
            Step::Unfollow { topic: "ops", user: "ann" },
            entry(),
            Step::Retain,
            Step::Connect { device: 0, how: How::Resume, snapshot: 15 },
            Step::Settle { device: 0 },
        ];
        let keep = Keep { per_topic: Some(1), ..Keep::default() };
        let plan = Plan { queue_frames: 256, queue_bytes: 64 * 1024, keep, devices: vec![ANN], steps: steps.to_vec() };
        play(plan).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

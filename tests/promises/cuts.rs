//! No gap, no duplicate to the eye, one order (T7): clients of all transports, cut at random every 0.2 to 2 s and coming back
//! by another way, while the server publishes to them and rotates their streams.
//!
//! The quick form cuts 60 clients for 8 s; `TIDINGS_CUTS_S=60` is the full one: 500 clients under 2,000 publishes a second.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::crowd::line::{Line, Transport};
use crate::crowd::pages::{Cuts, PAGES, Pages};
use crate::crowd::{self, Eye, Faults, Plan, long_token, runtime, setting};
use crate::support::server::{Server, Setup};

/// The share of the stated publishes that a full run must have made.
const KEPT: f64 = 0.9;

#[test]
fn clients_that_are_cut_all_the_time_see_each_notification_once_and_in_order() {
    let full = setting("TIDINGS_CUTS_S", 0);
    let seed = setting("TIDINGS_CUTS_SEED", 7);
    let plan = match full {
        0 => Plan { clients: 60, rate: 200, span: Duration::from_secs(8), lives: 200..2_000, seed },
        span => Plan { clients: 500, rate: 2_000, span: Duration::from_secs(span), lives: 200..2_000, seed },
    };
    let server = Setup::serve().env("TIDINGS_STREAMS_MAX_AGE", "1s").start();
    runtime().block_on(async {
        let (_stays, place) = watch::channel(crowd::address(&server));
        let pages = Pages::open(&server, plan.clients, place, Cuts::Seeded(seed)).await;
        let outcome = crowd::run(&server, &plan, PAGES, |_| ()).await;
        let seen = pages.close(&outcome.due).await;
        let rate = outcome.published as f64 / plan.span.as_secs_f64();
        println!(
            "seed {seed}: {} clients and {PAGES} pages, {} published ({rate:.0}/s), {} delivered, {} cuts, {} rotations, \
             {seen} seen by pages, settled in {:?}: {:?}",
            plan.clients, outcome.published, outcome.delivered, outcome.cuts, outcome.rotations, outcome.settled,
            outcome.faults
        );
        assert!(outcome.cuts > plan.clients as u64 && outcome.rotations > 0, "hardly anybody was cut");
        assert!(outcome.delivered > plan.clients && seen > 0, "hardly anything was published");
        assert_eq!(outcome.resets, 0, "every cursor was good");
        if full > 0 {
            assert!(rate >= plan.rate as f64 * KEPT, "{rate:.0} publishes a second were taken");
        }
    });
}

/// The control: who resumes one position too far is found out.
#[test]
fn a_client_that_skips_one_is_reported_as_a_gap() {
    let server = Server::start();
    let due: Vec<u64> =
        (0..6).map(|i| server.notify("alice", &format!("t{i}"))["seq"].as_u64().expect("a seq")).collect();
    runtime().block_on(async {
        for (skipped, expected) in [(0, Faults::default()), (1, Faults { gaps: 1, ..Faults::default() })] {
            let mut eye = Eye::default();
            while eye.seen.last() != due.last() {
                let address = crowd::address(&server);
                let token = long_token(&server, "alice");
                let transport = if eye.seen.is_empty() { Transport::Sse } else { Transport::Poll };
                let mut line = Line::open(address, transport, &token, &eye.cursor()).await.expect("it is accepted");
                while eye.seen.last() != due.last() {
                    let event =
                        timeout(crate::support::DEADLINE, line.next()).await.expect("it comes").expect("an event");
                    eye.look(&event);
                    if event.kind == "notification" && eye.seen.len() == 2 {
                        eye.last += skipped;
                        break;
                    }
                }
            }
            assert_eq!(Faults::of(&due, &eye.seen), expected, "due {due:?}, seen {:?}", eye.seen);
        }
    });
}

/// The control: a server that sends an event twice on one line is found out, though no eye sees it twice.
#[test]
fn an_event_that_comes_again_on_one_line_is_counted() {
    let server = Server::start();
    let mut stream = server.stream("alice", "?cursor=start");
    let mut eye = Eye::default();
    eye.look(&stream.expect("hello"));
    server.notify("alice", "once");
    let event = stream.expect("notification");
    eye.look(&event);
    assert_eq!((eye.again, eye.seen.len()), (0, 1));
    eye.look(&event);
    assert_eq!((eye.again, eye.seen.len()), (1, 1));
}

#[test]
fn the_judge_knows_a_gap_a_double_and_a_disorder() {
    let told = |seen: &[u64]| Faults::of(&[1, 3, 5], seen);
    assert_eq!(told(&[1, 3, 5]), Faults::default());
    assert_eq!(told(&[1, 5]), Faults { gaps: 1, ..Faults::default() });
    assert_eq!(told(&[1, 3, 3, 5]), Faults { doubles: 1, ..Faults::default() });
    assert_eq!(told(&[3, 1, 5]), Faults { disorder: 1, ..Faults::default() });
}

//! Keeps a session alive: after each that is lost the next is begun, later each time, until the drain.

use std::time::Duration;

use super::Config;
use super::backoff::Backoff;
use super::line::Lost;
use super::session::{Ended, Pace, Session};
use crate::broker::{Broker, IntakeState};
use crate::lifecycle::Lifecycle;

/// Waits between two sessions.
const RECONNECTS: Backoff =
    Backoff { least: Duration::from_millis(100), first: Duration::from_millis(500), longest: Duration::from_secs(30) };

/// Outcomes of a message, as `/metrics` names them; each is there from the start, so that its first rise is one.
const OUTCOMES: [&str; 4] = ["published", "duplicate", "dead_lettered", "rejected"];

/// Begins to consume the queue, until the drain. The broker is told how that goes.
pub fn start(broker: Broker, config: Config, lifecycle: &Lifecycle) {
    for outcome in OUTCOMES {
        drop(broker.metrics().intake.get_or_create(&[("outcome", outcome)]));
    }
    broker.tell_intake(IntakeState::Connecting);
    lifecycle.spawn_edge(supervise(broker, config, lifecycle.clone()));
}

async fn supervise(broker: Broker, config: Config, lifecycle: Lifecycle) {
    let (mut attempt, mut since, mut pace) = (0, None, Pace::Ordinary);
    loop {
        // A task of its own: a panic ends the session, and no more.
        let session = Session::run(broker.clone(), config.clone(), lifecycle.clone(), pace);
        let (settled, lost) = match lifecycle.spawn_edge(session).await {
            Ok(Ended::Drained) => break,
            Ok(Ended::Calm) => {
                (attempt, since, pace) = (0, None, Pace::Ordinary);
                continue;
            }
            Ok(Ended::Lost { settled, lost }) => (settled, lost),
            Err(_) => {
                broker.metrics().panics.inc();
                (0, Lost::Panic)
            }
        };
        if let Lost::Flooded(_) = lost {
            pace = Pace::Careful;
        }
        if settled > 0 {
            (attempt, since) = (0, None);
        }
        let since = *since.get_or_insert_with(|| broker.clock().now());
        broker.tell_intake(IntakeState::Reconnecting { since, why: lost.to_string() });
        let wait = RECONNECTS.thrown(attempt);
        tracing::warn!(
            queue = config.queue,
            host = config.address.host,
            retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "The queue is not consumed: {lost}"
        );
        attempt = attempt.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = lifecycle.draining() => break,
        }
    }
    broker.tell_intake(IntakeState::Stopped);
}

//! What systemd is told: ready, stopping, alive. Without systemd every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Health};

/// The server accepts connections.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The server drains.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Draining")]);
}

/// Tells systemd twice in each of its watchdog's periods that the runtime still turns, and how the broker is, until
/// `stop`. Ends at once where there is no watchdog.
///
/// A degraded broker (a full disk) is told in the status but does not let the dog bite: reading goes on, and a restart
/// would mend nothing.
pub(super) async fn watchdog(broker: Broker, stop: CancellationToken) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    let mut ticks = tokio::time::interval_at(Instant::now(), (period / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tell(&[NotifyState::Watchdog]);
        let trouble = match broker.health() {
            Health::Degraded(why) => Some(why),
            Health::Ready | Health::Draining => None,
        };
        if trouble != told {
            tell(&[NotifyState::Status(
                &trouble.as_ref().map_or("Ready".to_owned(), |why| format!("Degraded: {why}")),
            )]);
            told = trouble;
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "Cannot notify systemd");
    }
}

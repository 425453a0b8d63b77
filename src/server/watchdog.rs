//! Whether the server does its work, not only whether it runs: a question through every accept loop, the writer and the
//! fan-out, and a word to systemd while all of them answer.
//!
//! A degraded server (a full disk) answers: reading goes on, and a restart would mend nothing. A hung one does not, and
//! systemd starts it again from what is durable.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::accept::Probe;
use super::{Supervisor, systemd};
use crate::broker::{Broker, Health};
use crate::lifecycle::Lifecycle;

/// How often is asked where no watchdog wants to know; readiness is told from the answers.
const UNWATCHED: Duration = Duration::from_secs(10);

pub(super) struct Watchdog {
    pub(super) broker: Broker,
    /// Asks each accept loop.
    pub(super) probes: Vec<mpsc::Sender<Probe>>,
    pub(super) supervisor: Supervisor,
}

impl Watchdog {
    /// Asks three times in each of the watchdog's periods, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken, lifecycle: Lifecycle) {
        let watched = (self.supervisor == Supervisor::Systemd).then(systemd::watchdog_period).flatten();
        let every = watched.map_or(UNWATCHED, |period| (period / 3).max(Duration::from_millis(1)));
        let mut ticks = tokio::time::interval_at(Instant::now(), every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let silent = tokio::select! {
                () = stop.cancelled() => return,
                silent = self.silent(every, &lifecycle) => silent,
            };
            match silent {
                Some(who) => {
                    tracing::error!(who, "No answer in time; systemd will start the server again if none comes");
                }
                None if watched.is_some() => systemd::alive(),
                None => {}
            }
            if self.supervisor == Supervisor::Systemd {
                self.tell_status(&mut told);
            }
        }
    }

    /// Who does not answer.
    async fn silent(&self, patience: Duration, lifecycle: &Lifecycle) -> Option<&'static str> {
        for probe in &self.probes {
            let asked = timeout(patience, async {
                let (answer, answered) = oneshot::channel();
                // Both fail where the loop has ended, as it does at the drain and only then.
                probe.send(answer).await.is_ok() && answered.await.is_ok()
            });
            if !asked.await.unwrap_or(false) && !lifecycle.is_draining() {
                return Some("an accept loop");
            }
        }
        let answered = timeout(patience, self.broker.pulse()).await.is_ok();
        (!answered && !lifecycle.is_draining()).then_some("the writer or the fan-out")
    }

    fn tell_status(&self, told: &mut Option<String>) {
        let trouble = match self.broker.health() {
            Health::Degraded(why) => Some(why),
            Health::Ready | Health::Draining => None,
        };
        if trouble != *told {
            systemd::status(&trouble.as_ref().map_or("Ready".to_owned(), |why| format!("Degraded: {why}")));
            *told = trouble;
        }
    }
}

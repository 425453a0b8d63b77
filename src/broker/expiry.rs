//! The end of a credential, told a minute before.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::live::Live;
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::wire::event::ByeReason;

/// How long before its end a token's end is told.
const TOKEN_WARNING: Duration = Duration::from_mins(1);

/// When a subscriber's credential runs out.
pub(super) struct Expiry {
    clock: Clock,
    ends: Option<Timestamp>,
    /// What its end means.
    reason: ByeReason,
    warned: bool,
    /// Outlives a call of `next`, which each delivery interrupts: to make and drop a timer takes the wheel's lock twice.
    pause: Option<Pin<Box<Sleep>>>,
}

pub(super) enum ExpiryEvent {
    Warn(u64),
    End,
}

impl Expiry {
    pub(super) fn new(live: &Live, clock: &Clock) -> Self {
        // A proxy's word does not run out; it is to be asked for again, of which a client need not know beforehand.
        let by_proxy = live.by_proxy();
        let reason = if by_proxy { ByeReason::Rotate } else { ByeReason::Expired };
        Self { clock: clock.clone(), ends: live.subscriber().expires(), reason, warned: by_proxy, pause: None }
    }

    pub(super) fn reason(&self) -> ByeReason {
        self.reason
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= self.clock.now())
    }

    /// Waits for what comes next. May be dropped and called again.
    pub(super) async fn next(&mut self) -> ExpiryEvent {
        let Some(ends) = self.ends else { return std::future::pending().await };
        loop {
            if let Some(pause) = &mut self.pause {
                pause.await;
                self.pause = None;
            }
            let left = ends.since(self.clock.now());
            if left.is_zero() {
                return ExpiryEvent::End;
            }
            if left <= TOKEN_WARNING && !self.warned {
                self.warned = true;
                return ExpiryEvent::Warn(left.as_secs());
            }
            let wait = if self.warned { left } else { left.saturating_sub(TOKEN_WARNING) };
            // Short waits, since the wall clock that decides may be stepped meanwhile.
            self.pause = Some(Box::pin(sleep(wait.min(Duration::from_mins(5)))));
        }
    }
}

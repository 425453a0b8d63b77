//! When a stream ends, why, and when its client should come back: decided here alone, whatever the transport.
//!
//! Three things end a stream that is well: the hub's word (a drain, access taken back, a newer holder of its seat), the end
//! of its credential, which is told a minute before, and its age. A restart, a key that is gone and a stream's old age are
//! one and the same to a client: `bye`, a pause, and on from its cursor.
//!
//! **Invariant**: who ends together comes back spread over a window that grows with their number; who ends alone comes
//! back at once.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::live::Live;
use super::{Broker, Inner};
use crate::clock::Clock;
use crate::hub::Ended;
use crate::model::Timestamp;
use crate::wire::event::ByeReason;

/// How long before its end a token's end is told.
const TOKEN_WARNING: Duration = Duration::from_mins(1);
/// A timer is never set further ahead, since the wall clock that decides may be stepped meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Who comes back does so after this at the earliest, in milliseconds …
const EARLIEST_RETURN: u32 = 2_000;
/// … and within this from there, where few do.
const LEAST_WINDOW: u32 = 4_000;
/// Streams that are to come back in one second, where many do.
const RETURNS_A_SECOND: u32 = 1_000;
/// Nobody is kept away longer than this, in milliseconds.
const LONGEST_WINDOW: u32 = 60_000;
/// The same for a stream that goes over into its successor alone, in milliseconds.
const EARLIEST_SUCCESSION: u32 = 200;
const SUCCESSION_WINDOW: u32 = 1_000;

/// Streams that a drain ends in one go, and the pause behind them: what is being answered gets its turn in between.
const DRAIN_STEP: usize = 256;
const DRAIN_PAUSE: Duration = Duration::from_millis(5);

/// What a stream has to watch for besides its events.
pub(super) struct Ending {
    clock: Clock,
    /// When the credential runs out.
    expires: Option<Timestamp>,
    /// What that means.
    expired: ByeReason,
    warned: bool,
    /// When it is old enough to be followed by another.
    rotates: Option<Instant>,
    /// Outlives a call of `next`, which each delivery interrupts: to make and drop a timer takes the wheel's lock twice.
    pause: Option<Pin<Box<Sleep>>>,
}

pub(super) enum Turn {
    /// The credential runs out in so many seconds.
    Warn(u64),
    End(Ended),
}

impl Ending {
    /// `max_age` is what a stream may reach; `None` for what lives no longer than a request.
    pub(super) fn new(live: &Live, clock: &Clock, max_age: Option<Duration>) -> Self {
        let by_proxy = live.by_proxy();
        Self {
            clock: clock.clone(),
            expires: live.subscriber().expires(),
            // A proxy's word does not run out; it is to be asked for again, of which a client need not know beforehand.
            expired: if by_proxy { ByeReason::Rotate } else { ByeReason::Expired },
            warned: by_proxy,
            rotates: max_age.map(|age| Instant::now() + jittered(age)),
            pause: None,
        }
    }

    /// The credential was renewed.
    pub(super) fn renewed(&mut self, live: &Live) {
        self.expires = live.subscriber().expires();
        self.warned = live.by_proxy();
        self.pause = None;
    }

    /// Why the stream must end now. Asked for as well as waited for: a reader that is never idle would outlive its token
    /// otherwise.
    pub(super) fn due(&self, live: &Live) -> Option<Ended> {
        live.subscriber().ending().or_else(|| self.own())
    }

    /// The same, but for the hub's word, which comes through the queue in its place behind what was queued before it.
    pub(super) fn own(&self) -> Option<Ended> {
        if self.expires.is_some_and(|ends| ends <= self.clock.now()) {
            return Some(Ended::alone(self.expired));
        }
        self.rotates.filter(|at| *at <= Instant::now()).map(|_| Ended::alone(ByeReason::Rotate))
    }

    /// Waits for what comes next. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Turn {
        loop {
            if let Some(pause) = &mut self.pause {
                pause.await;
                self.pause = None;
            }
            if let Some(ended) = self.own() {
                return Turn::End(ended);
            }
            let left = self.expires.map(|ends| ends.since(self.clock.now()));
            if let Some(left) = left.filter(|left| *left <= TOKEN_WARNING && !self.warned) {
                self.warned = true;
                return Turn::Warn(left.as_secs());
            }
            let credential = left.map(|left| if self.warned { left } else { left.saturating_sub(TOKEN_WARNING) });
            let age = self.rotates.map(|at| at.saturating_duration_since(Instant::now()));
            match credential.into_iter().chain(age).min() {
                Some(wait) => self.pause = Some(Box::pin(sleep(wait.min(LONGEST_PAUSE)))),
                None => return std::future::pending().await,
            }
        }
    }
}

impl Broker {
    /// Ends every stream with `bye shutdown`, some at a time. Those that begin meanwhile end by themselves.
    pub async fn drain(&self) {
        let streams = self.inner.hub.streams();
        let ended = Ended { reason: ByeReason::Shutdown, together: streams.len() };
        for step in streams.chunks(DRAIN_STEP) {
            for subscriber in step {
                subscriber.end(ended);
            }
            sleep(DRAIN_PAUSE).await;
        }
    }

    /// Ends every stream with `bye rotate`: each is judged anew as it comes back.
    pub(super) fn rotate_all(&self) {
        let streams = self.inner.hub.streams();
        let ended = Ended { reason: ByeReason::Rotate, together: streams.len() };
        for subscriber in streams {
            subscriber.end(ended);
        }
    }

    /// When a client that is refused for this reason should come back, in milliseconds: spread as if all that are here
    /// came with it.
    pub fn retry_ms(&self, reason: ByeReason) -> u32 {
        retry_ms(self.inner.ended(reason))
    }
}

impl Inner {
    /// An end that a whole crowd meets.
    pub(super) fn ended(&self, reason: ByeReason) -> Ended {
        Ended { reason, together: self.hub.len() }
    }
}

/// When who ended so should come back, in milliseconds.
pub(super) fn retry_ms(ended: Ended) -> u32 {
    match ended {
        Ended { reason: ByeReason::Rotate, together: ..=1 } => EARLIEST_SUCCESSION + below(SUCCESSION_WINDOW),
        Ended { together, .. } => EARLIEST_RETURN + below(window(together)),
    }
}

/// What `hello` tells an EventSource: when to come back from an end that nobody could announce.
pub(super) fn unannounced_retry_ms() -> u32 {
    EARLIEST_RETURN + below(LEAST_WINDOW)
}

/// Milliseconds over which so many streams come back.
fn window(streams: usize) -> u32 {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    (streams.saturating_mul(1_000) / RETURNS_A_SECOND).clamp(LEAST_WINDOW, LONGEST_WINDOW)
}

/// Four fifths of an age to all of it, so that those who came together do not leave together.
fn jittered(age: Duration) -> Duration {
    let thousandths = 800 + below(200);
    age / 1_000 * thousandths
}

/// A number from 0 up to and with `most`.
fn below(most: u32) -> u32 {
    #[cfg(test)]
    if crate::interleave::is_scheduled() {
        // Or a seed of the interleavings would not repeat when a stream is old.
        return most / 2;
    }
    let mut bytes = [0; 4];
    // Without randomness the middle of the range is as good as any.
    aws_lc_rs::rand::fill(&mut bytes).map_or(most / 2, |()| u32::from_le_bytes(bytes) % (most + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(reason: ByeReason, together: usize) -> Vec<u32> {
        (0..1_000).map(|_| retry_ms(Ended { reason, together })).collect()
    }

    #[test]
    fn few_come_back_within_the_range_of_the_contract() {
        for drawn in [drawn(ByeReason::Shutdown, 1_000), (0..1_000).map(|_| unannounced_retry_ms()).collect()] {
            assert!(drawn.iter().all(|ms| (2_000..=6_000).contains(ms)));
            assert!(drawn.iter().any(|ms| *ms < 3_000) && drawn.iter().any(|ms| *ms > 5_000));
        }
    }

    #[test]
    fn a_crowd_is_spread_by_its_number_and_nobody_is_kept_away_for_ever() {
        let crowd = drawn(ByeReason::Shutdown, 10_000);
        assert!(crowd.iter().all(|ms| (2_000..=12_000).contains(ms)));
        assert!(crowd.iter().any(|ms| *ms > 10_000));
        assert!(drawn(ByeReason::Overloaded, usize::MAX).iter().all(|ms| *ms <= 62_000));
    }

    #[test]
    fn a_stream_that_is_old_is_followed_at_once() {
        assert!(drawn(ByeReason::Rotate, 1).iter().all(|ms| *ms <= 1_200));
        assert!(
            drawn(ByeReason::Rotate, 5_000).iter().any(|ms| *ms > 3_000),
            "many at once are spread like any others"
        );
    }

    #[test]
    fn ages_differ_and_none_is_beyond_the_setting() {
        let age = Duration::from_hours(6);
        let ages: Vec<Duration> = (0..1_000).map(|_| jittered(age)).collect();
        assert!(ages.iter().all(|drawn| (age * 4 / 5..=age).contains(drawn)));
        assert!(ages.iter().max().expect("some").saturating_sub(*ages.iter().min().expect("some")) > age / 10);
    }
}

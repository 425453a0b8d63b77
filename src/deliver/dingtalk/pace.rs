//! How fast a robot may speak: so many messages in any minute, and not at all while it rests.
//!
//! A message counts from when it begins until a minute after it is over. So the other side never sees more than that
//! many in a minute of its own, however long each was on its way. **Invariant**: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// DingTalk's minute, and a second for clocks that differ.
pub const WINDOW: Duration = Duration::from_secs(61);

/// The messages of the last minute.
#[derive(Clone, Debug)]
pub(super) struct Window {
    most: usize,
    /// When each was over, or began where it is not; the oldest first.
    counted: VecDeque<Instant>,
}

impl Window {
    /// A window that admits `most` messages a minute.
    pub(super) fn new(most: usize) -> Self {
        Self { most, counted: VecDeque::new() }
    }

    /// How many may begin now.
    pub(super) fn free(&mut self, now: Instant) -> usize {
        while self.counted.front().is_some_and(|over| *over + WINDOW <= now) {
            self.counted.pop_front();
        }
        self.most.saturating_sub(self.counted.len())
    }

    /// How long until one may begin; zero where one may now.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        if self.free(now) > 0 {
            return Duration::ZERO;
        }
        self.counted.front().map_or(WINDOW, |over| (*over + WINDOW).saturating_duration_since(now))
    }

    /// Counts a message that begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.counted.push_back(now);
    }

    /// The one that began last is over.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(last) = self.counted.back_mut() {
            *last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    proptest! {
        #![proptest_config(super::super::same_cases())]

        /// Whatever comes when, and however long each is on its way: a receiver that sees each message anywhere between
        /// its beginning and its end never sees more than the most in any minute.
        #[test]
        fn never_more_than_the_most_in_any_minute(
            most in 1_usize..=20,
            steps in prop::collection::vec((0_u64..20_000, 0_u64..9_000, 0_u64..=100), 1..300),
        ) {
            let mut window = Window::new(most);
            let mut now = Instant::now();
            let mut seen = Vec::new();
            for (gap, took, when) in steps {
                now += Duration::from_millis(gap);
                if window.free(now) == 0 {
                    let wait = window.wait(now);
                    prop_assert!(wait > Duration::ZERO && wait <= WINDOW);
                    prop_assert!(window.clone().free(now + wait) > 0, "it waits long enough");
                    continue;
                }
                prop_assert_eq!(window.wait(now), Duration::ZERO);
                window.begin(now);
                seen.push(now + Duration::from_millis(took * when / 100));
                now += Duration::from_millis(took);
                window.end(now);
            }
            for (first, from) in seen.iter().enumerate() {
                let within = seen[first..].iter().take_while(|at| **at <= *from + MINUTE).count();
                prop_assert!(within <= most, "{within} in a minute");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_fills_and_frees_itself() {
        let now = Instant::now();
        let mut window = Window::new(2);
        window.begin(now);
        window.end(now + MINUTE);
        window.begin(now + MINUTE);
        assert_eq!((window.free(now + MINUTE), window.wait(now + MINUTE)), (0, WINDOW));
        let later = now + MINUTE + WINDOW;
        assert_eq!((window.free(later), window.wait(later)), (2, Duration::ZERO));
    }
}

//! How long to wait before the next attempt: longer each time, and spread over the whole of it (full jitter), so that many
//! who lost the same thing at once do not come back at once.

use std::time::Duration;

/// A schedule of waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// No wait is shorter.
    pub least: Duration,
    /// The ceiling of the first; it doubles each time.
    pub first: Duration,
    /// The ceiling of every later one at most.
    pub longest: Duration,
}

impl Backoff {
    /// The wait before attempt `attempt`, counted from 0. `dice` is any number, each as likely as any other.
    pub fn wait(&self, attempt: u32, dice: u32) -> Duration {
        let ceiling = self.first.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.longest);
        let spread = ceiling.saturating_sub(self.least);
        self.least + spread.mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }

    /// The same with dice of our own.
    pub fn thrown(&self, attempt: u32) -> Duration {
        let mut bytes = [0; 4];
        // Without randomness the middle is as good as any.
        let dice = aws_lc_rs::rand::fill(&mut bytes).map_or(u32::MAX / 2, |()| u32::from_le_bytes(bytes));
        self.wait(attempt, dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        least: Duration::from_millis(100),
        first: Duration::from_millis(500),
        longest: Duration::from_secs(30),
    };

    #[test]
    fn waits_grow_to_a_ceiling_and_are_spread_below_it() {
        for (attempt, ceiling) in [(0, 500), (1, 1_000), (5, 16_000), (6, 30_000), (31, 30_000), (4_000, 30_000)] {
            let ceiling = Duration::from_millis(ceiling);
            assert_eq!(BACKOFF.wait(attempt, u32::MAX), ceiling);
            assert_eq!(BACKOFF.wait(attempt, 0), BACKOFF.least);
            let half = BACKOFF.wait(attempt, u32::MAX / 2);
            assert!(half > ceiling.mul_f64(0.49) && half < ceiling.mul_f64(0.7), "{half:?} of {ceiling:?}");
        }
    }
}

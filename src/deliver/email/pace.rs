//! How fast one domain is written to: one mail after another, with the pause between them that the operator set.
//!
//! **Invariant**: what is kept is bounded by [`MAX_LANES`]: a lane whose pause is over needs no place.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Domains that pauses are kept for at most. Those that come when all of them are in a pause are not held back.
const MAX_LANES: usize = 10_000;

/// So many mails in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From one mail to the next.
    between: Duration,
}

impl Rate {
    /// Mails in the span at most.
    const MOST: u32 = 100_000;

    /// Reads `10/s`, `100/m` or `1000/h`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once('/')?;
        let span = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return None,
        };
        let number = number.trim().parse().ok().filter(|number| (1..=Self::MOST).contains(number))?;
        Some(Self { between: span / number })
    }
}

/// Until when each lane is left alone.
pub(super) struct Pace {
    /// `None` holds nobody back.
    rate: Option<Rate>,
    until: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, until: Mutex::default() }
    }

    /// How long a lane is to be left alone.
    pub(super) fn pause(&self, lane: &str, now: Instant) -> Duration {
        self.until.lock().get(lane).map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// One more mail goes there. Several that go at once are all counted, so that the pause after them is as long as
    /// theirs together.
    pub(super) fn take(&self, lane: &str, now: Instant) {
        let Some(Rate { between }) = self.rate else { return };
        let mut until = self.until.lock();
        if until.len() >= MAX_LANES && !until.contains_key(lane) {
            until.retain(|_, until| *until > now);
            if until.len() >= MAX_LANES {
                return;
            }
        }
        let free = until.entry(lane.to_owned()).or_insert(now);
        *free = (*free).max(now) + between;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_say_how_many_and_in_which_time() {
        let between = |text: &str| Rate::parse(text).map(|rate| rate.between.as_millis());
        assert_eq!(between("10/s"), Some(100));
        assert_eq!(between("60 / m"), Some(1000));
        assert_eq!(between("3600/h"), Some(1000));
        for bad in ["", "10", "0/s", "-1/s", "10/d", "x/s", "100001/s", "1/s/s"] {
            assert_eq!(between(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_domain_is_left_alone_between_two_mails_and_others_are_not() {
        let (pace, now) = (Pace::new(Rate::parse("2/s")), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(pace.pause("a.example", now), Duration::ZERO);
        pace.take("a.example", now);
        assert_eq!(pace.pause("a.example", now), ms(500));
        assert_eq!(pace.pause("b.example", now), Duration::ZERO);
        assert_eq!(pace.pause("a.example", now + ms(500)), Duration::ZERO);
        // Two at once are paid for together, and a long silence saves nothing up.
        pace.take("a.example", now + ms(9000));
        pace.take("a.example", now + ms(9000));
        assert_eq!(pace.pause("a.example", now + ms(9000)), ms(1000));
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_over_is_forgotten() {
        let (pace, now) = (Pace::new(Rate::parse("1/s")), Instant::now());
        for n in 0..=MAX_LANES {
            pace.take(&format!("{n}.example"), now);
        }
        assert_eq!(pace.until.lock().len(), MAX_LANES);
        pace.take("late.example", now + Duration::from_secs(1));
        assert_eq!(pace.until.lock().len(), 1);
        assert_eq!(pace.pause("late.example", now + Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn without_a_rate_nobody_is_held_back() {
        let (pace, now) = (Pace::new(None), Instant::now());
        pace.take("a.example", now);
        assert_eq!(pace.pause("a.example", now), Duration::ZERO);
    }
}

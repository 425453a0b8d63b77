//! Holds: set-ups by which nothing goes out, since no parcel would pass: a wrong password, a relay that is away.
//!
//! A set-up that is held is tried by itself: one attempt after a pause, which doubles from [`FIRST_PAUSE`] up to
//! [`LONGEST_PAUSE`]. The first attempt that comes to anything else lifts the hold. Nobody's delivery pays for it.
//! **Invariants**: time is an argument; a set-up that comes and goes is told once a [`TOLD_EVERY`] at most, and is held since it
//! was first, unless something was sent meanwhile: a parcel that failed for a reason of its own says little of the set-up.
//!
//! Deliberately not here: which faults are of the set-up (the adapters), and what has waited for too long (`broker`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Outcome;
use crate::broker::Hold;
use crate::model::{Medium, Timestamp};

/// How long a set-up is left alone at first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How often the log has it that the same one is held.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// What is held together: a medium, or one lane of it.
pub(super) type HoldKey = (Medium, Option<String>);

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// One may, to see whether it passes.
    Probe,
    /// None may for so long.
    Shut(Duration),
}

#[derive(Debug)]
struct Held {
    hold: Hold,
    /// From the last attempt to the next.
    pause: Duration,
    until: Instant,
}

/// What is held now: as many as there are media and robots at most.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: BTreeMap<HoldKey, Held>,
    /// Those that were lifted though nothing was sent: since when they were held, and when they were lifted.
    doubtful: BTreeMap<HoldKey, (Timestamp, Instant)>,
    /// When each was last told.
    told: BTreeMap<HoldKey, Instant>,
    /// Whether anybody has to be told anew.
    news: bool,
    /// Those that an attempt has found to be as they were.
    prolonged: BTreeSet<HoldKey>,
}

impl Holds {
    pub(super) fn gate(&self, set_up: &HoldKey, at: Instant) -> Gate {
        match self.held.get(set_up) {
            None => Gate::Open,
            Some(held) if held.until <= at => Gate::Probe,
            Some(held) => Gate::Shut(held.until.duration_since(at)),
        }
    }

    /// An attempt came to nothing for the set-up's sake. Of those that were on their way together one counts.
    pub(super) fn hold(&mut self, set_up: &HoldKey, why: &str, remedy: &str, now: Timestamp, at: Instant) {
        let Some(held) = self.held.get_mut(set_up) else {
            let (medium, lane) = set_up.clone();
            let doubtful = self.doubtful.remove(set_up).filter(|(_, at_lift)| at.duration_since(*at_lift) < TOLD_EVERY);
            let since = doubtful.map_or(now, |(since, _)| since);
            let hold = Hold { medium, lane, since, why: why.to_owned() };
            self.held.insert(set_up.clone(), Held { hold, pause: FIRST_PAUSE, until: at + FIRST_PAUSE });
            self.news = true;
            self.tell(set_up, why, remedy, at);
            return;
        };
        if held.until > at {
            return;
        }
        held.pause = (held.pause * 2).min(LONGEST_PAUSE);
        held.until = at + held.pause;
        if held.hold.why != why {
            why.clone_into(&mut held.hold.why);
            self.news = true;
        }
        self.prolonged.insert(set_up.clone());
    }

    /// An attempt came to something.
    pub(super) fn lift(&mut self, set_up: &HoldKey, by: &Outcome, at: Instant) {
        let was_sent = matches!(by, Outcome::Sent { .. });
        if was_sent {
            self.doubtful.remove(set_up);
        }
        let Some(Held { hold, .. }) = self.held.remove(set_up) else { return };
        if !was_sent {
            self.doubtful.insert(set_up.clone(), (hold.since, at));
        }
        self.prolonged.remove(set_up);
        self.news = true;
        tracing::info!(medium = hold.medium.as_str(), lane = hold.lane, since = %hold.since, "Deliveries go out again");
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// All that is held, where that has changed since it was last asked for.
    pub(super) fn news(&mut self) -> Option<Vec<Hold>> {
        std::mem::take(&mut self.news).then(|| self.held.values().map(|held| held.hold.clone()).collect())
    }

    /// Those that went on since it was last asked for.
    pub(super) fn prolonged(&mut self) -> Vec<Hold> {
        let prolonged = std::mem::take(&mut self.prolonged);
        prolonged.iter().filter_map(|set_up| self.held.get(set_up)).map(|held| held.hold.clone()).collect()
    }

    fn tell(&mut self, set_up: &HoldKey, why: &str, remedy: &str, at: Instant) {
        if self.told.get(set_up).is_some_and(|told| at.duration_since(*told) < TOLD_EVERY) {
            return;
        }
        self.told.insert(set_up.clone(), at);
        let (medium, lane) = set_up;
        tracing::error!(
            medium = medium.as_str(),
            lane,
            reason = why,
            "Nothing goes out as it is set up: deliveries wait, and it is tried again by itself. {remedy}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn sent() -> Outcome {
        Outcome::Sent { answer: "250".to_owned() }
    }

    fn mail() -> HoldKey {
        (Medium::Email, None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_up_is_tried_more_and_more_rarely_until_something_passes() {
        let (mut holds, mut at) = (Holds::default(), Instant::now());
        assert_eq!(holds.gate(&mail(), at), Gate::Open);
        let mut pauses = Vec::new();
        for _ in 0..11 {
            holds.hold(&mail(), "535", "", NOW, at);
            // What was on its way meanwhile says the same, and counts nothing.
            holds.hold(&mail(), "535", "", NOW, at);
            let Gate::Shut(pause) = holds.gate(&mail(), at) else { panic!("it is held") };
            pauses.push(pause.as_secs());
            at += pause;
            assert_eq!(holds.gate(&mail(), at), Gate::Probe);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(holds.gate(&(Medium::DingTalk, None), at), Gate::Open);
        holds.lift(&mail(), &sent(), at);
        assert_eq!(holds.gate(&mail(), at), Gate::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_told_where_it_changes_and_what_goes_on_is_known() {
        let (mut holds, at) = (Holds::default(), Instant::now());
        let robot = (Medium::DingTalk, Some("desk".to_owned()));
        assert_eq!(holds.news(), None);
        holds.hold(&robot, "310000", "", NOW, at);
        let hold = Hold { medium: Medium::DingTalk, lane: robot.1.clone(), since: NOW, why: "310000".to_owned() };
        assert_eq!((holds.news(), holds.prolonged()), (Some(vec![hold.clone()]), vec![]));
        holds.hold(&robot, "310000", "", NOW.after(FIRST_PAUSE), at + FIRST_PAUSE);
        assert_eq!((holds.news(), holds.prolonged()), (None, vec![hold]), "it is held since it began");
        holds.lift(&robot, &sent(), at);
        assert_eq!((holds.news(), holds.prolonged()), (Some(vec![]), vec![]));
        holds.lift(&robot, &sent(), at);
        assert_eq!(holds.news(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_for_a_reason_of_its_own_does_not_begin_the_time_of_a_hold_anew() {
        let (mut holds, at) = (Holds::default(), Instant::now());
        let later = NOW.after(Duration::from_hours(1));
        let mut since = |between: Outcome, pause: Duration| {
            holds.hold(&mail(), "nobody answers", "", NOW, at);
            holds.lift(&mail(), &between, at);
            holds.hold(&mail(), "nobody answers", "", later, at + pause);
            let since = holds.news().expect("it is held")[0].since;
            holds.lift(&mail(), &sent(), at);
            since
        };
        let own = || Outcome::Later { reason: "not a mail".to_owned(), after: None };
        assert_eq!(since(own(), FIRST_PAUSE), NOW);
        assert_eq!(since(own(), TOLD_EVERY), later);
        assert_eq!(since(sent(), FIRST_PAUSE), later);
    }
}

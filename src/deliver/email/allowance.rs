//! How many lines the relay lets us have: as many as the settings say until it lets one not in while others of ours work; then
//! as many as work, and one more every [`RAISE_AFTER`].
//!
//! While none of ours works, one is opened and the others wait for what becomes of it: so a relay that is away is asked by one, and
//! which of many it let in is known before it refuses the next. **Invariant**: time is an argument.
//!
//! Deliberately not here: which answers mean that there is one line too many (`super::is_one_too_many`), and the lines (`pool`).

use std::time::Duration;

use tokio::time::Instant;

/// From one line that was not let in to the next that is tried, and from there to one more.
pub(super) const RAISE_AFTER: Duration = Duration::from_secs(30);
/// How long a relay that has just taken mail on lines of ours is believed to be there, when the last of them is gone.
const JUST_WORKED: Duration = Duration::from_secs(5);
/// How long nothing is opened when one was not let in and there is no other.
const ALONE_PAUSE: Duration = Duration::from_secs(1);
/// How often the log has it that the relay takes fewer.
const TOLD_EVERY: Duration = Duration::from_mins(10);

/// What the lines of ours do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// Mails that are at it; each has a line, or opens one.
    pub(super) taken: usize,
    /// Those of them whose line is open and signed in.
    pub(super) working: usize,
    /// Open lines that nothing is sent on.
    pub(super) idle: usize,
}

/// Whether another mail may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    /// Not before one ends, or this time is over; `None` is for an end alone.
    Taken(Option<Duration>),
}

#[derive(Debug)]
pub(super) struct Allowance {
    /// By the settings.
    most: usize,
    now: usize,
    /// When there may be one more; `None` where there are all.
    raise_at: Option<Instant>,
    shut_until: Option<Instant>,
    /// When a line last did its work.
    worked: Option<Instant>,
    told: Option<Instant>,
}

impl Allowance {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, now: most, raise_at: None, shut_until: None, worked: None, told: None }
    }

    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// Whether one more mail may begin beside these.
    pub(super) fn place(&mut self, lines: Lines, at: Instant) -> Place {
        while let Some(raise_at) = self.raise_at.filter(|raise_at| *raise_at <= at) {
            self.now = (self.now + 1).min(self.most);
            self.raise_at = (self.now < self.most).then_some(raise_at + RAISE_AFTER);
        }
        if let Some(until) = self.shut_until.filter(|until| *until > at) {
            return Place::Taken(Some(until.duration_since(at)));
        }
        let allowed = if lines.working + lines.idle == 0 { 1 } else { self.now };
        if lines.taken < allowed {
            return Place::Free;
        }
        Place::Taken(self.raise_at.map(|raise_at| raise_at.duration_since(at)))
    }

    /// A line did its work, at least until the relay had taken a sender.
    pub(super) fn worked(&mut self, at: Instant) {
        self.worked = Some(at);
    }

    /// One was opened, so that so many are: they are allowed, whatever was thought before.
    pub(super) fn opened(&mut self, open: usize) {
        self.now = self.now.max(open.min(self.most));
        if self.now == self.most {
            self.raise_at = None;
        }
    }

    /// A line was not let in, beside so many others of ours that work. Whether that is because they are there, so that there are
    /// fewer from now on; otherwise something is wrong with all of them.
    pub(super) fn lower(&mut self, others: usize, at: Instant) -> Lowered {
        let has_just_worked = self.worked.is_some_and(|worked| at.duration_since(worked) < JUST_WORKED);
        if others == 0 && !has_just_worked {
            return Lowered::No;
        }
        if others == 0 {
            self.shut_until = Some(at + ALONE_PAUSE);
        }
        self.now = others.clamp(1, self.most);
        self.raise_at = (self.now < self.most).then_some(at + RAISE_AFTER);
        if self.told.is_none_or(|told| at.duration_since(told) >= TOLD_EVERY) {
            self.told = Some(at);
            tracing::warn!(
                lines = self.now,
                connections = self.most,
                "The relay takes no more lines of ours beside those that are open; so many are kept for now. Where this comes \
                 again, lower [email] connections, or let the relay allow more"
            );
        }
        Lowered::To(self.now)
    }
}

/// What a line that was not let in means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lowered {
    To(usize),
    /// None of ours works.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn working(working: usize) -> Lines {
        Lines { taken: working, working, idle: 0 }
    }

    #[test]
    fn while_none_works_one_is_opened_and_then_all_that_the_settings_allow() {
        let (mut allowance, at) = (Allowance::new(4), Instant::now());
        assert_eq!(allowance.place(Lines::default(), at), Place::Free);
        let opening = Lines { taken: 1, ..Lines::default() };
        assert_eq!(allowance.place(opening, at), Place::Taken(None));
        assert_eq!(allowance.place(working(3), at), Place::Free);
        assert_eq!(allowance.place(working(4), at), Place::Taken(None));
        assert_eq!(allowance.place(Lines { taken: 1, working: 0, idle: 1 }, at), Place::Free);
    }

    #[test]
    fn where_one_is_not_let_in_beside_others_there_are_as_many_as_work_and_one_more_from_time_to_time() {
        let (mut allowance, at) = (Allowance::new(16), Instant::now());
        assert_eq!(allowance.lower(2, at), Lowered::To(2));
        // Two more that were on their way were let in after it.
        allowance.opened(4);
        assert_eq!(allowance.place(working(3), at), Place::Free);
        assert_eq!(allowance.place(working(4), at), Place::Taken(Some(RAISE_AFTER)));
        let later = at + RAISE_AFTER;
        assert_eq!(allowance.place(working(4), later), Place::Free);
        assert_eq!(allowance.place(working(5), later), Place::Taken(Some(RAISE_AFTER)));
        assert_eq!(allowance.lower(4, later), Lowered::To(4));
        assert_eq!(allowance.place(working(15), at + RAISE_AFTER * 20), Place::Free);
        assert_eq!(allowance.place(working(16), at + RAISE_AFTER * 20), Place::Taken(None));
    }

    #[test]
    fn there_are_never_more_than_the_settings_allow() {
        let (mut allowance, at) = (Allowance::new(4), Instant::now());
        assert_eq!(allowance.lower(2, at), Lowered::To(2));
        allowance.opened(4);
        assert_eq!(allowance.place(working(4), at + RAISE_AFTER * 3), Place::Taken(None));
    }

    #[test]
    fn where_none_works_it_is_no_matter_of_how_many_there_are() {
        let (mut allowance, at) = (Allowance::new(16), Instant::now());
        assert_eq!(allowance.lower(0, at), Lowered::No);
        // It may have let go of the last one a moment ago; that is believed for a while, and asked for slowly.
        allowance.worked(at);
        assert_eq!(allowance.lower(0, at), Lowered::To(1));
        assert_eq!(allowance.place(Lines::default(), at), Place::Taken(Some(ALONE_PAUSE)));
        assert_eq!(allowance.place(Lines::default(), at + ALONE_PAUSE), Place::Free);
        assert_eq!(allowance.lower(0, at + JUST_WORKED), Lowered::No);
    }
}

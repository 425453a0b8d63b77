//! Who may begin while thousands do: a bound on openings, and on pages of replay that are read at once.
//!
//! After a cut everybody comes back within seconds. What can't be read soon is sent away softly, to come back spread, rather
//! than queued behind thousands: the client's watchdog would give it up and ask again, and it would be read for nobody.
//! **Invariant**: who goes on near the head is cheap, and finds room when those who need much do not.
//!
//! A stream that has begun is never refused a page; it waits its turn among the others, behind at most [`MAX_REPLAYS`].

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::model::{Cursor, Seq};
use crate::wire::cursor::Resume;

/// Streams and polls that are being opened at once: what takes the readers a second or two. Who would wait longer than that
/// comes back as soon, and holds nothing meanwhile.
const MAX_OPENINGS: usize = 8_192;
/// Of these, such as need a snapshot or much of the log.
const MAX_DEAR_OPENINGS: usize = 2_048;
/// Of these, such as are read at once: half of the readers, so that a user who asks for much again and again leaves the others to
/// everybody else.
const DEAR_TURNS: usize = 2;
/// A cursor that is no further behind the head is cheap, in positions of the log.
const NEAR: u64 = 4_096;
/// Pages of replay that are read or wait for a reader at once: enough to keep all readers busy, few enough that whoever asks
/// for something small is not behind thousands.
const MAX_REPLAYS: usize = 32;

/// The places.
pub(super) struct Admission {
    openings: Arc<Semaphore>,
    dear: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    replays: Semaphore,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            openings: Arc::new(Semaphore::new(MAX_OPENINGS)),
            dear: Arc::new(Semaphore::new(MAX_DEAR_OPENINGS)),
            turns: Arc::new(Semaphore::new(DEAR_TURNS)),
            replays: Semaphore::new(MAX_REPLAYS),
        }
    }
}

/// A place among those who open, until it is dropped.
pub(super) struct Opener {
    _opening: OwnedSemaphorePermit,
    dear: Option<(OwnedSemaphorePermit, Arc<Semaphore>)>,
}

impl Opener {
    /// Waits for a turn with a reader, which lasts as long as what is given back; who is cheap need not wait.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let (_, turns) = self.dear.as_ref()?;
        Some(turns.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }
}

impl Admission {
    /// A place for one who goes on from here; `None` where too many open already.
    pub(super) fn opener(&self, resume: &Resume, head: &Cursor) -> Option<Opener> {
        let dear = if is_near(resume, head) {
            None
        } else {
            Some((self.dear.clone().try_acquire_owned().ok()?, self.turns.clone()))
        };
        Some(Opener { _opening: self.openings.clone().try_acquire_owned().ok()?, dear })
    }

    /// Leaves room for so many pages at once, so that few devices are in each other's way.
    #[cfg(test)]
    pub(super) fn narrow(&self, replays: usize) {
        self.replays.forget_permits(MAX_REPLAYS.saturating_sub(replays));
    }

    /// Places that are free: for openings, for dear ones and their turns, and for pages.
    #[cfg(test)]
    pub(super) fn places(&self) -> [usize; 4] {
        [&*self.openings, &*self.dear, &*self.turns, &self.replays].map(Semaphore::available_permits)
    }

    /// Waits for a turn to read a page of replay.
    pub(super) async fn replay(&self) -> SemaphorePermit<'_> {
        self.replays.acquire().await.expect("the semaphore is never closed")
    }
}

fn is_near(resume: &Resume, head: &Cursor) -> bool {
    match resume {
        Resume::Now => true,
        Resume::After(Cursor { epoch, seq: Seq(seq) }) => {
            *epoch == head.epoch && head.seq.0.checked_sub(*seq).is_some_and(|behind| behind <= NEAR)
        }
        Resume::FirstVisit | Resume::Start | Resume::Malformed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    fn cursor(seq: u64) -> Cursor {
        Cursor { epoch: Epoch::new("k7x2m").expect("an epoch"), seq: Seq(seq) }
    }

    #[test]
    fn those_near_the_head_find_room_when_those_who_need_much_do_not() {
        let admission = Admission::default();
        let head = cursor(10_000);
        let dear: Vec<_> = std::iter::from_fn(|| admission.opener(&Resume::FirstVisit, &head)).collect();
        assert_eq!(dear.len(), MAX_DEAR_OPENINGS);
        assert!(admission.opener(&Resume::After(cursor(10)), &head).is_none(), "it is far behind");
        let cheap: Vec<_> = std::iter::from_fn(|| admission.opener(&Resume::After(cursor(9_000)), &head)).collect();
        assert_eq!(cheap.len(), MAX_OPENINGS - MAX_DEAR_OPENINGS);
        drop((dear, cheap));
        assert!(admission.opener(&Resume::FirstVisit, &head).is_some());
    }

    #[tokio::test]
    async fn who_needs_much_waits_for_a_turn_and_who_needs_little_does_not() {
        let admission = Admission::default();
        let head = cursor(10);
        let opener = |resume| admission.opener(&resume, &head).expect("there is room");
        let mut turns = Vec::new();
        for _ in 0..DEAR_TURNS {
            turns.push(opener(Resume::Start).turn().await.expect("it is dear"));
        }
        assert!(opener(Resume::Now).turn().await.is_none());
        let dear = opener(Resume::Start);
        let mut waits = Box::pin(dear.turn());
        assert!(futures_util::poll!(&mut waits).is_pending());
        turns.pop();
        assert!(waits.await.is_some());
    }

    #[test]
    fn what_is_no_position_of_this_log_is_not_near() {
        let head = cursor(10);
        assert!(is_near(&Resume::After(cursor(10)), &head) && is_near(&Resume::Now, &head));
        let elsewhere = Cursor { epoch: Epoch::new("other").expect("an epoch"), seq: Seq(10) };
        for resume in [Resume::After(cursor(11)), Resume::After(elsewhere), Resume::Start, Resume::Malformed] {
            assert!(!is_near(&resume, &head), "{resume:?}");
        }
    }
}

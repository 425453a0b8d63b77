//! Attempts at one message, of which a panic is one that failed.
//!
//! A message that made the publish panic would otherwise end the session, come again with the next one, and end that too, with
//! everything behind it. Twice it is tried again, since what lies behind a panic may pass (another thread's fault, a moment's
//! state); a third time it is the message's own, and it goes where others go that can't be taken.
//!
//! **Invariant**: after a panic nobody knows whether the message was published before it, so the next attempt is made as one at
//! a message that comes again ([`Earlier::Unknown`]).

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use super::verdict::{Poison, Verdict};

/// Panics of one message after which it is not tried again.
const MAX_PANICS: u32 = 3;

/// What earlier attempts at a message have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// None has published it.
    Nothing,
    /// One panicked, and maybe behind its commit.
    Unknown,
}

/// How often a message has failed.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    panics: u32,
}

impl Attempts {
    /// What the attempts so far have done. One that only failed has written nothing.
    pub const fn earlier(&self) -> Earlier {
        if self.panics == 0 { Earlier::Nothing } else { Earlier::Unknown }
    }

    /// Makes one; `panicked` is called where that ends in a panic.
    pub async fn make(&mut self, attempt: impl Future<Output = Verdict>, panicked: impl FnOnce()) -> Verdict {
        // What a publish holds across an await is its own, and goes with it; locks of the broker know no poisoning.
        if let Ok(verdict) = AssertUnwindSafe(attempt).catch_unwind().await {
            return verdict;
        }
        panicked();
        self.panics += 1;
        if self.panics < MAX_PANICS {
            Verdict::Later("the server failed at a message; the log has where".to_owned())
        } else {
            Verdict::Poison(Poison::internal(self.panics))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_is_tried_again_and_then_given_up_as_a_fault_of_ours() {
        let (mut attempts, mut panics) = (Attempts::default(), 0);
        for _ in 1..MAX_PANICS {
            let verdict = attempts.make(async { panic!("a fault of ours") }, || panics += 1).await;
            assert!(matches!(verdict, Verdict::Later(_)), "{verdict:?}");
        }
        let verdict = attempts.make(async { panic!("a fault of ours") }, || panics += 1).await;
        let Verdict::Poison(poison) = verdict else { panic!("{verdict:?}") };
        assert_eq!((poison.reason, panics), ("internal", MAX_PANICS));
        assert!(!poison.detail.contains("a fault"), "{poison:?}");
    }

    #[tokio::test]
    async fn what_goes_well_after_a_panic_is_well() {
        let mut attempts = Attempts::default();
        let after = async {
            tokio::task::yield_now().await;
            panic!("behind an await")
        };
        assert_eq!(
            attempts.make(async { Verdict::Later("full".to_owned()) }, || ()).await,
            Verdict::Later("full".to_owned())
        );
        assert_eq!(attempts.earlier(), Earlier::Nothing, "what waits was not published");
        assert!(matches!(attempts.make(after, || ()).await, Verdict::Later(_)));
        assert_eq!(attempts.earlier(), Earlier::Unknown);
        assert_eq!(attempts.make(async { Verdict::Published }, || ()).await, Verdict::Published);
    }
}

//! Attempts at one message, some of which fail by a fault of ours: a panic, or an operation that the store fails at while it is well.
//!
//! A message that made the publish panic would otherwise end the session, come again with the next one, and end that too, with
//! everything behind it; one that the store fails at would stand before the others for ever. Twice such a message is tried again,
//! since what lies behind a fault may pass (another thread's fault, a moment's state); a third time it is the message's own, and
//! it goes where others go that can't be taken.
//!
//! **Invariant**: after a panic nobody knows whether the message was published before it, so the next attempt is made as one at
//! a message that comes again ([`Earlier::Unknown`]).
//! **Invariant**: what passes by itself ([`Verdict::Later`]) is tried for as long as it takes, and never counted.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use super::verdict::{Poison, Verdict};

/// Attempts at one message that failed after which it is not tried again.
const MAX_FAILURES: u32 = 3;

/// What earlier attempts at a message have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Earlier {
    /// None has published it.
    #[default]
    Nothing,
    /// One panicked, and maybe behind its commit.
    Unknown,
}

/// How often a message has failed.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: u32,
    earlier: Earlier,
}

impl Attempts {
    /// What the attempts so far have done. One that failed without a panic has written nothing.
    pub const fn earlier(&self) -> Earlier {
        self.earlier
    }

    /// Makes one; `panicked` is called where that ends in a panic.
    pub async fn make(&mut self, attempt: impl Future<Output = Verdict>, panicked: impl FnOnce()) -> Verdict {
        // What a publish holds across an await is its own, and goes with it; locks of the broker know no poisoning.
        match AssertUnwindSafe(attempt).catch_unwind().await {
            Ok(Verdict::Failed) => {}
            Ok(verdict) => return verdict,
            Err(_) => {
                panicked();
                self.earlier = Earlier::Unknown;
            }
        }
        self.failures += 1;
        if self.failures < MAX_FAILURES {
            Verdict::Later("the server failed at a message; the log has where".to_owned())
        } else {
            Verdict::Poison(Poison::internal(self.failures))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_is_tried_again_and_then_given_up_as_a_fault_of_ours() {
        let (mut attempts, mut panics) = (Attempts::default(), 0);
        for _ in 1..MAX_FAILURES {
            let verdict = attempts.make(async { panic!("a fault of ours") }, || panics += 1).await;
            assert!(matches!(verdict, Verdict::Later(_)), "{verdict:?}");
        }
        let verdict = attempts.make(async { panic!("a fault of ours") }, || panics += 1).await;
        let Verdict::Poison(poison) = verdict else { panic!("{verdict:?}") };
        assert_eq!((poison.reason, panics), ("internal", MAX_FAILURES));
        assert!(!poison.detail.contains("a fault"), "{poison:?}");
    }

    #[tokio::test]
    async fn what_the_store_fails_at_is_given_up_after_as_many_and_is_no_panic() {
        let mut attempts = Attempts::default();
        let no_panic = || panic!("nothing panicked");
        for _ in 1..MAX_FAILURES {
            assert!(matches!(attempts.make(async { Verdict::Failed }, no_panic).await, Verdict::Later(_)));
            // A disk that fills in between takes as long as it takes.
            for _ in 0..100 {
                let full = attempts.make(async { Verdict::Later("the disk is full".to_owned()) }, no_panic).await;
                assert_eq!(full, Verdict::Later("the disk is full".to_owned()));
            }
        }
        assert_eq!(attempts.earlier(), Earlier::Nothing, "what the store fails at is not written");
        let verdict = attempts.make(async { Verdict::Failed }, no_panic).await;
        assert!(matches!(&verdict, Verdict::Poison(poison) if poison.reason == "internal"), "{verdict:?}");
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

//! What is done to a log that no server runs on: checking, mending, restoring.
//!
//! **Invariant**: whoever calls shows that the directory is theirs ([`StateDir`]), so no server and no other command
//! opens the log meanwhile.

use std::path::Path;

use super::state::StateDir;
use crate::clock::Clock;
use crate::store;
use crate::wire::check::Report;
use crate::wire::upkeep::Repair;

pub use crate::store::{Aside, Check, OpenError, RestoreError, Restored, Stage, verify};

/// Looks whether the log is whole and agrees with itself, and mends what can be computed anew where that is asked for.
///
/// # Errors
/// Where the file can't even be opened.
pub fn check(state: &StateDir, repair: Repair, progress: &mut dyn FnMut(Check)) -> Result<Report, OpenError> {
    let mend = match repair {
        Repair::Report => store::Mend::Nothing,
        Repair::Repair => store::Mend::All(Clock::system().now()),
    };
    store::check_stopped(state.path(), mend, progress)
}

/// Puts a copy in the place of the log.
///
/// # Errors
/// [`RestoreError`]; the log is as it was then.
pub fn restore(
    copy: &Path,
    state: &StateDir,
    aside: Aside,
    progress: &mut dyn FnMut(Stage),
) -> Result<Restored, RestoreError> {
    store::restore(copy, state.path(), aside, progress)
}

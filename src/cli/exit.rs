//! How a command ends: the exit codes (those of `sysexits.h`), and which error has which, so that a supervisor can tell what
//! mends itself from what does not.
//!
//! **Invariant**: a code once documented keeps its meaning.

use std::io;

use anyhow::Error;

use super::Usage;
use crate::broker::{Failure, OpenError};
use crate::config::ConfigError;
use crate::server::BuildError;
use crate::server::listen::ListenError;
use crate::server::secrets::SecretError;
use crate::server::state::StateError;

/// It failed.
const FAILED: u8 = 1;
/// Wrong usage or settings (`EX_USAGE`).
pub(super) const USAGE: u8 = 64;
/// What is stored can't be used as it is (`EX_DATAERR`). Starting again does not help.
const DATA: u8 = 65;
/// The state directory, or a file in it, can't be made there (`EX_CANTCREAT`).
const CANNOT_CREATE: u8 = 73;
/// The disk failed (`EX_IOERR`). A new start reads what is durable.
const IO: u8 = 74;
/// What is in the way passes (`EX_TEMPFAIL`).
const TEMPORARY: u8 = 75;
/// Not this user's, or read-only (`EX_NOPERM`).
const NO_PERMISSION: u8 = 77;

/// Every code with what it means, for people.
pub(super) const MEANINGS: [(&str, &str); 8] = [
    ("0", "Done."),
    ("1", "It failed; standard error says why and what to do."),
    ("64", "Wrong usage or settings."),
    ("65", "The database is damaged, another program's, or of a newer version; starting again does not help."),
    ("73", "The state directory, or the database in it, can't be made there."),
    ("74", "The disk failed; what was acknowledged is on it, and a new start reads it."),
    ("75", "Another process holds the directory, or the disk is full; try again later."),
    ("77", "The directory is another user's, or read-only."),
];

/// The code of a failure.
pub(super) fn code(error: &Error) -> u8 {
    if error.is::<Usage>() || error.is::<ConfigError>() {
        return USAGE;
    }
    error.chain().find_map(of_cause).unwrap_or(FAILED)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(built) = cause.downcast_ref() {
        return Some(match built {
            BuildError::State(error) => of_state(error),
            BuildError::Open(error) => of_opening(error),
            BuildError::Mail(_) | BuildError::Robots(_) | BuildError::Queue(_) => USAGE,
        });
    }
    if let Some(failure) = cause.downcast_ref() {
        return Some(match failure {
            Failure::Broken(_) => IO,
            Failure::Damaged(_) => DATA,
        });
    }
    if let Some(ListenError::Unix { source, .. }) = cause.downcast_ref() {
        // A socket is no disk: what is not the directory's fault is nobody's that a supervisor knows.
        return Some(of_io(source)).filter(|code| *code != IO);
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(of_secret(error));
    }
    cause.downcast_ref().map(of_state)
}

fn of_state(error: &StateError) -> u8 {
    match error {
        StateError::Held { .. } => TEMPORARY,
        StateError::Shared(_) | StateError::NotADirectory(_) => CANNOT_CREATE,
        StateError::Foreign { .. } => NO_PERMISSION,
        StateError::File(file) => of_io(&file.source),
        StateError::Secret(error) => of_secret(error),
        StateError::Unused(_) => FAILED,
    }
}

fn of_secret(error: &SecretError) -> u8 {
    match error {
        SecretError::File(file) => of_io(&file.source),
        _ => FAILED,
    }
}

fn of_opening(error: &OpenError) -> u8 {
    match error {
        OpenError::Newer { .. } | OpenError::Foreign(_) | OpenError::Damaged(_) => DATA,
        OpenError::NotAFile(_) => CANNOT_CREATE,
        OpenError::Full(_) | OpenError::Busy => TEMPORARY,
        OpenError::ReadOnly => NO_PERMISSION,
        OpenError::Io(source) => of_io(source),
        OpenError::Sqlite(_) => IO,
        OpenError::Migration(_) => FAILED,
    }
}

fn of_io(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => NO_PERMISSION,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TEMPORARY,
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidFilename => CANNOT_CREATE,
        _ => IO,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::server::file::FileError;

    #[test]
    fn usage_and_settings_end_with_64_and_what_nobody_foresaw_with_1() {
        assert_eq!(code(&Usage("x".into()).into()), 64);
        assert_eq!(code(&ConfigError(vec!["x".to_owned().into()]).into()), 64);
        assert_eq!(code(&Error::from(Usage("x".into())).context("y")), 64);
        assert_eq!(code(&io::Error::other("x").into()), 1);
        assert_eq!(code(&Err::<(), _>(std::fmt::Error).context("x").expect_err("an error")), 1);
    }

    #[test]
    fn what_a_supervisor_must_tell_apart_has_a_code_of_its_own() {
        let io =
            |kind: io::ErrorKind| StateError::from(FileError { doing: "open", path: "t".into(), source: kind.into() });
        let socket =
            |kind: io::ErrorKind| Error::from(ListenError::Unix { path: "t.sock".into(), source: kind.into() });
        for (error, expected) in [
            (Error::from(Failure::Broken("x".into())).context("y"), 74),
            (Failure::Damaged("x".into()).into(), 65),
            (BuildError::from(OpenError::Foreign("x".into())).into(), 65),
            (BuildError::from(OpenError::Newer { path: "x".into(), found: 9, known: 1 }).into(), 65),
            (BuildError::from(OpenError::Damaged("x".into())).into(), 65),
            (BuildError::from(OpenError::NotAFile("x".into())).into(), 73),
            (StateError::NotADirectory("x".into()).into(), 73),
            (StateError::Held { path: "x".into(), holder: None }.into(), 75),
            (BuildError::from(OpenError::Full("x".into())).into(), 75),
            (io(io::ErrorKind::StorageFull).into(), 75),
            (io(io::ErrorKind::ReadOnlyFilesystem).into(), 77),
            (BuildError::from(io(io::ErrorKind::PermissionDenied)).into(), 77),
            (BuildError::from(OpenError::ReadOnly).into(), 77),
            (socket(io::ErrorKind::PermissionDenied), 77),
            (socket(io::ErrorKind::StorageFull), 75),
            (socket(io::ErrorKind::InvalidInput), 1),
        ] {
            assert_eq!(code(&error), expected, "{error:#}");
            assert!(MEANINGS.iter().any(|(number, _)| *number == expected.to_string()));
        }
    }
}

//! The state directory: who may look into it, who holds it, and the secrets of its own. Those that settings name are read in
//! `secrets.rs`.
//!
//! | file | what | made |
//! |---|---|---|
//! | `tidings.lock` | held while a process uses the directory | once |
//! | `tidings.db`, `tidings.head` | the log (the store's) | once |
//! | `tidings.ballast` | room that is kept for a full disk (the store's) | at each start, and when there is room |
//! | `tidings.copy`, `tidings.copy-packed` | a backup in the making (the store's) | removed when it is whole |
//! | `tidings.db.restoring`, `tidings.db.before-restore` | a restore in the making, and what it replaced | by `tidings restore` |
//! | `token.key` | the secret of users' tokens | at the first need |
//! | `unsubscribe.key` | what makes the links in mails | when mail is set up first |
//! | `operator.key` | the credential of the command line on this machine | at each start |
//! | `tidings.sock` | the unix socket for a proxy | at each start |
//! | `ops.sock` | the unix socket for the command line | while a server, or a command, holds the directory |
//! | `running.json` | where the command line reaches whoever holds the directory | at each start |
//!
//! **Invariant**: nothing here is readable by other users, and no file is ever seen half written: each is written beside
//! its place and then put there.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::file::{Doing as _, FileError};
use super::secrets::{self, SecretError};
use crate::broker::{Ballast, Laid};

const LOCK: &str = "tidings.lock";
const TOKEN_KEY: &str = "token.key";
const UNSUBSCRIBE_KEY: &str = "unsubscribe.key";
const OPERATOR_KEY: &str = "operator.key";
const SOCKET: &str = "tidings.sock";
const OPERATOR_SOCKET: &str = "ops.sock";
const RUNNING: &str = "running.json";
const DATABASE: &str = "tidings.db";
const BALLAST: &str = "tidings.ballast";

/// Random bytes of a secret that is made here.
const RANDOM_BYTES: usize = 32;

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "{} is in use by another tidings{}: stop that one first, or give this one a directory of its own with --data",
        path.display(),
        holder.as_deref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Held { path: PathBuf, holder: Option<String> },
    #[error(
        "{} is open to other users and holds files that are not Tidings': name a directory that Tidings has for itself with --data",
        .0.display()
    )]
    Shared(PathBuf),
    #[error("{} is not a directory: name another one with --data", .0.display())]
    NotADirectory(PathBuf),
    #[error(
        "no server has used {} yet: name another directory with --data, or start one there with `tidings serve --data`",
        .0.display()
    )]
    Unused(PathBuf),
    #[error(
        "{} belongs to another user (number {owner}), whose server could not read what was written now: \
         run this as that user, or while the server runs",
        path.display()
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// A state directory that this process, and no other, uses. Dropping it lets go.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The lock lasts as long as this file is open.
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, closes it to other users and takes its lock. Does not wait.
    ///
    /// # Errors
    /// [`StateError::Held`] where another process uses it; the others where it can't be used at all.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let path = prepare(path)?;
        let lock = hold(&path)?;
        make_room(&path);
        Ok(Self { path, _lock: lock })
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes this run's operator credential; the one before stops being good.
    ///
    /// # Errors
    /// [`StateError`], where it can't be written.
    pub fn new_operator_credential(&self) -> Result<String, StateError> {
        let credential = format!("op_{}", random_text());
        self.replace(OPERATOR_KEY, &credential)?;
        Ok(credential)
    }

    /// Tells the command line where this run's server is.
    ///
    /// # Errors
    /// [`StateError`], where it can't be written.
    pub fn tell_endpoint(&self, endpoint: &Endpoint) -> Result<(), StateError> {
        let text = serde_json::to_string(endpoint).map_err(io::Error::other);
        self.replace(RUNNING, &text.doing("write", &self.path.join(RUNNING))?)
    }

    /// Keeps a secret text in a file of the state directory, for a later start.
    ///
    /// # Errors
    /// [`StateError`], where it can't be written.
    pub fn keep(&self, name: &str, text: &str) -> Result<(), StateError> {
        self.replace(name, text)
    }

    /// What [`StateDir::keep`] wrote under this name, where it did.
    pub fn kept(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(name)).ok().map(|text| text.trim().to_owned())
    }

    fn replace(&self, name: &str, text: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        let draft = Draft::write(&path, text)?;
        Ok(fs::rename(&draft.path, &path).doing("write", &path)?)
    }
}

/// Where the command line reaches a running server. Its base path may be a flag's, so it can't be told from the directory
/// alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub socket: PathBuf,
    pub base_path: String,
}

/// Where the server that runs on a state directory is, or would be if it was started with the defaults.
pub fn endpoint(data: &Path) -> Endpoint {
    let told = fs::read(data.join(RUNNING)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    told.unwrap_or_else(|| Endpoint { socket: operator_socket_in(data), base_path: String::new() })
}

/// Where the unix socket of a state directory stands unless settings say otherwise.
pub fn socket_in(data: &Path) -> PathBuf {
    data.join(SOCKET)
}

/// Where the operator's unix socket stands. Not the one for a proxy: that may be full of people, and must lead to no
/// command, which leaves when it is done.
pub fn operator_socket_in(data: &Path) -> PathBuf {
    data.join(OPERATOR_SOCKET)
}

/// Makes sure that a log is there and that it is this user's: a command must neither make one where a path was
/// misspelt, nor leave files that the server's own user can't read.
///
/// # Errors
/// [`StateError::Unused`], [`StateError::Foreign`], or where nothing can be seen at all.
pub fn check_log(data: &Path) -> Result<(), StateError> {
    let path = data.join(DATABASE);
    match fs::metadata(&path) {
        Ok(log) if log.uid() == rustix::process::geteuid().as_raw() => Ok(()),
        Ok(log) => Err(StateError::Foreign { path, owner: log.uid() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StateError::Unused(data.to_owned())),
        Err(e) => Ok(Err(e).doing("look at", &path)?),
    }
}

/// Bytes of the log in a state directory; `None` where there is none.
pub fn log_bytes(data: &Path) -> Option<u64> {
    fs::metadata(data.join(DATABASE)).ok().map(|log| log.len())
}

/// Reads the credential of the server that runs on this state directory.
///
/// # Errors
/// [`StateError`], where it can't be read.
pub fn operator_credential(data: &Path) -> Result<String, StateError> {
    let path = data.join(OPERATOR_KEY);
    Ok(fs::read_to_string(&path).map(|text| text.trim().to_owned()).doing("read", &path)?)
}

/// The secret that signs users' tokens: `named` where settings name a file, else the state directory's own, which is
/// made at the first need. The secret is the file's text without the line break at its end, so that any JWT library can
/// be given the same text. Needs no lock.
///
/// # Errors
/// [`StateError`], where it can't be read or made, or is too short.
pub fn token_secret(data: &Path, named: Option<&Path>) -> Result<Vec<u8>, StateError> {
    if let Some(path) = named {
        return Ok(secrets::signing(path)?);
    }
    own_secret(data, TOKEN_KEY)
}

/// The secret of the links by which people unsubscribe. It is apart from [`token_secret`], since a link stands in somebody's
/// mailbox for years, and signing everybody out must not break it. `None` where there is none and none is needed.
///
/// # Errors
/// [`StateError`], where it can't be read or made.
pub fn unsubscribe_secret(data: &Path, need: Need) -> Result<Option<Vec<u8>>, StateError> {
    let path = data.join(UNSUBSCRIBE_KEY);
    if need == Need::None && !path.try_exists().doing("look for", &path)? {
        return Ok(None);
    }
    own_secret(data, UNSUBSCRIBE_KEY).map(Some)
}

/// Whether a secret that is not there is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    None,
    Now,
}

/// A secret of the state directory's own, made at the first need.
fn own_secret(data: &Path, name: &str) -> Result<Vec<u8>, StateError> {
    let data = prepare(data)?;
    let path = data.join(name);
    if !path.try_exists().doing("look for", &path)? {
        let draft = Draft::write(&path, &random_text())?;
        // A link, not a rename: of two that come first at once, one wins and both read the winner's.
        match fs::hard_link(&draft.path, &path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).doing("write", &path)?,
            _ => sync_directory(&data)?,
        }
    }
    close_to_others(&path, 0o600)?;
    Ok(secrets::read(&path)?)
}

/// Makes the directory where it is missing and closes it to other users. Its absolute path.
fn prepare(path: &Path) -> Result<PathBuf, StateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    if made.is_err() && path.exists() && !path.is_dir() {
        return Err(StateError::NotADirectory(path.to_owned()));
    }
    made.doing("make the state directory", path)?;
    let path = path.canonicalize().doing("find", path)?;
    let mode = fs::metadata(&path).doing("look at", &path)?.mode();
    if mode & 0o077 != 0 {
        // Taking a directory such as /tmp from everybody else would be worse than what we guard against.
        if !is_ours(&path)? {
            return Err(StateError::Shared(path));
        }
        close_to_others(&path, 0o700)?;
    }
    Ok(path)
}

/// Whether the directory is empty or has been a state directory before.
fn is_ours(path: &Path) -> Result<bool, StateError> {
    if [LOCK, DATABASE, TOKEN_KEY].iter().any(|name| path.join(name).exists()) {
        return Ok(true);
    }
    Ok(fs::read_dir(path).doing("look into", path)?.next().is_none())
}

fn close_to_others(path: &Path, mode: u32) -> Result<(), StateError> {
    let now = fs::metadata(path).doing("look at", path)?.mode();
    if now & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).doing("close to other users", path)?;
    tracing::warn!(path = %path.display(), was = format!("{:o}", now & 0o777), "Closed to other users what was open to them");
    Ok(())
}

fn hold(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    let mut lock =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).doing("open", &path)?;
    match lock.try_lock() {
        Ok(()) => {
            hand_over(&lock, directory).doing("hand over", &path)?;
            // Who holds it, for the message above and for people; the lock itself is the kernel's.
            let told = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
            if let Err(error) = told {
                tracing::warn!(%error, "who holds the directory could not be written down");
            }
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let holder = lock.read_to_string(&mut holder).ok().map(|_| holder.trim().to_owned());
            Err(StateError::Held { path: directory.to_owned(), holder: holder.filter(|pid| !pid.is_empty()) })
        }
        Err(TryLockError::Error(source)) => Ok(Err(source).doing("lock", &path)?),
    }
}

/// What root makes here is for the server's user, whose directory this is. Of two other users neither can give the other a
/// file, and need not: the lock is the directory's owner's already, or nobody gets this far.
fn hand_over(file: &File, directory: &Path) -> io::Result<()> {
    let (owner, now) = (fs::metadata(directory)?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (now.uid(), now.gid()) || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Throws the ballast off where the disk is full: without the files of this run there is no server that could say so.
fn make_room(directory: &Path) {
    // What is laid into a new directory, or one that is not ours, is the store's to decide.
    if !directory.join(BALLAST).exists() {
        return;
    }
    match Ballast::of(directory).lay() {
        Ok(Laid::Yes) => {}
        Ok(Laid::NoRoom) => tracing::warn!("The disk is full; the ballast was thrown off so that reading can begin"),
        Err(error) => tracing::debug!(%error, "No ballast can be kept here"),
    }
}

/// A file written beside its place; removed with this value, which is harmless once it has been renamed.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(place: &Path, text: &str) -> Result<Self, FileError> {
        let draft = Self { path: place.with_extension(format!("new-{}", std::process::id())) };
        // Left over from a crash of a process with our number.
        let _ = fs::remove_file(&draft.path);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.path);
        let mut file = opened.doing("write", &draft.path)?;
        writeln!(file, "{text}").and_then(|()| file.sync_all()).doing("write", &draft.path)?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a new name in the directory last through a power cut.
fn sync_directory(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|directory| directory.sync_all()).doing("write", path)
}

fn random_text() -> String {
    let mut bytes = [0u8; RANDOM_BYTES];
    rand::fill(&mut bytes).expect("the system's random source works once the process runs");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o777
    }

    #[test]
    fn a_directory_and_its_secrets_are_closed_to_others() {
        let outer = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(&outer.path().join("a/b")).expect("a new directory");
        let credential = state.new_operator_credential().expect("it is written");
        let secret = token_secret(state.path(), None).expect("it is made");
        assert_eq!(mode(state.path()), 0o700);
        for name in [LOCK, OPERATOR_KEY, TOKEN_KEY] {
            assert_eq!(mode(&state.path().join(name)), 0o600, "{name}");
        }
        assert_eq!(operator_credential(state.path()).expect("it is there"), credential);
        assert_eq!(token_secret(state.path(), None).expect("it stays"), secret);
        assert_eq!(secret.len(), 43);
        assert_eq!(fs::read_dir(state.path()).expect("it is there").count(), 3, "no drafts are left");
    }

    #[test]
    fn a_held_directory_says_who_holds_it_and_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = StateDir::open(folder.path()).expect("free");
        let refused = StateDir::open(folder.path()).expect_err("held").to_string();
        assert!(refused.contains(&format!("(process {}): stop that one first", std::process::id())), "{refused}");
        drop(first);
        StateDir::open(folder.path()).expect("free again");
    }

    #[test]
    fn a_lock_that_root_makes_is_the_directory_s_owner_s() {
        let folder = tempfile::tempdir().expect("a folder");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).expect("root may");
        }
        let state = StateDir::open(folder.path()).expect("free");
        let (directory, lock) = (fs::metadata(folder.path()), fs::metadata(state.path().join(LOCK)));
        let owner = |file: io::Result<fs::Metadata>| file.map(|file| (file.uid(), file.gid())).expect("it is there");
        assert_eq!(owner(lock), owner(directory));
    }

    #[test]
    fn an_open_directory_is_closed_only_where_it_is_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours to change");
        fs::write(folder.path().join("thesis.txt"), "x").expect("a file");
        assert!(matches!(StateDir::open(folder.path()), Err(StateError::Shared(_))));
        assert_eq!(mode(folder.path()), 0o755);
        fs::write(folder.path().join(DATABASE), "").expect("a file");
        StateDir::open(folder.path()).expect("it has been a state directory");
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn a_directory_without_a_log_is_not_taken_for_a_server_s() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("mistyped");
        for unused in [folder.path(), &missing] {
            assert!(matches!(check_log(unused), Err(StateError::Unused(_))));
        }
        assert!(!missing.exists());
        fs::write(folder.path().join(DATABASE), "").expect("a file");
        check_log(folder.path()).expect("it is ours");
    }
}

//! The ballast: some megabytes in the state directory that are thrown off when the disk is full, so that what makes room
//! (retention, deletes, a checkpoint) can be written and a server can start.
//!
//! It is laid at the start, and again as soon as there is room for it and a little more. **Invariant**: while it is off,
//! what takes room is refused before it is tried, so that nobody eats what was kept for those who clean.
//!
//! Deliberately not here: who may write meanwhile; that is each operation's own word ([`Need`](super::writer::Need)).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::fault::{Fault, Space};

/// Bytes that are kept: about what a log of writes has when it is due to be taken into the database.
pub const BALLAST_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that must be free besides, so that what was refused a moment ago is not accepted for one publish.
const HEADROOM: u64 = 1024 * 1024;
/// Bytes that must be free besides once the ballast was thrown off: as much again as it has, since what fills the disk may be
/// the log of writes, whose next pages would throw it off again at once.
const HEADROOM_AFTERWARDS: u64 = HEADROOM + 4 * 1024 * 1024;
/// Between two looks for room.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// The ballast of a state directory.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

/// Whether the ballast lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Laid {
    Yes,
    /// The disk has no room for it.
    NoRoom,
}

impl Ballast {
    pub fn of(directory: &Path) -> Self {
        Self { path: directory.join("tidings.ballast") }
    }

    /// Lays it where it does not lie, and throws it off where the disk has no room for it and a mebibyte besides.
    ///
    /// # Errors
    /// Where it can't be made for another reason than room. One that lay stays.
    pub fn lay(&self) -> io::Result<Laid> {
        self.lay_beside(HEADROOM)
    }

    /// [`Ballast::lay`] where so many bytes must be free besides.
    fn lay_beside(&self, headroom: u64) -> io::Result<Laid> {
        let lay = self.lies();
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        let file = match opened {
            Err(error) if is_full(&error) => return Ok(Laid::NoRoom),
            opened => opened?,
        };
        match reserve(&file, BALLAST_BYTES + headroom).and_then(|()| file.set_len(BALLAST_BYTES)) {
            Ok(()) => Ok(Laid::Yes),
            Err(error) if is_full(&error) => {
                self.throw_off()?;
                Ok(Laid::NoRoom)
            }
            Err(error) => {
                // What is half laid would only take room; what lay is as good as it was.
                let _ = if lay { file.set_len(BALLAST_BYTES) } else { self.throw_off() };
                Err(error)
            }
        }
    }

    /// Whether all of it is there.
    pub(super) fn lies(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() == BALLAST_BYTES)
    }

    /// Whether the disk has [`HEADROOM`], by trying where no ballast lies; nothing stays of it.
    pub(super) fn space(&self) -> Space {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path);
        let made = file.is_ok();
        let space = match file.and_then(|file| reserve(&file, HEADROOM)) {
            Err(error) if is_full(&error) => Space::Short,
            // For whatever else it can't be tried, there is no sign of want.
            _ => Space::Enough,
        };
        if made {
            let _ = self.throw_off();
        }
        space
    }

    /// Gives its room back to the disk.
    ///
    /// # Errors
    /// Where the file is there and can't be removed.
    pub fn throw_off(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Makes sure that the first `bytes` of the file have their place on the disk.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // Not every file system knows it; what is written has its place.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let zeros = vec![0; 64 * 1024];
            let mut file = file;
            for _ in 0..bytes / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
            Ok(())
        }
        done => Ok(done?),
    }
}

/// Whether the disk, or what the owner may have of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What the writer knows of the room it has.
#[derive(Debug)]
pub(super) struct Hold {
    ballast: Ballast,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The ballast lies.
    Laid,
    /// It was thrown off; when was last looked for room.
    Off(Instant),
    /// The file system does not let us have one; room is known by trying.
    Without(Space),
}

impl Hold {
    /// Lays the ballast, or begins without.
    pub(super) fn begin(directory: &Path) -> Self {
        let ballast = Ballast::of(directory);
        let state = match ballast.lay() {
            Ok(Laid::Yes) => State::Laid,
            Ok(Laid::NoRoom) => State::Off(Instant::now()),
            Err(error) => {
                tracing::warn!(%error, "no ballast can be kept here; a full disk leaves no room to clean up in");
                State::Without(Space::Enough)
            }
        };
        Self { ballast, state }
    }

    pub(super) fn space(&self) -> Space {
        match self.state {
            State::Laid => Space::Enough,
            State::Off(_) => Space::Short,
            State::Without(space) => space,
        }
    }

    /// Whether what takes room is to be refused; looks for room where it was not looked for just now.
    pub(super) fn look(&mut self) -> Space {
        if let State::Off(looked) = self.state
            && looked.elapsed() >= LOOK
        {
            self.state = match self.ballast.lay_beside(HEADROOM_AFTERWARDS) {
                Ok(Laid::Yes) => State::Laid,
                // It could be laid once; whatever is wrong now, there is no sign of room.
                Ok(Laid::NoRoom) | Err(_) => State::Off(Instant::now()),
            };
        }
        match self.state {
            // Without a ballast only trying tells.
            State::Laid | State::Without(_) => Space::Enough,
            State::Off(_) => Space::Short,
        }
    }

    /// A commit has found room.
    pub(super) fn found_room(&mut self) {
        if let State::Without(space) = &mut self.state {
            *space = Space::Enough;
        }
    }

    /// Throws the ballast off, since a write found no room.
    pub(super) fn throw_off(&mut self) {
        self.state = match (self.state, self.ballast.throw_off()) {
            (State::Without(_), _) => State::Without(Space::Short),
            (_, Ok(())) => State::Off(Instant::now()),
            (_, Err(error)) => {
                tracing::error!(%error, "the ballast can't be thrown off; remove tidings.ballast by hand");
                State::Off(Instant::now())
            }
        };
    }

    /// Settles a fault that may mean a full disk: it is full where the ballast no longer fits, or, while it is off, where next
    /// to nothing does.
    pub(super) fn settle(&mut self, fault: Fault) -> Fault {
        let otherwise = match fault {
            Fault::FullOrBusy => Fault::Busy,
            Fault::FullOrBroken => Fault::Broken,
            settled => return settled,
        };
        if matches!(self.state, State::Off(_)) {
            return match self.ballast.space() {
                Space::Short => Fault::Full,
                Space::Enough => otherwise,
            };
        }
        match self.ballast.lay() {
            Ok(Laid::Yes) => {
                self.state = State::Laid;
                otherwise
            }
            Ok(Laid::NoRoom) => {
                self.state = State::Off(Instant::now());
                Fault::Full
            }
            Err(_) => otherwise,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_ballast_has_its_place_on_the_disk_and_gives_it_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let ballast = Ballast::of(directory.path());
        for _ in 0..2 {
            assert_eq!(ballast.lay().expect("there is room"), Laid::Yes);
            let file = fs::metadata(directory.path().join("tidings.ballast")).expect("it lies");
            assert_eq!((file.len(), file.mode() & 0o777), (BALLAST_BYTES, 0o600));
            assert!(file.blocks() * 512 >= BALLAST_BYTES, "{} blocks are no ballast", file.blocks());
        }
        ballast.throw_off().expect("it is ours");
        assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 0);
        ballast.throw_off().expect("it is gone already");
    }

    #[test]
    fn an_unclear_fault_is_of_the_disk_s_room_only_where_there_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut hold = Hold::begin(directory.path());
        assert_eq!(hold.space(), Space::Enough);
        assert_eq!(hold.settle(Fault::FullOrBroken), Fault::Broken);
        assert_eq!(hold.settle(Fault::FullOrBusy), Fault::Busy);
        assert_eq!(hold.settle(Fault::Operation), Fault::Operation);
        hold.throw_off();
        assert_eq!((hold.space(), hold.look()), (Space::Short, Space::Short), "it has only just been looked");
        assert_eq!(hold.settle(Fault::FullOrBroken), Fault::Broken, "the ballast is off, and there is room");
        assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 0, "nothing stays of the trial");
    }

    #[test]
    fn what_can_not_be_opened_is_not_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("tidings.ballast");
        // What nobody can open for writing, root neither, and anybody could remove.
        std::os::unix::fs::symlink(directory.path(), &place).expect("a link");
        Ballast { path: place.clone() }.lay().expect_err("it can't be opened");
        let mut hold = Hold::begin(directory.path());
        assert_eq!(hold.settle(Fault::FullOrBroken), Fault::Broken);
        assert!(place.is_symlink());
    }

    #[test]
    fn what_a_look_for_room_has_laid_is_known_to_lie() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut hold = Hold { ballast: Ballast::of(directory.path()), state: State::Without(Space::Enough) };
        assert_eq!(hold.settle(Fault::FullOrBroken), Fault::Broken);
        assert_eq!(hold.state, State::Laid);
        assert!(hold.ballast.lies());
    }
}

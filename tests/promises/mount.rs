//! File systems of our own: a small disk that can be filled, grown and made read-only.
//!
//! It takes root, as mounting does. Where that can't be had the tests fail and say so; `TIDINGS_SKIP_MOUNTS=1` leaves them
//! out, loudly.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A disk of its own below a temporary directory; unmounted when dropped.
pub struct Disk {
    at: TempDir,
}

/// Whether tests that mount are left out.
pub fn skipped(test: &str) -> bool {
    let skipped = std::env::var_os("TIDINGS_SKIP_MOUNTS").is_some();
    if skipped {
        println!("NOT RUN: {test}: TIDINGS_SKIP_MOUNTS is set");
    }
    skipped
}

fn run(command: &mut Command) {
    let output = command.output().expect("mount and umount are there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said} (mounting takes root; TIDINGS_SKIP_MOUNTS=1 leaves it out)");
}

impl Disk {
    /// Megabytes that it holds.
    pub fn of(megabytes: usize) -> Self {
        let at = tempfile::tempdir().expect("a directory");
        let size = format!("size={megabytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tidings-test"]).arg(at.path()));
        Self { at }
    }

    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// A directory on it.
    pub fn directory(&self) -> TempDir {
        tempfile::tempdir_in(self.path()).expect("there is room for a directory")
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).expect("a name fits");
        for size in [64 * 1024, 4 * 1024] {
            let bytes = vec![b'x'; size];
            while match file.write_all(&bytes) {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::StorageFull => false,
                Err(error) => panic!("{error}"),
            } {}
        }
    }

    /// Fills it, but for so many bytes.
    pub fn fill_but(&self, bytes: u64) {
        self.fill();
        let file = File::options().write(true).open(self.filler()).expect("it was filled");
        let filled = file.metadata().expect("it is there").len();
        file.set_len(filled.saturating_sub(bytes)).expect("room can be given back");
    }

    /// Takes away what filled it.
    pub fn clear(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    pub fn resize(&self, megabytes: usize) {
        run(Command::new("mount").args(["-o", &format!("remount,size={megabytes}m")]).arg(self.path()));
    }

    pub fn make_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()));
    }

    fn filler(&self) -> std::path::PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there must not keep it for ever.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

//! A file that appears only when it is whole: written beside its place, put on disk, then given its name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// What becomes of a file that stands in the place already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Keep,
    Replace,
}

/// The file beside its place; removed with this value, unless it was put there.
pub(super) struct Draft {
    path: PathBuf,
    pub(super) file: File,
}

impl Draft {
    /// Begins a file that only its owner reads.
    ///
    /// # Errors
    /// Where none can be made there.
    pub(super) fn beside(place: &Path) -> anyhow::Result<Self> {
        let mut name = place.file_name().with_context(|| format!("{} names no file", place.display()))?.to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let path = place.with_file_name(name);
        let file = File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Where it is until it is put in its place.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place, so that it lasts through a power cut.
    ///
    /// # Errors
    /// Where it can't be written, or something else stands there that is to be kept.
    pub(super) fn put(self, place: &Path, present: Present) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", place.display());
        self.file.sync_all().with_context(cannot)?;
        let flags = if present == Present::Keep { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        match renameat_with(CWD, &self.path, CWD, place, flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => bail!("{} is there already", place.display()),
            // A file system that can't ask while it renames: somebody else's file may be lost in between.
            Err(Errno::INVAL) if !place.exists() => fs::rename(&self.path, place).with_context(cannot)?,
            Err(error) => return Err(error).with_context(cannot),
        }
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).with_context(cannot)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone where it was put in its place.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_there_is_kept_unless_it_may_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("copy.db");
        fs::write(&place, "theirs").expect("a file");
        let kept =
            Draft::beside(&place).expect("it can be made").put(&place, Present::Keep).expect_err("it stands there");
        assert!(kept.to_string().contains("is there already"), "{kept}");
        assert_eq!(fs::read(&place).expect("it is there"), b"theirs");
        Draft::beside(&place).expect("it can be made").put(&place, Present::Replace).expect("it may go");
        assert_eq!(fs::read(&place).expect("it is there"), b"");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no draft is left");
    }
}

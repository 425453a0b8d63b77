//! Reading settings files: the one that is meant, then its drop-ins, `FILE.d/*.toml` in order of name.
//!
//! A drop-in directory lets a package, a tool and a person each have a file of their own. Names are compared byte by
//! byte, so that `10-` comes before `9-` everywhere alike; a name that begins with a dot is an editor's, and what does
//! not end with `.toml` (a backup, a README) is nobody's: both are left alone.
//!
//! **Invariant**: what is there and can't be read is told, never skipped: a server must not run on half of its
//! settings. Deliberately not here: what the text means, which is `overlay`'s.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::{SYSTEM_FILE, SettingsFile};

/// Bytes of a settings file at most; what is longer is some other file, named by mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file that was to be read.
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) is_drop_in: bool,
    /// Its text, or why there is none.
    pub(super) text: Result<String, Fault>,
}

/// Reads the settings file and its drop-ins, in the order in which they are laid over each other.
pub(super) fn read(file: &SettingsFile) -> Vec<Layer> {
    match file {
        SettingsFile::None => Vec::new(),
        SettingsFile::System => read_with_drop_ins(Path::new(SYSTEM_FILE), Missing::IsFine),
        SettingsFile::Named(path) => read_with_drop_ins(path, Missing::IsAFault),
    }
}

/// What it means that the file itself is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    IsFine,
    IsAFault,
}

fn read_with_drop_ins(path: &Path, missing: Missing) -> Vec<Layer> {
    let main = match read_text(path) {
        Err(Unreadable::Io(e)) if e.kind() == io::ErrorKind::NotFound && missing == Missing::IsFine => None,
        read => Some(Layer { path: path.to_owned(), is_drop_in: false, text: read.map_err(|e| e.told(path)) }),
    };
    main.into_iter().chain(drop_ins(&directory_of(path))).collect()
}

/// `FILE.d`, whatever FILE is called.
fn directory_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".d");
    PathBuf::from(name)
}

fn drop_ins(directory: &Path) -> Vec<Layer> {
    match names(directory) {
        Ok(names) => names.into_iter().map(|name| drop_in(directory.join(name))).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            let told = format!("this directory of settings files can't be read: {e}");
            let fault = Fault::in_file(directory, None, &told);
            vec![Layer { path: directory.to_owned(), is_drop_in: true, text: Err(fault) }]
        }
    }
}

fn drop_in(path: PathBuf) -> Layer {
    let text = read_text(&path).map_err(|e| e.told(&path));
    Layer { path, is_drop_in: true, text }
}

/// The names that count, in their order.
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if is_drop_in(&name) {
            names.push(name);
        }
    }
    // Names of files are ordered by their bytes here, whatever the locale.
    names.sort();
    Ok(names)
}

fn is_drop_in(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".toml") && !name.as_bytes().starts_with(b".")
}

/// Why a settings file has no text.
enum Unreadable {
    Io(io::Error),
    TooLong,
    /// On this line.
    NotUtf8(usize),
}

impl Unreadable {
    fn told(&self, path: &Path) -> Fault {
        match self {
            Self::Io(e) => Fault::in_file(path, None, &format!("this settings file can't be read: {e}")),
            Self::TooLong => {
                let told = format!("this is no settings file: it has more than {MAX_FILE_BYTES} bytes");
                Fault::in_file(path, None, &told)
            }
            Self::NotUtf8(line) => Fault::in_file(path, Some(*line), "this is not UTF-8, and so not TOML"),
        }
    }
}

fn read_text(path: &Path) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    if read.map_err(Unreadable::Io)? as u64 > MAX_FILE_BYTES {
        return Err(Unreadable::TooLong);
    }
    String::from_utf8(bytes).map_err(|e| Unreadable::NotUtf8(line_at(e.as_bytes(), e.utf8_error().valid_up_to())))
}

/// The line, from 1, that a byte is on.
pub(super) fn line_at(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with `t.toml`, and `t.toml.d` with files of these names, each of which has its own name as its text.
    fn folder(drop_ins: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("t.toml"), "main").expect("it can be written");
        let directory = folder.path().join("t.toml.d");
        fs::create_dir(&directory).expect("it is new");
        for name in drop_ins {
            fs::write(directory.join(name), name).expect("it can be written");
        }
        folder
    }

    fn layers(folder: &Path) -> Vec<Layer> {
        read(&SettingsFile::Named(folder.join("t.toml")))
    }

    fn fault(layer: &Layer) -> String {
        layer.text.as_ref().expect_err("it can't be read").to_string()
    }

    #[test]
    fn drop_ins_follow_their_file_in_order_of_name_and_other_names_are_left_alone() {
        let folder = folder(&["9.toml", "10.toml", "B.toml", "a.toml", "a.toml~", "README", ".hidden.toml", "x.TOML"]);
        let texts: Vec<_> = layers(folder.path()).into_iter().map(|l| l.text.expect("it can be read")).collect();
        assert_eq!(texts, ["main", "10.toml", "9.toml", "B.toml", "a.toml"]);
    }

    #[test]
    fn a_file_without_a_drop_in_directory_stands_alone_and_none_has_no_layers() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("t.toml"), "").expect("it can be written");
        assert_eq!(layers(folder.path()).len(), 1);
        assert_eq!(read(&SettingsFile::None).len(), 0);
    }

    #[test]
    fn a_missing_file_is_a_fault_where_it_was_named_and_its_drop_ins_count_all_the_same() {
        let folder = folder(&["a.toml"]);
        let path = folder.path().join("t.toml");
        fs::remove_file(&path).expect("it is there");
        let named = layers(folder.path());
        assert_eq!(named.len(), 2);
        assert!(fault(&named[0]).starts_with(&format!("{}: this settings file can't be read: ", path.display())));
        let installed = read_with_drop_ins(&path, Missing::IsFine);
        assert_eq!(installed.len(), 1);
        assert!(installed[0].is_drop_in && installed[0].text.is_ok());
    }

    #[test]
    fn what_is_there_and_cannot_be_read_is_named() {
        let outer = folder(&["b.toml"]);
        symlink("nowhere", outer.path().join("t.toml.d/a.toml")).expect("it is new");
        fs::create_dir(outer.path().join("t.toml.d/c.toml")).expect("it is new");
        fs::write(outer.path().join("t.toml.d/d.toml"), b"one = 1\n\xff").expect("it can be written");
        let read = layers(outer.path());
        let told: Vec<_> = read.iter().map(|layer| layer.text.as_ref().err().map(ToString::to_string)).collect();
        assert!(
            told[1].as_ref().is_some_and(|fault| fault.contains("t.toml.d/a.toml: this settings file")),
            "{told:?}"
        );
        assert!(
            told[3].as_ref().is_some_and(|fault| fault.contains("t.toml.d/c.toml: this settings file")),
            "{told:?}"
        );
        assert!(told[4].as_ref().is_some_and(|fault| fault.contains("t.toml.d/d.toml:2: this is not UTF-8")));
        assert_eq!((&told[0], &told[2]), (&None, &None));

        let no_directory = tempfile::tempdir().expect("a folder");
        for name in ["t.toml", "t.toml.d"] {
            fs::write(no_directory.path().join(name), "").expect("it can be written");
        }
        assert!(fault(&layers(no_directory.path())[1]).contains("t.toml.d: this directory of settings files"));
    }

    #[test]
    fn a_file_that_is_far_too_long_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("/dev/zero", folder.path().join("t.toml")).expect("it is new");
        assert!(fault(&layers(folder.path())[0]).ends_with("it has more than 1048576 bytes"));
    }
}

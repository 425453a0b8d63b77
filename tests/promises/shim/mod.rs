//! The layer between the real binary and its disk (`shim.c`), and what its record is good for: the directory as a power
//! cut leaves it.
//!
//! What is modelled of a disk: what was written and not yet flushed may be there, or not, or in part, sector by sector and
//! in any order; what was flushed is there. Names are there as soon as they are made, which is how journalling file systems
//! do it. **Invariant**: a cut is told by its seed and its place alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::Dice;
use crate::support::server::Setup;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Files that a record tells of, by the numbers of `shim.c`.
const NAMES: [&str; 5] = ["", "tidings.db", "tidings.db-wal", "tidings.head", "tidings.db-journal"];
pub const WAL: usize = 2;
/// Bytes of a record's head.
const HEAD: usize = 40;

/// The preloaded library, built once a run.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promises/shim/shim.c");
        let (place, draft) = (Path::new(env!("CARGO_TARGET_TMPDIR")), format!("shim-{}.so", std::process::id()));
        std::fs::create_dir_all(place).expect("the target directory can be written");
        let (draft, built) = (place.join(draft), place.join("shim.so"));
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&draft).arg(&source);
        let cc = cc.args(["-ldl", "-lpthread"]).output().expect("a C compiler is there: SQLite was built with one");
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
        std::fs::rename(&draft, &built).expect("the target directory can be written");
        built
    })
}

/// A server on this directory whose writes are written down in `log`.
pub fn recorded(data: tempfile::TempDir, log: &Path) -> Setup {
    let text = |path: &Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    Setup::serve()
        .env("LD_PRELOAD", &text(library()))
        .env("SHIM_DIR", &text(data.path()))
        .env("SHIM_LOG", &text(log))
        .on(data)
}

/// The same, which fails where `failure` says; `log` then holds something once it has.
pub fn failing(data: tempfile::TempDir, log: &Path, failure: &str) -> Setup {
    recorded(data, log).env("SHIM_FAIL", failure)
}

/// The same, only while the file `when` is there.
pub fn failing_while(data: tempfile::TempDir, log: &Path, failure: &str, when: &Path) -> Setup {
    failing(data, log, failure).env("SHIM_WHEN", when.to_str().expect("temporary paths are UTF-8"))
}

/// One change of a file.
#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
    Sync,
    Unlink,
}

/// Everything a server did to its files, in order.
pub struct Record {
    changes: Vec<(usize, Change)>,
    /// Where in the log each change ends.
    ends: Vec<u64>,
}

impl Record {
    pub fn read(log: &Path) -> Self {
        let log = std::fs::read(log).expect("the log is there");
        let mut record = Self { changes: Vec::new(), ends: Vec::new() };
        let mut rest = &log[..];
        // A record that a kill cut off is of a write that nobody was told of.
        while rest.len() >= HEAD {
            let number = |i: usize| u64::from_le_bytes(rest[i * 8..][..8].try_into().expect("eight bytes"));
            let number = |i: usize| usize::try_from(number(i)).expect("64 bits");
            let (kind, file, at, length, size) = (number(0), number(1), number(2), number(3), number(4));
            let Some(bytes) = rest.get(HEAD..HEAD + length) else { break };
            let change = match kind {
                1 => Change::Write { at, bytes: bytes.to_vec() },
                2 => Change::Truncate(size),
                3 => Change::Sync,
                4 => Change::Unlink,
                other => panic!("no such kind of record: {other}"),
            };
            rest = &rest[HEAD + length..];
            record.changes.push((file, change));
            record.ends.push((log.len() - rest.len()) as u64);
        }
        record
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// How long the log was when this many changes had been made.
    pub fn told(&self, changes: usize) -> u64 {
        if changes == 0 { 0 } else { self.ends[changes - 1] }
    }
}

/// What the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Honesty {
    /// It honours a flush.
    Honest,
    /// It forgets every flush of the log of writes: those that `synchronous=NORMAL` would not ask for, and those before a
    /// checkpoint, which it would.
    ForgetsTheLog,
    /// It loses a sector of what it has flushed.
    LosesSectors,
}

/// What becomes of what was not flushed.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Dropped,
    Kept,
    /// Each sector by itself.
    Torn,
}

#[derive(Clone, Default)]
struct File {
    flushed: Option<Vec<u8>>,
    pending: Vec<Change>,
}

/// A disk that follows a record.
pub struct Disk<'r> {
    record: &'r Record,
    honesty: Honesty,
    files: [File; NAMES.len()],
    done: usize,
}

impl<'r> Disk<'r> {
    pub fn new(record: &'r Record, honesty: Honesty) -> Self {
        Self { record, honesty, files: Default::default(), done: 0 }
    }

    /// Goes on to this many changes.
    pub fn forward(&mut self, changes: usize) {
        for (file, change) in &self.record.changes[self.done..changes] {
            let forgets = self.honesty == Honesty::ForgetsTheLog && *file == WAL;
            let file = &mut self.files[*file];
            match change {
                Change::Sync if forgets => {}
                Change::Sync => {
                    let flushed = file.flushed.get_or_insert_default();
                    for change in file.pending.drain(..) {
                        apply(flushed, &change, |_| true);
                    }
                }
                Change::Unlink => *file = File::default(),
                change => file.pending.push(change.clone()),
            }
        }
        self.done = changes;
    }

    /// Cuts the power, and puts what is left into a directory.
    pub fn cut(&self, fate: Fate, dice: &mut Dice, into: &Path) {
        for (number, file) in self.files.iter().enumerate() {
            let mut left = file.flushed.clone();
            if self.honesty == Honesty::LosesSectors
                && number == WAL
                && let Some(flushed) = left.as_mut().filter(|flushed| flushed.len() > SECTOR)
            {
                let sector = dice.below((flushed.len() / SECTOR) as u64) as usize;
                flushed[sector * SECTOR..][..SECTOR].fill(0);
            }
            for change in &file.pending {
                match fate {
                    Fate::Dropped => {}
                    Fate::Kept => apply(left.get_or_insert_default(), change, |_| true),
                    Fate::Torn => apply(left.get_or_insert_default(), change, |_| dice.below(2) == 0),
                }
            }
            if let Some(left) = left {
                std::fs::write(into.join(NAMES[number]), left).expect("there is room for a copy");
            }
        }
    }
}

/// Does a change to a file, sector by sector, as far as `reaches` lets it.
fn apply(file: &mut Vec<u8>, change: &Change, mut reaches: impl FnMut(usize) -> bool) {
    match change {
        Change::Write { at, bytes } => {
            let mut done = 0;
            while done < bytes.len() {
                let from = at + done;
                let length = (SECTOR - from % SECTOR).min(bytes.len() - done);
                if reaches(from / SECTOR) {
                    if file.len() < from + length {
                        file.resize(from + length, 0);
                    }
                    file[from..from + length].copy_from_slice(&bytes[done..done + length]);
                }
                done += length;
            }
        }
        Change::Truncate(size) => {
            if reaches(size / SECTOR) {
                file.resize(*size, 0);
            }
        }
        Change::Sync | Change::Unlink => {}
    }
}

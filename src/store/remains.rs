//! What is left of a log before anybody opens it: whether the files in a state directory still belong together.
//!
//! SQLite removes a log of writes that lies beside an empty database, and makes a database where there is none; so whoever
//! opens a log whose file was lost would lose the rest of it without a word. And it takes a log of writes in beside a file that
//! was cut short.
//!
//! **Invariant**: nothing here writes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use super::backup::beside;
use super::log::HeadFile;

/// Bytes of the header of a log of writes (<https://www.sqlite.org/fileformat2.html#walformat>), and of each of its frames.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Where in the log's header stand the page size and the salt, and where in a frame's its page, the size of the database that
/// it commits, and the salt.
const PAGE_SIZE_AT: usize = 8;
const SALT_AT: usize = 16;
const PAGE_AT: usize = 0;
const COMMIT_AT: usize = 4;
const FRAME_SALT_AT: usize = 8;
const SALT_BYTES: usize = 8;

/// What a database that is missing or empty has left behind, in words; `None` where it is there, or nothing of it ever was.
pub(super) fn of_lost(database: &Path) -> io::Result<Option<String>> {
    if size(database)? > 0 {
        return Ok(None);
    }
    let name = database.display();
    let wal = beside(database, "-wal");
    if size(&wal)? > 0 {
        return Ok(Some(format!("{name} is missing or empty, and its write-ahead log is there")));
    }
    let head = HeadFile::peek(database.parent().unwrap_or(Path::new(".")))?;
    Ok(head
        .filter(|head| head.seq.0 > 0)
        .map(|head| format!("{name} is missing or empty, and the file beside it says that it had come to {head}")))
}

/// Whether each page beyond the end of the database is in what its log of writes has committed. Where one is not, it may be a
/// free page that nobody ever wrote, or lost.
pub(super) fn has_its_pages(database: &Path, page_size: u64, pages: u64) -> io::Result<bool> {
    let first_missing = size(database)? / page_size + 1;
    if first_missing > pages {
        return Ok(true);
    }
    let committed = committed_from(&beside(database, "-wal"), first_missing)?;
    Ok((first_missing..=pages).all(|page| committed.contains(&page)))
}

/// Pages from this number on that are in the committed frames of a log of writes.
fn committed_from(wal: &Path, first: u64) -> io::Result<HashSet<u64>> {
    let file = match File::open(wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        opened => opened?,
    };
    let (mut log, mut header, mut frame) = (BufReader::new(file), [0; LOG_HEADER], [0; FRAME_HEADER]);
    let (mut committed, mut open) = (HashSet::new(), Vec::new());
    if !read_whole(&mut log, &mut header)? {
        return Ok(committed);
    }
    let skipped = i64::from(number(&header, PAGE_SIZE_AT));
    while read_whole(&mut log, &mut frame)?
        // What an earlier round has left lies behind what this one wrote.
        && frame[FRAME_SALT_AT..FRAME_SALT_AT + SALT_BYTES] == header[SALT_AT..SALT_AT + SALT_BYTES]
    {
        let page = u64::from(number(&frame, PAGE_AT));
        if page >= first {
            open.push(page);
        }
        if number(&frame, COMMIT_AT) > 0 {
            committed.extend(open.drain(..));
        }
        log.seek_relative(skipped)?;
    }
    Ok(committed)
}

/// Fills the buffer; `false` where the file ends before.
fn read_whole(file: &mut BufReader<File>, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
}

/// Bytes of a file; none where there is no file.
fn size(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

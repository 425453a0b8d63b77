//! An export on its way to a file or to standard output: its records are counted, and the last is looked at, since an export
//! that could not be brought to its end says so there.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use serde::Deserialize;

use super::client::{Ask, Client, Receive, Refusal, read};
use super::draft::{Draft, Present};
use super::progress;
use super::reach::ServerArgs;

/// How the line of an export begins that says that the rest did not come, and how such a row of a table does.
const BROKEN_BEGINS: &[u8] = br#"{"kind":"problem","#;
const BROKEN_ROW_BEGINS: &[u8] = b"problem,";
/// Bytes of a line that are looked at: more than that line has.
const MAX_LOOKED_AT: usize = 8 * 1024;

/// What was written to a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saved {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// Writes an export to a file, which is seen when it is whole, or to standard output as it comes; then nothing is answered.
///
/// # Errors
/// What the server says, also where that stands in the last line; a file that can't be written.
pub(super) async fn save(server: &ServerArgs, ask: &Ask<'_>, file: Option<&Path>) -> anyhow::Result<Option<Saved>> {
    let Some(file) = file else {
        // On one terminal the lines themselves are the sign of life.
        let bar = if io::stdout().is_terminal() { ProgressBar::hidden() } else { progress::bytes() };
        let mut out = Records::new(BufWriter::new(io::stdout().lock()), bar);
        server.ask(async |client: &Client| client.pass_on(ask, &mut out).await).await?;
        out.flush().context("cannot write to standard output")?;
        out.progress.finish_and_clear();
        out.check()?;
        return Ok(None);
    };
    let draft = Draft::beside(file)?;
    let mut out = Records::new(BufWriter::new(&draft.file), progress::bytes());
    server.ask(async |client: &Client| client.pass_on(ask, &mut out).await).await?;
    out.flush().with_context(|| format!("cannot write {}", file.display()))?;
    out.progress.finish_and_clear();
    out.check()?;
    let saved = Saved { lines: out.lines, bytes: out.bytes };
    drop(out);
    draft.put(file, Present::Replace)?;
    Ok(Some(saved))
}

/// Counts the records that are written through it, and looks for the one that says that the rest did not come.
struct Records<W> {
    to: W,
    progress: ProgressBar,
    bytes: u64,
    lines: u64,
    /// The beginning of the line that is being written.
    line: Vec<u8>,
    /// The last line of an export that was not brought to its end.
    broken: Option<Vec<u8>>,
}

/// The last line of an export that was not brought to its end: its status was sent long before.
#[derive(Deserialize)]
struct Broken {
    problem: Refusal,
}

impl<W> Records<W> {
    const fn new(to: W, progress: ProgressBar) -> Self {
        Self { to, progress, bytes: 0, lines: 0, line: Vec::new(), broken: None }
    }

    /// Fails where the last record says that there should have been more.
    ///
    /// # Errors
    /// What that record says.
    fn check(&self) -> anyhow::Result<()> {
        match &self.broken {
            Some(line) if line.starts_with(BROKEN_ROW_BEGINS) => {
                bail!("the export broke off: {}", String::from_utf8_lossy(&line[BROKEN_ROW_BEGINS.len()..]).trim_end())
            }
            Some(line) => bail!("the export broke off: {}", read::<Broken>(line)?.problem.text()),
            None => Ok(()),
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LOOKED_AT.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.lines += 1;
                let line = std::mem::take(&mut self.line);
                if line.starts_with(BROKEN_BEGINS) || line.starts_with(BROKEN_ROW_BEGINS) {
                    self.broken = Some(line);
                }
            }
        }
    }
}

impl<W: Write> Receive for Records<W> {}

impl<W: Write> Write for Records<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        self.look(&bytes[..written]);
        self.progress.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_draft_is_seen_only_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("alice.ndjson");
        drop(Draft::beside(&place).expect("it can be made"));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let draft = Draft::beside(&place).expect("it can be made");
        let mut out = Records::new(&draft.file, ProgressBar::hidden());
        out.write_all(b"{}\n{}\n").expect("it can be written");
        assert_eq!((out.lines, out.bytes), (2, 6));
        assert!(!place.exists());
        draft.put(&place, Present::Replace).expect("it can be put there");
        assert_eq!(fs::read(&place).expect("it is there"), b"{}\n{}\n");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn an_export_that_broke_off_is_noticed_however_it_is_cut() {
        let whole = br#"{"kind":"entry","title":"{\"kind\":\"problem\","}"#;
        let broken = br#"{"kind":"problem","problem":{"status":500,"code":"internal","detail":"the storage failed"}}"#;
        for size in [1, 7, 4096] {
            let mut out = Records::new(Vec::new(), ProgressBar::hidden());
            for part in [whole.as_slice(), b"\n"].concat().chunks(size) {
                out.write_all(part).expect("memory");
            }
            out.check().expect("nothing is missing yet");
            for part in [broken.as_slice(), b"\n"].concat().chunks(size) {
                out.write_all(part).expect("memory");
            }
            let told = out.check().expect_err("it says so").to_string();
            assert!(told.contains("the storage failed"), "{told}");
            assert_eq!(out.lines, 2);
        }
    }

    #[test]
    fn a_table_that_broke_off_is_noticed_too() {
        let mut out = Records::new(Vec::new(), ProgressBar::hidden());
        out.write_all(b"id,created_at\r\n7,problem,\r\n").expect("memory");
        out.check().expect("nothing is missing yet");
        out.write_all(b"problem,internal,it failed\r\n").expect("memory");
        assert_eq!(out.check().expect_err("it says so").to_string(), "the export broke off: internal,it failed");
    }
}

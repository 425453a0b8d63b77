//! NDJSON (one JSON value a line): cutting a streamed body into lines, bounded line by line.

use bytes::{Bytes, BytesMut};

/// Bytes of one line at most, the same as of a whole JSON body: all that stands before its break, white space included, so
/// that the rule is the same however the body was cut on its way.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// A line longer than [`MAX_LINE_BYTES`]; nothing after it can be trusted to begin where a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {MAX_LINE_BYTES} bytes")]
pub struct LineTooLong;

/// Collects chunks and hands out lines.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: BytesMut,
    /// Bytes at the front that are known to hold no line break.
    searched: usize,
}

impl Lines {
    /// Takes the next chunk of the body.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line without its break; blank lines are skipped.
    ///
    /// # Errors
    /// [`LineTooLong`].
    pub fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        loop {
            let Some(found) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched > MAX_LINE_BYTES { Err(LineTooLong) } else { Ok(None) };
            };
            let length = self.searched + found;
            if length > MAX_LINE_BYTES {
                return Err(LineTooLong);
            }
            let line = self.buffer.split_to(length + 1).freeze();
            self.searched = 0;
            if let Some(line) = content(&line) {
                return Ok(Some(line));
            }
        }
    }

    /// The last line, which need not end with a break.
    ///
    /// # Errors
    /// [`LineTooLong`].
    pub fn finish(self) -> Result<Option<Bytes>, LineTooLong> {
        if self.buffer.len() > MAX_LINE_BYTES { Err(LineTooLong) } else { Ok(content(&self.buffer.freeze())) }
    }
}

/// What stands in a line; `None` where it is blank.
fn content(line: &Bytes) -> Option<Bytes> {
    let trimmed = line.trim_ascii();
    (!trimmed.is_empty()).then(|| line.slice_ref(trimmed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_body_is_cut() {
        let body = b"{\"a\":1}\r\n\n  {\"b\":2}\n{\"c\":3}";
        for cut in 1..body.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in body.chunks(cut) {
                lines.push(chunk);
                while let Some(line) = lines.next_line().expect("short lines") {
                    got.push(line);
                }
            }
            got.extend(lines.finish().expect("short lines"));
            assert_eq!(got, ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"], "cut every {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_as_soon_as_it_is_too_long() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE_BYTES]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.next_line(), Err(LineTooLong));
    }
}

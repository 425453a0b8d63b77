//! Reading cursors: `<epoch>.<seq>`, and the reserved `now` and `start`.
//!
//! Nothing a client sends here is an error: what can't be read is [`Resume::Malformed`], which the stream answers
//! in-band, since browsers stop an EventSource for ever on an error status.

use crate::model::{Cursor, Epoch, Seq};

/// Bytes of a cursor at most; longer ones are malformed without being looked at.
pub const MAX_CURSOR_BYTES: usize = 64;

/// From where a client wants to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// A first visit: no cursor at all, or an empty one.
    FirstVisit,
    /// Only what comes.
    Now,
    /// Everything retained.
    Start,
    /// After this position.
    After(Cursor),
    /// Not a cursor.
    Malformed,
}

/// Reads a cursor as a client sent it, in bytes since a header may hold anything.
pub fn parse(bytes: &[u8]) -> Resume {
    match bytes {
        b"" => Resume::FirstVisit,
        b"now" => Resume::Now,
        b"start" => Resume::Start,
        _ => exact(bytes).map_or(Resume::Malformed, Resume::After),
    }
}

/// Reads a cursor that names a position, such as the `upto` of a mark.
pub fn exact(bytes: &[u8]) -> Option<Cursor> {
    if bytes.len() > MAX_CURSOR_BYTES {
        return None;
    }
    let (epoch, seq) = std::str::from_utf8(bytes).ok()?.split_once('.')?;
    // One spelling for one position: no sign, no leading zero.
    let plain = seq == "0" || (!seq.starts_with('0') && !seq.is_empty() && seq.bytes().all(|b| b.is_ascii_digit()));
    let seq = if plain { seq.parse().ok()? } else { return None };
    Some(Cursor { epoch: Epoch::new(epoch)?, seq: Seq(seq) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let cursor = Cursor { epoch: Epoch::new("k7x2m").expect("an epoch"), seq: Seq(10_423) };
        assert_eq!(parse(cursor.to_string().as_bytes()), Resume::After(cursor));
        assert_eq!(parse(b"now"), Resume::Now);
        assert_eq!(parse(b"start"), Resume::Start);
        assert_eq!(parse(b""), Resume::FirstVisit);
    }

    #[test]
    fn absurd_cursors_are_malformed_and_nothing_worse() {
        let long = format!("k7x2m.{}", "1".repeat(400_000));
        for bad in [
            "k7x2m",
            ".",
            "k7x2m.",
            ".5",
            "k7x2m.-1",
            "k7x2m.+1",
            "k7x2m.01",
            "k7x2m.1.2",
            "K7.1",
            "k7x2m.18446744073709551616",
            "k7x2m.1\0",
            " k7x2m.1",
            "库.1",
            "NOW",
            &"a".repeat(64),
            &long,
        ] {
            assert_eq!(parse(bad.as_bytes()), Resume::Malformed, "{bad:.80}");
        }
        assert_eq!(parse(b"\xff\xfe.1"), Resume::Malformed);
        assert!(matches!(parse(b"k7x2m.18446744073709551615"), Resume::After(_)));
    }
}

//! Lines of a batch are the same however the body is cut on its way: each once, in order, trimmed, blank ones left out; and
//! where a line is too long, the batch ends there, after the same lines.

use bytes::Bytes;
use tidings::wire::batch::{LineTooLong, Lines, MAX_LINE_BYTES};

use super::input::Input;

/// What a body comes to: its lines, and whether one was too long.
type Read = (Vec<Bytes>, Result<(), LineTooLong>);

pub fn batch(data: &[u8]) {
    let mut input = Input::new(data);
    let sizes = input.field();
    let body = grown(input.rest());
    let expected = by_the_rule(&body);
    assert_eq!(read(&[&body]), expected, "in one piece");
    assert_eq!(read(&pieces(&body, sizes)), expected, "in pieces of {sizes:?}");
}

/// A byte above ASCII stands for a run of `x`, up to the longest line there may be, since no fuzzer grows one by itself.
fn grown(body: &[u8]) -> Vec<u8> {
    /// Bytes of body at most, so that one run of the property stays short.
    const MAX: usize = 4 * MAX_LINE_BYTES;
    let mut whole = Vec::with_capacity(body.len());
    for byte in body {
        match byte {
            0x80.. if whole.len() < MAX => {
                whole.resize(whole.len() + usize::from(byte - 0x7e) * (MAX_LINE_BYTES / 128), b'x');
            }
            _ => whole.push(*byte),
        }
    }
    whole
}

/// Cuts at sizes that come again and again; a byte is squared, so that both single bytes and whole bodies occur.
fn pieces<'a>(body: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut sizes = sizes.iter().map(|size| 1 + usize::from(*size).pow(2)).cycle();
    let (mut pieces, mut rest) = (Vec::new(), body);
    while !rest.is_empty() {
        // A long body in single bytes would only be slow.
        let least = if body.len() > 4_096 { 512 } else { 1 };
        let size = sizes.next().unwrap_or(rest.len()).max(least).min(rest.len());
        let (piece, left) = rest.split_at(size);
        pieces.push(piece);
        rest = left;
    }
    pieces
}

fn read(pieces: &[&[u8]]) -> Read {
    let (mut lines, mut found) = (Lines::default(), Vec::new());
    for piece in pieces {
        lines.push(piece);
        loop {
            match lines.next_line() {
                Ok(Some(line)) => found.push(line),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
    }
    match lines.finish() {
        Ok(last) => found.extend(last),
        Err(error) => return (found, Err(error)),
    }
    (found, Ok(()))
}

fn by_the_rule(body: &[u8]) -> Read {
    let mut found = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        if line.len() > MAX_LINE_BYTES {
            return (found, Err(LineTooLong));
        }
        let line = line.trim_ascii();
        if !line.is_empty() {
            found.push(Bytes::copy_from_slice(line));
        }
    }
    (found, Ok(()))
}

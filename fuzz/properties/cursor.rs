//! A cursor that is understood is written as it was read, byte for byte; one that we write is understood; and nothing else
//! is more than malformed.

use tidings::model::{Cursor, Epoch, Seq};
use tidings::wire::cursor::{MAX_CURSOR_BYTES, Resume, exact, parse};

use super::input::Input;

pub fn cursor(data: &[u8]) {
    match parse(data) {
        Resume::FirstVisit => assert_eq!(data, b""),
        Resume::Now => assert_eq!(data, b"now"),
        Resume::Start => assert_eq!(data, b"start"),
        Resume::After(cursor) => {
            assert!(data.len() <= MAX_CURSOR_BYTES);
            assert_eq!(cursor.to_string().as_bytes(), data, "two spellings of one position");
            assert_eq!(exact(data), Some(cursor));
        }
        Resume::Malformed => assert_eq!(exact(data), None),
    }
    let mut input = Input::new(data);
    let seq = Seq(input.number());
    if let Some(epoch) = Epoch::new(&input.text()) {
        let cursor = Cursor { epoch, seq };
        assert_eq!(parse(cursor.to_string().as_bytes()), Resume::After(cursor));
    }
}

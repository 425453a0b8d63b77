//! JSON that loses its white space fits one line and is the same JSON: the same tokens in the same order, every number and
//! escape as it was sent.

use serde_json::Value;
use serde_json::value::RawValue;
use tidings::wire::json::compact;

pub fn data(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let line = compact(text);
    assert!(line.len() <= text.len());
    if serde_json::from_str::<&RawValue>(text).is_err() {
        return;
    }
    assert!(!line.contains(['\n', '\r']), "{line:?} is more than a line");
    assert!(serde_json::from_str::<&RawValue>(&line).is_ok(), "{line:?} is no JSON any more");
    assert_eq!(compact(&line), line, "nothing is left to drop");
    // Values that serde has no type for (lone surrogates, numbers beyond a double) are compared as text above.
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(serde_json::from_str::<Value>(&line).ok(), Some(value));
    }
    let mut sent = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let mut kept = line.bytes().filter(|byte| *byte != b' ');
    assert!(kept.by_ref().eq(sent.by_ref()), "only white space goes");
}

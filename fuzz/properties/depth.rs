//! The depth of JSON is what its brackets say, however deep, without a stack; and what nests deeper than is allowed is
//! refused for that, before anything else looks at it.

use serde_json::Value;
use tidings::model::MAX_DEPTH;
use tidings::wire::json::{BodyError, Fields, depth as measured};

pub fn depth(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    holds(text);
    // What no fuzzer grows by itself: the same text far deeper than any parser goes down.
    let deep = format!("{}{text}", "[{\"a\":".repeat(500));
    holds(&deep);
}

fn holds(text: &str) {
    let expected = nesting(text);
    assert_eq!(measured(text), expected);
    let refused = Fields::parse(text.as_bytes()).err();
    assert_eq!(refused == Some(BodyError::Depth), expected > MAX_DEPTH, "{refused:?}");
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(levels(&value), expected);
    }
}

/// How deep the brackets of a text nest, strings apart, for a text that need not be JSON.
pub fn nesting(text: &str) -> usize {
    // Behind an escape's backslash nothing ends a string, so both go; then every other piece between quotes is one.
    let mut plain = String::with_capacity(text.len());
    let (mut chars, mut inside) = (text.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' if inside => drop(chars.next()),
            '"' => inside = !inside,
            _ if !inside => plain.push(c),
            _ => {}
        }
    }
    let mut now = 0usize;
    let mut most = 0;
    for c in plain.chars() {
        now = match c {
            '[' | '{' => now + 1,
            ']' | '}' => now.saturating_sub(1),
            _ => now,
        };
        most = most.max(now);
    }
    most
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

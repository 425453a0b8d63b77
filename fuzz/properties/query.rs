//! What is percent-encoded into a query comes out of it, the last of a name; a bound holds for every number; and no cursor,
//! however absurd, keeps a stream from opening.

use http::HeaderMap;
use tidings::http::fuzzing::{Options, Query};
use tidings::wire::cursor;

use super::input::Input;

const MAX_LIMIT: usize = 500;

pub fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let raw = Query::parse(&text);
    if let Ok(limit) = raw.limit(100, MAX_LIMIT) {
        assert!((1..=MAX_LIMIT).contains(&limit));
    }
    if let Err(problem) = Options::read(&HeaderMap::new(), &raw) {
        assert_eq!((problem.status, problem.code), (400, "bad-query"));
        let blamed = |name: &str| problem.detail.contains(&format!("`{name}`"));
        let read_by_streams = ["snapshot", "events", "category", "topics", "heartbeat"];
        assert!(read_by_streams.into_iter().any(blamed), "{}", problem.detail);
    }

    let mut input = Input::new(data);
    let mut pairs = Vec::new();
    for _ in 0..input.byte() % 8 {
        pairs.push((input.text(), input.field()));
    }
    let written: Vec<_> = pairs.iter().map(|(name, value)| encode(name.as_bytes()) + "=" + &encode(value)).collect();
    let read = Query::parse(&written.join("&"));
    for (name, _) in &pairs {
        let last = pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value);
        assert_eq!(read.bytes(name), last, "{name} in {written:?}");
    }
    let known: Vec<&str> = pairs.iter().map(|(name, _)| name.as_ref()).collect();
    assert!(read.only(&known).is_ok(), "nothing is there that was not written");

    for spelling in ["cursor", "last_event_id", "lastEventId"] {
        let asked = Query::parse(&format!("{spelling}={}", encode(data)));
        let options = Options::read(&HeaderMap::new(), &asked).expect("a cursor is never refused");
        assert_eq!(options.resume, cursor::parse(data));
    }
}

fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

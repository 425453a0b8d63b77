//! What a client asks of its stream: from where, how much, which events, and how they are written.
//!
//! Cursors are never refused here: what can't be read is answered in-band. Parameters that are not known are ignored,
//! since polyfills add their own against caches.

use http::HeaderMap;

use super::sse::Heartbeat;
use crate::broker::Filter;
use crate::http::query::{Query, bad};
use crate::model::TopicPattern;
use crate::wire::cursor::{self, Resume};
use crate::wire::event::EventKind;
use crate::wire::frame::Framing;
use crate::wire::problem::Problem;

/// Entries of a snapshot where the client names no number, and at most.
const DEFAULT_SNAPSHOT: usize = 15;
const MAX_SNAPSHOT: usize = 100;
/// Patterns that `topics` may name.
const MAX_PATTERNS: usize = 32;

const LAST_EVENT_ID: &str = "last-event-id";

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    pub resume: Resume,
    pub snapshot: usize,
    pub filter: Filter,
    pub framing: Framing,
    pub heartbeat: Heartbeat,
}

impl Options {
    /// Reads headers and query.
    ///
    /// # Errors
    /// 400 for a filter or a number that can't be read.
    pub fn read(headers: &HeaderMap, query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            resume: resume(headers, query),
            snapshot: snapshot(query)?,
            filter: Filter { events: events(query)?, category: query.category()?, topics: topics(query)? },
            framing: framing(query),
            heartbeat: heartbeat(query)?,
        })
    }
}

/// The header wins, since a browser's own reconnect sends it beside the address it began with. For the same reason
/// what libraries append in its place (`lastEventId`, `last_event_id`) wins over the page's `cursor`. Empty ones say
/// nothing.
fn resume(headers: &HeaderMap, query: &Query) -> Resume {
    let header = headers.get(LAST_EVENT_ID).map(http::HeaderValue::as_bytes);
    let spellings = ["lastEventId", "last_event_id", "cursor"].map(|name| query.bytes(name));
    let said = [header].into_iter().chain(spellings).flatten().find(|bytes| !bytes.is_empty());
    cursor::parse(said.unwrap_or_default())
}

fn snapshot(query: &Query) -> Result<usize, Problem> {
    let Some(text) = query.text("snapshot")? else { return Ok(DEFAULT_SNAPSHOT) };
    let number = text.parse().ok().filter(|number| *number <= MAX_SNAPSHOT);
    number.ok_or_else(|| bad("snapshot", &format!("must be 0 to {MAX_SNAPSHOT}")))
}

fn events(query: &Query) -> Result<Option<Vec<EventKind>>, Problem> {
    let Some(text) = query.text("events")? else { return Ok(None) };
    let kinds: Option<Vec<_>> = text.split(',').map(|name| EventKind::parse(name.trim())).collect();
    let mut kinds = kinds.ok_or_else(|| bad("events", "names an event that this server does not have"))?;
    kinds.sort_unstable_by_key(|kind| kind.as_str());
    kinds.dedup();
    Ok(Some(kinds))
}

fn topics(query: &Query) -> Result<Option<Vec<TopicPattern>>, Problem> {
    let Some(text) = query.text("topics")? else { return Ok(None) };
    let patterns: Option<Vec<_>> =
        text.split(',').take(MAX_PATTERNS + 1).map(|name| TopicPattern::new(name.trim())).collect();
    let patterns = patterns.filter(|patterns| patterns.len() <= MAX_PATTERNS);
    let rule = || format!("must be 1 to {MAX_PATTERNS} topics, separated by commas; a `*` may end each");
    patterns.map(Some).ok_or_else(|| bad("topics", &rule()))
}

/// How the client wants its events written.
pub fn framing(query: &Query) -> Framing {
    if matches!(query.bytes("envelope"), Some(b"1" | b"true")) { Framing::Envelope } else { Framing::Named }
}

fn heartbeat(query: &Query) -> Result<Heartbeat, Problem> {
    match query.text("heartbeat")? {
        None | Some("comment") => Ok(Heartbeat::Comment),
        Some("event") => Ok(Heartbeat::Event),
        Some(_) => Err(bad("heartbeat", "must be event or comment")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn read(header: Option<&'static str>, query: &str) -> Result<Options, &'static str> {
        let headers = header.map(|value| (HeaderName::from_static(LAST_EVENT_ID), HeaderValue::from_static(value)));
        Options::read(&headers.into_iter().collect(), &Query::parse(query)).map_err(|problem| problem.code)
    }

    fn resumed(header: Option<&'static str>, query: &str) -> String {
        match read(header, query).map(|options| options.resume) {
            Ok(Resume::After(cursor)) => cursor.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_spelling_of_a_cursor_is_read_and_the_freshest_wins() {
        assert_eq!(resumed(None, "cursor=k.1"), "k.1");
        assert_eq!(resumed(None, "last_event_id=k.1"), "k.1");
        assert_eq!(resumed(None, "lastEventId=k.1"), "k.1");
        assert_eq!(resumed(Some("k.9"), "cursor=k.1&lastEventId=k.5"), "k.9");
        assert_eq!(resumed(None, "cursor=k.1&lastEventId=k.5"), "k.5");
        assert_eq!(resumed(Some(""), "cursor=k.1&lastEventId="), "k.1");
        assert_eq!(resumed(None, "_=123"), "Ok(FirstVisit)");
        assert_eq!(resumed(None, "cursor=now"), "Ok(Now)");
    }

    #[test]
    fn absurd_cursors_are_not_refused() {
        assert_eq!(resumed(None, "cursor=%ff%00"), "Ok(Malformed)");
        assert_eq!(resumed(None, &format!("cursor={}", "9".repeat(5000))), "Ok(Malformed)");
    }

    #[test]
    fn filters_are_read() {
        let options = read(None, "events=unread,notification,unread&category=loans&topics=ops,orders/*&snapshot=0")
            .expect("a query");
        assert_eq!(options.filter.events, Some(vec![EventKind::Notification, EventKind::Unread]));
        assert_eq!(options.filter.topics.map(|topics| topics.len()), Some(2));
        assert_eq!((options.snapshot, options.framing), (0, Framing::Named));
        let plain = read(None, "envelope=1&heartbeat=event&events=").expect("a query");
        assert_eq!((plain.snapshot, plain.framing, plain.heartbeat), (15, Framing::Envelope, Heartbeat::Event));
        assert!(plain.filter.events.is_none());
    }

    #[test]
    fn malformed_filters_are_refused() {
        let many = format!("topics={}", vec!["a"; 33].join(","));
        for bad in [
            "events=unred",
            "category=a+b",
            "topics=a b",
            "topics=a,,b",
            "snapshot=101",
            "snapshot=-1",
            "heartbeat=yes",
            &many,
        ] {
            assert_eq!(read(None, bad).err(), Some("bad-query"), "{bad}");
        }
    }
}

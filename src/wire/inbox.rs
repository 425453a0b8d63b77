//! The inbox over plain HTTP: reading it and marking it.

use serde::{Serialize, Serializer};

use super::cursor;
use super::event::{CountsBody, NotificationBody, Text, Texts};
use super::json::{BodyError, Fields};
use super::publish::category;
use crate::model::{Counts, Cursor, EntryState, Epoch, Mark, MarkAs, MarkTarget, Notification, NotificationId, Seq};

/// Entries that one mark may name.
pub const MAX_MARK_IDS: usize = 1_000;

/// A mark as it was sent: the position still bears the epoch it was seen in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkBody {
    pub mark: Mark,
    /// The epoch of `upto`, to be compared with the log's.
    pub epoch: Option<Epoch>,
}

/// Reads a mark.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn parse_mark(body: &[u8]) -> Result<MarkBody, BodyError> {
    read_mark(Fields::parse(body)?)
}

/// Reads a mark from the fields of an object; nothing else may stand there.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn read_mark(mut fields: Fields<'_>) -> Result<MarkBody, BodyError> {
    let mark = fields.string("as").and_then(|text| MarkAs::parse(&text));
    if mark.is_none() {
        fields.refuse("as", "must be seen, read, unread, archived or unarchived");
    }
    let category = category(&mut fields, "category");
    let upto = fields.string("upto");
    let ids: Option<Vec<String>> = fields.read("ids", "a list of notification ids");
    let target = match (upto, ids) {
        (Some(upto), None) => read_upto(&mut fields, &upto, mark),
        (None, Some(ids)) => read_ids(&mut fields, &ids).map(|ids| (MarkTarget::Ids(ids), None)),
        (Some(_), Some(_)) => {
            fields.refuse("upto", "stands beside `ids`; give one of them");
            None
        }
        (None, None) => {
            fields.refuse("upto", "or `ids` must say which entries are meant");
            None
        }
    };
    let errors = fields.finish();
    match (mark, target) {
        (Some(mark), Some((target, epoch))) if errors.is_empty() => {
            Ok(MarkBody { mark: Mark { mark, target, category }, epoch })
        }
        _ => Err(BodyError::Fields(errors)),
    }
}

fn read_upto(fields: &mut Fields<'_>, upto: &str, mark: Option<MarkAs>) -> Option<(MarkTarget, Option<Epoch>)> {
    if mark.is_some_and(|mark| !mark.allows_upto()) {
        fields.refuse("upto", "can't take a mark back; name the entries by `ids`");
        return None;
    }
    let found = cursor::exact(upto.as_bytes());
    if found.is_none() {
        fields.refuse("upto", "is no cursor; send the id of the newest event that was seen, as it came");
    }
    found.map(|Cursor { epoch, seq }| (MarkTarget::Upto(seq), Some(epoch)))
}

fn read_ids(fields: &mut Fields<'_>, ids: &[String]) -> Option<Vec<NotificationId>> {
    if ids.is_empty() || ids.len() > MAX_MARK_IDS {
        fields.refuse("ids", format!("has {} ids; 1 to {MAX_MARK_IDS} are allowed", ids.len()));
        return None;
    }
    let mut read = Vec::with_capacity(ids.len());
    for (i, id) in ids.iter().enumerate() {
        match NotificationId::parse(id) {
            Some(id) => read.push(id),
            None => {
                let pointer = fields.pointer(&format!("ids/{i}"));
                fields.absorb([crate::model::ContentError { pointer, detail: "is no notification id".to_owned() }]);
            }
        }
    }
    read.sort_unstable();
    read.dedup();
    Some(read)
}

/// An entry: a notification as one user has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub notification: Notification,
    pub state: EntryState,
}

/// An [`Entry`] as a body.
pub struct EntryBody<'a>(pub &'a Entry);

impl Serialize for EntryBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NotificationBody { notification: &self.0.notification, state: Some(self.0.state), replayed: true }
            .serialize(serializer)
    }
}

/// One page of an inbox.
pub struct Page {
    pub entries: Vec<Entry>,
    /// Where the next older page begins; `None` at the end.
    pub next: Option<Seq>,
    pub counts: Counts,
    /// The head that all of this is as of.
    pub cursor: Cursor,
}

/// A [`Page`] as a body.
#[derive(Serialize)]
pub struct PageBody<'a> {
    entries: Vec<EntryBody<'a>>,
    next: Option<String>,
    counts: CountsBody<'a>,
    cursor: Text<'a, Cursor>,
}

impl<'a> PageBody<'a> {
    pub fn new(page: &'a Page) -> Self {
        Self {
            entries: page.entries.iter().map(EntryBody).collect(),
            next: page.next.map(|seq| Cursor { epoch: page.cursor.epoch.clone(), seq }.to_string()),
            counts: CountsBody(&page.counts),
            cursor: Text(&page.cursor),
        }
    }
}

/// What a mark did.
#[derive(Clone, Debug)]
pub struct Marked {
    /// Entries whose state changed.
    pub changed: u64,
    pub counts: Counts,
    pub cursor: Cursor,
    /// Ids that are not in this inbox.
    pub unknown: Vec<NotificationId>,
}

/// [`Marked`] as a body.
#[derive(Serialize)]
pub struct MarkedBody<'a> {
    changed: u64,
    counts: CountsBody<'a>,
    cursor: Text<'a, Cursor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<Texts<'a, NotificationId>>,
}

impl<'a> MarkedBody<'a> {
    pub fn new(marked: &'a Marked) -> Self {
        Self {
            changed: marked.changed,
            counts: CountsBody(&marked.counts),
            cursor: Text(&marked.cursor),
            unknown: (!marked.unknown.is_empty()).then_some(Texts(&marked.unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_needs_exactly_one_target() {
        assert!(parse_mark(br#"{"as":"read","upto":"k7.5"}"#).is_ok());
        for bad in [
            r#"{"as":"read"}"#,
            r#"{"as":"read","upto":"k7.5","ids":[]}"#,
            r#"{"as":"unread","upto":"k7.5"}"#,
            r#"{"as":"read","upto":"now"}"#,
            r#"{"as":"read","ids":["x"]}"#,
            r#"{"as":"red","upto":"k7.5"}"#,
            r#"{"as":"read","ids":[]}"#,
            r#"{"as":"read","upto":"k7.5","extra":1}"#,
        ] {
            assert!(matches!(parse_mark(bad.as_bytes()), Err(BodyError::Fields(_))), "{bad}");
        }
    }
}

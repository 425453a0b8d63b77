//! The answer to a long poll: the same event objects as on a stream, and the position to go on from.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::event::{CountsBody, ResetReason, Text};
use super::frame::SharedFrame;
use crate::model::{Counts, Cursor, Timestamp, UserId};

/// What a long poll came to.
#[derive(Debug)]
pub struct Polled {
    pub user: UserId,
    /// Everything visible up to here has been told, in this answer or before.
    pub cursor: Cursor,
    /// `None` where the answer goes on from the client's cursor.
    pub reset: Option<ResetReason>,
    /// In order. A `bye` is the last.
    pub frames: Vec<SharedFrame>,
    /// As of the cursor or later.
    pub counts: Counts,
    /// Whether there is more to be had at once.
    pub more: bool,
    /// When the credential runs out.
    pub expires: Option<Timestamp>,
}

impl Serialize for Polled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("user", self.user.as_str())?;
        map.serialize_entry("cursor", &Text(&self.cursor))?;
        map.serialize_entry("recovered", &self.reset.is_none())?;
        if let Some(reason) = self.reset {
            map.serialize_entry("reason", reason.as_str())?;
        }
        map.serialize_entry("events", &Objects(&self.frames))?;
        map.serialize_entry("counts", &CountsBody(&self.counts))?;
        map.serialize_entry("more", &self.more)?;
        map.serialize_entry("expires", &self.expires.map(|at| at.to_string()))?;
        map.end()
    }
}

/// Frames as their event objects, which are JSON already.
struct Objects<'a>(&'a [SharedFrame]);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|frame| {
            serde_json::from_slice::<&RawValue>(frame.object()).expect("an event object is encoded as JSON")
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Epoch, Seq};
    use crate::wire::frame::Frame;

    #[test]
    fn an_answer_bears_the_event_objects_as_they_are() {
        let epoch = Epoch::new("k7x2m").expect("an epoch");
        let polled = Polled {
            user: UserId::new("alice").expect("a user"),
            cursor: Cursor { epoch: epoch.clone(), seq: Seq(7) },
            reset: Some(ResetReason::Ahead),
            frames: vec![Arc::new(Frame::unread(&epoch, &Counts::default(), Seq(7)))],
            counts: Counts::default(),
            more: false,
            expires: None,
        };
        assert_eq!(
            serde_json::to_string(&polled).expect("it is JSON"),
            "{\"user\":\"alice\",\"cursor\":\"k7x2m.7\",\"recovered\":false,\"reason\":\"ahead\",\"events\":[\
             {\"event\":\"unread\",\"data\":{\"unread\":0,\"unseen\":0,\"by_category\":{},\"as_of\":\"k7x2m.7\"}}],\
             \"counts\":{\"unread\":0,\"unseen\":0,\"by_category\":{}},\"more\":false,\"expires\":null}"
        );
    }
}

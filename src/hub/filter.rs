//! What a subscriber asked to see.

use crate::model::{Category, TopicName, TopicPattern};
use crate::wire::event::EventKind;
use crate::wire::frame::Frame;

/// A stream's filter. The default lets everything through; `hello`, `token`, `heartbeat` and `bye` always pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kinds of event; `None` is all.
    pub events: Option<Vec<EventKind>>,
    /// Notifications of this category only.
    pub category: Option<Category>,
    /// Notifications of these topics only; direct ones are left out then.
    pub topics: Option<Vec<TopicPattern>>,
}

impl Filter {
    /// Whether everything passes.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether events of this kind are wanted.
    pub fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Notification | EventKind::State | EventKind::Unread => {
                self.events.as_ref().is_none_or(|events| events.contains(&kind))
            }
            EventKind::Hello | EventKind::Heartbeat | EventKind::Token | EventKind::Bye => true,
        }
    }

    /// Whether notifications of this category and topic are wanted.
    pub fn admits_source(&self, category: &Category, topic: Option<&TopicName>) -> bool {
        let category = self.category.as_ref().is_none_or(|wanted| wanted == category);
        let topics = self.topics.as_ref();
        category && topics.is_none_or(|wanted| topic.is_some_and(|topic| wanted.iter().any(|p| p.matches(topic))))
    }

    /// Whether this frame is wanted.
    pub fn admits(&self, frame: &Frame) -> bool {
        self.wants(frame.kind)
            && frame.category.as_ref().is_none_or(|category| self.admits_source(category, frame.topic.as_ref()))
    }
}

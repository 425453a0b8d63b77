//! How long a notification lives: when it is delivered, what it replaces, when it is over.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{NotificationId, Timestamp};

/// Names what a notification is about, so that a newer one with the same key replaces it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollapseKey(Arc<str>);

impl CollapseKey {
    /// Characters (Unicode scalar values) at most.
    pub const MAX_CHARS: usize = 128;

    /// `None` where the text is empty, longer than [`CollapseKey::MAX_CHARS`], or holds a control character.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.chars().count() <= Self::MAX_CHARS && !text.chars().any(char::is_control);
        fits.then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CollapseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// When a notification is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deliver {
    /// With its publish.
    #[default]
    Now,
    /// So long after its publish.
    After(Duration),
    At(Timestamp),
}

/// When a notification is over: it leaves lists and counts then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So long after it is delivered.
    After(Duration),
    At(Timestamp),
}

/// The life of a notification as its publisher asks for it. The default is delivered at once and stays until retention
/// takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    pub collapse: Option<CollapseKey>,
    pub deliver: Deliver,
    pub expiry: Option<Expiry>,
}

/// How an entry came to be dead: out of lists and counts for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Death {
    /// Its publisher took it back.
    Retracted,
    /// Its time was over.
    Expired,
    /// A newer one with the same collapse key took its place.
    Replaced { by: NotificationId },
}

impl Death {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retracted => "retracted",
            Self::Expired => "expired",
            Self::Replaced { .. } => "replaced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collapse_key_is_a_short_line_of_text() {
        for good in ["disk", "磁盘 1", "a b", &"x".repeat(128), &"库".repeat(128)] {
            assert!(CollapseKey::new(good).is_some(), "{good}");
        }
        for bad in ["", "a\nb", "a\0", "\u{7f}", "\u{85}", &"x".repeat(129)] {
            assert!(CollapseKey::new(bad).is_none(), "{bad:?}");
        }
    }
}

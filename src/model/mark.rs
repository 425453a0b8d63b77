//! The person's states of an entry: seen, read, archived; and the marks that set them.

use super::{Category, Death, NotificationId, Seq, Timestamp};

/// One of the three states that the store keeps of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkKind {
    Seen,
    Read,
    Archived,
}

impl MarkKind {
    pub const ALL: [Self; 3] = [Self::Seen, Self::Read, Self::Archived];
}

/// What a mark says of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkAs {
    Seen,
    /// Read is seen too.
    Read,
    /// Clears read only; seen stays.
    Unread,
    /// Out of lists and counts.
    Archived,
    /// Back into them.
    Unarchived,
}

impl MarkAs {
    pub const ALL: [Self; 5] = [Self::Seen, Self::Read, Self::Unread, Self::Archived, Self::Unarchived];

    /// The word on the wire, which is also the `state` of the event that follows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Read => "read",
            Self::Unread => "unread",
            Self::Archived => "archived",
            Self::Unarchived => "unarchived",
        }
    }

    /// Reads what [`MarkAs::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| mark.as_str() == text)
    }

    /// Whether it may bound its entries by `upto`. Taking a mark back needs ids: "everything is unread again" is
    /// never what a person meant.
    pub const fn allows_upto(self) -> bool {
        matches!(self, Self::Seen | Self::Read | Self::Archived)
    }

    /// The kinds it sets, the named one first; empty for one that takes back.
    pub const fn sets(self) -> &'static [MarkKind] {
        match self {
            Self::Seen => &[MarkKind::Seen],
            Self::Read => &[MarkKind::Read, MarkKind::Seen],
            Self::Archived => &[MarkKind::Archived],
            Self::Unread | Self::Unarchived => &[],
        }
    }

    /// The kind it takes back, if it does.
    pub const fn clears(self) -> Option<MarkKind> {
        match self {
            Self::Unread => Some(MarkKind::Read),
            Self::Unarchived => Some(MarkKind::Archived),
            Self::Seen | Self::Read | Self::Archived => None,
        }
    }
}

/// Which entries a mark is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkTarget {
    /// All up to and including this position.
    Upto(Seq),
    /// These, each once.
    Ids(Vec<NotificationId>),
}

/// A mark as a person's device hands it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub mark: MarkAs,
    pub target: MarkTarget,
    /// Only entries of this category, where given.
    pub category: Option<Category>,
}

/// When an entry was seen, read and archived; `None` where it was not, or where it was taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryState {
    pub seen_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
    pub archived_at: Option<Timestamp>,
}

impl EntryState {
    pub const fn at(&self, kind: MarkKind) -> Option<Timestamp> {
        match kind {
            MarkKind::Seen => self.seen_at,
            MarkKind::Read => self.read_at,
            MarkKind::Archived => self.archived_at,
        }
    }

    pub const fn set(&mut self, kind: MarkKind, at: Option<Timestamp>) {
        match kind {
            MarkKind::Seen => self.seen_at = at,
            MarkKind::Read => self.read_at = at,
            MarkKind::Archived => self.archived_at = at,
        }
    }

    pub const fn is_unread(&self) -> bool {
        self.read_at.is_none() && self.archived_at.is_none()
    }

    pub const fn is_unseen(&self) -> bool {
        self.seen_at.is_none() && self.archived_at.is_none()
    }
}

/// What became of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Became {
    /// One of the person's devices marked them.
    Marked(MarkAs),
    /// They are over.
    Dead(Death),
}

impl Became {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Marked(mark) => mark.as_str(),
            Self::Dead(death) => death.as_str(),
        }
    }
}

/// What one committed mark, or one death, changed: the content of a `state` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub seq: Seq,
    pub became: Became,
    pub target: MarkTarget,
    pub category: Option<Category>,
}

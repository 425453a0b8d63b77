//! Counts: how many of a user's entries are unread and unseen, and how they follow from what the store keeps.
//!
//! **Invariant**: [`Tally::counts`] is the only place that turns rows into numbers; the store's replies and the
//! live `unread` events both go through it, so that a badge can't drift between them.

use std::collections::BTreeMap;

use super::{Category, SourceKey};

/// Unread and unseen of one category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CategoryCounts {
    pub unread: u64,
    pub unseen: u64,
}

/// A user's counts: absolute, exact, not capped. Archived entries count in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub unread: u64,
    pub unseen: u64,
    /// Only categories in which something is unread or unseen.
    pub by_category: BTreeMap<Category, CategoryCounts>,
}

impl Counts {
    /// Adds what one source contributes.
    pub fn add(&mut self, category: &Category, more: CategoryCounts) {
        if more == CategoryCounts::default() {
            return;
        }
        self.unread += more.unread;
        self.unseen += more.unseen;
        let of_category = match self.by_category.get_mut(category) {
            Some(counts) => counts,
            None => self.by_category.entry(category.clone()).or_default(),
        };
        of_category.unread += more.unread;
        of_category.unseen += more.unseen;
    }
}

/// What the store keeps of one user's standing in one source.
///
/// A source has published `total` entries so far; `unread_gone` of them do not count as unread for this user
/// (read, archived, or published before the user followed). A publish to a topic changes `total` alone, which is
/// why it touches no row per follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub source: SourceKey,
    /// The total where it is the user's own: what was sent directly, or the topic's total when the user left it.
    /// `None` while the user follows: then the topic's running total counts.
    pub own_total: Option<u64>,
    pub unread_gone: u64,
    pub unseen_gone: u64,
    /// The user has taken the topic out of their counts. What is gone goes on being kept, for when it is taken back.
    pub muted: bool,
}

impl Tally {
    /// What this source adds to the user's counts when its topic has published `total` entries.
    ///
    /// Saturates at 0 in a release build, where a row that broke the invariant must not show 18 quintillion.
    pub fn counts(&self, total: u64) -> CategoryCounts {
        if self.muted {
            return CategoryCounts::default();
        }
        let total = self.own_total.unwrap_or(total);
        debug_assert!(self.unread_gone <= total && self.unseen_gone <= total, "{self:?} of {total}");
        CategoryCounts {
            unread: total.saturating_sub(self.unread_gone),
            unseen: total.saturating_sub(self.unseen_gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_raises_every_followers_count_without_touching_their_rows() {
        let tally =
            Tally { source: SourceKey::from_i64(7), own_total: None, unread_gone: 4, unseen_gone: 9, muted: false };
        assert_eq!(tally.counts(10), CategoryCounts { unread: 6, unseen: 1 });
        assert_eq!(tally.counts(11), CategoryCounts { unread: 7, unseen: 2 });
    }

    #[test]
    fn a_left_topic_stops_counting() {
        let tally =
            Tally { source: SourceKey::from_i64(7), own_total: Some(10), unread_gone: 4, unseen_gone: 4, muted: false };
        assert_eq!(tally.counts(500), CategoryCounts { unread: 6, unseen: 6 });
    }

    #[test]
    fn a_muted_topic_counts_nothing() {
        let source = SourceKey::from_i64(7);
        let tally = Tally { source, own_total: None, unread_gone: 4, unseen_gone: 9, muted: true };
        assert_eq!(tally.counts(10), CategoryCounts::default());
    }

    #[test]
    fn empty_categories_are_left_out() {
        let mut counts = Counts::default();
        counts.add(&Category::default(), CategoryCounts::default());
        assert_eq!(counts, Counts::default());
    }
}

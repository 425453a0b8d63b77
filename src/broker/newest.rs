//! The newest entries of topics, encoded as a replay tells them to somebody who has set no mark on them: a storm of
//! ten thousand readers who come back reads and encodes each once.
//!
//! A reader asks the log all the same who may see an entry, whether it is alive and what state it is in for its user; only
//! what is the same for all, its content, comes from here. **Invariant**: a frame is used only where the transaction that
//! uses it has found the entry alive, so an entry that died, was pruned or went with its topic is not told, whatever is kept
//! here. **Invariant**: content changes by an erasure alone, which empties this and turns away what was read before it.
//!
//! Direct entries are not kept: most have one reader.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::interleave;
use crate::metrics::Metrics;
use crate::model::Seq;
use crate::wire::frame::SharedFrame;

/// Frames that are kept at most …
const MAX_FRAMES: usize = 4_096;
/// … and bytes of them, about: a frame may be encoded in three ways.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What is kept, by position.
pub(super) struct Newest {
    kept: RwLock<Kept>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Kept {
    frames: BTreeMap<Seq, SharedFrame>,
    bytes: usize,
    /// How often it was emptied.
    emptied: u64,
}

/// What one read transaction may take and leave here. Made before the transaction begins.
pub(super) struct Sharing {
    newest: Arc<Newest>,
    emptied: u64,
}

impl Newest {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        // Told from the start, so that a dashboard has them before the first storm.
        for from in ["memory", "log"] {
            drop(metrics.replays.get_or_create(&[("from", from)]));
        }
        Self { kept: RwLock::default(), metrics }
    }

    /// For a transaction that has not begun.
    pub(super) fn sharing(self: &Arc<Self>) -> Sharing {
        Sharing { newest: self.clone(), emptied: self.kept.read().emptied }
    }

    /// An entry died: nobody will ask for it again.
    pub(super) fn forget(&self, seq: Seq) {
        let mut kept = self.kept.write();
        if let Some(frame) = kept.frames.remove(&seq) {
            kept.bytes -= weight(&frame);
        }
    }

    /// Content changed somewhere: nothing that was read until now is used again.
    pub(super) fn forget_all(&self) {
        let mut kept = self.kept.write();
        *kept = Kept { emptied: kept.emptied + 1, ..Kept::default() };
    }
}

impl Sharing {
    pub(super) fn known(&self, seq: Seq) -> Option<SharedFrame> {
        self.newest.kept.read().frames.get(&seq).cloned()
    }

    /// Counts a frame that was taken from here.
    pub(super) fn taken(&self) {
        self.newest.metrics.replays.get_or_create(&[("from", "memory")]).inc();
    }

    /// Counts a frame that was read from the log.
    pub(super) fn read(&self) {
        self.newest.metrics.replays.get_or_create(&[("from", "log")]).inc();
    }

    /// Keeps the frame of a topic's entry that bears no mark; the oldest give way.
    pub(super) fn keep(&self, seq: Seq, frame: &SharedFrame) {
        interleave::point("read, not kept");
        let mut kept = self.newest.kept.write();
        if kept.emptied != self.emptied {
            return;
        }
        if kept.frames.insert(seq, frame.clone()).is_none() {
            kept.bytes += weight(frame);
        }
        while kept.frames.len() > MAX_FRAMES || kept.bytes > MAX_BYTES {
            let Some((_, oldest)) = kept.frames.pop_first() else { return };
            kept.bytes -= weight(&oldest);
        }
    }
}

fn weight(frame: &SharedFrame) -> usize {
    3 * frame.weight()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Frame;

    fn newest() -> Arc<Newest> {
        Arc::new(Newest::new(Arc::default()))
    }

    fn frame() -> SharedFrame {
        Arc::new(Frame::token(1))
    }

    #[test]
    fn the_oldest_give_way_and_the_count_of_bytes_holds() {
        let newest = newest();
        let sharing = newest.sharing();
        for seq in (1..=MAX_FRAMES as u64 + 10).chain(1..=5) {
            sharing.keep(Seq(seq), &frame());
        }
        assert!(sharing.known(Seq(10)).is_none() && sharing.known(Seq(11)).is_some());
        newest.forget(Seq(11));
        assert!(sharing.known(Seq(11)).is_none());
        let kept = newest.kept.read();
        assert_eq!((kept.frames.len(), kept.bytes), (MAX_FRAMES - 1, (MAX_FRAMES - 1) * weight(&frame())));
    }

    #[test]
    fn what_was_read_before_it_was_emptied_is_turned_away() {
        let newest = newest();
        let before = newest.sharing();
        before.keep(Seq(1), &frame());
        newest.forget_all();
        before.keep(Seq(2), &frame());
        let after = newest.sharing();
        assert!(after.known(Seq(1)).is_none() && after.known(Seq(2)).is_none());
        after.keep(Seq(2), &frame());
        assert!(after.known(Seq(2)).is_some());
    }
}

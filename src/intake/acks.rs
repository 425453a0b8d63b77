//! Which deliveries are settled, and in how few words that is told: one acknowledgement stands for all before it.
//!
//! RabbitMQ numbers what it sends down a channel, from 1 on. Most messages are durable in the order in which they came, so
//! that one word is enough for a whole commit; where one waits, those behind it are told one by one.
//!
//! **Invariant**: nothing is acknowledged together with one that is not settled, and nothing twice, which RabbitMQ would end
//! the channel for.

use std::collections::BTreeSet;

/// The settled deliveries of a channel.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// All up to here are settled and told.
    floor: u64,
    /// Those beyond it that are told; at most as many as are on their way.
    beyond: BTreeSet<u64>,
}

/// What is to be told, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// This one, and all before it.
    pub upto: Option<u64>,
    /// Each by itself.
    pub single: Vec<u64>,
}

impl Acks {
    /// What is to be told of these, which are settled now.
    pub fn settle(&mut self, settled: impl IntoIterator<Item = u64>) -> Words {
        let mut new: BTreeSet<u64> = settled.into_iter().collect();
        let mut upto = None;
        loop {
            let next = self.floor + 1;
            if new.remove(&next) {
                upto = Some(next);
            } else if !self.beyond.remove(&next) {
                break;
            }
            self.floor = next;
        }
        self.beyond.extend(&new);
        Words { upto, single: new.into_iter().collect() }
    }

    /// Notes one that was told in another way: it was rejected.
    pub fn told(&mut self, tag: u64) {
        self.beyond.insert(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(upto: impl Into<Option<u64>>, single: &[u64]) -> Words {
        Words { upto: upto.into(), single: single.to_vec() }
    }

    #[test]
    fn one_word_stands_for_all_that_follow_on_each_other() {
        let mut acks = Acks::default();
        assert_eq!(acks.settle([2, 1, 3]), words(3, &[]));
        assert_eq!(acks.settle([4]), words(4, &[]));
        assert_eq!(acks.settle([]), words(None, &[]));
    }

    #[test]
    fn what_waits_is_not_acknowledged_with_those_behind_it() {
        let mut acks = Acks::default();
        assert_eq!(acks.settle([1, 3, 4]), words(1, &[3, 4]));
        // 3 and 4 were told: naming one of them again would end the channel.
        assert_eq!(acks.settle([2]), words(2, &[]));
        assert_eq!(acks.settle([5, 7]), words(5, &[7]));
        assert_eq!(acks.settle([6, 8]), words(8, &[]));
        assert_eq!((acks.floor, acks.beyond.len()), (8, 0));
    }

    #[test]
    fn what_was_rejected_is_passed_over() {
        let mut acks = Acks::default();
        acks.told(1);
        acks.told(3);
        assert_eq!(acks.settle([2]), words(2, &[]));
        assert_eq!(acks.settle([4, 5]), words(5, &[]));
    }
}

//! Which parcels go into which message, given how many messages the robot may still send this minute.
//!
//! Parcels of one notification that say the same become one message that names everybody ([`MAX_PEOPLE`] at a time). While
//! there are as many messages as the minute admits or fewer, each goes by itself, the oldest first. Where there are more,
//! the oldest go by themselves and the rest is merged into digests, as few as hold it; as many notifications as possible go by
//! themselves. What is more than even digests hold waits.
//!
//! **Invariants**: every parcel is in exactly one message, or waits; there are never more messages than slots; none is
//! longer than [`super::MAX_BYTES`].

use std::collections::{BTreeSet, HashMap};

use super::message::{Entry, MAX_PEOPLE, Message, digest_bytes};
use super::words::Words;
use crate::model::{DeliveryId, NotificationId, Parcel};

/// Whether a message says one notification or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Letter,
    Digest,
}

/// A message, and the parcels that it carries, by their places.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) message: Message,
    pub(super) kind: Kind,
    pub(super) carries: Vec<usize>,
}

/// Messages in the order in which they are sent, and the parcels that wait for the next minute.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) messages: Vec<Planned>,
    pub(super) waiting: Vec<usize>,
}

/// Parcels of one notification that say the same, by their places.
struct Group {
    parcels: Vec<usize>,
}

impl Group {
    fn first<'p>(&self, parcels: &'p [Parcel]) -> &'p Parcel {
        &parcels[self.parcels[0]]
    }

    fn people<'p>(&self, parcels: &'p [Parcel]) -> Vec<&'p str> {
        self.parcels.iter().map(|place| parcels[*place].address.as_str()).collect()
    }

    fn letter(self, parcels: &[Parcel]) -> Planned {
        let first = self.first(parcels);
        let message = Message::letter(&first.letter, &self.people(parcels), Words::of(first.locale.as_ref()));
        Planned { message, kind: Kind::Letter, carries: self.parcels }
    }

    fn entry(&self, parcels: &[Parcel], words: &Words) -> Entry {
        Entry::new(&self.first(parcels).letter, &self.people(parcels), words)
    }
}

/// Plans for so many slots. What is in `alone` was in a digest that was refused, and goes by itself.
pub(super) fn plan(parcels: &[Parcel], slots: usize, alone: &BTreeSet<DeliveryId>) -> Plan {
    let mut plan = Plan::default();
    let is_alone = |group: &Group| group.parcels.iter().any(|place| alone.contains(&parcels[*place].delivery));
    let (mut lonely, mut groups): (Vec<_>, Vec<_>) = grouped(parcels).into_iter().partition(is_alone);
    // They may not keep all others back: half of the slots are enough.
    let most_lonely = if groups.is_empty() { slots } else { slots.div_ceil(2) };
    let late = lonely.split_off(lonely.len().min(most_lonely));
    plan.waiting.extend(late.into_iter().flat_map(|group| group.parcels));
    plan.messages.extend(lonely.into_iter().map(|group| group.letter(parcels)));

    let slots = slots - plan.messages.len();
    if groups.len() <= slots {
        plan.messages.extend(groups.into_iter().map(|group| group.letter(parcels)));
        return plan;
    }
    // The words of the oldest that is in a digest; whoever reads a group reads one language there.
    let words = Words::of(groups[slots.saturating_sub(1)].first(parcels).locale.as_ref());
    let entries: Vec<Entry> = groups.iter().map(|group| group.entry(parcels, words)).collect();
    let by_themselves = (0..slots).rev().find(|count| count + digests(&entries[*count..], words).len() <= slots);
    let rest = groups.split_off(by_themselves.unwrap_or(0));
    let entries = &entries[groups.len()..];
    plan.messages.extend(groups.into_iter().map(|group| group.letter(parcels)));

    let left = slots - by_themselves.unwrap_or(0);
    let mut rest = rest.into_iter();
    for range in digests(entries, words).into_iter().take(left) {
        // What shares its digest with nobody is said in full.
        if range.len() == 1 {
            plan.messages.extend(rest.next().map(|group| group.letter(parcels)));
            continue;
        }
        let members = rest.by_ref().take(range.len());
        let carries = members.flat_map(|group| group.parcels).collect();
        let merged: Vec<&Entry> = entries[range].iter().collect();
        let message = Message::digest(&merged, words);
        plan.messages.push(Planned { message, kind: Kind::Digest, carries });
    }
    plan.waiting.extend(rest.flat_map(|group| group.parcels));
    plan
}

/// Which entries share a digest, in their order.
fn digests(entries: &[Entry], words: &Words) -> Vec<std::ops::Range<usize>> {
    let room = digest_bytes(words);
    let mut ranges = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (place, entry) in entries.iter().enumerate() {
        if bytes + entry.bytes() > room && place > from {
            ranges.push(from..place);
            (from, bytes) = (place, 0);
        }
        bytes += entry.bytes();
    }
    if from < entries.len() {
        ranges.push(from..entries.len());
    }
    ranges
}

/// Parcels by what they say, in the order of the first of each.
fn grouped(parcels: &[Parcel]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // The open groups of each notification: one a language, as a rule.
    let mut open: HashMap<NotificationId, Vec<usize>> = HashMap::new();
    for (place, parcel) in parcels.iter().enumerate() {
        let of_this = open.entry(parcel.notification).or_default();
        let says_the_same = |at: &usize| groups[*at].first(parcels).letter == parcel.letter;
        match of_this.iter().position(says_the_same) {
            Some(found) => {
                let group = &mut groups[of_this[found]];
                group.parcels.push(place);
                if group.parcels.len() == MAX_PEOPLE {
                    of_this.swap_remove(found);
                }
            }
            None => {
                of_this.push(groups.len());
                groups.push(Group { parcels: vec![place] });
            }
        }
    }
    groups
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::message::MAX_BYTES;
    use super::*;
    use crate::model::{Bulk, Category, Form, Letter, Medium, Timestamp, UserId};

    /// A parcel of a notification to a person.
    pub(in super::super) fn parcel(delivery: u64, notification: u128, person: &str, letter: &Letter) -> Parcel {
        Parcel {
            delivery: DeliveryId(delivery),
            medium: Medium::DingTalk,
            address: person.to_owned(),
            lane: "ops".to_owned(),
            message_id: format!("{delivery}@test"),
            attempt: 1,
            notification: NotificationId(Uuid::from_u128(notification)),
            user: UserId::new(person).expect("a user id"),
            category: Category::default(),
            locale: None,
            written_in: None,
            published_at: Timestamp::from_millis(0),
            bulk: Bulk::Personal,
            letter: letter.clone(),
        }
    }

    pub(in super::super) fn letter(subject: &str) -> Letter {
        Letter { subject: subject.to_owned(), text: "body".to_owned(), ..Letter::default() }
    }

    fn nobody() -> BTreeSet<DeliveryId> {
        BTreeSet::new()
    }

    fn shape(plan: &Plan) -> Vec<(Kind, Vec<usize>)> {
        plan.messages.iter().map(|planned| (planned.kind, planned.carries.clone())).collect()
    }

    #[test]
    fn one_notification_is_one_message_for_everybody() {
        let said = letter("s");
        let parcels = [parcel(1, 7, "a", &said), parcel(2, 8, "a", &said), parcel(3, 7, "b", &said)];
        let planned = plan(&parcels, 20, &nobody());
        assert_eq!(shape(&planned), [(Kind::Letter, vec![0, 2]), (Kind::Letter, vec![1])]);
        let text = String::from_utf8(planned.messages[0].message.to_json().to_vec()).expect("JSON");
        assert!(text.contains("@a @b") && text.contains(r#""atUserIds":["a","b"]"#), "{text}");
    }

    #[test]
    fn languages_and_crowds_take_messages_of_their_own() {
        let parcels = [parcel(1, 7, "a", &letter("s")), parcel(2, 7, "b", &letter("t"))];
        assert_eq!(plan(&parcels, 20, &nobody()).messages.len(), 2);
        let crowd: Vec<Parcel> = (0..120).map(|n| parcel(n, 7, &format!("p{n}"), &letter("s"))).collect();
        let carried: Vec<usize> = plan(&crowd, 20, &nobody()).messages.iter().map(|m| m.carries.len()).collect();
        assert_eq!(carried, [50, 50, 20]);
    }

    #[test]
    fn what_is_too_much_for_a_minute_is_merged_and_the_oldest_stay_by_themselves() {
        let parcels: Vec<Parcel> = (0..30).map(|n| parcel(n, n.into(), "a", &letter(&format!("s{n}")))).collect();
        let planned = plan(&parcels, 20, &nobody());
        assert_eq!((planned.messages.len(), planned.waiting.len()), (20, 0));
        let last = planned.messages.last().expect("there are 20");
        assert_eq!((last.kind, last.carries.clone()), (Kind::Digest, (19..30).collect()));
        let text = String::from_utf8(last.message.to_json().to_vec()).expect("JSON");
        assert!(text.contains("11 notifications") && text.contains("- s19 @a\\n- s20 @a"), "{text}");
        assert_eq!(shape(&plan(&parcels[..2], 1, &nobody())), [(Kind::Digest, vec![0, 1])]);
        assert_eq!(plan(&parcels, 0, &nobody()).waiting.len(), 30);
    }

    #[test]
    fn what_was_refused_in_a_digest_goes_by_itself_and_keeps_nobody_back() {
        let parcels: Vec<Parcel> = (0..10).map(|n| parcel(n, n.into(), "a", &letter("s"))).collect();
        let alone: BTreeSet<DeliveryId> = (0..9).map(DeliveryId).collect();
        let planned = plan(&parcels, 4, &alone);
        assert_eq!(shape(&planned), [(Kind::Letter, vec![0]), (Kind::Letter, vec![1]), (Kind::Letter, vec![9])]);
        assert_eq!(planned.waiting, (2..9).collect::<Vec<_>>());
        assert_eq!(shape(&plan(&parcels[..1], 1, &alone)), [(Kind::Letter, vec![0])]);
    }

    proptest! {
        #![proptest_config(super::super::same_cases())]

        #[test]
        fn every_parcel_is_in_one_message_or_waits_and_no_message_is_too_long(
            what in prop::collection::vec((0_u128..40, 0_usize..4, "[a-z0-9._+$:-]{1,64}", any::<bool>()), 0..200),
            subjects in prop::collection::vec("(\\PC){0,250}", 4),
            click in prop::option::of("https://a\\.example/[a-z\"\\\\)]{0,2100}"),
            slots in 0_usize..=20,
        ) {
            let parcels: Vec<Parcel> = what.iter().enumerate().map(|(place, (notification, which, person, is_long))| {
                let said = Letter {
                    subject: subjects[*which].clone(),
                    text: if *is_long { "*库\n".repeat(3_000) } else { "b".to_owned() },
                    form: if *which == 0 { Form::Markdown } else { Form::Plain },
                    click: click.clone(),
                    ..Letter::default()
                };
                parcel(place as u64, *notification, person, &said)
            }).collect();
            let alone = parcels.iter().filter(|p| p.delivery.0 % 17 == 3).map(|p| p.delivery).collect();
            let planned = plan(&parcels, slots, &alone);
            prop_assert!(planned.messages.len() <= slots);
            let mut places: Vec<usize> = planned.waiting.clone();
            for Planned { message, carries, .. } in &planned.messages {
                prop_assert!(!carries.is_empty());
                places.extend(carries);
                let json = message.to_json();
                prop_assert!(json.len() <= MAX_BYTES, "{} bytes", json.len());
                let read: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
                let text = read["markdown"]["text"].as_str().expect("a text");
                for place in carries {
                    let mention = format!("@{}", parcels[*place].address);
                    prop_assert!(text.contains(&mention), "{mention} is named");
                }
            }
            places.sort_unstable();
            prop_assert_eq!(places, (0..parcels.len()).collect::<Vec<_>>());
        }
    }
}

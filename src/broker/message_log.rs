//! The message log: deliveries and what was placed in the app, as one list with the newest first.
//!
//! Each kind is walked by itself, by its own index; here they are put together. **Invariant**: pages put together hold every
//! line once, whatever their times are: only the order in which the two kinds meet depends on those.

use super::deliveries::may_look;
use super::{Broker, BrokerError};
use crate::model::Identity;
use crate::store::{DeliveryRows, PlacedRows};
use crate::wire::delivery::Delivery;
use crate::wire::message_log::{Cut, LogCursor, LogLine, LogPage, LogQuery, Placed, PlacedAt, Through};

impl Broker {
    /// A page of the message log before a place, the newest first. It may hold fewer than `limit` and yet not be the last;
    /// `cut` says so then.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn message_log(
        &self,
        by: &Identity,
        query: LogQuery,
        before: LogCursor,
        limit: usize,
        summary: Summary,
    ) -> Result<LogPage, BrokerError> {
        may_look(by)?;
        let read = self.inner.store.read(move |session| {
            session.snapshot(|reader| {
                let through = query.through();
                let sent = if through == Through::InApp || before.delivery == LogCursor::END.delivery {
                    DeliveryRows::default()
                } else {
                    reader.deliveries(&query.asked, Some(before.delivery), limit)?
                };
                let placed = if through == Through::Media || before.placed == PlacedAt::END {
                    PlacedRows::default()
                } else {
                    reader.placed(&query, before.placed, limit)?
                };
                let counted = query.asked.notification.filter(|_| summary == Summary::Counted);
                let tallied = counted.map(|id| reader.tally_deliveries(id)).transpose()?;
                Ok((merge(sent, placed, before, limit), tallied))
            })
        });
        let (Merged { lines, next }, tallied) = read.await?;
        let cut = if next.is_some() && lines.len() < limit { Cut::Short } else { Cut::Whole };
        let lines = lines.into_iter().map(|line| match line {
            Row::Sent(delivery) => LogLine::Delivery(Box::new(self.told(delivery))),
            Row::Placed(placed) => LogLine::Placed(Box::new(placed)),
        });
        Ok(LogPage { lines: lines.collect(), next, cut, tallied })
    }
}

/// Whether a notification's deliveries are counted with a page: that reads each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    Counted,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Row {
    Sent(Delivery),
    Placed(Placed),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Merged {
    lines: Vec<Row>,
    next: Option<LogCursor>,
}

/// Puts a page of each kind together. Where one kind was not walked far enough, the other waits for it.
fn merge(sent: DeliveryRows, placed: PlacedRows, before: LogCursor, limit: usize) -> Merged {
    let (sent_next, sent_cut) = (sent.next.unwrap_or(LogCursor::END.delivery), sent.cut);
    let (placed_next, placed_cut) = (placed.next.unwrap_or(PlacedAt::END), placed.cut);
    let mut sent = sent.items.into_iter().peekable();
    let mut placed = placed.items.into_iter().peekable();
    let mut at = before;
    let mut lines = Vec::new();
    while lines.len() < limit {
        let sent_at = sent.peek().map(|delivery| delivery.created_at);
        let placed_at = placed.peek().map(|(_, placed)| placed.created_at);
        // What was not looked at yet was made before the cut, so what was made before it too has to wait.
        let takes_sent = match (sent_at, placed_at) {
            (None, None) => break,
            (Some(sent), Some(placed)) => sent >= placed,
            (Some(sent), None) if placed_cut.is_some_and(|cut| sent < cut) => break,
            (None, Some(placed)) if sent_cut.is_some_and(|cut| placed < cut) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
        };
        if takes_sent {
            lines.extend(sent.next().map(|delivery| {
                at.delivery = delivery.id;
                Row::Sent(delivery)
            }));
        } else {
            lines.extend(placed.next().map(|(place, placed)| {
                at.placed = place;
                Row::Placed(placed)
            }));
        }
    }
    if sent.peek().is_none() {
        at.delivery = sent_next;
    }
    if placed.peek().is_none() {
        at.placed = placed_next;
    }
    Merged { lines, next: (at != LogCursor::END).then_some(at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Category, DeliveryId, DeliveryState, Medium, NotificationId, Seq, Timestamp, UserKey};

    fn moment(second: u64) -> Timestamp {
        Timestamp::from_seconds(i64::try_from(second).expect("a small number"))
    }

    fn delivery(id: u64, second: u64) -> Delivery {
        Delivery {
            id: DeliveryId(id),
            notification: NotificationId(uuid::Uuid::nil()),
            user: None,
            medium: Medium::Email,
            address: None,
            category: Category::default(),
            template: None,
            state: DeliveryState::Sent,
            attempts: 1,
            next_at: None,
            reason: None,
            created_at: moment(second),
            settled_at: None,
        }
    }

    fn placed(seq: u64, second: u64) -> (PlacedAt, Placed) {
        let row = Placed {
            notification: NotificationId(uuid::Uuid::nil()),
            topic: None,
            user: None,
            category: Category::default(),
            template: None,
            seen_at: None,
            read_at: None,
            reason: None,
            created_at: moment(second),
        };
        (PlacedAt { seq: Seq(seq), user: UserKey(0) }, row)
    }

    /// The seconds of the lines, with a letter for their kind.
    fn told(merged: &Merged) -> Vec<String> {
        let line = |row: &Row| match row {
            Row::Sent(delivery) => format!("s{}", delivery.created_at.as_millis() / 1_000),
            Row::Placed(placed) => format!("p{}", placed.created_at.as_millis() / 1_000),
        };
        merged.lines.iter().map(line).collect()
    }

    fn cursor(delivery: u64, seq: u64) -> LogCursor {
        LogCursor { delivery: DeliveryId(delivery), placed: PlacedAt { seq: Seq(seq), user: UserKey(0) } }
    }

    #[test]
    fn the_newest_comes_first_and_a_page_ends_where_it_is_full() {
        let sent = || DeliveryRows { items: vec![delivery(9, 50), delivery(8, 30)], next: None, cut: None };
        let rows = || PlacedRows { items: vec![placed(7, 40), placed(6, 20)], next: None, cut: None };
        let all = merge(sent(), rows(), LogCursor::NEWEST, 10);
        assert_eq!((told(&all), all.next), (["s50", "p40", "s30", "p20"].map(str::to_owned).to_vec(), None));
        let two = merge(sent(), rows(), LogCursor::NEWEST, 2);
        assert_eq!((told(&two).len(), two.next), (2, Some(cursor(9, 7))));
        let one = merge(sent(), rows(), cursor(10, 10), 1);
        assert_eq!(one.next, Some(cursor(9, 10)), "the other kind stays where it was");
    }

    #[test]
    fn nothing_overtakes_what_was_not_looked_at_yet() {
        let sent = DeliveryRows { items: Vec::new(), next: Some(DeliveryId(4)), cut: Some(moment(30)) };
        let rows = PlacedRows { items: vec![placed(7, 40), placed(6, 20)], next: None, cut: None };
        let page = merge(sent, rows, LogCursor::NEWEST, 10);
        assert_eq!((told(&page), page.next), (vec!["p40".to_owned()], Some(cursor(4, 7))));
        let nothing = DeliveryRows { items: Vec::new(), next: Some(DeliveryId(4)), cut: Some(moment(30)) };
        let page = merge(nothing, PlacedRows::default(), cursor(9, 0), 10);
        assert_eq!((page.lines.len(), page.next), (0, Some(cursor(4, 0))), "and it goes on");
    }
}

//! The message log: what went to whom by which medium, and what was placed in the app, as one list with the newest first.
//!
//! Lines of both kinds have the same fields, so that a table of them has one head. **Invariant**: a cell of a table that is
//! read as a formula by spreadsheets does not leave here as one.

use std::fmt;

use serde::Serialize;

use super::delivery::{Asked, DeliveryBody, Tallied, TalliedBody, Told};
use super::event::Text;
use crate::model::{
    Category, DeliveryId, DeliveryState, Medium, NotificationId, Seq, TemplateName, Timestamp, TopicName, UsedTemplate,
    UserId, UserKey,
};

/// How the inbox is named among media.
pub const IN_APP: &str = "in_app";
/// Every medium, and the inbox.
const ANY: &str = "any";

/// How far something came that was placed in the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacedState {
    /// It is in the inbox, and nobody has looked.
    Stored,
    Seen,
    Read,
}

impl PlacedState {
    pub const ALL: [Self; 3] = [Self::Stored, Self::Seen, Self::Read];
    /// Their names, for people.
    pub const NAMES: &str = "stored, seen, read";

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Seen => "seen",
            Self::Read => "read",
        }
    }

    /// Reads what [`PlacedState::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Which of the two kinds of lines are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// What went out besides the inbox.
    Media,
    /// What was placed in the app.
    InApp,
    Any,
}

/// What the message log is asked for. The default is all that went out besides the inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub asked: Asked,
    /// As `medium` says it; `None` where that names one medium, or nothing.
    through: Option<Through>,
    /// As `state` says it, for what was placed in the app.
    pub placed: Option<PlacedState>,
}

impl LogQuery {
    /// Reads one of [`Asked::FIELDS`], with the words that only the message log has.
    ///
    /// # Errors
    /// What it must be, in words.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match (name, text) {
            ("medium", IN_APP) => self.through = Some(Through::InApp),
            ("medium", ANY) => self.through = Some(Through::Any),
            ("medium", _) if Medium::parse(text).is_none() => {
                return Err(format!("must be one of {}, {IN_APP}, {ANY}", Medium::NAMES));
            }
            ("state", _) => match (PlacedState::parse(text), DeliveryState::parse(text)) {
                (Some(placed), _) => self.placed = Some(placed),
                (None, Some(state)) => self.asked.state = Some(state),
                (None, None) => {
                    let (sent, placed) = (DeliveryState::NAMES, PlacedState::NAMES);
                    return Err(format!("must be one of {sent}, or of {placed} for {IN_APP}"));
                }
            },
            _ => self.asked.set(name, text)?,
        }
        Ok(())
    }

    /// Whether a state can be had by the medium that is asked for.
    ///
    /// # Errors
    /// What `state` must be, in words.
    pub fn check(&self) -> Result<(), String> {
        match self.through {
            Some(Through::InApp) if self.asked.state.is_some() => {
                Err(format!("must be one of {} for {IN_APP}", PlacedState::NAMES))
            }
            None if self.placed.is_some() && self.asked.medium.is_some() => {
                Err(format!("must be one of {}; {} are of {IN_APP}", DeliveryState::NAMES, PlacedState::NAMES))
            }
            _ => Ok(()),
        }
    }

    /// Which kinds of lines can be among the answer.
    pub fn through(&self) -> Through {
        if self.placed.is_some() {
            Through::InApp
        } else if self.asked.state.is_some() {
            Through::Media
        } else {
            self.through.unwrap_or(Through::Media)
        }
    }

    /// Whether something that was placed in the app is asked for, apart from whose it is.
    pub fn is_met(&self, row: &Placed) -> bool {
        self.asked.notification.is_none_or(|notification| notification == row.notification)
            && self.placed.is_none_or(|state| state == row.state())
            && self.asked.category.as_ref().is_none_or(|category| *category == row.category)
            && self.asked.is_by(row.template.as_ref())
            && self.asked.since.is_none_or(|since| row.created_at >= since)
            && self.asked.until.is_none_or(|until| row.created_at < until)
    }
}

/// Where a page begins: each kind of line is walked by itself, from the newest back. Nothing of a kind is left at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCursor {
    /// Deliveries before this number.
    pub delivery: DeliveryId,
    /// What was placed before this position, and at it for users before this number.
    pub placed: PlacedAt,
}

/// The place of a line about the inbox. The line that stands for all whom a notification reached has no user: 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacedAt {
    pub seq: Seq,
    pub user: UserKey,
}

impl PlacedAt {
    pub const NEWEST: Self = Self { seq: Seq::MAX, user: UserKey(i64::MAX) };
    pub const END: Self = Self { seq: Seq::ZERO, user: UserKey(0) };
}

impl LogCursor {
    /// Before everything.
    pub const NEWEST: Self = Self { delivery: DeliveryId(i64::MAX as u64), placed: PlacedAt::NEWEST };
    /// Behind everything.
    pub const END: Self = Self { delivery: DeliveryId(0), placed: PlacedAt::END };

    /// Reads what its `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<i64>().ok().filter(|_| digits)
        });
        let mut next = || parts.next().flatten();
        let (delivery, seq, user) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return None;
        }
        let seq = Seq(u64::try_from(seq).ok()?);
        Some(Self {
            delivery: DeliveryId(u64::try_from(delivery).ok()?),
            placed: PlacedAt { seq, user: UserKey(user) },
        })
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.delivery, self.placed.seq, self.placed.user.0)
    }
}

/// A notification in somebody's inbox; in all inboxes that a topic reaches, where no user is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub notification: NotificationId,
    /// `None` where it was sent to users by name.
    pub topic: Option<TopicName>,
    pub user: Option<UserId>,
    pub category: Category,
    pub template: Option<UsedTemplate>,
    pub seen_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
    /// Why it is in the inbox no more, in words for people.
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

impl Placed {
    pub const fn state(&self) -> PlacedState {
        if self.read_at.is_some() {
            PlacedState::Read
        } else if self.seen_at.is_some() {
            PlacedState::Seen
        } else {
            PlacedState::Stored
        }
    }
}

/// One line of the message log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    Delivery(Box<Told>),
    Placed(Box<Placed>),
}

/// Whether a page ended before it was full and before the log's end, since it had looked through as much as a page does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Whole,
    Short,
}

/// A page of the message log, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<LogCursor>,
    pub cut: Cut,
    /// Where one notification was asked for.
    pub tallied: Option<Tallied>,
}

/// One line as JSON.
#[derive(Serialize)]
#[serde(untagged)]
pub enum LineBody<'a> {
    Delivery(DeliveryBody<'a>),
    Placed(PlacedBody<'a>),
}

/// [`Placed`], with the fields of a delivery.
#[derive(Serialize)]
pub struct PlacedBody<'a> {
    id: Option<u64>,
    notification: Text<'a, NotificationId>,
    topic: Option<Text<'a, TopicName>>,
    user: Option<&'a str>,
    medium: &'static str,
    address: Option<&'a str>,
    category: &'a str,
    template: Option<Text<'a, TemplateName>>,
    template_version: Option<u32>,
    state: &'static str,
    attempts: u32,
    next_at: Option<&'a str>,
    reason: Option<&'a str>,
    created_at: Text<'a, Timestamp>,
    settled_at: Option<&'a str>,
    seen_at: Option<Text<'a, Timestamp>>,
    read_at: Option<Text<'a, Timestamp>>,
}

impl<'a> From<&'a Placed> for PlacedBody<'a> {
    fn from(placed: &'a Placed) -> Self {
        Self {
            id: None,
            notification: Text(&placed.notification),
            topic: placed.topic.as_ref().map(Text),
            user: placed.user.as_ref().map(UserId::as_str),
            medium: IN_APP,
            address: None,
            category: placed.category.as_str(),
            template: placed.template.as_ref().map(|used| Text(&used.name)),
            template_version: placed.template.as_ref().and_then(|used| used.version),
            state: placed.state().as_str(),
            attempts: 0,
            next_at: None,
            reason: placed.reason.as_deref(),
            created_at: Text(&placed.created_at),
            settled_at: None,
            seen_at: placed.seen_at.as_ref().map(Text),
            read_at: placed.read_at.as_ref().map(Text),
        }
    }
}

impl<'a> From<&'a LogLine> for LineBody<'a> {
    fn from(line: &'a LogLine) -> Self {
        match line {
            LogLine::Delivery(told) => Self::Delivery(DeliveryBody::from(&**told)),
            LogLine::Placed(placed) => Self::Placed(PlacedBody::from(&**placed)),
        }
    }
}

/// [`LogPage`] as a body.
#[derive(Serialize)]
pub struct LogBody<'a> {
    deliveries: Vec<LineBody<'a>>,
    next: Option<String>,
    /// There only where it is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_short: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<TalliedBody>,
}

impl<'a> From<&'a LogPage> for LogBody<'a> {
    fn from(page: &'a LogPage) -> Self {
        Self {
            deliveries: page.lines.iter().map(LineBody::from).collect(),
            next: page.next.map(|next| next.to_string()),
            cut_short: (page.cut == Cut::Short).then_some(true),
            summary: page.tallied.map(TalliedBody::from),
        }
    }
}

/// The columns of a table.
const COLUMNS: [&str; 18] = [
    "id",
    "created_at",
    "notification",
    "user",
    "topic",
    "medium",
    "address",
    "category",
    "template",
    "template_version",
    "state",
    "reason",
    "attempts",
    "next_at",
    "settled_at",
    "seen_at",
    "read_at",
    "message_id",
];

/// The head of a table of lines.
pub fn table_head() -> String {
    COLUMNS.join(",") + "\r\n"
}

/// What stands in the first column of a row that says that the rest did not come. The others have a number there, or
/// nothing.
pub const BROKEN_ROW: &str = "problem";

/// The last row of a table that could not be brought to its end.
pub fn broken_row(code: &str, detail: &str) -> String {
    row(&[BROKEN_ROW.to_owned(), code.to_owned(), detail.to_owned()])
}

impl LogLine {
    /// The line as a row of a table (RFC 4180).
    pub fn table_row(&self) -> String {
        match self {
            Self::Delivery(told) => delivery_row(told),
            Self::Placed(placed) => placed_row(placed),
        }
    }
}

fn delivery_row(told: &Told) -> String {
    let delivery = &told.delivery;
    row(&[
        delivery.id.to_string(),
        delivery.created_at.to_string(),
        delivery.notification.to_string(),
        or_nothing(delivery.user.as_ref()),
        String::new(),
        delivery.medium.as_str().to_owned(),
        or_nothing(delivery.address.as_ref()),
        delivery.category.to_string(),
        or_nothing(delivery.template.as_ref().map(|used| &used.name)),
        or_nothing(delivery.template.as_ref().and_then(|used| used.version.as_ref())),
        delivery.state.as_str().to_owned(),
        or_nothing(delivery.reason.as_ref()),
        delivery.attempts.to_string(),
        or_nothing(delivery.next_at.as_ref()),
        or_nothing(delivery.settled_at.as_ref()),
        String::new(),
        String::new(),
        told.message_id.clone(),
    ])
}

fn placed_row(placed: &Placed) -> String {
    row(&[
        String::new(),
        placed.created_at.to_string(),
        placed.notification.to_string(),
        or_nothing(placed.user.as_ref()),
        or_nothing(placed.topic.as_ref()),
        IN_APP.to_owned(),
        String::new(),
        placed.category.to_string(),
        or_nothing(placed.template.as_ref().map(|used| &used.name)),
        or_nothing(placed.template.as_ref().and_then(|used| used.version.as_ref())),
        placed.state().as_str().to_owned(),
        or_nothing(placed.reason.as_ref()),
        "0".to_owned(),
        String::new(),
        String::new(),
        or_nothing(placed.seen_at.as_ref()),
        or_nothing(placed.read_at.as_ref()),
        String::new(),
    ])
}

fn or_nothing(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    cells.join(",") + "\r\n"
}

/// One cell. What a spreadsheet would run as a formula has an apostrophe before it, and so is text there; names and answers
/// of other servers come from anybody.
fn cell(text: &str) -> String {
    let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { "'" } else { "" };
    // Some spreadsheets cut cells at semicolons and tabs.
    if text.contains([',', '"', '\r', '\n', ';', '\t']) {
        format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{apostrophe}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Result<LogQuery, String> {
        let mut query = LogQuery::default();
        for (name, text) in pairs {
            query.set(name, text)?;
        }
        query.check()?;
        Ok(query)
    }

    #[test]
    fn a_state_of_the_inbox_asks_for_the_inbox_and_one_of_a_delivery_for_deliveries() {
        let through = |pairs: &[(&str, &str)]| query(pairs).map(|query| query.through());
        assert_eq!(through(&[]), Ok(Through::Media));
        assert_eq!(through(&[("medium", "any")]), Ok(Through::Any));
        assert_eq!(through(&[("medium", "in_app")]), Ok(Through::InApp));
        assert_eq!(through(&[("state", "read")]), Ok(Through::InApp));
        assert_eq!(through(&[("medium", "any"), ("state", "read")]), Ok(Through::InApp));
        assert_eq!(through(&[("medium", "any"), ("state", "dead")]), Ok(Through::Media));
        assert_eq!(through(&[("medium", "email"), ("state", "dead")]), Ok(Through::Media));
        for bad in [
            &[("medium", "email"), ("state", "read")][..],
            &[("medium", "in_app"), ("state", "dead")],
            &[("medium", "fax")],
            &[("state", "lost")],
            &[("since", "soon")],
        ] {
            assert!(query(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        for cursor in [LogCursor::NEWEST, LogCursor::END] {
            assert_eq!(LogCursor::parse(&cursor.to_string()), Some(cursor));
        }
        for bad in ["", "7", "1.2", "1.2.3.4", "-1.2.3", "+1.2.3", "1..3", "a.b.c", "9223372036854775808.0.0"] {
            assert_eq!(LogCursor::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_cell_is_text_to_a_spreadsheet_whatever_stands_in_it() {
        for (text, told) in [
            ("alice", "alice"),
            ("", ""),
            ("=1+1", "'=1+1"),
            ("+1@x.example", "'+1@x.example"),
            ("-2", "'-2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "\"'\tx\""),
            ("a;=1", "\"a;=1\""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("two\r\nlines", "\"two\r\nlines\""),
        ] {
            assert_eq!(cell(text), told);
        }
        assert_eq!(broken_row("internal", "it, failed"), "problem,internal,\"it, failed\"\r\n");
    }

    #[test]
    fn rows_are_as_wide_as_the_head() {
        let placed = Placed {
            notification: NotificationId(uuid::Uuid::nil()),
            topic: None,
            user: UserId::new("alice").ok(),
            category: Category::default(),
            template: None,
            seen_at: Some(Timestamp::from_seconds(1)),
            read_at: None,
            reason: None,
            created_at: Timestamp::from_seconds(0),
        };
        assert_eq!(placed.state(), PlacedState::Seen);
        let row = LogLine::Placed(Box::new(placed)).table_row();
        assert_eq!(row.matches(',').count(), table_head().matches(',').count(), "{row}");
        assert!(row.contains(",alice,,in_app,,"), "{row}");
    }
}

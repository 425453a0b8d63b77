//! Rows of notifications: one each, however many read it.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::sql::AsPublisher;
use super::writer::Tx;
use super::{deaths, wordings};
use crate::model::{
    Action, Category, CollapseKey, Content, Death, Notification, NotificationId, Principal, Priority, Seq, SourceKey,
    Timestamp, TopicKey, TopicName, UsedTemplate, UserKey,
};

const INSERT_NOTIFICATION: &str = "
    INSERT INTO notifications
        (seq, id, topic, ordinal, category, priority, title, body, data, icon, click, actions, sender, created_at,
         collapse, expires_at, publisher_kind, publisher, worded, carried, template, template_version)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)";
pub(super) const SELECT_NOTIFICATION: &str = "
    SELECT n.seq, n.id, t.name, c.name, n.priority, n.title, n.body, n.data, n.icon, n.click, n.actions, n.sender,
           n.created_at, n.topic, n.category, n.died, n.worded
    FROM notifications n
    JOIN categories c ON c.id = n.category
    LEFT JOIN topics t ON t.id = n.topic
    WHERE n.seq = ?1 AND t.deleted IS NULL";
const LOCATE: &str = "
    SELECT n.seq, n.id, n.topic, n.category, c.name, t.name, n.collapse, n.died, n.death, n.replaced_by,
           n.carried
    FROM notifications n
    JOIN categories c ON c.id = n.category
    LEFT JOIN topics t ON t.id = n.topic
    WHERE n.id = ?1 AND t.deleted IS NULL";
const LOCATE_AT: &str = "
    SELECT n.seq, n.id, n.topic, n.category, c.name, t.name, n.collapse, n.died, n.death, n.replaced_by,
           n.carried
    FROM notifications n
    JOIN categories c ON c.id = n.category
    LEFT JOIN topics t ON t.id = n.topic
    WHERE n.seq = ?1 AND t.deleted IS NULL";
const LIVING_OF_TOPIC: &str = "
    SELECT n.topic, n.category FROM notifications n JOIN topics t ON t.id = n.topic
    WHERE n.seq = ?1 AND n.died IS NULL AND t.deleted IS NULL";
const ENTRY_EXISTS: &str = "SELECT 1 FROM entries WHERE user = ?1 AND source = ?2 AND seq = ?3";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[INSERT_NOTIFICATION, SELECT_NOTIFICATION, LOCATE, LOCATE_AT, LIVING_OF_TOPIC, ENTRY_EXISTS];

/// What of a notification is stored besides what readers see.
pub(super) struct Record<'n> {
    pub(super) notification: &'n Notification,
    pub(super) category: i64,
    /// The topic and the ordinal there; `None` for one sent to users directly.
    pub(super) topic: Option<(TopicKey, u64)>,
    pub(super) collapse: Option<&'n CollapseKey>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) publisher: &'n Principal,
    /// Whether it goes by other media than the inbox too.
    pub(super) carried: bool,
    /// By which it was published.
    pub(super) template: Option<&'n UsedTemplate>,
}

pub(super) fn insert(tx: &Tx<'_>, record: &Record<'_>) -> Result<(), rusqlite::Error> {
    let Notification { seq, id, content, created_at, .. } = record.notification;
    let AsPublisher(publisher_kind, publisher) = AsPublisher::of(record.publisher);
    tx.sql(INSERT_NOTIFICATION)?.execute(params![
        seq,
        id,
        record.topic.map(|(key, _)| key),
        record.topic.map(|(_, ordinal)| ordinal),
        record.category,
        content.priority.as_u8(),
        content.title,
        content.body,
        content.data,
        content.icon,
        content.click,
        actions_column(&content.actions),
        content.sender,
        created_at,
        record.collapse.map(CollapseKey::as_str),
        record.expires_at,
        publisher_kind,
        publisher,
        !content.wordings.is_empty(),
        record.carried,
        record.template.map(|used| &used.name),
        record.template.and_then(|used| used.version),
    ])?;
    wordings::keep(tx, *id, &content.wordings)
}

/// Neither a label nor a link can hold a line break, so lines keep them apart.
pub(super) fn actions_column(actions: &[Action]) -> Option<String> {
    let lines: Vec<&str> = actions.iter().flat_map(|a| [a.label.as_str(), a.click.as_str()]).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Reads what [`actions_column`] wrote.
pub(super) fn actions(column: Option<&str>) -> Vec<Action> {
    let lines: Vec<&str> = column.map(|text| text.split('\n').collect()).unwrap_or_default();
    let pairs = lines.chunks_exact(2);
    pairs.map(|pair| Action { label: pair[0].to_owned(), click: pair[1].to_owned() }).collect()
}

/// A notification, with the source it stands in and the number of its category.
pub(super) struct Stored {
    pub(super) notification: Notification,
    pub(super) source: SourceKey,
    pub(super) category: i64,
    /// The seq at which it died for all.
    pub(super) died: Option<Seq>,
    /// Whether it says something else in other languages.
    pub(super) worded: bool,
}

/// The notification at a position, where there is one.
pub(super) fn load(connection: &Connection, seq: Seq) -> Result<Option<Stored>, rusqlite::Error> {
    connection.prepare_cached(SELECT_NOTIFICATION)?.query_row([seq], stored).optional()
}

/// The topic and the category of a topic's notification at a position, where it is alive.
pub(super) fn living_of_topic(connection: &Connection, seq: Seq) -> Result<Option<(TopicKey, i64)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(LIVING_OF_TOPIC)?;
    statement.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn stored(row: &Row<'_>) -> Result<Stored, rusqlite::Error> {
    let content = Content {
        category: row.get(3)?,
        priority: Priority::new(row.get(4)?).unwrap_or_default(),
        title: row.get(5)?,
        body: row.get(6)?,
        data: row.get(7)?,
        icon: row.get(8)?,
        click: row.get(9)?,
        actions: actions(row.get_ref(10)?.as_str_or_null()?),
        sender: row.get(11)?,
        ..Content::default()
    };
    let notification = Notification {
        seq: row.get(0)?,
        id: row.get(1)?,
        topic: row.get(2)?,
        content: Arc::new(content),
        created_at: row.get(12)?,
    };
    let category = row.get(14)?;
    Ok(Stored {
        notification,
        source: source(row.get(13)?, category),
        category,
        died: row.get(15)?,
        worded: row.get(16)?,
    })
}

/// Where a notification stands, and whether it is alive.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) seq: Seq,
    pub(super) id: NotificationId,
    pub(super) source: SourceKey,
    pub(super) category_key: i64,
    pub(super) category: Category,
    pub(super) topic: Option<TopicName>,
    pub(super) collapse: Option<String>,
    pub(super) death: Option<(Seq, Death)>,
    /// Whether it goes by other media than the inbox too.
    pub(super) carried: bool,
}

/// The notification with this id; none of a topic that was deleted.
pub(super) fn locate(connection: &Connection, id: NotificationId) -> Result<Option<Located>, rusqlite::Error> {
    connection.prepare_cached(LOCATE)?.query_row([id], located).optional()
}

/// The notification at this position; none of a topic that was deleted.
pub(super) fn locate_at(connection: &Connection, seq: Seq) -> Result<Option<Located>, rusqlite::Error> {
    connection.prepare_cached(LOCATE_AT)?.query_row([seq], located).optional()
}

fn located(row: &Row<'_>) -> Result<Located, rusqlite::Error> {
    let category_key = row.get(3)?;
    let death = match (row.get(7)?, row.get(8)?) {
        (Some(died), Some(kind)) => Some((died, deaths::from_columns(kind, row.get(9)?))),
        _ => None,
    };
    Ok(Located {
        seq: row.get(0)?,
        id: row.get(1)?,
        source: source(row.get(2)?, category_key),
        category_key,
        category: row.get(4)?,
        topic: row.get(5)?,
        collapse: row.get(6)?,
        death,
        carried: row.get(10)?,
    })
}

pub(super) const fn source(topic: Option<TopicKey>, category: i64) -> SourceKey {
    match topic {
        Some(key) => SourceKey::topic(key),
        None => SourceKey::direct(category),
    }
}

/// Whether this user has the notification directly, and alive.
pub(super) fn has_entry(
    connection: &Connection,
    user: UserKey,
    source: SourceKey,
    seq: Seq,
) -> Result<bool, rusqlite::Error> {
    connection.prepare_cached(ENTRY_EXISTS)?.exists(params![user, source, seq])
}

//! What templates say by a medium, in each language they have. Rendered once, when it is published.
//!
//! Rows hang on the notification's id and go with it by triggers of the schema, as `wordings` do.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::writer::Tx;
use crate::model::{Form, Letter, Locale, Medium, NotificationId, Via};

const INSERT_LETTER: &str = "
    INSERT INTO letters (notification, medium, locale, fallback, subject, text, html, click)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
const SELECT_LETTER: &str = "
    SELECT subject, text, html, click, locale FROM letters WHERE notification = ?1 AND medium = ?2 AND locale = ?3";
const SELECT_FALLBACK: &str = "
    SELECT subject, text, html, click, locale FROM letters WHERE notification = ?1 AND medium = ?2 AND fallback = 1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT_LETTER, SELECT_LETTER, SELECT_FALLBACK];

/// Writes them, where there are any.
pub(super) fn keep(tx: &Tx<'_>, id: NotificationId, via: &Via) -> Result<(), rusqlite::Error> {
    for lettering in via.letters.iter() {
        let Letter { subject, text, html, click, .. } = &lettering.letter;
        let fallback = lettering.locale == via.default_locale;
        tx.sql(INSERT_LETTER)?.execute(params![
            id,
            lettering.medium,
            lettering.locale,
            fallback,
            subject,
            text,
            html,
            click
        ])?;
    }
    Ok(())
}

/// What its template says by a medium to a reader with these languages, the best first, and in which language that is; `None`
/// where it says nothing of its own by it.
pub(super) fn find(
    connection: &Connection,
    id: NotificationId,
    medium: Medium,
    chain: &[Locale],
) -> Result<Option<(Letter, Locale)>, rusqlite::Error> {
    let letter = |row: &Row<'_>| {
        let form = if medium == Medium::DingTalk { Form::Markdown } else { Form::Plain };
        let letter = Letter { subject: row.get(0)?, text: row.get(1)?, form, html: row.get(2)?, click: row.get(3)? };
        Ok((letter, row.get(4)?))
    };
    let mut statement = connection.prepare_cached(SELECT_LETTER)?;
    for locale in chain {
        let found = statement.query_row(params![id, medium, locale], letter).optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    connection.prepare_cached(SELECT_FALLBACK)?.query_row(params![id, medium], letter).optional()
}

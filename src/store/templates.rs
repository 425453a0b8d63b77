//! Templates and their versions. What a version says is text to the store; that it can be read was checked before.

use rusqlite::{OptionalExtension, Row, params};

use super::reader::Reader;
use super::writer::{OpError, Operation, Tx};
use super::{Refusal, StoreError};
use crate::model::{TemplateName, Timestamp};

const COUNT_TEMPLATES: &str = "SELECT count(*) FROM templates";
const SELECT_TEMPLATE: &str = "SELECT published, newest FROM templates WHERE name = ?1";
const INSERT_TEMPLATE: &str = "INSERT INTO templates (name, newest, created_at) VALUES (?1, 0, ?2)";
const SET_NEWEST: &str = "UPDATE templates SET newest = ?2 WHERE name = ?1";
const SET_PUBLISHED: &str = "UPDATE templates SET published = ?2 WHERE name = ?1";
const DELETE_TEMPLATE: &str = "DELETE FROM templates WHERE name = ?1";
const FIND_CONTENT: &str = "SELECT version FROM template_versions WHERE name = ?1 AND hash = ?2";
const INSERT_VERSION: &str = "
    INSERT INTO template_versions (name, version, hash, definition, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const COUNT_VERSIONS: &str = "SELECT count(*) FROM template_versions WHERE name = ?1";
const DELETE_OLDEST: &str = "
    DELETE FROM template_versions WHERE name = ?1 AND version =
        (SELECT min(version) FROM template_versions WHERE name = ?1 AND version IS NOT ?2)";
const DELETE_VERSIONS: &str = "DELETE FROM template_versions WHERE name = ?1";
const SELECT_VERSION: &str = "
    SELECT t.name, v.version, t.published, v.created_at, v.hash, v.definition
    FROM templates t JOIN template_versions v ON v.name = t.name AND v.version = ?2 WHERE t.name = ?1";
const SELECT_PUBLISHED: &str = "
    SELECT t.name, v.version, t.published, v.created_at, v.hash, v.definition
    FROM templates t JOIN template_versions v ON v.name = t.name AND v.version = t.published WHERE t.name = ?1";
const SELECT_NEWEST: &str = "
    SELECT t.name, v.version, t.published, v.created_at, v.hash, v.definition
    FROM templates t JOIN template_versions v ON v.name = t.name AND v.version = t.newest WHERE t.name = ?1";
const SELECT_PAGE: &str = "
    SELECT t.name, t.newest, t.published, v.created_at
    FROM templates t JOIN template_versions v ON v.name = t.name AND v.version = t.newest
    WHERE t.name > ?1 ORDER BY t.name LIMIT ?2";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    COUNT_TEMPLATES,
    SELECT_TEMPLATE,
    INSERT_TEMPLATE,
    SET_NEWEST,
    SET_PUBLISHED,
    DELETE_TEMPLATE,
    FIND_CONTENT,
    INSERT_VERSION,
    COUNT_VERSIONS,
    DELETE_OLDEST,
    DELETE_VERSIONS,
    SELECT_VERSION,
    SELECT_PUBLISHED,
    SELECT_NEWEST,
    SELECT_PAGE,
];

/// Templates that a database may hold.
pub const MAX_TEMPLATES: u64 = 1_000;
/// Versions of one template that are kept: of more, the oldest that is not published goes.
pub const MAX_TEMPLATE_VERSIONS: u64 = 100;

/// A version, without what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRow {
    pub name: TemplateName,
    pub version: u32,
    /// The version that publishes get.
    pub published: Option<u32>,
    pub created_at: Timestamp,
}

/// A version, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVersion {
    pub row: TemplateRow,
    /// SHA-256 of the definition.
    pub hash: [u8; 32],
    pub definition: String,
}

/// Which version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Published,
    Newest,
    Version(u32),
}

/// Registers a version. The same content again is the version that it was.
#[derive(Clone, Debug)]
pub struct PutTemplate {
    pub name: TemplateName,
    pub hash: [u8; 32],
    pub definition: String,
    pub now: Timestamp,
}

/// Whether a version was made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    Now,
    Before,
}

impl Operation for PutTemplate {
    type Output = (TemplateRow, Registered);

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Output, OpError> {
        let row =
            |version, published| TemplateRow { name: self.name.clone(), version, published, created_at: self.now };
        let found: Option<(Option<u32>, u32)> =
            tx.sql(SELECT_TEMPLATE)?.query_row([&self.name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (published, newest) = match found {
            Some(found) => found,
            None => {
                let count: u64 = tx.sql(COUNT_TEMPLATES)?.query_row([], |row| row.get(0))?;
                if count >= MAX_TEMPLATES {
                    return Err(Refusal::TooManyTemplates.into());
                }
                tx.sql(INSERT_TEMPLATE)?.execute(params![self.name, self.now])?;
                (None, 0)
            }
        };
        let same = params![self.name, self.hash];
        if let Some(version) = tx.sql(FIND_CONTENT)?.query_row(same, |row| row.get(0)).optional()? {
            return Ok((row(version, published), Registered::Before));
        }
        let version = newest + 1;
        tx.sql(INSERT_VERSION)?.execute(params![self.name, version, self.hash, self.definition, self.now])?;
        tx.sql(SET_NEWEST)?.execute(params![self.name, version])?;
        let kept: u64 = tx.sql(COUNT_VERSIONS)?.query_row([&self.name], |row| row.get(0))?;
        if kept > MAX_TEMPLATE_VERSIONS {
            tx.sql(DELETE_OLDEST)?.execute(params![self.name, published])?;
        }
        Ok((row(version, published), Registered::Now))
    }
}

/// Lets publishes get a version.
#[derive(Clone, Debug)]
pub struct PublishTemplate {
    pub name: TemplateName,
    /// `None` is the newest.
    pub version: Option<u32>,
}

impl Operation for PublishTemplate {
    type Output = TemplateRow;

    fn apply(&self, tx: &mut Tx<'_>) -> Result<TemplateRow, OpError> {
        let found = match self.version {
            Some(version) => tx.sql(SELECT_VERSION)?.query_row(params![self.name, version], row).optional()?,
            None => tx.sql(SELECT_NEWEST)?.query_row([&self.name], row).optional()?,
        };
        let Some(found) = found else { return Err(Refusal::NotFound("version of a template").into()) };
        tx.sql(SET_PUBLISHED)?.execute(params![self.name, found.version])?;
        Ok(TemplateRow { published: Some(found.version), ..found })
    }
}

/// Removes a template with all its versions. What was sent by it stays.
#[derive(Clone, Debug)]
pub struct DeleteTemplate {
    pub name: TemplateName,
}

impl Operation for DeleteTemplate {
    type Output = ();

    fn apply(&self, tx: &mut Tx<'_>) -> Result<(), OpError> {
        if !tx.sql(SELECT_TEMPLATE)?.exists([&self.name])? {
            return Err(Refusal::NotFound("template").into());
        }
        tx.sql(DELETE_VERSIONS)?.execute([&self.name])?;
        tx.sql(DELETE_TEMPLATE)?.execute([&self.name])?;
        Ok(())
    }
}

fn row(row: &Row<'_>) -> Result<TemplateRow, rusqlite::Error> {
    Ok(TemplateRow { name: row.get(0)?, version: row.get(1)?, published: row.get(2)?, created_at: row.get(3)? })
}

impl Reader<'_> {
    /// A version of a template.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn template(&self, name: &TemplateName, which: Which) -> Result<Option<TemplateVersion>, StoreError> {
        let whole = |r: &Row<'_>| Ok(TemplateVersion { row: row(r)?, hash: r.get(4)?, definition: r.get(5)? });
        Ok(match which {
            Which::Published => self.sql(SELECT_PUBLISHED)?.query_row([name], whole),
            Which::Newest => self.sql(SELECT_NEWEST)?.query_row([name], whole),
            Which::Version(version) => self.sql(SELECT_VERSION)?.query_row(params![name, version], whole),
        }
        .optional()?)
    }

    /// The newest versions of templates after a name, in order of their names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn templates(&self, after: &str, limit: usize) -> Result<Vec<TemplateRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(self.sql(SELECT_PAGE)?.query_map(params![after, limit], row)?.collect::<Result<_, _>>()?)
    }
}

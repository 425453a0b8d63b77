//! How model types stand in SQLite's columns.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};
use uuid::Uuid;

use crate::model::{
    About, AttemptOutcome, Bulk, Category, DeliveryId, DeliveryState, DingTalkId, Email, FollowRule, InvalidName,
    KeyId, Locale, MarkKind, Medium, NotificationId, Principal, Seq, SourceKey, TemplateName, TimeZone, Timestamp,
    TopicKey, TopicName, UsedTemplate, UserId, UserKey, Wish,
};

impl ToSql for Seq {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // A position beyond SQLite's integers is ahead of every head, and so is the largest integer.
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Seq {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

macro_rules! key {
    ($name:ident, $into:expr, $from:expr) => {
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                let into: fn(&Self) -> i64 = $into;
                Ok(into(self).into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let from: fn(i64) -> Self = $from;
                value.as_i64().map(from)
            }
        }
    };
}

key!(UserKey, |key| key.0, UserKey);
key!(TopicKey, |key| key.0, TopicKey);
key!(SourceKey, |key| key.as_i64(), SourceKey::from_i64);
key!(Timestamp, |at| at.as_millis(), Timestamp::from_millis);

impl ToSql for NotificationId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
    }
}

impl FromSql for NotificationId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Uuid::from_slice(value.as_blob()?).map(Self).map_err(|e| FromSqlError::Other(Box::new(e)))
    }
}

impl ToSql for MarkKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Seen => 1,
            Self::Read => 2,
            Self::Archived => 3,
        }
        .into())
    }
}

impl FromSql for MarkKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            1 => Ok(Self::Seen),
            2 => Ok(Self::Read),
            3 => Ok(Self::Archived),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

impl ToSql for Medium {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Email => 1,
            Self::DingTalk => 2,
            Self::Webhook => 3,
        }
        .into())
    }
}

impl FromSql for Medium {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            1 => Ok(Self::Email),
            2 => Ok(Self::DingTalk),
            3 => Ok(Self::Webhook),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

impl ToSql for DeliveryId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for DeliveryId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

impl ToSql for Bulk {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self == Self::Bulk).into())
    }
}

impl FromSql for Bulk {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::Personal),
            1 => Ok(Self::Bulk),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// Numbers a closed set from 1, in the order of its `ALL`.
macro_rules! numbered {
    ($name:ident) => {
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                let place = Self::ALL.iter().position(|one| one == self).unwrap_or_default();
                Ok((i64::try_from(place).unwrap_or_default() + 1).into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let number = value.as_i64()?;
                let place = usize::try_from(number - 1).ok().and_then(|place| Self::ALL.get(place));
                place.copied().ok_or(FromSqlError::OutOfRange(number))
            }
        }
    };
}

numbered!(DeliveryState);
numbered!(AttemptOutcome);

/// Media as bits of one column.
pub(super) struct AsMedia<'m>(pub(super) &'m [Medium]);

impl AsMedia<'_> {
    const fn bit(medium: Medium) -> i64 {
        match medium {
            Medium::Email => 1,
            Medium::DingTalk => 2,
            Medium::Webhook => 4,
        }
    }

    /// Reads what [`AsMedia`] wrote.
    pub(super) fn read(bits: i64) -> Vec<Medium> {
        Medium::ALL.into_iter().filter(|medium| bits & Self::bit(*medium) != 0).collect()
    }
}

impl ToSql for AsMedia<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.iter().fold(0, |bits, medium| bits | Self::bit(*medium)).into())
    }
}

impl ToSql for Wish {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self == Self::Wanted).into())
    }
}

impl FromSql for Wish {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::Unwanted),
            1 => Ok(Self::Wanted),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

impl FromSql for About {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or_else(|| FromSqlError::Other(Box::new(InvalidName::Category)))
    }
}

impl ToSql for TimeZone {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for TimeZone {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(Self::stored)
    }
}

impl ToSql for FollowRule {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Managed => 0,
            Self::Open => 1,
        }
        .into())
    }
}

impl FromSql for FollowRule {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Self::Managed),
            1 => Ok(Self::Open),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

macro_rules! name {
    ($name:ident) => {
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::new(value.as_str()?).map_err(|e| FromSqlError::Other(Box::new(e)))
            }
        }
    };
}

name!(UserId);
name!(TopicName);
name!(Category);
name!(Email);
name!(TemplateName);
name!(DingTalkId);
name!(Locale);

/// The template that stands in two columns: its name, and its version.
pub(super) fn used_template(
    row: &Row<'_>,
    name: usize,
    version: usize,
) -> Result<Option<UsedTemplate>, rusqlite::Error> {
    let (name, version): (Option<TemplateName>, _) = (row.get(name)?, row.get(version)?);
    Ok(name.map(|name| UsedTemplate { name, version }))
}

/// A principal as two columns: its kind, and its name.
pub(super) struct AsPublisher(pub(super) u8, pub(super) String);

impl AsPublisher {
    pub(super) fn of(principal: &Principal) -> Self {
        match principal {
            Principal::User(user) => Self(1, user.as_str().to_owned()),
            Principal::Key(key) => Self(2, key.0.to_string()),
            Principal::Operator => Self(3, String::new()),
        }
    }

    /// Reads what [`AsPublisher::of`] wrote. A name that is none any more is nobody's: the operator answers for it.
    pub(super) fn principal(self) -> Principal {
        match self {
            Self(1, name) => UserId::new(&name).map_or(Principal::Operator, Principal::User),
            Self(2, id) => Principal::Key(KeyId(id.into())),
            _ => Principal::Operator,
        }
    }
}

//! Profiles: who people are to those who reach them, and by which media they want to be reached.
//!
//! They are read in batches ([`Reader::profiles`]), since a publish asks for all it reaches. A profile hangs on the user's
//! number, so whoever gets one has appeared.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::commit::Change;
use super::reader::Reader;
use super::writer::{OpError, Operation, Tx};
use super::{Refusal, StoreError, Unknown, users};
use crate::model::{
    About, Locale, MAX_PREFERRED_CATEGORIES, Medium, Preferences, Profile, ProfileEdit, Timestamp, UserId, UserKey,
    Wish,
};

const SELECT_PROFILE: &str = "SELECT name, email, locale, time_zone, dingtalk FROM profiles WHERE user = ?1";
const SELECT_LOCALE: &str = "SELECT locale FROM profiles WHERE user = ?1";
const PUT_PROFILE: &str = "
    INSERT INTO profiles (user, name, email, locale, time_zone, dingtalk, changed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET name = excluded.name, email = excluded.email, locale = excluded.locale,
        time_zone = excluded.time_zone, dingtalk = excluded.dingtalk, changed_at = excluded.changed_at";
const SELECT_PREFERENCES: &str = "SELECT category, medium, wanted FROM preferences WHERE user = ?1";
const SELECT_WISHES: &str = "
    SELECT category, wanted FROM preferences WHERE user = ?1 AND category IN (?2, '*') AND medium = ?3";
const INSERT_PREFERENCE: &str = "INSERT INTO preferences (user, category, medium, wanted) VALUES (?1, ?2, ?3, ?4)";
pub(super) const DELETE_PREFERENCES: &str = "DELETE FROM preferences WHERE user = ?1";
pub(super) const DELETE_PROFILE: &str = "DELETE FROM profiles WHERE user = ?1";

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    SELECT_PROFILE,
    SELECT_LOCALE,
    PUT_PROFILE,
    SELECT_PREFERENCES,
    SELECT_WISHES,
    INSERT_PREFERENCE,
    DELETE_PREFERENCES,
    DELETE_PROFILE,
];

/// Changes a user's profile.
#[derive(Clone, Debug)]
pub struct PutProfile {
    pub user: UserId,
    pub edit: ProfileEdit,
    /// Whether someone new appears with it. Where not, it is looked at here and nowhere before: an erasure that was asked for
    /// first has been done by then.
    pub unknown: Unknown,
    pub now: Timestamp,
    /// How far back `everyone` reaches for someone new.
    pub everyone_horizon: Duration,
}

/// Whether a user was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    New,
    Known,
}

impl Operation for PutProfile {
    /// The profile as it is now.
    type Output = (Profile, Acquaintance);

    fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Output, OpError> {
        let found = users::find(tx, &self.user)?;
        if found.is_none() && self.unknown == Unknown::Refuse {
            return Err(Refusal::NotFound("user").into());
        }
        let before = found.map(|user| load(tx.connection(), user)).transpose()?.unwrap_or_default();
        let mut profile = before.clone();
        self.edit.apply(&mut profile);
        if profile.preferences.categories().count() > MAX_PREFERRED_CATEGORIES {
            return Err(Refusal::TooManyPreferences.into());
        }
        let user = match found {
            Some(user) => user,
            None => users::find_or_add(tx, &self.user, self.now, self.everyone_horizon)?,
        };
        if profile != before {
            let Profile { name, email, locale, time_zone, dingtalk, preferences } = &profile;
            tx.sql(PUT_PROFILE)?.execute(params![user, name, email, locale, time_zone, dingtalk, self.now])?;
            if *locale != before.locale {
                tx.change(Change::Listens { user, locale: locale.clone() });
            }
            if *preferences != before.preferences {
                put_preferences(tx, user, preferences)?;
            }
        }
        Ok((profile, if found.is_some() { Acquaintance::Known } else { Acquaintance::New }))
    }
}

fn put_preferences(tx: &Tx<'_>, user: UserKey, preferences: &Preferences) -> Result<(), rusqlite::Error> {
    tx.sql(DELETE_PREFERENCES)?.execute([user])?;
    let mut insert = tx.sql(INSERT_PREFERENCE)?;
    for (about, media) in preferences.iter() {
        for (medium, wish) in media {
            insert.execute(params![user, about.as_str(), medium, wish])?;
        }
    }
    Ok(())
}

/// A user's profile; an empty one for whoever has none.
pub(super) fn load(connection: &Connection, user: UserKey) -> Result<Profile, rusqlite::Error> {
    let row = connection.prepare_cached(SELECT_PROFILE)?.query_row([user], profile).optional()?;
    let Some(mut profile) = row else { return Ok(Profile::default()) };
    let mut statement = connection.prepare_cached(SELECT_PREFERENCES)?;
    let mut rows = statement.query([user])?;
    while let Some(row) = rows.next()? {
        profile.preferences.set(row.get(0)?, row.get(1)?, Some(row.get(2)?));
    }
    Ok(profile)
}

fn profile(row: &Row<'_>) -> Result<Profile, rusqlite::Error> {
    Ok(Profile {
        name: row.get(0)?,
        email: row.get(1)?,
        locale: row.get(2)?,
        time_zone: row.get(3)?,
        dingtalk: row.get(4)?,
        preferences: Preferences::default(),
    })
}

/// What the user has said about a category and a medium, else about every category; `default` where nothing.
pub(super) fn wants(
    connection: &Connection,
    user: UserKey,
    category: &str,
    medium: Medium,
    default: Wish,
) -> Result<Wish, rusqlite::Error> {
    let mut statement = connection.prepare_cached(SELECT_WISHES)?;
    let mut rows = statement.query(params![user, category, medium])?;
    let mut wish = default;
    while let Some(row) = rows.next()? {
        match row.get(0)? {
            About::Category(_) => return row.get(1),
            About::Every => wish = row.get(1)?,
        }
    }
    Ok(wish)
}

impl Reader<'_> {
    /// A user's profile; an empty one for whoever has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn profile(&self, user: UserKey) -> Result<Profile, StoreError> {
        Ok(load(self.connection(), user)?)
    }

    /// The users' profiles, in the same order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn profiles(&self, users: &[UserKey]) -> Result<Vec<Profile>, StoreError> {
        Ok(users.iter().map(|user| load(self.connection(), *user)).collect::<Result<_, _>>()?)
    }

    /// The language that a user has chosen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn locale(&self, user: UserKey) -> Result<Option<Locale>, StoreError> {
        Ok(self.sql(SELECT_LOCALE)?.query_row([user], |row| row.get(0)).optional()?.flatten())
    }

    /// Whether a user wants to be reached by a medium about a category; `default` where they have not said.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn wants(&self, user: UserKey, category: &str, medium: Medium, default: Wish) -> Result<Wish, StoreError> {
        Ok(wants(self.connection(), user, category, medium, default)?)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::model::{Category, PreferenceEdit};
    use crate::store::{Appear, ForgetUser, Forgotten, Store, scratch};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const DAY: Duration = Duration::from_hours(24);

    /// What a link in a mail asks for, or a backend, which may name whom it likes.
    fn no_mail(user: &UserId, unknown: Unknown) -> PutProfile {
        let about = About::Category(Category::new("loans").expect("a category"));
        let say = PreferenceEdit::Say(about, Medium::Email, Some(Wish::Unwanted));
        let edit = ProfileEdit { preferences: vec![say], ..ProfileEdit::default() };
        PutProfile { user: user.clone(), edit, unknown, now: NOW, everyone_horizon: DAY }
    }

    #[tokio::test]
    async fn an_erasure_that_comes_before_a_click_on_a_link_is_not_undone_by_it() {
        let (store, _lifecycle, _directory) = scratch::open(NOW).await;
        let user = UserId::new("alice").expect("a user");
        let known = async |store: &Store| {
            let user = user.clone();
            let read = store.read(move |session| session.snapshot(|reader| reader.user(&user)));
            read.await.expect("it can be read").is_some()
        };
        let appear = Appear { user: user.clone(), now: NOW, everyone_horizon: DAY };
        store.write(appear).await.expect("a user may appear");
        let (said, acquaintance) = store.write(no_mail(&user, Unknown::Refuse)).await.expect("she is known");
        assert_eq!((said.preferences.categories().count(), acquaintance), (1, Acquaintance::Known));

        // Both are on their way at once, and the erasure is the first: whoever has looked before saw her still there.
        assert!(known(&store).await);
        let (erased, clicked) =
            tokio::join!(store.write(ForgetUser { user: user.clone() }), store.write(no_mail(&user, Unknown::Refuse)));
        assert!(matches!(erased, Ok(Forgotten::All(Some(_)))), "{erased:?}");
        assert!(matches!(clicked, Err(StoreError::Refused(Refusal::NotFound("user")))), "{clicked:?}");
        assert!(!known(&store).await, "she stays erased");

        // A backend may name her again, as it may name anybody: then she is someone new, of whom nothing is left.
        let (said, acquaintance) = store.write(no_mail(&user, Unknown::Create)).await.expect("anybody may be named");
        assert_eq!((said.preferences.categories().count(), acquaintance), (1, Acquaintance::New));
        assert!(known(&store).await);
    }
}

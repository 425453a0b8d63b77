//! A delivery: one notification on its way to one person by one medium, besides the inbox.

use std::fmt;

use super::{Category, Locale, Medium, NotificationId, Timestamp, UserId};

/// The number of a delivery. It is never given again, not even after an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub u64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a notification went to one person or to many, which the rules of mail treat apart (RFC 8058).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    Personal,
    Bulk,
}

/// How the text of a letter is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As it is: a medium that has markup of its own must escape it.
    #[default]
    Plain,
    /// Markdown that a template made for this medium, its values escaped already.
    Markdown,
}

/// What a medium says, in the reader's language.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    /// The subject of a mail, the title of a message: one line without control characters.
    pub subject: String,
    pub text: String,
    /// What `text` is; the subject is plain always.
    pub form: Form,
    /// The same as HTML, where a template has it.
    pub html: Option<String>,
    /// Where the notification leads, where it leads anywhere.
    pub click: Option<String>,
}

/// A delivery as it is handed to whoever carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    pub delivery: DeliveryId,
    pub medium: Medium,
    /// Where it goes: a mail address, a DingTalk user's id. Fixed when it was published.
    pub address: String,
    /// What parcels share that one destination takes after another: the domain of a mail address, the name of a robot.
    pub lane: String,
    /// The same at each attempt, on every run of the server.
    pub message_id: String,
    /// The how-manieth attempt this is, from 1.
    pub attempt: u32,
    pub notification: NotificationId,
    pub user: UserId,
    pub category: Category,
    /// The reader's, where they have said one.
    pub locale: Option<Locale>,
    pub published_at: Timestamp,
    pub bulk: Bulk,
    pub letter: Letter,
}

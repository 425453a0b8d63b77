//! A delivery: one notification on its way to one person by one medium, besides the inbox.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Category, Locale, Medium, NotificationId, Robots, Timestamp, UsedTemplate, UserId, Wish};

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
    /// The language of `letter`, where it is known: what a publisher wrote without a template has none that anybody said.
    pub written_in: Option<Locale>,
    pub published_at: Timestamp,
    pub bulk: Bulk,
    pub letter: Letter,
}

/// What became of a parcel, as whoever carried it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side took it, in these words.
    Sent { answer: String },
    /// It may be taken later; `after` is what the other side asked for.
    Later { reason: String, after: Option<Duration> },
    /// It will never be taken.
    Never { reason: String },
    /// It was not tried, for a reason that is none of its own: its turn has not come. Its lane is left alone for `after`.
    NotTried { why: String, after: Duration },
    /// It was not tried, and no other would have passed: what is set up is wrong, or the other side is away. `remedy` says
    /// what to do about it, to whoever set it up.
    Held { why: String, remedy: &'static str },
}

/// What a template says by one medium in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lettering {
    pub medium: Medium,
    pub locale: Locale,
    pub letter: Letter,
}

/// What a publish asks for besides the inbox. The default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// Each once.
    pub media: Vec<Medium>,
    /// By which it was published.
    pub template: Option<UsedTemplate>,
    /// What the template says by these media, where it says something of its own.
    pub letters: Arc<[Lettering]>,
    /// The language of readers for whom there is no better one.
    pub default_locale: Locale,
}

/// Where a delivery is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// It waits for its time, or for its turn.
    Pending,
    /// An attempt is being made.
    Leased,
    /// The other side has taken it.
    Sent,
    /// It is not tried again by itself.
    Dead,
    /// What it was about is gone, or the person wants it no more.
    Cancelled,
    /// It was never to be tried: no address, or no wish.
    Skipped,
}

impl DeliveryState {
    pub const ALL: [Self; 6] = [Self::Pending, Self::Leased, Self::Sent, Self::Dead, Self::Cancelled, Self::Skipped];
    /// Their names, for people.
    pub const NAMES: &str = "pending, leased, sent, dead, cancelled, skipped";

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Sent => "sent",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Reads what [`DeliveryState::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Sent,
    Later,
    Never,
    /// The server ended before an answer came.
    Unknown,
}

impl AttemptOutcome {
    pub const ALL: [Self; 4] = [Self::Sent, Self::Later, Self::Never, Self::Unknown];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Later => "later",
            Self::Never => "never",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether a person listens to the topic that something came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    Listens,
    HasMuted,
}

/// [`Skip::HasMuted`] for people, as a delivery keeps it.
pub const MUTED: &str = "has muted the topic";

/// Why a medium is not tried for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    HasMuted,
    Unwanted,
    NoAddress,
    NotSetUp,
    /// The medium is set up, but not for what is about this category.
    NotAbout,
}

impl Skip {
    pub const ALL: [Self; 5] = [Self::HasMuted, Self::Unwanted, Self::NoAddress, Self::NotSetUp, Self::NotAbout];

    /// The same for people, as a delivery keeps it.
    pub fn reason(self, medium: Medium, category: &Category) -> String {
        let name = medium.as_str();
        match self {
            Self::HasMuted => MUTED.to_owned(),
            Self::Unwanted => format!("does not want {name} about {category}"),
            Self::NoAddress => format!("no {name} address is known"),
            Self::NotSetUp => format!("{name} is not set up here"),
            Self::NotAbout => format!("nothing is set up that tells {category} by {name}"),
        }
    }
}

/// Which media are set up, and by which lane a delivery goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    pub email: Option<Mail>,
    pub dingtalk: Option<Robots>,
}

/// Mail that is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The domain that mail comes from.
    pub domain: String,
}

impl Media {
    /// Media that can be asked for, set up or not.
    pub const KNOWN: [Medium; 2] = [Medium::Email, Medium::DingTalk];

    pub const fn has(&self, medium: Medium) -> bool {
        match medium {
            Medium::Email => self.email.is_some(),
            Medium::DingTalk => self.dingtalk.is_some(),
            Medium::Webhook => false,
        }
    }

    /// The setting that sets a medium up.
    pub const fn setting(medium: Medium) -> &'static str {
        match medium {
            Medium::Email => "[email] url",
            Medium::DingTalk => "[dingtalk.robots.NAME] url_file",
            Medium::Webhook => "none yet",
        }
    }

    /// The lane by which something about a category goes to somebody, or why it does not go: the one place where that is
    /// judged.
    ///
    /// # Errors
    /// The first [`Skip`] that holds.
    pub fn judge(
        &self,
        medium: Medium,
        category: &Category,
        hearing: Hearing,
        wish: Wish,
        address: Option<&str>,
    ) -> Result<String, Skip> {
        if hearing == Hearing::HasMuted {
            return Err(Skip::HasMuted);
        }
        if wish == Wish::Unwanted {
            return Err(Skip::Unwanted);
        }
        let address = address.ok_or(Skip::NoAddress)?;
        let none = if self.has(medium) { Skip::NotAbout } else { Skip::NotSetUp };
        self.lane(medium, category, address).ok_or(none)
    }

    /// The lane of an address about a category. `None` where nothing carries it.
    pub fn lane(&self, medium: Medium, category: &Category, address: &str) -> Option<String> {
        match medium {
            Medium::Email => {
                self.email.as_ref()?;
                address.rsplit_once('@').map(|(_, domain)| domain.to_lowercase())
            }
            Medium::DingTalk => self.dingtalk.as_ref()?.robot_for(category).map(str::to_owned),
            Medium::Webhook => None,
        }
    }

    /// Whether anything carries what goes by a lane.
    pub fn has_lane(&self, medium: Medium, lane: &str) -> bool {
        match medium {
            Medium::Email => self.email.is_some(),
            Medium::DingTalk => self.dingtalk.as_ref().is_some_and(|robots| robots.has(lane)),
            Medium::Webhook => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RobotName;
    use super::*;

    fn category(name: &str) -> Category {
        Category::new(name).expect("a category")
    }

    #[test]
    fn a_lane_is_what_one_destination_takes() {
        let name = |name: &str| RobotName::new(name).expect("a name");
        let mut robots = Robots::default();
        assert_eq!(robots.add(&name("desk"), &[category("loans")]), Ok(()));
        let few = robots.clone();
        assert_eq!(robots.add(&name("all"), &[]), Ok(()));
        let media = Media { email: Some(Mail { domain: "a.example".to_owned() }), dingtalk: Some(robots) };
        let lane = |medium, about: &str, address: &str| media.lane(medium, &category(about), address);
        assert_eq!(lane(Medium::Email, "loans", "\"a@b\"@Mail.Example").as_deref(), Some("mail.example"));
        assert_eq!(lane(Medium::DingTalk, "loans", "u1").as_deref(), Some("desk"));
        assert_eq!(lane(Medium::DingTalk, "ops", "u1").as_deref(), Some("all"));
        assert_eq!(lane(Medium::Webhook, "ops", "u1"), None);
        assert_eq!(Media::default().lane(Medium::Email, &category("ops"), "a@b.example"), None);
        assert_eq!(few.robot_for(&category("ops")), None);
        let has = |media: &Media, lane: &str| media.has_lane(Medium::DingTalk, lane);
        assert!(has(&media, "desk") && has(&media, "all") && !has(&media, "front"));
        assert!(media.has_lane(Medium::Email, "any.example") && !has(&Media::default(), "desk"));
    }

    #[test]
    fn the_first_reason_not_to_try_is_told() {
        let mut robots = Robots::default();
        assert_eq!(robots.add(&RobotName::new("desk").expect("a name"), &[category("loans")]), Ok(()));
        let media = Media { email: None, dingtalk: Some(robots) };
        let judge = |medium, about: &str, hearing, wish, address| {
            media
                .judge(medium, &category(about), hearing, wish, address)
                .map_err(|skip| skip.reason(medium, &category(about)))
        };
        let (listens, wanted, unwanted) = (Hearing::Listens, Wish::Wanted, Wish::Unwanted);
        assert_eq!(judge(Medium::DingTalk, "loans", listens, wanted, Some("u1")).as_deref(), Ok("desk"));
        for (told, why) in [
            (judge(Medium::DingTalk, "loans", Hearing::HasMuted, unwanted, None), "has muted the topic"),
            (judge(Medium::DingTalk, "loans", listens, unwanted, None), "does not want dingtalk about loans"),
            (judge(Medium::DingTalk, "loans", listens, wanted, None), "no dingtalk address is known"),
            (judge(Medium::Email, "loans", listens, wanted, Some("a@b.example")), "email is not set up here"),
            (
                judge(Medium::DingTalk, "ops", listens, wanted, Some("u1")),
                "nothing is set up that tells ops by dingtalk",
            ),
        ] {
            assert_eq!(told, Err(why.to_owned()));
        }
    }

    #[test]
    fn states_are_read_as_they_are_written() {
        for state in DeliveryState::ALL {
            assert_eq!(DeliveryState::parse(state.as_str()), Some(state));
            assert!(DeliveryState::NAMES.contains(state.as_str()));
        }
        assert_eq!(DeliveryState::parse("Sent"), None);
    }
}

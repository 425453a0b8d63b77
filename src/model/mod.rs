//! The plain types of the domain: valid once made, no I/O, not serialisable (what crosses a socket is `wire`'s).
//!
//! **Invariant**: a value of these types has passed the rules written at its constructor, so no other module
//! checks a topic's alphabet or a title's length again.
//!
//! Rank 0: imports nothing of this crate.

mod address;
mod audience;
mod counts;
mod delivery;
mod identity;
mod life;
mod locale;
mod mark;
mod name;
mod notification;
mod position;
mod profile;
mod robots;
mod template;
mod time;

pub use address::{DingTalkId, Email, InvalidAddress, TimeZone};
pub use audience::{Audience, FollowRule, MAX_RECIPIENTS};
pub use counts::{CategoryCounts, Counts, Tally};
pub use delivery::{
    AttemptOutcome, Bulk, DeliveryId, DeliveryState, Form, Hearing, Letter, Lettering, MUTED, Mail, Media, Outcome,
    Parcel, Skip, Via,
};
pub use identity::{
    Credential, Identity, KeyId, KeyIdentity, Principal, Scope, TemplatePattern, TopicPattern, UserIdentity,
};
pub use life::{CollapseKey, Death, Deliver, Expiry, Life};
pub use locale::{InvalidLocale, Locale};
pub use mark::{Became, EntryState, Mark, MarkAs, MarkKind, MarkTarget, StateChange};
pub use name::{Category, InvalidName, TemplateName, TopicName, UserId};
pub use notification::{
    Action, Content, ContentError, Draft, MAX_ACTIONS, MAX_BODY_CHARS, MAX_DATA_BYTES, MAX_DEPTH, MAX_LABEL_CHARS,
    MAX_LINK_CHARS, MAX_SENDER_CHARS, MAX_TITLE_CHARS, Notification, NotificationId, Priority, click_fault,
};
pub use position::{Cursor, Epoch, Seq, SourceKey, StreamId, TopicKey, UserKey};
pub use profile::{
    About, Edit, MAX_PERSON_NAME_CHARS, MAX_PREFERRED_CATEGORIES, Medium, PreferenceEdit, Preferences, Profile,
    ProfileEdit, Wish, person_name_fault,
};
pub use robots::{Clash, RobotName, Robots};
pub use template::{
    DingTalkText, EmailText, InAppText, MAX_PARAM_CHARS, MAX_PARAM_ITEMS, MAX_TEMPLATE_LOCALES,
    MAX_TEMPLATE_TEXT_BYTES, MAX_TEMPLATE_VARIABLES, Need, Param, Params, Template, TemplateUse, Texts, UsedTemplate,
    Variable, VariableKind, Variables, Wording, Wordings,
};
pub use time::Timestamp;

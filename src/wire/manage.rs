//! Bodies of the resources that backends and operators use: tickets, keys, the demo's sign-in.

use serde::Serialize;

use super::json::{BodyError, Fields};
use crate::model::{KeyId, Scope, Timestamp, UserId};

/// Characters of a key's name at most.
pub const MAX_KEY_NAME: usize = 64;
/// Scopes of a key at most.
pub const MAX_KEY_SCOPES: usize = 32;

/// Reads the body of `POST /v1/tickets`: `{"user"}` by a backend's key, `{}` or nothing by the user.
///
/// # Errors
/// [`BodyError`].
pub fn parse_ticket(body: &[u8]) -> Result<Option<UserId>, BodyError> {
    if body.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields::parse(body)?;
    let user = fields.string("user").map(|user| UserId::new(&user));
    if let Some(Err(e)) = &user {
        fields.refuse("user", e.to_string());
    }
    fields.close(Some(user.and_then(Result::ok)))
}

/// Reads `{"user"}`: the body of a demo's sign-in.
///
/// # Errors
/// [`BodyError`].
pub fn parse_user(body: &[u8]) -> Result<UserId, BodyError> {
    let mut fields = Fields::parse(body)?;
    let user = named_user(&mut fields);
    fields.close(user)
}

/// Takes the field `user`, which must be there.
pub fn named_user(fields: &mut Fields<'_>) -> Option<UserId> {
    let user = fields.string("user");
    match user.as_deref().map(UserId::new) {
        Some(Ok(user)) => Some(user),
        Some(Err(e)) => {
            fields.refuse("user", e.to_string());
            None
        }
        None => {
            fields.refuse("user", "is missing");
            None
        }
    }
}

/// A new API key as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBody {
    pub name: String,
    pub scopes: Vec<Scope>,
}

/// Reads `{"name","scopes"}`.
///
/// # Errors
/// [`BodyError`].
pub fn parse_key(body: &[u8]) -> Result<KeyBody, BodyError> {
    let mut fields = Fields::parse(body)?;
    let name = fields.string("name").unwrap_or_default();
    if name.trim().is_empty() || name.chars().count() > MAX_KEY_NAME || name.chars().any(char::is_control) {
        fields.refuse("name", format!("must be 1 to {MAX_KEY_NAME} characters without control characters"));
    }
    let texts: Vec<String> = fields.read("scopes", "a list of scopes").unwrap_or_default();
    if texts.is_empty() || texts.len() > MAX_KEY_SCOPES {
        fields.refuse("scopes", format!("must name 1 to {MAX_KEY_SCOPES} scopes"));
    }
    let mut scopes = Vec::with_capacity(texts.len().min(MAX_KEY_SCOPES));
    for text in &texts {
        match Scope::parse(text) {
            Some(scope) => scopes.push(scope),
            None => fields.refuse("scopes", format!("`{text}` is no scope; there are {SCOPE_NAMES}")),
        }
    }
    fields.close(Some(KeyBody { name, scopes }))
}

/// The scopes, for people.
pub const SCOPE_NAMES: &str = "publish, publish:topic/<pattern>, tickets, users, templates, templates:<pattern>, admin";

/// A ticket, told once.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub ticket: String,
    pub user: UserId,
    pub use_by: Timestamp,
    pub expires: Timestamp,
}

/// [`Ticket`] as a body.
#[derive(Serialize)]
pub struct TicketBody<'a> {
    ticket: &'a str,
    user: &'a str,
    use_by: String,
    expires: String,
}

impl<'a> From<&'a Ticket> for TicketBody<'a> {
    fn from(ticket: &'a Ticket) -> Self {
        Self {
            ticket: &ticket.ticket,
            user: ticket.user.as_str(),
            use_by: ticket.use_by.to_string(),
            expires: ticket.expires.to_string(),
        }
    }
}

/// The answer to a new token for an open stream.
#[derive(Serialize)]
pub struct RefreshedBody {
    /// When the stream's credential runs out now.
    expires: Option<String>,
}

impl From<Option<Timestamp>> for RefreshedBody {
    fn from(expires: Option<Timestamp>) -> Self {
        Self { expires: expires.map(|at| at.to_string()) }
    }
}

/// An API key as it is listed: never its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    pub id: KeyId,
    pub name: String,
    pub scopes: Vec<Scope>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
    /// Until when the secret before the last rotation is taken.
    pub old_until: Option<Timestamp>,
}

/// [`KeyInfo`] as a body; with the key itself when it was just made.
#[derive(Serialize)]
pub struct KeyInfoBody<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    name: &'a str,
    scopes: Vec<String>,
    created_at: String,
    revoked_at: Option<String>,
    last_used_at: Option<String>,
    old_until: Option<String>,
}

impl<'a> KeyInfoBody<'a> {
    pub fn new(info: &'a KeyInfo, key: Option<&'a str>) -> Self {
        Self {
            id: &info.id.0,
            key,
            name: &info.name,
            scopes: info.scopes.iter().map(Scope::to_string).collect(),
            created_at: info.created_at.to_string(),
            revoked_at: info.revoked_at.map(|at| at.to_string()),
            last_used_at: info.last_used_at.map(|at| at.to_string()),
            old_until: info.old_until.map(|at| at.to_string()),
        }
    }
}

/// `{"keys":[…]}`.
#[derive(Serialize)]
pub struct KeysBody<'a> {
    pub keys: Vec<KeyInfoBody<'a>>,
}

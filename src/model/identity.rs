//! Who is calling, and what they may do. How a credential becomes an identity is `broker::identity`'s.

use std::fmt;
use std::sync::Arc;

use super::{TemplateName, Timestamp, TopicName, UserId};

/// Topics by name: exact, or a beginning followed by one `*` (`orders/*`; `*` is every topic).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicPattern {
    text: Arc<str>,
}

impl TopicPattern {
    /// `None` where the text is neither a topic name nor a beginning of one with `*` at its end.
    pub fn new(text: &str) -> Option<Self> {
        is_pattern(text, |name| TopicName::new(name).is_ok()).then(|| Self { text: text.into() })
    }

    pub fn matches(&self, topic: &TopicName) -> bool {
        covers(&self.text, topic.as_str())
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Templates by name: exact, or a beginning followed by one `*` (`loans-*`; `*` is every template).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplatePattern {
    text: Arc<str>,
}

impl TemplatePattern {
    /// `None` where the text is neither a template's name nor a beginning of one with `*` at its end.
    pub fn new(text: &str) -> Option<Self> {
        is_pattern(text, |name| TemplateName::new(name).is_ok()).then(|| Self { text: text.into() })
    }

    pub fn matches(&self, template: &TemplateName) -> bool {
        covers(&self.text, template.as_str())
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Whether a text is a name, or the beginning of one with `*` behind it.
fn is_pattern(text: &str, is_name: impl Fn(&str) -> bool) -> bool {
    match text.strip_suffix('*') {
        // With something behind, the beginning of a name is one; where it is not, the pattern would match nothing.
        Some(start) => is_name(&format!("{start}x")),
        None => is_name(text),
    }
}

/// Whether a pattern stands for a name.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// What an API key may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Publish to anyone.
    Publish,
    /// Publish to topics that match, written `publish:topic/<pattern>`.
    PublishTopics(TopicPattern),
    /// Mint tickets for any user.
    Tickets,
    /// Read users' counts; manage topics and followers.
    Users,
    /// Register templates of any name.
    Templates,
    /// Register templates whose names match, written `templates:<pattern>`: a service's own, and no other's.
    TemplatesNamed(TemplatePattern),
    /// Everything, keys included.
    Admin,
}

impl Scope {
    /// The scopes without a pattern: what a key "with all scopes" has.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Tickets, Self::Users, Self::Templates, Self::Admin];

    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "publish" => Some(Self::Publish),
            "tickets" => Some(Self::Tickets),
            "users" => Some(Self::Users),
            "templates" => Some(Self::Templates),
            "admin" => Some(Self::Admin),
            _ => {
                let topics =
                    || text.strip_prefix("publish:topic/").and_then(TopicPattern::new).map(Self::PublishTopics);
                let templates =
                    || text.strip_prefix("templates:").and_then(TemplatePattern::new).map(Self::TemplatesNamed);
                topics().or_else(templates)
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish => f.write_str("publish"),
            Self::PublishTopics(pattern) => write!(f, "publish:topic/{}", pattern.as_str()),
            Self::Tickets => f.write_str("tickets"),
            Self::Users => f.write_str("users"),
            Self::Templates => f.write_str("templates"),
            Self::TemplatesNamed(pattern) => write!(f, "templates:{}", pattern.as_str()),
            Self::Admin => f.write_str("admin"),
        }
    }
}

/// The public half of an API key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub Arc<str>);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    User(UserIdentity),
    Key(KeyIdentity),
    /// Who can read the state directory: the command line on the same machine.
    Operator,
}

/// How a user's credential came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer`, which no foreign page can make a browser send.
    Bearer,
    /// The session cookie, which browsers send by themselves: changes need proof of the same site.
    Cookie,
    /// A ticket in the URL: it reads only. Its public id, since one ticket has one live stream.
    Ticket(Arc<str>),
    /// A trusted proxy's word that it has signed the user in. Browsers bring what the proxy goes by, as they bring cookies.
    Proxy,
}

/// A user, as a token or a ticket vouches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIdentity {
    pub user: UserId,
    pub credential: Credential,
    /// Topics this token may see; `None` is all that the user follows. `everyone` is always seen.
    pub topics: Option<Arc<[TopicPattern]>>,
    /// Whether the token has the scope `publish`.
    pub publishes: bool,
    /// When the credential runs out; a stream ends then.
    pub expires: Option<Timestamp>,
    /// When the credential was made, where it says so.
    pub issued: Option<Timestamp>,
}

impl UserIdentity {
    /// Whether this token may see entries of the topic.
    pub fn may_see(&self, topic: &TopicName) -> bool {
        topic.is_everyone() || self.topics.as_ref().is_none_or(|patterns| patterns.iter().any(|p| p.matches(topic)))
    }
}

/// A backend or a script, by API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyIdentity {
    pub id: KeyId,
    pub name: Arc<str>,
    pub scopes: Arc<[Scope]>,
}

impl KeyIdentity {
    /// Whether the key has the scope, or `admin`.
    pub fn has(&self, scope: &Scope) -> bool {
        self.scopes.iter().any(|s| s == scope || *s == Scope::Admin)
    }
}

/// Whose idempotency keys and limits these are. A tuple in all but name: never joined into one string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    User(UserId),
    Key(KeyId),
    Operator,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Key(key) => write!(f, "key {key}"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

impl Identity {
    pub fn principal(&self) -> Principal {
        match self {
            Self::User(user) => Principal::User(user.user.clone()),
            Self::Key(key) => Principal::Key(key.id.clone()),
            Self::Operator => Principal::Operator,
        }
    }

    /// Whether a key has this scope; the operator has every one, a user none.
    pub fn has(&self, scope: &Scope) -> bool {
        match self {
            Self::User(_) => false,
            Self::Key(key) => key.has(scope),
            Self::Operator => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_or_beginnings() {
        let topic = |t| TopicName::new(t).expect("a topic");
        let orders = TopicPattern::new("orders/*").expect("a pattern");
        assert!(orders.matches(&topic("orders/42")));
        assert!(!orders.matches(&topic("orders")));
        assert!(TopicPattern::new("*").expect("a pattern").matches(&topic("x")));
        assert!(!TopicPattern::new("ops").expect("a pattern").matches(&topic("ops2")));
        for bad in ["", "a*b", "**", "a b*", "/*", "a//*"] {
            assert!(TopicPattern::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn patterns_of_templates_match_in_the_same_way() {
        let template = |name| TemplateName::new(name).expect("a template");
        let loans = TemplatePattern::new("loans-*").expect("a pattern");
        assert!(loans.matches(&template("loans-due")) && loans.matches(&template("loans-")));
        assert!(!loans.matches(&template("loans")) && !loans.matches(&template("Loans-due")));
        assert!(TemplatePattern::new("*").expect("a pattern").matches(&template("x")));
        assert!(!TemplatePattern::new("due").expect("a pattern").matches(&template("due2")));
        for bad in ["", "a*b", "**", "a b*", "-*", "a/*"] {
            assert!(TemplatePattern::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn scopes_read_what_they_write() {
        let topics = Scope::PublishTopics(TopicPattern::new("orders/*").expect("a pattern"));
        let templates = Scope::TemplatesNamed(TemplatePattern::new("loans-*").expect("a pattern"));
        for scope in Scope::ALL.into_iter().chain([topics, templates]) {
            assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
        }
        for bad in ["root", "publish:topic/", "templates:", "templates:a b", "templates:template/x"] {
            assert_eq!(Scope::parse(bad), None, "{bad}");
        }
    }
}

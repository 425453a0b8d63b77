//! A call: one request that has found its route and whose caller is known, as handlers get it.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;

use super::auth::Caller;
use super::body::{self, Limits};
use super::limits::{Limited, Seat, Sole};
use super::network::Address;
use super::query::Query;
use super::router::Params;
use super::{App, problem};
use crate::broker::Broker;
use crate::model::{Identity, NotificationId, TemplateName, TopicName, UserId, UserIdentity};
use crate::wire::problem::Problem;

/// One request on its way through its handler.
pub struct Call {
    pub app: App,
    pub head: Parts,
    pub body: Incoming,
    pub query: Query,
    pub params: Params,
    pub caller: Caller,
    /// Whose limits hold; `None` where nobody can say.
    pub address: Option<Address>,
    /// Whether a proxy of ours brought it: then the connection is the proxy's, and was not counted.
    pub proxied: bool,
}

impl Call {
    pub fn broker(&self) -> &Broker {
        self.app.broker()
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The calling user.
    ///
    /// # Errors
    /// 403 where the route let somebody else in, so that a slip in the table opens no inbox.
    pub fn user(&self) -> Result<&UserIdentity, Problem> {
        match &self.caller {
            Caller::Known(Identity::User(user)) => Ok(user),
            Caller::Known(_) | Caller::Anyone => Err(problem::FORBIDDEN.because("this needs a user's token")),
        }
    }

    /// A place for one more stream of the calling user.
    ///
    /// # Errors
    /// [`Limited`].
    pub fn seat(&self, user: &UserId, sole: Option<Sole>) -> Result<Seat, Limited> {
        let meters = self.app.meters();
        if let Some(address) = self.address.filter(|_| self.proxied) {
            meters.connect(address)?;
        }
        meters.seat(&self.app.config().limits, user, sole, self.address)
    }

    /// One more change by the calling user; keys may make as many as they like.
    ///
    /// # Errors
    /// [`Limited`].
    pub fn change(&self) -> Result<(), Limited> {
        match &self.caller {
            Caller::Known(Identity::User(who)) => self.app.meters().mark(&who.user),
            Caller::Known(_) | Caller::Anyone => Ok(()),
        }
    }

    /// The caller, whoever it is.
    ///
    /// # Errors
    /// 403 where nobody had to be.
    pub fn identity(&self) -> Result<&Identity, Problem> {
        match &self.caller {
            Caller::Known(identity) => Ok(identity),
            Caller::Anyone => Err(problem::FORBIDDEN.because("this needs a credential")),
        }
    }

    /// The topic that the path names.
    ///
    /// # Errors
    /// 422 where it can't be one.
    pub fn topic(&self) -> Result<TopicName, Problem> {
        TopicName::new(self.params.text("topic")).map_err(|e| problem::invalid_field("/topic", e.to_string()))
    }

    /// The user that the path names, who is not the caller.
    ///
    /// # Errors
    /// 422 where it can't be one.
    pub fn named_user(&self) -> Result<UserId, Problem> {
        UserId::new(self.params.text("user")).map_err(|e| problem::invalid_field("/user", e.to_string()))
    }

    /// The template that the path names.
    ///
    /// # Errors
    /// 422 where it can't be one.
    pub fn template(&self) -> Result<TemplateName, Problem> {
        TemplateName::new(self.params.text("template")).map_err(|e| problem::invalid_field("/template", e.to_string()))
    }

    /// The notification that the path names.
    ///
    /// # Errors
    /// 404 where it can't be one.
    pub fn notification(&self) -> Result<NotificationId, Problem> {
        NotificationId::parse(self.params.text("id"))
            .ok_or_else(|| problem::NOT_FOUND.because("this is no notification's id"))
    }

    /// Reads a body that must be JSON.
    ///
    /// # Errors
    /// 415 for another type, and what [`Call::any_body`] refuses.
    pub async fn json_body(&mut self) -> Result<Bytes, Problem> {
        if !is_json(&self.head.headers) {
            return Err(problem::UNSUPPORTED_TYPE.because("send JSON, with `Content-Type: application/json`"));
        }
        self.any_body().await
    }

    /// Reads a body that may be left out, and must be JSON where it is there.
    ///
    /// # Errors
    /// As [`Call::json_body`].
    pub async fn optional_json_body(&mut self) -> Result<Bytes, Problem> {
        if http_body::Body::is_end_stream(&self.body) {
            return Ok(Bytes::new());
        }
        self.json_body().await
    }

    /// Reads a body of any type.
    ///
    /// # Errors
    /// 413, 415 (encoded), 408, or 400 where it broke off.
    pub async fn any_body(&mut self) -> Result<Bytes, Problem> {
        let config = self.app.config();
        let limits = Limits { bytes: config.max_body, idle: config.body_timeout };
        let body = body::read_whole(&self.head.headers, &mut self.body, limits, config.body_deadline).await?;
        // The caller was judged by the head, and the body may have taken its time.
        if let Caller::Known(identity) = &self.caller {
            self.broker().still_good(identity)?;
        }
        Ok(body)
    }
}

/// The media type of the body in lower case, without its parameters; empty where none was sent.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).map_or("", |value: &HeaderValue| value.to_str().unwrap_or_default());
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers) == "application/json"
}

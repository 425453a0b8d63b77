//! What a client says over a WebSocket, and what it is answered.
//!
//! One text message is one operation, `{"op","ref",…}`; its answer bears the `ref`, whatever else goes on meanwhile.

use serde::Serialize;
use serde_json::value::RawValue;

use super::inbox::{MarkBody, read_mark};
use super::json::{BodyError, Fields};
use super::problem::ProblemBody;
use super::topic::last;
use crate::model::TopicName;

/// Bytes of a `ref` at most, as it is written.
const MAX_REF_BYTES: usize = 64;

/// An operation, with what its answer is called.
#[derive(Debug)]
pub struct Request<'a> {
    /// A string or a number, kept as sent; `None` where none was.
    pub reference: Option<&'a RawValue>,
    /// What is asked, or why that can't be understood.
    pub operation: Result<Operation, Refused>,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The credential, where the opening request could bear none.
    Auth { token: String },
    /// As `POST /v1/inbox/mark`.
    Mark(MarkBody),
    /// A new token for the stream.
    Refresh { token: String },
    /// As `PUT /v1/topics/{topic}/follow`; `last` is 0 to [`MAX_LAST`](super::topic::MAX_LAST).
    Follow { topic: TopicName, last: u32 },
    /// As `DELETE /v1/topics/{topic}/follow`.
    Unfollow { topic: TopicName },
    /// As `PUT /v1/topics/{topic}/mute`.
    Mute { topic: TopicName },
    /// As `DELETE /v1/topics/{topic}/mute`.
    Unmute { topic: TopicName },
    /// A sign of life.
    Ping,
}

impl Operation {
    /// The names of all there are.
    pub const NAMES: [&'static str; 8] = ["auth", "mark", "refresh", "follow", "unfollow", "mute", "unmute", "ping"];
}

/// Why a message is no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    Body(BodyError),
    /// An `op` that this server does not have.
    Unknown(String),
}

/// Reads one message.
pub fn parse(text: &str) -> Request<'_> {
    let mut fields = match Fields::parse(text.as_bytes()) {
        Ok(fields) => fields,
        Err(error) => return Request { reference: None, operation: Err(Refused::Body(error)) },
    };
    let reference = fields.take("ref").filter(|raw| {
        let is_name = raw.get().len() <= MAX_REF_BYTES && !raw.get().starts_with(['{', '[', 't', 'f']);
        if !is_name {
            fields.refuse("ref", format!("must be a string or a number, of at most {MAX_REF_BYTES} bytes"));
        }
        is_name
    });
    Request { reference, operation: read(fields) }
}

fn read(mut fields: Fields<'_>) -> Result<Operation, Refused> {
    let name = fields.string("op");
    let operation = match name.as_deref() {
        Some("mark") => return read_mark(fields).map(Operation::Mark).map_err(Refused::Body),
        Some("auth") => token(&mut fields).map(|token| Operation::Auth { token }),
        Some("refresh") => token(&mut fields).map(|token| Operation::Refresh { token }),
        Some("follow") => {
            let last = last(&mut fields);
            topic(&mut fields).map(|topic| Operation::Follow { topic, last })
        }
        Some("unfollow") => topic(&mut fields).map(|topic| Operation::Unfollow { topic }),
        Some("mute") => topic(&mut fields).map(|topic| Operation::Mute { topic }),
        Some("unmute") => topic(&mut fields).map(|topic| Operation::Unmute { topic }),
        Some("ping") => Some(Operation::Ping),
        Some(other) => return Err(Refused::Unknown(other.chars().take(MAX_REF_BYTES).collect())),
        None => {
            fields.refuse("op", format!("must name the operation: {}", Operation::NAMES.join(", ")));
            None
        }
    };
    fields.close(operation).map_err(Refused::Body)
}

fn topic(fields: &mut Fields<'_>) -> Option<TopicName> {
    let Some(topic) = fields.string("topic") else {
        fields.refuse("topic", "must name the topic");
        return None;
    };
    TopicName::new(&topic).map_err(|e| fields.refuse("topic", e.to_string())).ok()
}

fn token(fields: &mut Fields<'_>) -> Option<String> {
    let token = fields.string("token");
    if token.is_none() {
        fields.refuse("token", "must be the user's token");
    }
    token
}

/// The answer to an operation that was done.
#[derive(Serialize)]
pub struct Done<'a, T> {
    #[serde(rename = "reply")]
    pub reference: Option<&'a RawValue>,
    /// Always true.
    pub ok: bool,
    #[serde(flatten)]
    pub result: T,
}

/// The answer to an operation that was refused.
#[derive(Serialize)]
pub struct Failed<'a> {
    #[serde(rename = "reply")]
    pub reference: Option<&'a RawValue>,
    /// Always false.
    pub ok: bool,
    pub problem: ProblemBody<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MarkAs;

    fn reference(text: &str) -> Option<String> {
        parse(text).reference.map(|raw| raw.get().to_owned())
    }

    fn refusal(text: &str) -> String {
        match parse(text).operation {
            Err(Refused::Body(error)) => error.to_string(),
            Err(Refused::Unknown(name)) => format!("unknown {name}"),
            Ok(operation) => panic!("{text} was taken as {operation:?}"),
        }
    }

    #[test]
    fn operations_are_read_and_their_names_kept_as_sent() {
        let marked =
            parse(r#"{"op":"mark","ref":"a\u00e9","as":"read","ids":["0190b9f0-7b1a-7000-8000-000000000001"]}"#);
        assert!(matches!(marked.operation, Ok(Operation::Mark(body)) if body.mark.mark == MarkAs::Read));
        assert_eq!(marked.reference.map(RawValue::get), Some(r#""a\u00e9""#));
        assert_eq!(parse(r#"{"op":"ping"}"#).operation, Ok(Operation::Ping));
        assert_eq!(
            parse(r#"{"token":"t","op":"auth","ref":1.50}"#).operation,
            Ok(Operation::Auth { token: "t".into() })
        );
        let topic = TopicName::new("ops/eu").expect("a topic");
        for (op, operation) in [
            ("follow", Operation::Follow { topic: topic.clone(), last: 0 }),
            ("unfollow", Operation::Unfollow { topic: topic.clone() }),
            ("mute", Operation::Mute { topic: topic.clone() }),
            ("unmute", Operation::Unmute { topic: topic.clone() }),
        ] {
            assert_eq!(parse(&format!(r#"{{"op":"{op}","topic":"ops/eu"}}"#)).operation, Ok(operation));
        }
        let follow = parse(r#"{"op":"follow","topic":"ops/eu","last":100}"#).operation;
        assert_eq!(follow, Ok(Operation::Follow { topic, last: 100 }));
        assert_eq!(reference(r#"{"op":"ping","ref":1.50}"#).as_deref(), Some("1.50"));
        assert_eq!(reference(r#"{"op":"ping","ref":null}"#), None);
    }

    #[test]
    fn what_is_refused_still_bears_its_name() {
        for text in [r#"{"ref":7,"op":"fly"}"#, r#"{"op":"mark","ref":7}"#, r#"{"op":"ping","ref":7,"x":1}"#] {
            assert_eq!(reference(text).as_deref(), Some("7"), "{text}");
            assert!(parse(text).operation.is_err(), "{text}");
        }
        assert_eq!(refusal(r#"{"op":"fly"}"#), "unknown fly");
        assert!(refusal("{}").contains("auth, mark, refresh, follow, unfollow, mute, unmute, ping"));
        assert!(refusal(r#"{"op":"refresh"}"#).contains("/token"));
        for op in ["follow", "unfollow", "mute", "unmute"] {
            assert!(refusal(&format!(r#"{{"op":"{op}"}}"#)).starts_with("/topic"));
            assert!(refusal(&format!(r#"{{"op":"{op}","topic":"a b"}}"#)).starts_with("/topic"));
        }
        assert!(refusal(r#"{"op":"follow","topic":"ops","last":101}"#).starts_with("/last"));
        assert!(refusal(r#"{"op":"mute","topic":"ops","last":1}"#).starts_with("/last"));
        assert!(refusal("[1]").contains("not the JSON expected"));
        for bad in [r#"{"op":"ping","ref":{}}"#, r#"{"op":"ping","ref":true}"#] {
            assert!(refusal(bad).starts_with("/ref"), "{bad}");
        }
        assert!(refusal(&format!(r#"{{"op":"ping","ref":"{}"}}"#, "x".repeat(64))).starts_with("/ref"));
    }
}

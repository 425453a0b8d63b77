//! A message of a queue as a publish: which form it has, and what its fields become.
//!
//! | form | told by | what it says |
//! |---|---|---|
//! | a publish | no `type`, no `receivers` | the body of `POST /v1/notifications`, with `idempotency_key` |
//! | a message centre's | `type` or `receivers` | `type`, `receivers`, `content`, `id`; the rest as in a publish |
//! | a Celery task's | a header `task` ([`Wrapping::CeleryTask`]) | `[args, kwargs, embed]`, in which one of the others stands |
//!
//! A message centre's becomes the publish that it stands for and is read as one, so that there is one set of rules; what is
//! wrong is told by the names that its sender used. `docs/queue.md` has the table for people.
//!
//! **Invariant**: what only asks (`dry_run`) is refused in every form, since it would be published in earnest.
//!
//! Deliberately not here: properties and headers of AMQP (`intake`).

use serde_json::value::RawValue;

use super::json::{BodyError, Fields, depth};
use super::publish::{self, Place, PublishBody};
use crate::model::{ContentError, MAX_DEPTH};

/// Levels that a Celery task puts around what it carries.
const TASK_LEVELS: usize = 2;

/// What stands around what a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    Bare,
    /// `[args, kwargs, embed]`, version 2 of Celery's protocol.
    CeleryTask,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its `idempotency_key` is taken out.
    pub body: PublishBody,
    /// What the message calls itself: `idempotency_key` of a publish, `id` of a message centre's. Any text.
    pub id: Option<String>,
}

/// Reads a message.
///
/// # Errors
/// [`BodyError`] with every broken field, by the names that the message has.
pub fn parse(message: &[u8], wrapping: Wrapping) -> Result<Queued, BodyError> {
    match wrapping {
        Wrapping::Bare => entry(message),
        Wrapping::CeleryTask => entry(inside_task(message)?.as_bytes()),
    }
}

/// What a task was called with: its keywords, or the one argument that it has.
fn inside_task(message: &[u8]) -> Result<&str, BodyError> {
    let text = std::str::from_utf8(message).map_err(|e| BodyError::Encoding(e.valid_up_to()))?;
    if depth(text) > MAX_DEPTH + TASK_LEVELS {
        return Err(BodyError::Depth);
    }
    let syntax = |e: serde_json::Error| BodyError::Syntax(format!("a Celery task is [args, kwargs, embed]: {e}"));
    let (args, kwargs, _embed): (Vec<&RawValue>, &RawValue, &RawValue) = serde_json::from_str(text).map_err(syntax)?;
    let no_keywords = kwargs.get().bytes().all(|b| b"{} \t\r\n".contains(&b));
    match args.as_slice() {
        [] => Ok(kwargs.get()),
        [only] if no_keywords => Ok(only.get()),
        _ => Err(BodyError::Syntax(
            "a Celery task says what to publish by keywords alone, or in one argument that is an object".to_owned(),
        )),
    }
}

fn entry(message: &[u8]) -> Result<Queued, BodyError> {
    let mut fields = Fields::parse(message)?;
    let (kind, receivers) = (fields.take("type"), fields.take("receivers"));
    if kind.is_none() && receivers.is_none() {
        return publish(message);
    }
    message_centre(fields, kind, receivers)
}

fn publish(message: &[u8]) -> Result<Queued, BodyError> {
    let mut body = publish::parse(message, Place::BatchLine)?;
    let id = body.idempotency_key.take();
    Ok(Queued { body, id })
}

/// Each `type` of a message centre, and the medium it asks for besides the inbox, as `via` of a publish names it.
const TYPES: &[(&str, Option<&str>)] = &[("in_app", None), ("mail", Some("email")), ("dingtalk", Some("dingtalk"))];

/// What [`TYPES`] say, for whoever sent another.
const TYPE_RULE: &str = "must be `in_app`, `mail` or `dingtalk`";

/// The medium of a `type`.
fn medium(kind: &str) -> Result<Option<&'static str>, String> {
    TYPES.iter().find(|(name, _)| *name == kind).map(|(_, medium)| *medium).ok_or_else(|| TYPE_RULE.to_owned())
}

/// Fields of a publish that a message centre's message has under names of its own.
const ELSEWHERE: &[(&str, &str)] =
    &[("to", "receivers"), ("body", "content"), ("via", "type"), ("idempotency_key", "id")];

fn message_centre(
    mut fields: Fields<'_>,
    kind: Option<&RawValue>,
    receivers: Option<&RawValue>,
) -> Result<Queued, BodyError> {
    let named = kind.map(|raw| serde_json::from_str::<String>(raw.get()).map_err(|_| TYPE_RULE.to_owned()));
    let named = named.unwrap_or_else(|| Err("says by which medium: `in_app`, `mail` or `dingtalk`".to_owned()));
    let via = named.and_then(|kind| medium(&kind)).unwrap_or_else(|detail| {
        fields.refuse("type", detail);
        None
    });
    let users = receivers.and_then(names).unwrap_or_else(|| {
        fields.refuse("receivers", "names the users it is for: a list such as [\"alice\", \"bob\"], or one of them");
        // So that what else is wrong is told as well.
        vec!["-".to_owned()]
    });
    let id = fields.text("id");
    let content = fields.take("content");
    let mut said = vec![format!("\"to\":{{\"users\":{}}}", json(&users))];
    said.extend(content.map(|raw| format!("\"body\":{}", raw.get())));
    said.extend(via.map(|medium| format!("\"via\":[\"{medium}\"]")));
    for (name, raw) in fields.rest() {
        match ELSEWHERE.iter().find(|(theirs, _)| *theirs == name) {
            Some((_, ours)) => fields.refuse(&name, format!("is a publish's; beside `type` it is `{ours}`")),
            None => said.push(format!("{}:{}", json(&name), raw.get())),
        }
    }
    let mut errors = fields.finish();
    match publish::parse(format!("{{{}}}", said.join(",")).as_bytes(), Place::BatchLine) {
        Ok(body) if errors.is_empty() => Ok(Queued { body, id }),
        Ok(_) => Err(BodyError::Fields(errors)),
        Err(BodyError::Fields(more)) => {
            errors.extend(more.into_iter().map(as_sent));
            Err(BodyError::Fields(errors))
        }
        Err(other) => Err(other),
    }
}

/// The users of `receivers`: a list, or one of them. Numbers stand for themselves, since other systems number their users.
fn names(receivers: &RawValue) -> Option<Vec<String>> {
    let name = |raw: &RawValue| {
        let text = raw.get();
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        if is_number { Some(text.to_owned()) } else { serde_json::from_str::<String>(text).ok() }
    };
    match serde_json::from_str::<Vec<&RawValue>>(receivers.get()) {
        Ok(list) => list.into_iter().map(name).collect(),
        Err(_) => name(receivers).map(|one| vec![one]),
    }
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("texts and lists of texts are JSON")
}

/// The fault by the name that the sender used.
fn as_sent(error: ContentError) -> ContentError {
    let ContentError { pointer, detail } = error;
    let renamed = ["/to/users", "/body", "/via"].into_iter().zip(["/receivers", "/content", "/type"]);
    let sent = renamed.filter_map(|(ours, theirs)| {
        let rest = pointer.strip_prefix(ours).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        Some(format!("{theirs}{rest}"))
    });
    let sent = sent.into_iter().next();
    ContentError { pointer: sent.unwrap_or(pointer), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Audience, Medium, UserId};

    fn bare(message: &str) -> Result<Queued, BodyError> {
        parse(message.as_bytes(), Wrapping::Bare)
    }

    fn task(message: &str) -> Result<Queued, BodyError> {
        parse(message.as_bytes(), Wrapping::CeleryTask)
    }

    fn faults(result: Result<Queued, BodyError>) -> Vec<String> {
        match result {
            Err(BodyError::Fields(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn users(names: &[&str]) -> Audience {
        Audience::Users(names.iter().map(|name| UserId::new(name).expect("a user")).collect())
    }

    #[test]
    fn a_publish_is_read_as_the_route_reads_it() {
        let read = bare(r#"{"to":"user:alice","title":"Hello","idempotency_key":"o-1"}"#).expect("a publish");
        assert_eq!((read.body.draft.to, read.id.as_deref()), (users(&["alice"]), Some("o-1")));
        assert_eq!(read.body.idempotency_key, None);
        assert_eq!(faults(bare(r#"{"to":"user:alice","title":"x","titel":"y"}"#)), ["/titel"]);
    }

    #[test]
    fn a_message_centres_message_becomes_the_publish_it_stands_for() {
        let read = bare(
            r#"{"type":"in_app","receivers":["alice",17,"alice"],"title":"Due","content":"on Friday","id":7,
                "category":"loans","click":"/loans/1","priority":4}"#,
        );
        let Queued { body, id } = read.expect("a message");
        assert_eq!((body.draft.to, id.as_deref()), (users(&["alice", "17"]), Some("7")));
        let content = body.draft.content;
        assert_eq!((content.title.as_str(), content.body.as_str()), ("Due", "on Friday"));
        assert_eq!((content.category.as_str(), content.click.as_deref()), ("loans", Some("/loans/1")));
    }

    #[test]
    fn its_template_and_its_values_are_taken_over() {
        let read =
            bare(r#"{"type":"in_app","receivers":"alice","template":"order_shipped","params":{"order":"A-17"}}"#);
        let used = read.expect("a message").body.template.expect("a template");
        assert_eq!((used.name.as_str(), used.params.as_str()), ("order_shipped", r#"{"order":"A-17"}"#));
    }

    #[test]
    fn a_type_asks_for_its_medium_besides_the_inbox() {
        for (kind, media) in [("mail", vec![Medium::Email]), ("dingtalk", vec![Medium::DingTalk]), ("in_app", vec![])] {
            let read = bare(&format!(r#"{{"type":"{kind}","receivers":["alice"],"title":"x"}}"#));
            assert_eq!(read.expect("a message").body.draft.via.media, media, "{kind}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_the_names_of_the_sender() {
        let wrong = r#"{"type":"fax","receivers":["alice"," "],"content":7,"title":"x","to":"everyone","levle":1}"#;
        let mut told = faults(bare(wrong));
        told.sort_unstable();
        assert_eq!(told, ["/content", "/levle", "/receivers/1", "/to", "/type"]);
        assert_eq!(faults(bare(r#"{"type":"in_app","title":"x"}"#)), ["/receivers"]);
        assert_eq!(faults(bare(r#"{"receivers":["alice"],"title":"x"}"#)), ["/type"]);
        assert_eq!(faults(bare(r#"{"type":"in_app","receivers":[["a"]],"title":"x"}"#)), ["/receivers"]);
    }

    #[test]
    fn what_only_asks_is_refused_in_every_form_and_never_published() {
        let embed = r#"{"callbacks":null,"errbacks":null,"chain":null,"chord":null}"#;
        for tried in ["true", "false", "\"yes\""] {
            let publish = format!(r#"{{"to":"user:alice","title":"x","dry_run":{tried}}}"#);
            let centre = format!(r#"{{"type":"mail","receivers":["alice"],"title":"x","dry_run":{tried}}}"#);
            let by_task = |message: &str| task(&format!("[[],{message},{embed}]"));
            for refused in [bare(&publish), bare(&centre), by_task(&publish), by_task(&centre)] {
                let Err(BodyError::Fields(errors)) = refused else { panic!("{tried}: {refused:?}") };
                assert_eq!(errors.len(), 1, "{tried}: {errors:?}");
                assert_eq!(errors[0].pointer, "/dry_run");
                assert!(errors[0].detail.contains("over HTTP"), "{errors:?}");
            }
        }
    }

    #[test]
    fn a_task_says_it_by_keywords_or_in_one_argument() {
        let embed = r#"{"callbacks":null,"errbacks":null,"chain":null,"chord":null}"#;
        let publish = r#"{"to":"user:alice","title":"Hello"}"#;
        for body in [format!("[[],{publish},{embed}]"), format!("[[{publish}], {{ }}, {embed}]")] {
            assert_eq!(task(&body).expect("a task").body.draft.to, users(&["alice"]), "{body}");
        }
        for bad in
            ["[]", "{}", "[[],{}]", &format!("[[{publish},1],{{}},{embed}]"), &format!("[[1],{publish},{embed}]")]
        {
            assert!(matches!(task(bad), Err(BodyError::Syntax(_))), "{bad}");
        }
    }

    #[test]
    fn nothing_that_nests_deeper_than_we_take_is_looked_into() {
        let deep = format!(r#"[[],{{"to":"user:a","title":"x","data":{}1{}}},{{}}]"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(task(&deep).err(), Some(BodyError::Depth));
        assert!(matches!(bare(""), Err(BodyError::Syntax(_))));
        assert!(bare("\u{0}\u{1}").is_err());
        assert!(matches!(parse(b"\xff", Wrapping::CeleryTask), Err(BodyError::Encoding(0))));
    }
}

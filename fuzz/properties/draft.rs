//! What every accepted publish must be, however it was sent: within the limits of the contract, and the same when it is
//! written as JSON and read again.

use std::fmt::Write as _;

use tidings::model::{
    Audience, Deliver, Draft, Expiry, MAX_ACTIONS, MAX_BODY_CHARS, MAX_DATA_BYTES, MAX_DEPTH, MAX_LABEL_CHARS,
    MAX_LINK_CHARS, MAX_RECIPIENTS, MAX_SENDER_CHARS, MAX_TITLE_CHARS,
};
use tidings::wire::json::BodyError;
use tidings::wire::publish::{AudienceBody, Place, parse};

/// Panics where an accepted draft breaks a limit, or is another after a round trip.
pub fn holds(draft: &Draft) {
    is_within_limits(draft);
    let written = as_json(draft);
    match parse(written.as_bytes(), Place::Request) {
        Ok(again) => assert_eq!(&again.draft, draft, "written as {written}"),
        Err(error) => panic!("{error} in {written}, which is {draft:?}"),
    }
}

/// Panics where a refusal does not say what is wrong, and where.
pub fn is_told(error: &BodyError) {
    match error {
        BodyError::Fields(errors) => {
            assert!(!errors.is_empty(), "refused for nothing");
            for error in errors {
                assert!(error.pointer.starts_with('/') && !error.detail.is_empty(), "{error:?}");
            }
        }
        BodyError::TooManyRecipients(users) => assert!(*users > MAX_RECIPIENTS),
        BodyError::Encoding(_) | BodyError::Syntax(_) | BodyError::Depth => {}
    }
    assert!(!error.to_string().is_empty());
}

fn is_within_limits(draft: &Draft) {
    let content = &draft.content;
    if let Audience::Users(users) = &draft.to {
        assert!((1..=MAX_RECIPIENTS).contains(&users.len()));
        assert!(users.iter().all(|user| (1..=128).contains(&user.as_str().len())));
    }
    assert!(!(content.title.trim().is_empty() && content.body.trim().is_empty()), "it says nothing");
    is_line(&content.title, MAX_TITLE_CHARS);
    is_short(&content.body, MAX_BODY_CHARS);
    assert!(!content.body.chars().any(|c| c.is_control() && !"\n\r\t".contains(c)));
    content.sender.iter().for_each(|sender| is_line(sender, MAX_SENDER_CHARS));
    content.icon.iter().chain(&content.click).for_each(|link| is_link(link));
    assert!(content.actions.len() <= MAX_ACTIONS);
    for action in &content.actions {
        is_line(&action.label, MAX_LABEL_CHARS);
        is_link(&action.click);
    }
    if let Some(data) = &content.data {
        assert!(data.len() <= MAX_DATA_BYTES && !data.contains(['\n', '\r']));
        assert!(super::depth::nesting(data) <= MAX_DEPTH);
    }
    if let Some(key) = &draft.life.collapse {
        is_line(key.as_str(), 128);
    }
}

fn is_short(text: &str, max: usize) {
    assert!(text.chars().count() <= max, "more than {max} characters");
}

fn is_line(text: &str, max: usize) {
    is_short(text, max);
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// A link that a page may follow: never one that runs as the page, never one that leaves the site unseen.
pub fn is_link(link: &str) {
    is_line(link, MAX_LINK_CHARS);
    assert!(!link.contains(char::is_whitespace));
    let lower = link.to_lowercase();
    let absolute = ["https://", "http://", "mailto:"].iter().any(|scheme| lower.starts_with(scheme));
    assert!(absolute || (link.starts_with('/') && !link.starts_with("//") && !link.starts_with("/\\")), "{link:?}");
}

fn as_json(draft: &Draft) -> String {
    let text = |text: &str| serde_json::to_string(text).expect("a string is JSON");
    let (content, life) = (&draft.content, &draft.life);
    let to = serde_json::to_string(&AudienceBody(&draft.to)).expect("an audience is JSON");
    let mut json = format!("{{\"to\":{to},\"title\":{},\"body\":{}", text(&content.title), text(&content.body));
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(json, ",\"{name}\":{value}");
        }
    };
    field("category", draft.category_named.then(|| text(content.category.as_str())));
    field("priority", Some(content.priority.as_u8().to_string()));
    field("data", content.data.clone());
    field("icon", content.icon.as_deref().map(text));
    field("click", content.click.as_deref().map(text));
    field("sender", content.sender.as_deref().map(text));
    let action = |action: &tidings::model::Action| {
        format!("{{\"label\":{},\"click\":{}}}", text(&action.label), text(&action.click))
    };
    let actions: Vec<_> = content.actions.iter().map(action).collect();
    field("actions", Some(format!("[{}]", actions.join(","))));
    field("collapse", life.collapse.as_ref().map(|key| text(key.as_str())));
    match life.deliver {
        Deliver::Now => {}
        Deliver::After(span) => field("delay", Some(span.as_secs().to_string())),
        Deliver::At(moment) => field("deliver_at", Some(text(&moment.to_string()))),
    }
    match life.expiry {
        None => {}
        Some(Expiry::After(span)) => field("expires_in", Some(span.as_secs().to_string())),
        Some(Expiry::At(moment)) => field("expires_at", Some(text(&moment.to_string()))),
    }
    let media: Vec<_> = draft.via.media.iter().map(|medium| text(medium.as_str())).collect();
    field("via", Some(format!("[{}]", media.join(","))));
    json.push('}');
    json
}

//! Names keep to their alphabets; a pattern matches exactly what it says and at least one topic there could be, since one
//! that matches none would hide a slip in a token; and a scope is written as it is read.

use tidings::model::{Category, Scope, TopicName, TopicPattern, UserId};

use super::input::Input;

pub fn names(data: &[u8]) {
    let mut input = Input::new(data);
    let (first, second) = (input.text(), input.text());
    let topic = TopicName::new(&second);
    assert_eq!(topic.is_ok(), is_topic(&second), "{second:?}");
    let user = UserId::new(&second).is_ok();
    let printable = !second.chars().any(char::is_control) && second.trim() == second;
    assert_eq!(user, (1..=128).contains(&second.len()) && printable, "{second:?}");
    assert_eq!(Category::new(&second).is_ok(), is_category(&second), "{second:?}");

    let pattern = TopicPattern::new(&first);
    assert_eq!(pattern.is_some(), is_pattern(&first), "{first:?}");
    if let Some(pattern) = &pattern {
        assert_eq!(pattern.as_str(), first);
        let witness = first.strip_suffix('*').map_or(first.to_string(), |start| format!("{start}x"));
        let witness = TopicName::new(&witness).unwrap_or_else(|_| panic!("{first:?} matches nothing"));
        assert!(pattern.matches(&witness));
        if let Ok(topic) = &topic {
            let (topic, start) = (topic.as_str(), first.strip_suffix('*'));
            let meant = start.map_or(topic == first, |start| topic.get(..start.len()) == Some(start));
            assert_eq!(pattern.matches(&TopicName::new(topic).expect("it is one")), meant, "{first} {topic}");
        }
    }
    for text in [first.to_string(), format!("publish:topic/{first}")] {
        if let Some(scope) = Scope::parse(&text) {
            assert_eq!(scope.to_string(), text);
        }
    }
}

fn is_topic(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "._~:@-".contains(c);
    text.len() <= 128 && text.split('/').all(|part| !part.is_empty() && part.chars().all(known))
}

fn is_category(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(known) && !text.starts_with(['.', '_', '-'])
}

/// A topic, or what becomes one with a letter in the place of the star at its end.
fn is_pattern(text: &str) -> bool {
    text.strip_suffix('*').map_or(is_topic(text), |start| is_topic(&format!("{start}x")))
}

//! Reading JSON that strangers send: every fault at once, each with a pointer (RFC 6901) to where it is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::{ContentError, Edit, MAX_DEPTH, MAX_RECIPIENTS};

/// Why a body was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not UTF-8.
    #[error("the body is not valid UTF-8 (first bad byte at offset {0})")]
    Encoding(usize),
    /// Not JSON, or not an object.
    #[error("the body is not the JSON expected here: {0}")]
    Syntax(String),
    /// JSON that nests deeper than [`MAX_DEPTH`].
    #[error("the JSON nests deeper than {MAX_DEPTH} levels")]
    Depth,
    /// A publish that names so many users, which is more than [`MAX_RECIPIENTS`].
    #[error("`to.users` names {0} users; one publish may name {MAX_RECIPIENTS}")]
    TooManyRecipients(usize),
    /// An object whose fields break rules.
    #[error("{}", describe(.0))]
    Fields(Vec<ContentError>),
}

fn describe(errors: &[ContentError]) -> String {
    match errors {
        [one] => format!("{}: {}", one.pointer, one.detail),
        many => format!("{} fields are not as they must be; `errors` names each", many.len()),
    }
}

/// An object's fields, taken one by one; what is left at the end is unknown.
pub struct Fields<'a> {
    at: String,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    errors: Vec<ContentError>,
}

impl<'a> Fields<'a> {
    /// Reads a body that must be one JSON object.
    ///
    /// # Errors
    /// [`BodyError`], where it is not.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let text = std::str::from_utf8(body).map_err(|e| BodyError::Encoding(e.valid_up_to()))?;
        if depth(text) > MAX_DEPTH {
            return Err(BodyError::Depth);
        }
        let object: Object<'a> = serde_json::from_str(text).map_err(|e| BodyError::Syntax(e.to_string()))?;
        Ok(Self::of(String::new(), object))
    }

    /// Reads an object inside a body that [`Fields::parse`] accepted.
    pub fn inside(at: String, raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok().map(|object| Self::of(at, object))
    }

    fn of(at: String, object: Object<'a>) -> Self {
        let mut this = Self { at, fields: Vec::with_capacity(object.0.len()), errors: Vec::new() };
        // A body may hold tens of thousands of fields, so they are not compared one with all others.
        let mut known = HashSet::with_capacity(object.0.len());
        for (name, value) in object.0 {
            if known.insert(name.clone()) {
                this.fields.push((name, value));
            } else {
                this.refuse(&name, "stands twice");
            }
        }
        this
    }

    /// Takes a field as it stands; `null` is the same as leaving it out.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.fields.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.fields.swap_remove(at);
        (value.get() != "null").then_some(value)
    }

    /// Takes a field of a change, in which `null` clears.
    pub fn edit(&mut self, name: &str) -> Edit<&'a RawValue> {
        let Some(at) = self.fields.iter().position(|(known, _)| known == name) else { return Edit::Keep };
        let (_, value) = self.fields.swap_remove(at);
        if value.get() == "null" { Edit::Clear } else { Edit::Set(value) }
    }

    /// Takes every field that was not taken yet, in no order: of an object whose names are the sender's own.
    pub fn rest(&mut self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        std::mem::take(&mut self.fields)
    }

    /// Takes a field that must read as `T`, where it is there.
    pub fn read<T: Deserialize<'a>>(&mut self, name: &str, expected: &str) -> Option<T> {
        let raw = self.take(name)?;
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.refuse(name, format!("must be {expected}"));
        }
        value
    }

    /// Takes a string.
    pub fn string(&mut self, name: &str) -> Option<String> {
        self.read(name, "a string")
    }

    /// Takes a field as text, where it is there: a string as what it says, anything else as it is written.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let raw = self.take(name)?.get();
        Some(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()))
    }

    /// Notes that a field breaks a rule.
    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let pointer = format!("{}/{}", self.at, name.replace('~', "~0").replace('/', "~1"));
        self.errors.push(ContentError { pointer, detail: detail.into() });
    }

    /// Where this object stands, with a field's name behind.
    pub fn pointer(&self, name: &str) -> String {
        format!("{}/{name}", self.at)
    }

    /// Takes over what was found elsewhere.
    pub fn absorb(&mut self, errors: impl IntoIterator<Item = ContentError>) {
        self.errors.extend(errors);
    }

    /// The value, where it is there and nothing was refused.
    ///
    /// # Errors
    /// [`BodyError::Fields`] with every fault found.
    pub fn close<T>(self, value: Option<T>) -> Result<T, BodyError> {
        let errors = self.finish();
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            _ => Err(BodyError::Fields(errors)),
        }
    }

    /// Every fault found; fields nobody took are unknown ones.
    pub fn finish(mut self) -> Vec<ContentError> {
        for (name, _) in std::mem::take(&mut self.fields) {
            self.refuse(&name, "is not a field known here");
        }
        self.errors
    }
}

/// An object as its fields in order, duplicates kept so that they can be refused.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A key, borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// How deep brackets nest outside strings. Needs no valid JSON, and no stack: serde's own guard does not hold for
/// values that are kept raw.
pub fn depth(json: &str) -> usize {
    let (mut now, mut most) = (0usize, 0usize);
    outside_strings(json, |byte| match byte {
        b'[' | b'{' => {
            now += 1;
            most = most.max(now);
        }
        b']' | b'}' => now = now.saturating_sub(1),
        _ => {}
    });
    most
}

/// Drops white space outside strings, so that valid JSON fits one line; numbers, key order and escapes stay as sent.
pub fn compact(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.chars() {
        if inside || !matches!(c, ' ' | '\n' | '\r' | '\t') {
            line.push(c);
        }
        (inside, escaped) = step(inside, escaped, c);
    }
    line
}

/// JSON that was checked when it came, as a part of what is written. Should the file have been damaged, the rest still
/// shows.
pub fn stored(json: &str) -> Option<&RawValue> {
    serde_json::from_str(json).ok()
}

/// Whether a text is JSON of a depth that we take.
pub fn is_json(text: &str) -> bool {
    depth(text) <= MAX_DEPTH && serde_json::from_str::<&RawValue>(text.trim()).is_ok()
}

fn outside_strings(json: &str, mut see: impl FnMut(u8)) {
    let (mut inside, mut escaped) = (false, false);
    for byte in json.bytes() {
        if !inside {
            see(byte);
        }
        (inside, escaped) = step(inside, escaped, char::from(byte));
    }
}

const fn step(inside: bool, escaped: bool, c: char) -> (bool, bool) {
    match (inside, c) {
        (true, _) if escaped => (true, false),
        (true, '\\') => (true, true),
        (_, '"') => (!inside, false),
        _ => (inside, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_keeps_what_was_sent() {
        let sent = "{ \"b\" : 1.0e+5,\n\t\"a\":[ 12345678901234567890 , \"x \\\" y\\\\\" , \"\\u00e9\" ] }";
        assert_eq!(compact(sent), "{\"b\":1.0e+5,\"a\":[12345678901234567890,\"x \\\" y\\\\\",\"\\u00e9\"]}");
    }

    #[test]
    fn depth_does_not_count_brackets_in_strings() {
        assert_eq!(depth(r#"{"a":"[[[[\"[","b":[[]]}"#), 3);
        assert_eq!(depth(&"[".repeat(100_000)), 100_000);
    }

    #[test]
    fn faults_are_all_told_with_pointers() {
        let mut fields = Fields::parse(br#"{"a":1,"a":2,"b~/":3,"c":"x"}"#).expect("an object");
        assert_eq!(fields.string("c").as_deref(), Some("x"));
        assert_eq!(fields.string("a"), None);
        let pointers: Vec<_> = fields.finish().into_iter().map(|e| e.pointer).collect();
        assert_eq!(pointers, ["/a", "/a", "/b~0~1"]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "[]", "1", "{", "{\"a\":}", "{} x"] {
            assert!(matches!(Fields::parse(bad.as_bytes()), Err(BodyError::Syntax(_))), "{bad}");
        }
        assert_eq!(Fields::parse(b"{\"a\":\"\xff\"}").err(), Some(BodyError::Encoding(6)));
        let deep = format!("{{\"data\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        assert_eq!(Fields::parse(deep.as_bytes()).err(), Some(BodyError::Depth));
    }
}

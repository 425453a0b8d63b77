//! A template is registered, the same one again being the same version, or it is refused in lines; and whatever its values
//! are, each of them stays in its place: what comes out has the tags, signs, lines and sites that it has with harmless
//! values of the same lengths.
//!
//! An input is a definition and its values as JSON; or a medium, a text of it, and the values of a few variables of all kinds.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tidings::broker::{BrokerError, Registered};
use tidings::model::{
    ContentError, DingTalkText, EmailText, InAppText, Locale, MAX_DEPTH, Need, Template, Texts, Variable, VariableKind,
    Variables,
};
use tidings::wire::json::BodyError;
use tidings::wire::template::{PreviewBody, canonical, parse_template};

use super::gate::Gate;
use super::input::Input;
use super::markup::{self, NO_HOST};
use super::{depth, draft};

/// Bytes that a text may become.
const MAX_BYTES: usize = 256 * 1024;

pub fn template(data: &[u8]) {
    let mut input = Input::new(data);
    if !data.starts_with(b"{") {
        let (template, values) = of_one_text(&mut input);
        return tried(template, &Value::Object(values), None);
    }
    let definition = input.field();
    let values: Option<Value> = serde_json::from_slice(input.field()).ok();
    match parse_template(definition) {
        Ok(template) => tried(template, &values.unwrap_or_else(|| json!({})), Locale::new(&input.text()).ok()),
        Err(error) => {
            draft::is_told(&error);
            if let BodyError::Fields(faults) = &error {
                faults.iter().for_each(|fault| is_line(&fault.detail));
            }
        }
    }
}

/// A template of one text beside the title that everybody needs, and values of every kind.
fn of_one_text(input: &mut Input<'_>) -> (Template, Map<String, Value>) {
    let medium = input.byte();
    let text = input.text().into_owned();
    let of = |kind, need| Variable { kind, need };
    let fields = BTreeMap::from([
        ("title".to_owned(), of(VariableKind::Text, Need::Required)),
        ("url".to_owned(), of(VariableKind::Link, Need::Optional)),
    ]);
    let variables = BTreeMap::from([
        ("name".to_owned(), of(VariableKind::Text, Need::Required)),
        ("note".to_owned(), of(VariableKind::Text, Need::Optional)),
        ("link".to_owned(), of(VariableKind::Link, Need::Optional)),
        ("count".to_owned(), of(VariableKind::Integer, Need::Required)),
        ("price".to_owned(), of(VariableKind::Number, Need::Optional)),
        ("late".to_owned(), of(VariableKind::Boolean, Need::Required)),
        ("due".to_owned(), of(VariableKind::Date, Need::Required)),
        ("at".to_owned(), of(VariableKind::Moment, Need::Optional)),
        ("books".to_owned(), of(VariableKind::List(fields), Need::Optional)),
    ]);
    let mut texts =
        Texts { in_app: Some(InAppText { title: "t".to_owned(), ..InAppText::default() }), ..Texts::default() };
    let in_app = texts.in_app.get_or_insert_default();
    match medium {
        b'c' => in_app.click = Some(text),
        b'b' => in_app.body = text,
        b'h' => texts.email = Some(EmailText { html: Some(text), ..EmailText::default() }),
        b's' => texts.email = Some(EmailText { subject: text, ..EmailText::default() }),
        b'm' => texts.dingtalk = Some(DingTalkText { text, ..DingTalkText::default() }),
        b'w' => texts.webhook = Some(text),
        _ => in_app.title = text,
    }
    let mut values = Map::new();
    values.insert("name".to_owned(), input.text().into());
    values.extend(input.some_text().map(|note| ("note".to_owned(), note.into())));
    let link = input.some_text();
    values.extend(link.clone().map(|link| ("link".to_owned(), link.into())));
    values.insert("late".to_owned(), (input.byte() % 2 == 1).into());
    values.insert("due".to_owned(), format!("20{:02}-11-27", input.byte() % 100).into());
    let count = i64::from_le_bytes(input.number().to_le_bytes());
    values.insert("count".to_owned(), count.into());
    #[expect(clippy::cast_precision_loss, reason = "any number will do")]
    values.insert("price".to_owned(), json!(count as f64 / 7.0));
    values.insert("at".to_owned(), "2026-11-27T20:00:00Z".into());
    let items: Vec<Value> = (0..input.byte() % 4).map(|_| json!({"title": values["name"], "url": link})).collect();
    let whole = items.iter().all(|item| item["url"].is_string());
    values.extend(whole.then(|| ("books".to_owned(), items.into())));
    let locale = Locale::default();
    let texts = BTreeMap::from([(locale.clone(), texts)]);
    (Template { category: None, default_locale: locale, time_zone: None, variables, texts }, values)
}

fn tried(template: Template, values: &Value, locale: Option<Locale>) {
    let Some((version, _)) = registered(&template) else { return };
    let written = canonical(&template);
    let again = parse_template(written.as_bytes()).unwrap_or_else(|e| panic!("{e} in what we wrote: {written}"));
    assert_eq!(registered(&again), Some((version, Registered::Before)), "the same is the same version: {written}");
    let harmless = harmless(values, &template.variables);
    let told = rendered(version, values, locale.clone());
    if let Ok(told) = &told {
        is_within_its_form(told);
    }
    if template.texts.values().flat_map(all).any(compares) {
        return;
    }
    match (told, rendered(version, &harmless, locale)) {
        (Ok(told), Ok(plain)) => keeps_its_places(&told, &plain),
        (Err(faults), Ok(_)) => {
            let broken = faults.iter().find(|fault| fault.detail.contains("is not JSON"));
            assert_eq!(broken, None, "by its values alone: {values}");
        }
        (_, Err(_)) => {}
    }
}

fn registered(template: &Template) -> Option<(u32, Registered)> {
    match Gate::with(|gate| gate.register(template.clone())) {
        Ok(version) => Some(version),
        Err(error) => {
            refused(error);
            None
        }
    }
}

fn rendered(version: u32, values: &Value, locale: Option<Locale>) -> Result<Texts, Vec<ContentError>> {
    let preview = PreviewBody { version: Some(version), params: values.to_string(), locale, time_zone: None };
    Gate::with(|gate| gate.preview(preview)).map(|told| told.texts).map_err(refused)
}

/// What is wrong, told in lines. Anything else is no refusal, but ours to mend.
fn refused(error: BrokerError) -> Vec<ContentError> {
    let BrokerError::Invalid(faults) = error else { panic!("{error}") };
    assert!(!faults.is_empty(), "refused for nothing");
    for fault in &faults {
        assert!(!fault.detail.is_empty(), "{fault:?}");
        is_line(&fault.detail);
    }
    faults
}

fn is_line(text: &str) {
    assert!(!text.contains(|c: char| c.is_control() || "\u{2028}\u{2029}".contains(c)), "{text:?} is not one line");
}

/// The texts of one language.
fn all(texts: &Texts) -> Vec<&str> {
    let in_app = texts.in_app.iter().flat_map(|text| [&text.title, &text.body].into_iter().chain(&text.click));
    let email = texts.email.iter().flat_map(|text| [&text.subject, &text.text].into_iter().chain(&text.html));
    let dingtalk = texts.dingtalk.iter().flat_map(|text| [&text.title, &text.text]);
    in_app.chain(email).chain(dingtalk).chain(&texts.webhook).map(String::as_str).collect()
}

/// Whether a text may say something else for another value of the same length: by a comparison in one of its blocks.
fn compares(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let open = &rest[at..];
        let end = match open.as_bytes().get(1) {
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            Some(b'#') => "#}",
            _ => {
                rest = &open[1..];
                continue;
            }
        };
        let mut quote = None;
        let mut at = 2;
        while at < open.len() && (quote.is_some() || !open[at..].starts_with(end)) {
            let c = open[at..].chars().next().expect("it goes on");
            match quote {
                Some(begun) if begun == c => quote = None,
                None if matches!(c, '"' | '\'') && end != "#}" => quote = Some(c),
                None if "=<>".contains(c) && end == "%}" => return true,
                _ => {}
            }
            at += c.len_utf8();
        }
        rest = open.get(at + 2..).unwrap_or_default();
    }
    false
}

fn blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Values of the same lengths in which nothing means anything. Numbers and days stay what they are, and an address its
/// site.
fn harmless(values: &Value, variables: &Variables) -> Value {
    let Value::Object(values) = values else { return values.clone() };
    let of = |(name, value): (&String, &Value)| {
        let harmless = match (variables.get(name).map(|variable| &variable.kind), value) {
            // Nothing but space is no more than that.
            (Some(VariableKind::Text), Value::String(text)) if text.chars().all(blank) => value.clone(),
            (Some(VariableKind::Text), Value::String(text)) => "x".repeat(text.chars().count()).into(),
            (Some(VariableKind::Link), Value::String(link)) => link.replace(NO_HOST, "x").into(),
            (Some(VariableKind::List(fields)), Value::Array(items)) => {
                items.iter().map(|item| harmless(item, fields)).collect()
            }
            _ => value.clone(),
        };
        (name.clone(), harmless)
    };
    Value::Object(values.iter().map(of).collect())
}

fn is_within_its_form(texts: &Texts) {
    assert!(all(texts).iter().all(|text| text.len() <= MAX_BYTES), "more than it may become");
    let titles = texts.in_app.iter().map(|text| &text.title);
    let subjects = texts.email.iter().map(|text| &text.subject);
    titles.chain(subjects).chain(texts.dingtalk.iter().map(|text| &text.title)).for_each(|line| is_line(line));
    let several = texts.in_app.iter().map(|text| &text.body).chain(texts.email.iter().map(|text| &text.text));
    for text in several.chain(texts.dingtalk.iter().map(|text| &text.text)) {
        assert!(!text.contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{text:?}");
    }
    texts.in_app.iter().filter_map(|text| text.click.as_ref()).for_each(|click| draft::is_link(click));
    if let Some(json) = &texts.webhook {
        serde_json::from_str::<&RawValue>(json.trim()).unwrap_or_else(|e| panic!("{e}: {json}"));
        assert!(depth::nesting(json) <= MAX_DEPTH);
    }
}

/// Panics where a value is read as more than a value.
fn keeps_its_places(told: &Texts, harmless: &Texts) {
    let same = |read: &dyn Fn(&str) -> String, told: Option<&String>, harmless: Option<&String>| {
        if let (Some(told), Some(harmless)) = (told, harmless) {
            assert_eq!(read(told), read(harmless), "a value left its place in {told:?}, which would be {harmless:?}");
        }
    };
    let html = |texts: &'_ Texts| texts.email.as_ref().and_then(|text| text.html.clone());
    same(&|text| markup::html(text).join("\n"), html(told).as_ref(), html(harmless).as_ref());
    let markdown = |texts: &'_ Texts| texts.dingtalk.as_ref().map(|text| text.text.clone());
    same(&markup::markdown, markdown(told).as_ref(), markdown(harmless).as_ref());
    same(&markup::json, told.webhook.as_ref(), harmless.webhook.as_ref());
    let click = |texts: &'_ Texts| texts.in_app.as_ref().and_then(|text| text.click.clone());
    same(&markup::site, click(told).as_ref(), click(harmless).as_ref());
}

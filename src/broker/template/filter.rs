//! The few filters that templates have: what each takes is checked when a text is registered, what each gives is bounded.

use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::escape;
use super::scan::{Fault, Kind};
use super::token::Token;
use crate::model::{Locale, TimeZone};

/// Bytes that one filter gives at most.
const MAX_RESULT_BYTES: usize = 256 * 1024;
/// Decimals that `number` writes at most.
const MAX_DECIMALS: usize = 6;
/// Characters that `truncate` leaves at most.
const MAX_TRUNCATED: usize = 10_000;

/// Where the engine finds the zone and the language; no variable's name begins like that.
pub(super) const ZONE: &str = "_zone";
pub(super) const LOCALE: &str = "_locale";

/// Directives of `date` that tell the day, and those that tell the time.
const DAY: &str = "YymdejBbAaU";
const TIME: &str = "HIMSpZ";
/// Characters of a day, `2026-11-27`; a moment has more.
const DAY_CHARS: usize = 10;

/// What a filter makes of a value of this kind.
///
/// # Errors
/// [`Fault`] where there is no such filter, or it does not fit.
pub(super) fn check<'v>(name: &str, kind: Kind<'v>, arguments: &[Token<'_>]) -> Result<Kind<'v>, Fault> {
    use Kind::{Boolean, Date, Link, List, Moment, Number, Text};
    use Token::{Number as N, Text as T};
    match (name, kind, arguments) {
        ("length", Text | List(_), []) => Ok(Number),
        ("upper" | "lower", Text, [])
        | ("default", Text | Number | Boolean | Date | Moment | Link, [T(_)])
        | ("number", Number, [])
        | ("date", Date | Moment, []) => Ok(Text),
        ("truncate", Text, [N(count)]) if whole(count).is_some_and(|n| (1..=MAX_TRUNCATED).contains(&n)) => Ok(Text),
        ("number", Number, [N(count)]) if whole(count).is_some_and(|n| n <= MAX_DECIMALS) => Ok(Text),
        ("join", List(fields), [T(_), T(field)]) => match fields.get(*field) {
            Some(_) => Ok(Text),
            None => Err(Fault(format!("`join` names the field `{field}`, which the list's items have not"))),
        },
        ("date", Date, [T(format)]) => directives(format, DAY).map(|()| Text),
        ("date", Moment, [T(format)]) => directives(format, &format!("{DAY}{TIME}")).map(|()| Text),
        ("date", Moment, [T(format), T(zone)]) => {
            directives(format, &format!("{DAY}{TIME}"))?;
            TimeZone::new(zone).map_err(|e| Fault(format!("`{zone}` {e}")))?;
            Ok(Text)
        }
        ("upper" | "lower" | "length" | "default" | "truncate" | "number" | "join" | "date", ..) => {
            Err(Fault(format!("`{name}` does not take that: {}", usage(name))))
        }
        _ => Err(Fault(format!(
            "`{name}` is no filter; there are date, default, join, length, lower, number, truncate and upper"
        ))),
    }
}

fn whole(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn usage(name: &str) -> &'static str {
    match name {
        "date" => "date|date(\"%Y-%m-%d\"), datetime|date(\"%Y-%m-%d %H:%M\", \"Asia/Shanghai\")",
        "default" => "value|default(\"text\")",
        "join" => "list|join(\", \", \"field\")",
        "length" => "string|length, list|length",
        "number" => "number|number, number|number(2), with at most 6 decimals",
        "truncate" => "string|truncate(40)",
        _ => "string|upper, string|lower",
    }
}

/// Refuses a format with anything but plain directives: widths and the like can ask for any length.
fn directives(format: &str, known: &str) -> Result<(), Fault> {
    let mut rest = format;
    while let Some((_, behind)) = rest.split_once('%') {
        // `-` leaves padding away.
        let directive = behind.strip_prefix('-').unwrap_or(behind).chars().next();
        let Some(letter) = directive.filter(|c| known.contains(*c) || *c == '%') else {
            return Err(Fault(format!("`{format}` is no format here; after a `%` there is one of {known}")));
        };
        rest = &behind[behind.find(letter).unwrap_or(0) + letter.len_utf8()..];
    }
    Ok(())
}

/// Writes a value so that it stays what it is where it stands.
type Escape = fn(&str) -> String;

/// Gives the engine the filters, those that escape included.
pub(super) fn install(engine: &mut Environment<'_>) {
    let escapes: [(&'static str, Escape); 9] = [
        ("e_line", escape::line),
        ("e_plain", escape::plain),
        ("e_html", escape::html),
        ("e_md", escape::markdown),
        ("e_md_url", escape::markdown_link),
        ("e_url", escape::link),
        ("e_url_first", escape::link_first),
        ("e_url_part", escape::link_part),
        ("e_json_part", escape::json_part),
    ];
    for (name, escape) in escapes {
        engine.add_filter(name, move |value: &Value| text(value).and_then(|text| bounded(escape(&text))));
    }
    engine.add_filter("e_json", |value: &Value| {
        if value.is_none() {
            return Ok("null".to_owned());
        }
        let written = text(value)?;
        bounded(if value.as_str().is_some() { format!("\"{}\"", escape::json_part(&written)) } else { written })
    });
    engine.add_filter("upper", |value: &Value| on_text(value, str::to_uppercase));
    engine.add_filter("lower", |value: &Value| on_text(value, str::to_lowercase));
    engine.add_filter("length", length);
    engine.add_filter("default", |value: &Value, other: String| {
        let missing = value.is_none() || value.as_str().is_some_and(str::is_empty);
        if missing { Value::from(other) } else { value.clone() }
    });
    engine.add_filter("truncate", |value: &Value, count: usize| on_text(value, |text| truncated(text, count)));
    engine.add_filter("number", number);
    engine.add_filter("join", join);
    engine.add_filter("date", date);
}

fn refuse(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// A value as it is written, before it is escaped; what was left out is nothing.
fn text(value: &Value) -> Result<String, Error> {
    if value.is_none() || value.is_undefined() {
        return Ok(String::new());
    }
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    if value.is_number() || matches!(value.kind(), minijinja::value::ValueKind::Bool) {
        return Ok(value.to_string());
    }
    Err(refuse("this can't be written"))
}

fn bounded(text: String) -> Result<String, Error> {
    if text.len() > MAX_RESULT_BYTES { Err(refuse("a value grows beyond 256 KiB")) } else { Ok(text) }
}

fn on_text(value: &Value, work: impl FnOnce(&str) -> String) -> Result<Value, Error> {
    if value.is_none() { Ok(Value::from(())) } else { bounded(work(&text(value)?)).map(Value::from) }
}

fn length(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.chars().count(),
        None => value.len().unwrap_or_default(),
    }
}

fn truncated(text: &str, count: usize) -> String {
    if text.chars().count() <= count {
        return text.to_owned();
    }
    text.chars().take(count.saturating_sub(1)).chain(['…']).collect()
}

fn join(value: &Value, between: &str, field: &str) -> Result<Value, Error> {
    let mut joined = String::new();
    if value.is_none() {
        return Ok(Value::from(()));
    }
    for (i, item) in value.try_iter()?.enumerate() {
        if i > 0 {
            joined.push_str(between);
        }
        joined.push_str(&text(&item.get_attr(field)?)?);
        if joined.len() > MAX_RESULT_BYTES {
            return Err(refuse("a value grows beyond 256 KiB"));
        }
    }
    Ok(Value::from(joined))
}

/// A number with its thousands apart, as the language writes them.
fn number(state: &State<'_, '_>, value: &Value, decimals: Option<usize>) -> Value {
    if value.is_none() {
        return Value::from(());
    }
    let plain = match (decimals, f64::try_from(value.clone())) {
        (Some(decimals), Ok(number)) => format!("{number:.*}", decimals.min(MAX_DECIMALS)),
        _ => value.to_string(),
    };
    let locale =
        state.lookup(LOCALE).and_then(|tag| tag.as_str().and_then(|tag| Locale::new(tag).ok())).unwrap_or_default();
    Value::from(grouped(&plain, &locale))
}

fn grouped(plain: &str, locale: &Locale) -> String {
    let (thousands, point) = match (locale.as_str(), locale.as_str().split('-').next().unwrap_or_default()) {
        ("de-CH" | "fr-CH" | "it-CH", _) => ('’', '.'),
        (_, "de" | "es" | "it" | "nl" | "pt" | "id" | "tr" | "da" | "el") => ('.', ','),
        (_, "fr" | "ru" | "uk" | "pl" | "cs" | "sv" | "nb" | "fi") => ('\u{202f}', ','),
        _ => (',', '.'),
    };
    let (whole, fraction) = plain.split_once('.').map_or((plain, None), |(whole, fraction)| (whole, Some(fraction)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return plain.to_owned();
    }
    let mut out = sign.to_owned();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(thousands);
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push(point);
        out.push_str(fraction);
    }
    out
}

/// A day or a moment, as the format says; a moment in the zone that is named, or in the one it is rendered for.
fn date(state: &State<'_, '_>, value: &Value, format: Option<&str>, zone: Option<&str>) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return Ok(Value::from(())) };
    let told = if text.len() == DAY_CHARS {
        let day: jiff::civil::Date = text.parse().map_err(|_| refuse("this is no day"))?;
        jiff::fmt::strtime::format(format.unwrap_or("%Y-%m-%d"), day)
    } else {
        let moment: jiff::Timestamp = text.parse().map_err(|_| refuse("this is no moment"))?;
        let rendered_for = state.lookup(ZONE);
        let zone = zone.or_else(|| rendered_for.as_ref().and_then(Value::as_str)).unwrap_or("UTC");
        let there = moment.to_zoned(TimeZone::stored(zone).rules());
        jiff::fmt::strtime::format(format.unwrap_or("%Y-%m-%d %H:%M"), &there)
    };
    told.map(Value::from).map_err(|_| refuse("this date can't be written so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_as_the_language_does() {
        let told = |plain: &str, tag: &str| grouped(plain, &Locale::new(tag).expect("a tag"));
        assert_eq!(told("1234567.50", "en"), "1,234,567.50");
        assert_eq!(told("-1234", "de"), "-1.234");
        assert_eq!(told("1234.5", "de-CH"), "1’234.5");
        assert_eq!(told("999", "fr"), "999");
        assert_eq!(told("inf", "en"), "inf");
    }

    #[test]
    fn formats_hold_plain_directives_only() {
        for good in ["", "%Y-%m-%d", "%-d %B", "100 %%", "年%m月"] {
            assert_eq!(directives(good, DAY), Ok(()), "{good}");
        }
        for bad in ["%", "%99999d", "%_5d", "%H", "%c", "%-", "%s"] {
            assert!(directives(bad, DAY).is_err(), "{bad}");
        }
    }
}

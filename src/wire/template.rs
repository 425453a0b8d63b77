//! Templates as they cross a socket: definitions, values, and what comes out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{BodyError, Fields};
use super::publish::category;
use crate::model::{
    Category, ContentError, DingTalkText, EmailText, InAppText, Locale, MAX_PARAM_CHARS, MAX_PARAM_ITEMS,
    MAX_TEMPLATE_VARIABLES, Need, Param, Params, Template, TemplateName, TemplateUse, Texts, TimeZone, Timestamp,
    Variable, VariableKind, Variables, click_fault,
};

/// Reads the definition of a template: the body of `PUT /v1/templates/{template}`.
///
/// # Errors
/// [`BodyError`] with every broken field.
pub fn parse_template(body: &[u8]) -> Result<Template, BodyError> {
    let mut fields = Fields::parse(body)?;
    let category = category(&mut fields, "category");
    let default_locale = named(&mut fields, "default_locale", Locale::new).unwrap_or_default();
    let time_zone = named(&mut fields, "time_zone", TimeZone::new);
    let variables = variables(&mut fields, "variables", Lists::Allowed);
    let mut texts = BTreeMap::new();
    for (name, raw) in children(&mut fields, "texts", "an object of texts by language, such as {\"en\":{\"in_app\":…}}")
    {
        let at = fields.pointer(&format!("texts/{name}"));
        match (Locale::new(&name), Fields::inside(at, raw)) {
            (Ok(locale), Some(mut inner)) => {
                let of_locale = of_locale(&mut inner);
                fields.absorb(inner.finish());
                if texts.insert(locale, of_locale).is_some() {
                    fields.refuse("texts", format!("`{}` stands twice", shown(&name)));
                }
            }
            (Err(e), _) => fields.refuse("texts", format!("`{}` {e}", shown(&name))),
            (_, None) => fields.refuse("texts", format!("`{}` must be an object of texts by medium", shown(&name))),
        }
    }
    fields.close(Some(Template { category, default_locale, time_zone, variables, texts }))
}

fn named<T, E: ToString>(fields: &mut Fields<'_>, name: &str, read: fn(&str) -> Result<T, E>) -> Option<T> {
    let text = fields.string(name)?;
    read(&text).map_err(|e| fields.refuse(name, e.to_string())).ok()
}

/// The fields of an object among the fields, by names that are the sender's own.
fn children<'a>(fields: &mut Fields<'a>, name: &str, expected: &str) -> Vec<(String, &'a RawValue)> {
    let Some(raw) = fields.take(name) else { return Vec::new() };
    let Some(mut inner) = Fields::inside(fields.pointer(name), raw) else {
        fields.refuse(name, format!("must be {expected}"));
        return Vec::new();
    };
    let children = inner.rest().into_iter().map(|(name, raw)| (name.into_owned(), raw)).collect();
    fields.absorb(inner.finish());
    children
}

/// Whether a list may stand among these variables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    Allowed,
    Refused,
}

fn variables(fields: &mut Fields<'_>, name: &str, lists: Lists) -> Variables {
    let mut variables = Variables::new();
    let declared = children(fields, name, "an object of variables, such as {\"name\":{\"type\":\"string\"}}");
    if declared.len() > MAX_TEMPLATE_VARIABLES {
        fields
            .refuse(name, format!("declares {} variables; at most {MAX_TEMPLATE_VARIABLES} are taken", declared.len()));
        return variables;
    }
    for (child, raw) in declared {
        if !is_variable_name(&child) {
            fields.refuse(name, format!("`{}` can't be a variable's name: letters, digits and _, beginning with a letter, at most 64, and no word of the language", shown(&child)));
            continue;
        }
        let Some(mut inner) = Fields::inside(fields.pointer(&format!("{name}/{child}")), raw) else {
            fields.refuse(name, format!("`{child}` must be an object with a `type`"));
            continue;
        };
        let kind = match inner.string("type").as_deref() {
            Some("string") => Some(VariableKind::Text),
            Some("integer") => Some(VariableKind::Integer),
            Some("number") => Some(VariableKind::Number),
            Some("boolean") => Some(VariableKind::Boolean),
            Some("date") => Some(VariableKind::Date),
            Some("datetime") => Some(VariableKind::Moment),
            Some("url") => Some(VariableKind::Link),
            Some("list") if lists == Lists::Allowed => {
                let items = self::variables(&mut inner, "items", Lists::Refused);
                if items.is_empty() {
                    inner.refuse("items", "declares the fields of the list's items, one at least");
                }
                Some(VariableKind::List(items))
            }
            _ => None,
        };
        if kind.is_none() {
            inner.refuse("type", format!("must be one of {} (a list in a list is none)", VariableKind::NAMES));
        }
        let need = match inner.read("required", "true or false") {
            Some(false) => Need::Optional,
            _ => Need::Required,
        };
        fields.absorb(inner.finish());
        if let Some(kind) = kind {
            variables.insert(child, Variable { kind, need });
        }
    }
    variables
}

/// Words that mean something inside a tag.
const RESERVED: [&str; 21] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "elif",
    "for",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "loop",
    "endif",
    "endfor",
    "self",
    "caller",
    "recursive",
];

/// Whether a variable can be called so.
pub fn is_variable_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.as_bytes()[0].is_ascii_alphabetic()
        && !RESERVED.contains(&name)
}

/// What somebody sent, short and on one line.
fn shown(text: &str) -> String {
    let parts = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars().take(40).map(|c| if parts(c) { '\u{fffd}' } else { c }).collect()
}

fn of_locale(fields: &mut Fields<'_>) -> Texts {
    let in_app = inside(fields, "in_app", |inner| InAppText {
        title: inner.string("title").unwrap_or_default(),
        body: inner.string("body").unwrap_or_default(),
        click: inner.string("click"),
    });
    let email = inside(fields, "email", |inner| EmailText {
        subject: required(inner, "subject"),
        text: required(inner, "text"),
        html: inner.string("html"),
    });
    let dingtalk = inside(fields, "dingtalk", |inner| DingTalkText {
        title: required(inner, "title"),
        text: required(inner, "text"),
    });
    Texts { in_app, email, dingtalk, webhook: fields.string("webhook") }
}

fn required(fields: &mut Fields<'_>, name: &str) -> String {
    fields.string(name).unwrap_or_else(|| {
        fields.refuse(name, "is missing");
        String::new()
    })
}

fn inside<'a, T>(fields: &mut Fields<'a>, name: &str, read: impl FnOnce(&mut Fields<'a>) -> T) -> Option<T> {
    let raw = fields.take(name)?;
    let Some(mut inner) = Fields::inside(fields.pointer(name), raw) else {
        fields.refuse(name, "must be an object of texts");
        return None;
    };
    let value = read(&mut inner);
    fields.absorb(inner.finish());
    Some(value)
}

/// A definition in one canonical form: what says the same is the same text.
pub fn canonical(template: &Template) -> String {
    serde_json::to_string(&DefinitionBody::from(template))
        .expect("our own bodies have string keys and no failing parts")
}

/// A template's definition as a body.
#[derive(Serialize)]
pub struct DefinitionBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    default_locale: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'a str>,
    variables: BTreeMap<&'a str, VariableBody<'a>>,
    texts: BTreeMap<&'a str, TextsBody<'a>>,
}

#[derive(Serialize)]
struct VariableBody<'a> {
    r#type: &'static str,
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<BTreeMap<&'a str, Self>>,
}

/// Texts of one language as a body.
#[derive(Serialize)]
pub struct TextsBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    in_app: Option<InAppBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<EmailBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dingtalk: Option<DingTalkBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<&'a str>,
}

#[derive(Serialize)]
struct InAppBody<'a> {
    title: &'a str,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<&'a str>,
}

#[derive(Serialize)]
struct EmailBody<'a> {
    subject: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<&'a str>,
}

#[derive(Serialize)]
struct DingTalkBody<'a> {
    title: &'a str,
    text: &'a str,
}

impl<'a> From<&'a Texts> for TextsBody<'a> {
    fn from(texts: &'a Texts) -> Self {
        Self {
            in_app: texts.in_app.as_ref().map(|t| InAppBody {
                title: &t.title,
                body: &t.body,
                click: t.click.as_deref(),
            }),
            email: texts.email.as_ref().map(|t| EmailBody {
                subject: &t.subject,
                text: &t.text,
                html: t.html.as_deref(),
            }),
            dingtalk: texts.dingtalk.as_ref().map(|t| DingTalkBody { title: &t.title, text: &t.text }),
            webhook: texts.webhook.as_deref(),
        }
    }
}

impl<'a> From<&'a Template> for DefinitionBody<'a> {
    fn from(template: &'a Template) -> Self {
        Self {
            category: template.category.as_ref().map(Category::as_str),
            default_locale: template.default_locale.as_str(),
            time_zone: template.time_zone.as_ref().map(TimeZone::as_str),
            variables: declared(&template.variables),
            texts: template.texts.iter().map(|(locale, texts)| (locale.as_str(), TextsBody::from(texts))).collect(),
        }
    }
}

fn declared(variables: &Variables) -> BTreeMap<&str, VariableBody<'_>> {
    let body =
        |variable: &'_ Variable| -> (&'static str, bool) { (variable.kind.as_str(), variable.need == Need::Required) };
    variables
        .iter()
        .map(|(name, variable)| {
            let (kind, required) = body(variable);
            let items = match &variable.kind {
                VariableKind::List(fields) => Some(declared(fields)),
                _ => None,
            };
            (name.as_str(), VariableBody { r#type: kind, required, items })
        })
        .collect()
}

/// Reads values for these variables.
///
/// # Errors
/// Each that is missing, wrong or not declared, by its pointer.
pub fn params(json: &str, variables: &Variables) -> Result<Params, Vec<ContentError>> {
    let wrong = || ContentError { pointer: "/params".to_owned(), detail: "must be an object of values".to_owned() };
    let raw: &RawValue = serde_json::from_str(json).map_err(|_| vec![wrong()])?;
    let mut fields = Fields::inside("/params".to_owned(), raw).ok_or_else(|| vec![wrong()])?;
    let params = values(&mut fields, variables);
    let faults: Vec<_> = fields
        .finish()
        .into_iter()
        .map(|ContentError { pointer, detail }| match detail.as_str() {
            "is not a field known here" => {
                ContentError { pointer, detail: "is not declared by the template".to_owned() }
            }
            _ => ContentError { pointer, detail },
        })
        .collect();
    if faults.is_empty() { Ok(params) } else { Err(faults) }
}

fn values(fields: &mut Fields<'_>, variables: &Variables) -> Params {
    let mut params = Params::new();
    for (name, variable) in variables {
        let Some(raw) = fields.take(name) else {
            if variable.need == Need::Required {
                fields.refuse(name, format!("is missing; the template needs a {}", variable.kind.as_str()));
            }
            continue;
        };
        let value = match &variable.kind {
            VariableKind::List(items) => list(fields, name, raw, items),
            kind => match scalar(kind, raw) {
                Ok(value) => Some(value),
                Err(detail) => {
                    fields.refuse(name, detail);
                    None
                }
            },
        };
        params.extend(value.map(|value| (name.clone(), value)));
    }
    params
}

fn list(fields: &mut Fields<'_>, name: &str, raw: &RawValue, of: &Variables) -> Option<Param> {
    let Ok(raws) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        fields.refuse(name, "must be a list of objects");
        return None;
    };
    if raws.len() > MAX_PARAM_ITEMS {
        fields.refuse(name, format!("has {} items; at most {MAX_PARAM_ITEMS} are taken", raws.len()));
        return None;
    }
    let mut items = Vec::with_capacity(raws.len());
    for (i, raw) in raws.into_iter().enumerate() {
        match Fields::inside(fields.pointer(&format!("{name}/{i}")), raw) {
            Some(mut inner) => {
                items.push(values(&mut inner, of));
                fields.absorb(inner.finish());
            }
            None => fields.refuse(name, "must be a list of objects"),
        }
    }
    Some(Param::List(items))
}

fn scalar(kind: &VariableKind, raw: &RawValue) -> Result<Param, String> {
    let json = raw.get();
    let text = || serde_json::from_str::<String>(json).map_err(|_| format!("must be a {}, as a string", kind.as_str()));
    match kind {
        VariableKind::Text => {
            let text = text()?;
            let count = text.chars().count();
            if count > MAX_PARAM_CHARS {
                return Err(format!("has {count} characters; at most {MAX_PARAM_CHARS} are taken"));
            }
            Ok(Param::Text(text))
        }
        VariableKind::Integer => {
            serde_json::from_str(json).map(Param::Integer).map_err(|_| "must be a whole number".to_owned())
        }
        VariableKind::Number => {
            serde_json::from_str(json).map(Param::Number).map_err(|_| "must be a number".to_owned())
        }
        VariableKind::Boolean => {
            serde_json::from_str(json).map(Param::Boolean).map_err(|_| "must be true or false".to_owned())
        }
        VariableKind::Date => {
            let text = text()?;
            let day = (text.len() == 10).then(|| text.parse::<jiff::civil::Date>().ok()).flatten();
            day.map(|day| Param::Date(day.to_string())).ok_or_else(|| "must be a day, such as 2026-11-27".to_owned())
        }
        VariableKind::Moment => {
            let moment = text()?.parse::<jiff::Timestamp>().ok();
            let told = moment.map(|moment| Param::Moment(moment.to_string()));
            told.ok_or_else(|| "must be a moment (RFC 3339), such as 2026-11-27T09:00:00+08:00".to_owned())
        }
        VariableKind::Link => {
            let link = text()?;
            match click_fault(&link) {
                Some(fault) => Err(fault),
                None => Ok(Param::Link(link)),
            }
        }
        VariableKind::List(_) => Err("must be a list of objects".to_owned()),
    }
}

/// Takes `template` and `params` of a publish.
pub fn template_use(fields: &mut Fields<'_>) -> Option<TemplateUse> {
    let params = fields.take("params").map(|raw| raw.get().to_owned());
    let Some(raw) = fields.take("template") else {
        if params.is_some() {
            fields.refuse("params", "are values for a `template`, and none is named");
        }
        return None;
    };
    let (name, version) = if let Ok(name) = serde_json::from_str::<String>(raw.get()) {
        (Some(name), None)
    } else if let Some(mut inner) = Fields::inside(fields.pointer("template"), raw) {
        let (name, version) = (inner.string("name"), version(&mut inner));
        fields.absorb(inner.finish());
        (name, version)
    } else {
        (None, None)
    };
    let name = name.ok_or_else(|| "must be a template's name, or {\"name\",\"version\"}".to_owned());
    match name.and_then(|name| TemplateName::new(&name).map_err(|e| e.to_string())) {
        Ok(name) => Some(TemplateUse { name, version, params: params.unwrap_or_else(|| "{}".to_owned()) }),
        Err(detail) => {
            fields.refuse("template", detail);
            None
        }
    }
}

fn version(fields: &mut Fields<'_>) -> Option<u32> {
    fields.read("version", "a version's number, from 1")
}

/// Reads the body of `POST …/publish`: `{"version"}`, or nothing for the newest.
///
/// # Errors
/// [`BodyError`].
pub fn parse_version(body: &[u8]) -> Result<Option<u32>, BodyError> {
    if body.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields::parse(body)?;
    let version = version(&mut fields);
    fields.close(Some(version))
}

/// What a preview asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewBody {
    /// `None` is the newest.
    pub version: Option<u32>,
    pub params: String,
    pub locale: Option<Locale>,
    pub time_zone: Option<TimeZone>,
}

/// Reads the body of `POST …/preview`.
///
/// # Errors
/// [`BodyError`].
pub fn parse_preview(body: &[u8]) -> Result<PreviewBody, BodyError> {
    let mut fields = Fields::parse(body)?;
    let preview = PreviewBody {
        version: version(&mut fields),
        params: fields.take("params").map_or("{}", RawValue::get).to_owned(),
        locale: named(&mut fields, "locale", Locale::new),
        time_zone: named(&mut fields, "time_zone", TimeZone::new),
    };
    fields.close(Some(preview))
}

/// A template as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateInfo {
    pub name: TemplateName,
    /// The version that publishes get; `None` where none was published yet.
    pub published: Option<u32>,
    /// The version that this is about: the newest, in lists.
    pub version: u32,
    pub created_at: Timestamp,
}

/// [`TemplateInfo`] as a body, with the definition where one template is asked for.
#[derive(Serialize)]
pub struct TemplateBody<'a> {
    name: &'a str,
    version: u32,
    state: &'static str,
    published: Option<u32>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<&'a RawValue>,
}

impl<'a> TemplateBody<'a> {
    pub fn new(info: &'a TemplateInfo, definition: Option<&'a RawValue>) -> Self {
        Self {
            name: info.name.as_str(),
            version: info.version,
            state: if info.published == Some(info.version) { "published" } else { "draft" },
            published: info.published,
            created_at: info.created_at.to_string(),
            definition,
        }
    }
}

/// A page of templates.
#[derive(Serialize)]
pub struct TemplatesBody<'a> {
    pub templates: Vec<TemplateBody<'a>>,
    pub next: Option<&'a str>,
}

/// What came out of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    pub version: u32,
    /// Of the language that was found for the one that was asked for.
    pub locale: Locale,
    pub texts: Texts,
}

/// [`Preview`] as a body.
#[derive(Serialize)]
pub struct PreviewedBody<'a> {
    version: u32,
    locale: &'a str,
    #[serde(flatten)]
    texts: TextsBody<'a>,
}

impl<'a> From<&'a Preview> for PreviewedBody<'a> {
    fn from(preview: &'a Preview) -> Self {
        let Preview { version, locale, texts } = preview;
        Self { version: *version, locale: locale.as_str(), texts: TextsBody::from(texts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: &str = r#"{"category":"loans","default_locale":"en","variables":{"name":{"type":"string"},"count":{"type":"integer","required":false},
        "books":{"type":"list","required":false,"items":{"title":{"type":"string"},"url":{"type":"url","required":false}}}},
        "texts":{"EN":{"in_app":{"title":"Due","body":"{{ name }}"}},"zh":{"in_app":{"title":"到期"}}}}"#;

    fn pointers<T: std::fmt::Debug>(read: Result<T, BodyError>) -> Vec<String> {
        match read {
            Err(BodyError::Fields(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_says_the_same_has_one_canonical_form() {
        let template = parse_template(DUE.as_bytes()).expect("a template");
        let text = canonical(&template);
        assert_eq!(parse_template(text.as_bytes()).as_ref(), Ok(&template));
        let other = DUE.replacen("\"category\":\"loans\",", "", 1).replacen('{', "{\n \"category\": \"loans\", ", 1);
        assert_eq!(canonical(&parse_template(other.as_bytes()).expect("a template")), text);
    }

    #[test]
    fn definitions_are_refused_field_by_field() {
        let bad = r#"{"variables":{"if":{"type":"string"},"a":{"type":"file"},"b":{"type":"list"},"c":{"type":"list","items":{"d":{"type":"list","items":{}}}}},
            "texts":{"en":{"in_app":{"tittle":"x"},"fax":{}},"e_n":{},"de":[]},"engine":"x"}"#;
        let mut found = pointers(parse_template(bad.as_bytes()));
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "/engine",
                "/texts",
                "/texts",
                "/texts/en/fax",
                "/texts/en/in_app/tittle",
                "/variables",
                "/variables/a/type",
                "/variables/b/items",
                "/variables/c/items",
                "/variables/c/items/d/items",
                "/variables/c/items/d/type"
            ]
        );
    }

    #[test]
    fn each_value_that_is_missing_wrong_or_unknown_is_named() {
        let template = parse_template(DUE.as_bytes()).expect("a template");
        let read = |json: &str| params(json, &template.variables);
        assert!(read(r#"{"name":"Alice","books":[{"title":"x","url":"/a"}],"count":null}"#).is_ok());
        let wrong = |json: &str| {
            let mut pointers: Vec<_> = read(json).expect_err("it is wrong").into_iter().map(|e| e.pointer).collect();
            pointers.sort_unstable();
            pointers
        };
        assert_eq!(wrong("{}"), ["/params/name"]);
        assert_eq!(wrong("[]"), ["/params"]);
        assert_eq!(
            wrong(r#"{"name":7,"count":1.5,"books":[{"url":"javascript:1"},7],"else":1}"#),
            [
                "/params/books",
                "/params/books/0/title",
                "/params/books/0/url",
                "/params/count",
                "/params/else",
                "/params/name"
            ]
        );
        let many = format!(r#"{{"name":"x","books":[{}]}}"#, vec![r#"{"title":"t"}"#; 101].join(","));
        assert_eq!(wrong(&many), ["/params/books"]);
        // The library's own name for a value that is kept raw is a name like any other.
        assert_eq!(wrong(r#"{"name":{"$serde_json::private::RawValue":"\"x\""}}"#), ["/params/name"]);
        assert_eq!(
            wrong(r#"{"name":"x","$serde_json::private::RawValue":"1"}"#),
            ["/params/$serde_json::private::RawValue"]
        );
    }

    #[test]
    fn days_and_moments_are_read_strictly() {
        let of = |kind, json: &str| {
            let raw = RawValue::from_string(json.to_owned()).expect("JSON");
            scalar(&kind, &raw).ok()
        };
        assert_eq!(of(VariableKind::Date, "\"2026-11-27\""), Some(Param::Date("2026-11-27".into())));
        assert_eq!(
            of(VariableKind::Moment, "\"2026-11-27T09:00:00+08:00\""),
            Some(Param::Moment("2026-11-27T01:00:00Z".into()))
        );
        for bad in ["\"2026-02-30\"", "\"tomorrow\"", "7", "\"2026-11-27T09:00:00\"", "\"\""] {
            assert_eq!(of(VariableKind::Date, bad).or(of(VariableKind::Moment, bad)), None, "{bad}");
        }
    }
}

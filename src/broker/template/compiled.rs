//! A template that was read: its texts as the engine runs them, and what comes out for values.

use std::collections::BTreeMap;

use minijinja::Value;

use super::place::Form;
use super::scan::{self, Fault};
use super::{engine, escape, filter};
use crate::model::{
    Content, ContentError, DingTalkText, EmailText, Form as LetterForm, InAppText, Letter, Lettering, Locale,
    MAX_TEMPLATE_LOCALES, Medium, Need, Param, Params, Template, Texts, TimeZone, Variable, VariableKind, Variables,
    Wording, click_fault,
};
use crate::wire::json::is_json;

/// A template whose texts were read.
pub(super) struct Compiled {
    pub(super) template: Template,
    /// As the engine runs them.
    sources: BTreeMap<Locale, Texts>,
}

/// Does something to each text.
fn each(
    locale: &Locale,
    texts: &Texts,
    faults: &mut Vec<ContentError>,
    mut work: impl FnMut(&str, Form) -> Result<String, Fault>,
) -> Texts {
    let mut at = |text: &str, name: &'static str, form: Form| {
        work(text, form).unwrap_or_else(|Fault(detail)| {
            faults.push(ContentError { pointer: format!("/texts/{locale}/{name}"), detail: escape::line(&detail) });
            String::new()
        })
    };
    Texts {
        in_app: texts.in_app.as_ref().map(|text| InAppText {
            title: at(&text.title, "in_app/title", Form::Line),
            body: at(&text.body, "in_app/body", Form::Plain),
            click: text.click.as_ref().map(|click| at(click, "in_app/click", Form::Link)),
        }),
        email: texts.email.as_ref().map(|text| EmailText {
            subject: at(&text.subject, "email/subject", Form::Line),
            text: at(&text.text, "email/text", Form::Plain),
            html: text.html.as_ref().map(|html| at(html, "email/html", Form::Html)),
        }),
        dingtalk: texts.dingtalk.as_ref().map(|text| DingTalkText {
            title: at(&text.title, "dingtalk/title", Form::Line),
            text: at(&text.text, "dingtalk/text", Form::Markdown),
        }),
        webhook: texts.webhook.as_ref().map(|json| at(json, "webhook", Form::Json)),
    }
}

impl Compiled {
    /// Reads a template, and tries it with values that it might be sent.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn new(template: Template) -> Result<Self, Vec<ContentError>> {
        let mut faults = Vec::new();
        if template.texts.len() > MAX_TEMPLATE_LOCALES {
            let detail = format!("has {} languages; at most {MAX_TEMPLATE_LOCALES} are taken", template.texts.len());
            return Err(vec![ContentError { pointer: "/texts".to_owned(), detail }]);
        }
        let default = &template.default_locale;
        if template.texts.get(default).is_none_or(|texts| texts.in_app.is_none()) {
            let detail = format!("needs `in_app` in the default language, `{default}`: everybody has an inbox");
            faults.push(ContentError { pointer: "/texts".to_owned(), detail });
        }
        let mut sources = BTreeMap::new();
        for (locale, texts) in &template.texts {
            let source = each(locale, texts, &mut faults, |text, form| {
                let source = scan::rewrite(text, form, &template.variables)?;
                engine::compile(&source)?;
                Ok(source)
            });
            sources.insert(locale.clone(), source);
        }
        let this = Self { template, sources };
        if faults.is_empty() {
            for needs in [&[Need::Required, Need::Optional][..], &[Need::Required]] {
                let params = sample(&this.template.variables, needs);
                for locale in this.sources.keys() {
                    if let Err(found) = this.render(locale, &params, None) {
                        faults.extend(found);
                    }
                }
                if !faults.is_empty() {
                    break;
                }
            }
        }
        if faults.is_empty() { Ok(this) } else { Err(faults) }
    }

    /// Each medium's text in the language that is best for a reader among those that have it, and the best language of all.
    ///
    /// # Errors
    /// What is wrong with what came out.
    pub(super) fn render_for(
        &self,
        reader: Option<&Locale>,
        params: &Params,
        zone: Option<&TimeZone>,
    ) -> Result<(Locale, Texts), Vec<ContentError>> {
        let mut chain = reader.map(Locale::chain).unwrap_or_default();
        chain.push(self.template.default_locale.clone());
        chain.retain(|locale| self.sources.contains_key(locale));
        let mut told = Texts::default();
        for locale in &chain {
            let source = self.sources.get(locale).cloned().unwrap_or_default();
            let missing = Texts {
                in_app: source.in_app.filter(|_| told.in_app.is_none()),
                email: source.email.filter(|_| told.email.is_none()),
                dingtalk: source.dingtalk.filter(|_| told.dingtalk.is_none()),
                webhook: source.webhook.filter(|_| told.webhook.is_none()),
            };
            let found = self.run(locale, &missing, params, zone)?;
            told = Texts {
                in_app: told.in_app.or(found.in_app),
                email: told.email.or(found.email),
                dingtalk: told.dingtalk.or(found.dingtalk),
                webhook: told.webhook.or(found.webhook),
            };
        }
        let best = chain.into_iter().next().unwrap_or_else(|| self.template.default_locale.clone());
        Ok((best, told))
    }

    /// What the inbox shows, in every language that the template has.
    ///
    /// # Errors
    /// What is wrong with what came out.
    pub(super) fn in_app(&self, params: &Params) -> Result<Vec<(Locale, Wording)>, Vec<ContentError>> {
        let mut wordings = Vec::new();
        for (locale, source) in &self.sources {
            if source.in_app.is_none() {
                continue;
            }
            let only = Texts { in_app: source.in_app.clone(), ..Texts::default() };
            let rendered = self.run(locale, &only, params, None)?;
            let InAppText { title, body, click } = rendered.in_app.unwrap_or_default();
            wordings.push((locale.clone(), Wording { title, body, click }));
        }
        Ok(wordings)
    }

    /// What these media say, in every language in which the template has something of their own for them.
    ///
    /// # Errors
    /// What is wrong with what came out.
    pub(super) fn letters(&self, params: &Params, media: &[Medium]) -> Result<Vec<Lettering>, Vec<ContentError>> {
        let mut letters = Vec::new();
        for (locale, source) in &self.sources {
            let only = Texts {
                email: source.email.clone().filter(|_| media.contains(&Medium::Email)),
                dingtalk: source.dingtalk.clone().filter(|_| media.contains(&Medium::DingTalk)),
                ..Texts::default()
            };
            if only == Texts::default() {
                continue;
            }
            let Texts { email, dingtalk, .. } = self.run(locale, &only, params, None)?;
            let mut add = |medium, letter| letters.push(Lettering { medium, locale: locale.clone(), letter });
            if let Some(EmailText { subject, text, html }) = email {
                add(Medium::Email, Letter { subject, text, html, ..Letter::default() });
            }
            if let Some(DingTalkText { title, text }) = dingtalk {
                add(Medium::DingTalk, Letter { subject: title, text, form: LetterForm::Markdown, ..Letter::default() });
            }
        }
        Ok(letters)
    }

    fn render(&self, locale: &Locale, params: &Params, zone: Option<&TimeZone>) -> Result<Texts, Vec<ContentError>> {
        self.run(locale, self.sources.get(locale).unwrap_or(&Texts::default()), params, zone)
    }

    fn run(
        &self,
        locale: &Locale,
        sources: &Texts,
        params: &Params,
        zone: Option<&TimeZone>,
    ) -> Result<Texts, Vec<ContentError>> {
        let zone = zone.or(self.template.time_zone.as_ref()).map_or("UTC", TimeZone::as_str);
        let mut values = values(&self.template.variables, params);
        values.insert(filter::ZONE.to_owned(), zone.into());
        values.insert(filter::LOCALE.to_owned(), locale.as_str().into());
        let values = Value::from(values);
        let mut faults = Vec::new();
        let mut texts = each(locale, sources, &mut faults, |source, form| finish(engine::run(source, &values)?, form));
        if let Some(text) = &mut texts.in_app {
            text.click = text.click.take().filter(|click| !click.is_empty());
            let content = Content {
                title: text.title.clone(),
                body: text.body.clone(),
                click: text.click.clone(),
                ..Content::default()
            };
            if faults.is_empty()
                && let Err(errors) = content.check()
            {
                faults.extend(errors.into_iter().map(|error| ContentError {
                    pointer: format!("/texts/{locale}/in_app{}", error.pointer),
                    detail: error.detail,
                }));
            }
        }
        if faults.is_empty() { Ok(texts) } else { Err(faults) }
    }
}

/// What came out, as its form must be.
fn finish(text: String, form: Form) -> Result<String, Fault> {
    match form {
        Form::Line => Ok(escape::line(&text).trim().to_owned()),
        Form::Plain => Ok(escape::plain(&text).trim_end().to_owned()),
        Form::Html | Form::Markdown => Ok(escape::plain(&text)),
        Form::Link => {
            let link = escape::link(&text);
            match click_fault(&link).filter(|_| !link.is_empty()) {
                Some(fault) => Err(Fault(fault)),
                None => Ok(link),
            }
        }
        Form::Json if is_json(&text) => Ok(text),
        Form::Json => Err(Fault::new("what comes out is not JSON")),
    }
}

/// Values as the engine has them: each variable that is declared, none of them undefined.
fn values(variables: &Variables, params: &Params) -> BTreeMap<String, Value> {
    let value = |(name, variable): (&String, &Variable)| {
        let value = params.get(name).map_or_else(|| Value::from(()), |param| as_value(variable, param));
        (name.clone(), value)
    };
    variables.iter().map(value).collect()
}

fn as_value(variable: &Variable, param: &Param) -> Value {
    match (param, &variable.kind) {
        (Param::Text(text) | Param::Date(text) | Param::Moment(text) | Param::Link(text), _) => text.as_str().into(),
        (Param::Integer(number), _) => (*number).into(),
        (Param::Number(number), _) => (*number).into(),
        (Param::Boolean(yes), _) => (*yes).into(),
        (Param::List(items), VariableKind::List(fields)) => {
            Value::from(items.iter().map(|item| Value::from(values(fields, item))).collect::<Vec<_>>())
        }
        (Param::List(_), _) => Value::from(()),
    }
}

/// Values of the right kinds for those variables that are needed so.
fn sample(variables: &Variables, needs: &[Need]) -> Params {
    let of = |variable: &Variable| match &variable.kind {
        VariableKind::Text => Param::Text("text".to_owned()),
        VariableKind::Integer => Param::Integer(1),
        VariableKind::Number => Param::Number(1.5),
        VariableKind::Boolean => Param::Boolean(true),
        VariableKind::Date => Param::Date("2026-11-27".to_owned()),
        VariableKind::Moment => Param::Moment("2026-11-27T09:00:00Z".to_owned()),
        VariableKind::Link => Param::Link("https://example.com/".to_owned()),
        VariableKind::List(fields) => Param::List(vec![sample(fields, needs)]),
    };
    let needed = variables.iter().filter(|(_, variable)| needs.contains(&variable.need));
    needed.map(|(name, variable)| (name.clone(), of(variable))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(variables: &[(&str, VariableKind, Need)], texts: Texts) -> Template {
        Template {
            category: None,
            default_locale: Locale::default(),
            time_zone: TimeZone::new("Asia/Shanghai").ok(),
            variables: variables
                .iter()
                .map(|(name, kind, need)| ((*name).to_owned(), Variable { kind: kind.clone(), need: *need }))
                .collect(),
            texts: BTreeMap::from([(Locale::default(), texts)]),
        }
    }

    fn texts() -> Texts {
        Texts { in_app: Some(InAppText { title: "t".into(), ..InAppText::default() }), ..Texts::default() }
    }

    fn rendered(texts: Texts, params: &[(&str, Param)]) -> Texts {
        let variables = [
            ("name", VariableKind::Text, Need::Optional),
            ("link", VariableKind::Link, Need::Optional),
            ("due", VariableKind::Moment, Need::Optional),
            ("count", VariableKind::Integer, Need::Optional),
        ];
        let compiled = Compiled::new(template(&variables, texts)).unwrap_or_else(|e| panic!("{e:?}"));
        let params = params.iter().map(|(name, param)| ((*name).to_owned(), param.clone())).collect();
        compiled.render_for(None, &params, None).unwrap_or_else(|e| panic!("{e:?}")).1
    }

    const HOSTILE: &str = "<b>\"O'Neil\"</b>\r\nBcc: all@example.com ](http://evil.example) # *x*";

    #[test]
    fn a_hostile_name_stays_a_name_in_every_medium() {
        let all = Texts {
            in_app: Some(InAppText {
                title: "Hi {{ name }}".into(),
                body: "{{ name }}".into(),
                click: Some("/u?n={{ name }}".into()),
            }),
            email: Some(EmailText {
                subject: "Hi {{ name }}".into(),
                text: "Hi {{ name }}".into(),
                html: Some("<p title=\"{{ name }}\">{{ name }} <a href=\"{{ link }}\">x</a></p>".into()),
            }),
            dingtalk: Some(DingTalkText { title: "{{ name }}".into(), text: "{{ name }} [x]({{ link }})".into() }),
            webhook: Some("{\"a\":{{ name }},\"b\":\"{{ name }}\",\"n\":{{ count }}}".into()),
        };
        let link = "https://a.example/?q=\"><script>)[](x";
        let told = rendered(all, &[("name", Param::Text(HOSTILE.into())), ("link", Param::Link(link.into()))]);
        let email = told.email.expect("it has one");
        assert!(!email.subject.contains(['\r', '\n']), "{}", email.subject);
        let html = email.html.expect("it has one");
        assert!(!html.contains("<b>") && !html.contains("<script>") && html.matches('"').count() == 4, "{html}");
        let in_app = told.in_app.expect("it has one");
        assert!(!in_app.title.contains(['\r', '\n']) && in_app.body.contains("<b>"), "{in_app:?}");
        assert!(in_app.click.is_some_and(|click| click.starts_with("/u?n=%3Cb%3E%22O%27Neil")));
        let dingtalk = told.dingtalk.expect("it has one");
        assert!(
            dingtalk.text.contains("\\]\\(http")
                && dingtalk.text.ends_with("[x](https://a.example/?q=%22%3E%3Cscript%3E%29%5B%5D%28x)"),
            "{}",
            dingtalk.text
        );
        let webhook = told.webhook.expect("it has one");
        assert!(is_json(&webhook) && webhook.ends_with("\"n\":null}"), "{webhook}");
    }

    #[test]
    fn moments_are_told_in_the_zone_that_is_asked_for() {
        let texts = Texts {
            in_app: Some(InAppText {
                title: "On {{ due|date }} {{ due|date('%H', 'UTC') }} {{ due|date('%d %B %Y') }}".into(),
                ..InAppText::default()
            }),
            ..Texts::default()
        };
        let told = rendered(texts, &[("due", Param::Moment("2026-11-27T20:00:00Z".into()))]);
        assert_eq!(told.in_app.map(|text| text.title).as_deref(), Some("On 2026-11-28 04:00 20 28 November 2026"));
    }

    #[test]
    fn what_may_be_left_out_can_be() {
        let texts = Texts {
            in_app: Some(InAppText {
                title: "x{{ name|upper|truncate(3)|default('nobody') }}{{ count|number }}{{ due|date }}".into(),
                ..InAppText::default()
            }),
            ..Texts::default()
        };
        assert_eq!(rendered(texts, &[]).in_app.map(|text| text.title).as_deref(), Some("xnobody"));
    }

    #[test]
    fn what_can_not_be_sent_is_refused_when_it_is_registered() {
        let refused =
            |texts: Texts| match Compiled::new(template(&[("name", VariableKind::Text, Need::Required)], texts)) {
                Err(faults) => faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>(),
                Ok(_) => panic!("it was taken"),
            };
        assert_eq!(refused(Texts::default()), ["/texts"]);
        let broken = Texts { webhook: Some("{\"a\":{{ name }}".into()), ..texts() };
        assert_eq!(refused(broken), ["/texts/en/webhook"]);
        let script = Texts {
            email: Some(EmailText { html: Some("<a href=\"{{ name }}\">".into()), ..EmailText::default() }),
            ..texts()
        };
        assert_eq!(refused(script), ["/texts/en/email/html"]);
        let link = Texts {
            in_app: Some(InAppText {
                title: "t".into(),
                click: Some("javascript:{{ name }}".into()),
                ..InAppText::default()
            }),
            ..Texts::default()
        };
        assert_eq!(refused(link), ["/texts/en/in_app/click"]);
        let empty = Texts { in_app: Some(InAppText::default()), ..Texts::default() };
        assert_eq!(refused(empty), ["/texts/en/in_app/body"]);
    }
}

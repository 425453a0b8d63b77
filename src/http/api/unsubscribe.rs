//! `/v1/unsubscribe/{token}`: the link in a mail. `GET` asks and changes nothing, since scanners follow links; `POST` acts,
//! whether a person pressed the button here or their mail program did it for them (RFC 8058).
//!
//! Nobody signs in for it: the token is what may. So no foreign page can do with it what it could not do anyway. A query is not
//! looked at: relays that count clicks put one there.

use http::header::{ACCEPT_LANGUAGE, CONTENT_SECURITY_POLICY};
use http::{HeaderMap, Response, StatusCode};

use crate::broker::Unsubscription;
use crate::http::answer;
use crate::http::assets::{PAGE_POLICY, escape};
use crate::http::body::Body;
use crate::http::call::Call;
use crate::model::Medium;
use crate::wire::problem::Problem;

/// What the page says. `{what}` is the medium, `{category}` the category.
struct Words {
    lang: &'static str,
    title: &'static str,
    email: &'static str,
    dingtalk: &'static str,
    webhook: &'static str,
    question: &'static str,
    button: &'static str,
    done: &'static str,
    inbox: &'static str,
    preferences: &'static str,
}

const ENGLISH: Words = Words {
    lang: "en",
    title: "Unsubscribe",
    email: "mail",
    dingtalk: "DingTalk messages",
    webhook: "webhook calls",
    question: "Do you want no more {what} about “{category}”?",
    button: "Unsubscribe",
    done: "You will get no more {what} about “{category}”.",
    inbox: "Your inbox still shows these notifications. What reaches you by which way can be changed at any time: ",
    preferences: "Preferences",
};

const CHINESE: Words = Words {
    lang: "zh",
    title: "退订",
    email: "邮件",
    dingtalk: "钉钉消息",
    webhook: "Webhook 调用",
    question: "不再接收关于“{category}”的{what}？",
    button: "退订",
    done: "你不会再收到关于“{category}”的{what}。",
    inbox: "收件箱仍会显示这些通知。接收方式可随时更改：",
    preferences: "偏好设置",
};

/// `GET /v1/unsubscribe/{token}`.
pub fn page(call: &Call) -> Result<Response<Body>, Problem> {
    let of = call.broker().unsubscription(call.params.text("token"))?;
    let words = words(call.headers());
    let lead = filled(words, words.question, &of);
    let form = format!(
        "<form method=\"post\">\n<button type=\"submit\" class=\"button button-main\">{}</button>\n</form>\n",
        escape(words.button)
    );
    Ok(shown(words, &lead, &form))
}

/// `POST /v1/unsubscribe/{token}`. Whatever the body says, the token says it all.
pub async fn act(mut call: Call) -> Result<Response<Body>, Problem> {
    let of = call.broker().unsubscription(call.params.text("token"))?;
    call.any_body().await?;
    call.app.meters().mark(&of.user)?;
    call.broker().unsubscribe(&of).await?;
    let words = words(call.headers());
    Ok(shown(words, &filled(words, words.done, &of), ""))
}

/// The language that comes first of those there are.
fn words(headers: &HeaderMap) -> &'static Words {
    let wanted = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut languages = wanted.split(',').map(|range| range.trim().split(['-', ';']).next().unwrap_or_default());
    languages
        .find_map(|language| match language {
            "en" => Some(&ENGLISH),
            "zh" => Some(&CHINESE),
            _ => None,
        })
        .unwrap_or(&ENGLISH)
}

/// A sentence about an unsubscription, as HTML.
fn filled(words: &Words, sentence: &str, of: &Unsubscription) -> String {
    let what = match of.medium {
        Medium::Email => words.email,
        Medium::DingTalk => words.dingtalk,
        Medium::Webhook => words.webhook,
    };
    escape(&sentence.replace("{what}", what).replace("{category}", of.category.as_str()))
}

fn shown(words: &Words, lead: &str, form: &str) -> Response<Body> {
    let Words { lang, title, inbox, preferences, .. } = words;
    let page = format!(
        "<!doctype html>\n<html lang=\"{lang}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>{title} · Tidings</title>\n\
         <link rel=\"icon\" href=\"../../static/favicon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"../../static/tidings.css\">\n</head>\n<body>\n\
         <main class=\"door\" id=\"main\">\n<div class=\"card door-card\">\n<h1>{title}</h1>\n\
         <p class=\"lead\" role=\"status\">{lead}</p>\n{form}\
         <p class=\"hint\">{inbox}<a href=\"../../preferences\">{preferences}</a></p>\n</div>\n</main>\n</body>\n</html>\n"
    );
    let mut response = answer::typed(StatusCode::OK, answer::HTML, page);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::model::{Category, UserId};

    fn spoken(wanted: &'static str) -> &'static str {
        words(&HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static(wanted))])).lang
    }

    #[test]
    fn the_page_speaks_the_language_that_is_wanted_first() {
        assert_eq!(words(&HeaderMap::new()).lang, "en");
        for (wanted, lang) in
            [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,zh;q=0.5", "en"), ("fr, zh-TW", "zh"), ("fr", "en"), ("", "en")]
        {
            assert_eq!(spoken(wanted), lang, "{wanted}");
        }
    }

    #[test]
    fn the_page_names_the_category_and_not_the_person() {
        let of = Unsubscription {
            user: UserId::new("<alice>").expect("a user"),
            category: Category::new("loans").expect("a category"),
            medium: Medium::Email,
        };
        assert_eq!(filled(&ENGLISH, ENGLISH.question, &of), "Do you want no more mail about “loans”?");
        assert_eq!(filled(&CHINESE, CHINESE.done, &of), "你不会再收到关于“loans”的邮件。");
    }
}

//! The page that a mail's HTML stands on: type, margins, light and dark, and at its end the way out of what went to many.
//!
//! A template's HTML is a piece, such as `<p>…</p>`, which mail programs would show in the type of 1993, from edge to edge. What
//! is a whole document already stays as it is, to the byte. **Invariant**: nothing of a page is fetched from anywhere, so that
//! opening a mail tells nobody. **Invariant**: where a text brings colours of its own the ground is white, in the dark too, since
//! nobody knows whether they can be read on another.
//!
//! The page's language is the letter's, and its direction follows the text itself (`dir="auto"`): a reader of Arabic may get the
//! English fallback. The way out is put in the reader's language, where we speak it, and says which that is.
//!
//! Deliberately not here: what the HTML says and how values are escaped in it (`broker::template`).

use crate::broker::{UnsubscribeKey, Unsubscription};
use crate::model::{Locale, Parcel};

/// How it looks. Programs that know no style sheets show the text in theirs.
const STYLE: &str = "\
body{margin:0;padding:24px 20px 32px;background:#fff;color:#132022;font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,\
'Helvetica Neue',Arial,'PingFang SC','Microsoft YaHei','Noto Sans CJK SC',sans-serif}
.mail,.foot{max-width:600px;margin:0 auto;overflow-wrap:anywhere}
.mail{overflow-x:auto}
.mail>:first-child{margin-top:0}
h1,h2,h3{line-height:1.25}
h1{font-size:24px}
h2{font-size:20px}
h3{font-size:17px}
ul,ol{padding-inline-start:24px}
blockquote{margin:16px 0;padding-inline-start:14px;border-inline-start:3px solid #c3d0d1}
hr{border:0;border-top:1px solid #dde5e5;margin:24px 0}
a{color:#0b6b6a}
img{max-width:100%;height:auto}
pre{white-space:pre-wrap}
table{border-collapse:collapse;max-width:100%}
th,td{padding:6px 0;padding-inline-end:16px;text-align:start;vertical-align:top;overflow-wrap:break-word}
.foot{margin-top:16px;padding-top:12px;border-top:1px solid #dde5e5;font-size:14px}
.foot,.foot a{color:#4c5d60}
";
/// The same in the dark.
const DARK: &str = "\
@media(prefers-color-scheme:dark){
body{background:#151c1d;color:#e8efef}
a{color:#5bd0c6}
.foot,hr,blockquote{border-color:#3a4749}
.foot,.foot a{color:#a3b3b5}
}
";
/// What stands in HTML that chooses colours. Where it is prose, it costs a reader the dark ground and nothing else.
const COLOURED: [&str; 4] = ["color:", "color=", "background", "<style"];

/// Where a reader says that they want no more of a category, and how that is put.
#[derive(Debug)]
pub(super) struct WayOut {
    pub(super) url: String,
    words: String,
    /// The language of the words.
    lang: &'static str,
}

impl WayOut {
    pub(super) fn new(public_url: &str, key: &UnsubscribeKey, parcel: &Parcel) -> Self {
        let Parcel { user, category, medium, .. } = parcel;
        let token = key.token(&Unsubscription { user: user.clone(), category: category.clone(), medium: *medium });
        let is_chinese = parcel.locale.as_ref().is_some_and(|locale| locale.as_str().split('-').next() == Some("zh"));
        let (words, lang) = if is_chinese {
            (format!("不再接收关于“{category}”的邮件"), "zh")
        } else {
            (format!("No more mail about “{category}”"), "en")
        };
        Self { url: format!("{public_url}/v1/unsubscribe/{token}"), words, lang }
    }

    /// As the last lines of a text, behind the mark by which mail programs know what is no part of it.
    pub(super) fn below(&self, text: &str) -> String {
        format!("{}\n\n-- \n{}:\n{}", text.trim_end(), self.words, self.url)
    }
}

/// A piece of HTML as a page; `locale` is the language that it is written in. A whole document is returned as it is, without the
/// way out, which its mail's headers have.
pub(super) fn page(html: String, subject: &str, locale: Option<&Locale>, way_out: Option<&WayOut>) -> String {
    let lower = html.to_ascii_lowercase();
    if lower.contains("<html") || lower.trim_start().starts_with("<!doctype") {
        return html;
    }
    let (scheme, dark) =
        if COLOURED.iter().any(|word| lower.contains(word)) { ("light", "") } else { ("light dark", DARK) };
    let lang = locale.map(|locale| format!(" lang=\"{locale}\"")).unwrap_or_default();
    let foot = way_out.map(|WayOut { url, words, lang }| {
        format!(
            "<p class=\"foot\" lang=\"{lang}\" dir=\"auto\"><a href=\"{}\">{}</a></p>\n",
            escape(url),
            escape(words)
        )
    });
    format!(
        "<!doctype html>\n<html{lang}>\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"{scheme}\">\n<meta name=\"supported-color-schemes\" content=\"{scheme}\">\n\
         <title>{}</title>\n<style>\n:root{{color-scheme:{scheme}}}\n{STYLE}{dark}</style>\n</head>\n<body>\n\
         <div class=\"mail\" dir=\"auto\">\n{html}\n</div>\n{}</body>\n</html>\n",
        escape(subject),
        foot.unwrap_or_default()
    )
}

/// As text of HTML, and inside a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(html: &str) -> String {
        page(html.to_owned(), "Due </title> \"now\"", Locale::new("zh-Hans").ok().as_ref(), None)
    }

    #[test]
    fn a_piece_becomes_a_page_and_a_page_stays_as_it_is() {
        let page = of("<p>到期</p>");
        assert!(
            page.starts_with("<!doctype html>\n<html lang=\"zh-Hans\">") && page.contains("\n<p>到期</p>\n"),
            "{page}"
        );
        assert!(page.contains("<title>Due &lt;/title&gt; &quot;now&quot;</title>"), "{page}");
        for whole in ["<html><p>x", " <!DOCTYPE html PUBLIC \"\">\n<p>x</p>", "<HTML lang=en></HTML>"] {
            assert_eq!(of(whole), whole);
        }
    }

    #[test]
    fn colours_of_its_own_keep_the_ground_white() {
        assert!(of("<p>x</p>").contains("prefers-color-scheme:dark"));
        for coloured in ["<p style=\"COLOR:#333\">x</p>", "<td bgcolor=\"#eee\">", "<style>p{}</style>"] {
            let page = of(coloured);
            assert!(!page.contains("prefers-color-scheme") && page.contains("color-scheme:light}"), "{page}");
        }
    }

    #[test]
    fn the_way_out_stands_at_the_end_of_both() {
        let way_out = WayOut {
            url: "https://a.example/x?a=1&b=2".to_owned(),
            words: "No more mail about “loans”".to_owned(),
            lang: "en",
        };
        assert_eq!(
            way_out.below("On Friday\n"),
            "On Friday\n\n-- \nNo more mail about “loans”:\nhttps://a.example/x?a=1&b=2"
        );
        let page = page("<p>x</p>".to_owned(), "Due", None, Some(&way_out));
        let link = "<a href=\"https://a.example/x?a=1&amp;b=2\">No more mail about “loans”</a>";
        assert!(page.find("<p>x</p>") < page.find(link) && page.contains("<html>"), "{page}");
    }

    #[test]
    fn nothing_of_it_is_fetched() {
        let page = of("<p>x</p>");
        assert!(
            !["http:", "https:", "src=", "url(", "@import", "<link"].iter().any(|way| page.contains(way)),
            "{page}"
        );
    }
}

//! How a value is written so that it stays what it is in the place where it stands, and nothing of it is read as markup,
//! as a header, or as the end of a link.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

/// What ends a line somewhere, beside the control characters.
const SEPARATORS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// On one line: control characters become spaces.
pub(super) fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || SEPARATORS.contains(&c) { ' ' } else { c }).collect()
}

/// Over several lines: control characters but line breaks and tabs are dropped.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// In the text or a quoted attribute of HTML.
pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// In Markdown: on one line, without anything that begins a link, an emphasis, a heading, a quotation or markup.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut begins = true;
    for c in line(text).chars() {
        let begins_block = begins && matches!(c, '-' | '+' | '=');
        begins &= c == ' ';
        if begins_block || "\\`*_{}[]()#!|<>~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Signs that end a link in Markdown, or begin something there.
const ENDS_A_LINK: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'(')
    .add(b')')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b']')
    .add(b'"')
    .add(b'\'')
    .add(b'\\')
    .add(b'`')
    .add(b'*')
    .add(b'|');

/// An address in Markdown: it stays one, and ends where it ends.
pub fn markdown_link(text: &str) -> String {
    utf8_percent_encode(text, ENDS_A_LINK).to_string()
}

/// A whole address.
pub(super) fn link(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect()
}

/// What stays as it is inside an address.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A part of an address: of its path, or a parameter.
pub(super) fn link_part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// The first part of an address's path; the path stays one where it is empty, and begins no site (`//`).
pub(super) fn link_first(text: &str) -> String {
    if text.is_empty() { ".".to_owned() } else { link_part(text) }
}

/// Inside a text of JSON, without its quotes.
pub(super) fn json_part(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() || SEPARATORS.contains(&c) || c == '<' => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out() {
        assert_eq!(line("a\r\nBcc: b\u{2028}c\u{85}"), "a  Bcc: b c ");
        assert_eq!(plain("a\u{0}\u{1b}[2J\nb"), "a[2J\nb");
        assert_eq!(html("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
        assert_eq!(markdown("# [x](http://e)\n- *b* 3.5"), "\\# \\[x\\]\\(http://e\\) - \\*b\\* 3.5");
        assert_eq!(markdown("- a"), "\\- a");
        assert_eq!(markdown("\n==="), " \\===");
        assert_eq!(link_first(""), ".");
        assert_eq!(markdown_link("https://a/b) [c](http://evil"), "https://a/b%29%20%5Bc%5D%28http://evil");
        assert_eq!(markdown_link("https://a/b?c=d&e=%20#f"), "https://a/b?c=d&e=%20#f");
        assert_eq!(link_part("a/b?c=d&e #库"), "a%2Fb%3Fc%3Dd%26e%20%23%E5%BA%93");
        assert_eq!(json_part("\"\\\n\u{7}</script>\u{2028}库"), "\\\"\\\\\\n\\u0007\\u003c/script>\\u2028库");
    }
}

//! The words of a tag: names, texts, numbers and signs, and nothing else. Cut without recursion, and bounded.

use super::scan::Fault;

/// Words of one tag at most. It bounds how deep the engine's own parser can be led.
pub(super) const MAX_TOKENS: usize = 48;
/// Bytes of a text or a name inside a tag at most.
const MAX_WORD_BYTES: usize = 128;

const SIGNS: [&str; 12] = ["==", "!=", "<=", ">=", "<", ">", ".", "|", "(", ")", ",", "-"];

/// A word of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Name(&'t str),
    /// Without its quotes; holds neither a quote nor a backslash.
    Text(&'t str),
    Number(&'t str),
    Sign(&'static str),
}

/// A tag's words, and what stands behind it.
pub(super) struct Tag<'t> {
    pub(super) tokens: Vec<Token<'t>>,
    /// Whether it takes the white space before and behind it.
    pub(super) trims: (bool, bool),
    pub(super) behind: &'t str,
}

/// Reads a tag up to `close`. `text` begins behind its opening.
pub(super) fn tag<'t>(text: &'t str, close: &str) -> Result<Tag<'t>, Fault> {
    let mut tokens = Vec::new();
    let trims_before = text.starts_with('-');
    let mut rest = if trims_before { &text[1..] } else { text };
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let trims_behind = rest.starts_with('-') && rest[1..].starts_with(close);
        let end = if trims_behind { &rest[1..] } else { rest };
        if let Some(behind) = end.strip_prefix(close) {
            return Ok(Tag { tokens, trims: (trims_before, trims_behind), behind });
        }
        if tokens.len() == MAX_TOKENS {
            return Err(Fault::new(format!("a tag has more than {MAX_TOKENS} words")));
        }
        let (token, behind) = token(rest)?;
        tokens.push(token);
        rest = behind;
    }
}

fn token(text: &str) -> Result<(Token<'_>, &str), Fault> {
    let Some(first) = text.chars().next() else { return Err(Fault::new("a tag is not closed")) };
    if first == '"' || first == '\'' {
        let inside = &text[1..];
        let end = inside.find(first).ok_or_else(|| Fault::new("a text inside a tag is not closed"))?;
        let word = &inside[..end];
        if word.len() > MAX_WORD_BYTES || word.contains(['\\', '"', '\'']) || word.chars().any(char::is_control) {
            return Err(Fault::new(format!(
                "a text inside a tag has at most {MAX_WORD_BYTES} bytes, and neither quotes nor backslashes"
            )));
        }
        return Ok((Token::Text(word), &inside[end + 1..]));
    }
    let word_end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if word_end > 0 {
        let (mut word, mut behind) = text.split_at(word_end);
        if first.is_ascii_digit() {
            // A decimal point belongs to the number where digits follow it.
            let fraction = behind.strip_prefix('.').map_or(0, |f| f.bytes().take_while(u8::is_ascii_digit).count());
            if fraction > 0 {
                (word, behind) = text.split_at(word_end + 1 + fraction);
            }
            let is_number = word.len() <= 18 && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            return if is_number { Ok((Token::Number(word), behind)) } else { Err(unknown(word)) };
        }
        if word.len() > MAX_WORD_BYTES {
            return Err(unknown(word));
        }
        return Ok((Token::Name(word), behind));
    }
    for sign in SIGNS {
        if let Some(behind) = text.strip_prefix(sign) {
            return Ok((Token::Sign(sign), behind));
        }
    }
    Err(unknown(&text[..first.len_utf8()]))
}

fn unknown(word: &str) -> Fault {
    let word: String = word.chars().take(40).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    Fault::new(format!("`{word}` is not known inside a tag: there are names, texts, numbers, filters and comparisons"))
}

#[cfg(test)]
mod tests {
    use Token::{Name, Number, Sign, Text};

    use super::*;

    #[test]
    fn words_are_cut_where_they_end() {
        let tag = tag(r#"- a.b|date("%Y", 'UTC') >= 1.5 -}} rest"#, "}}").unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(
            tag.tokens,
            [
                Name("a"),
                Sign("."),
                Name("b"),
                Sign("|"),
                Name("date"),
                Sign("("),
                Text("%Y"),
                Sign(","),
                Text("UTC"),
                Sign(")"),
                Sign(">="),
                Number("1.5")
            ]
        );
        assert_eq!((tag.trims, tag.behind), ((true, true), " rest"));
    }

    #[test]
    fn what_is_not_in_the_language_is_refused() {
        for bad in
            ["a", "a + b}}", "a ~ b}}", "a[0]}}", "{a}}}", "\"a}}", "'\\n'}}", "a * 9}}", "库}}", "1e9}}", "a:b}}"]
        {
            assert!(tag(bad, "}}").is_err(), "{bad}");
        }
        assert!(tag(&format!("{}}}}}", "not ".repeat(10_000)), "}}").is_err());
        assert!(tag(&format!("{}a}}}}", "(".repeat(10_000)), "}}").is_err());
    }
}

//! A language as people choose it, and in which order texts are looked for that were written in several.

use std::fmt;
use std::sync::Arc;

/// A language tag (BCP 47) such as `zh-Hant-TW`, in its canonical case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locale(Arc<str>);

/// What a locale must be, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no language tag (BCP 47) of at most {} characters, such as `en`, `de-CH` or `zh-Hant-TW`",
    Locale::MAX_BYTES
)]
pub struct InvalidLocale;

impl Locale {
    /// Bytes at most: what RFC 5646 asks everybody to take.
    pub const MAX_BYTES: usize = 35;

    /// Reads a tag, whatever its case. Whether its parts are registered is not looked at.
    ///
    /// # Errors
    /// [`InvalidLocale`].
    pub fn new(text: &str) -> Result<Self, InvalidLocale> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidLocale);
        }
        let mut parts = text.split('-');
        let language = parts.next().filter(|part| is_language(part)).ok_or(InvalidLocale)?;
        let mut canonical = language.to_ascii_lowercase();
        let mut singleton = false;
        for part in parts {
            if !(1..=8).contains(&part.len()) || !part.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(InvalidLocale);
            }
            // Behind a single letter stand extensions, which are lower case.
            let part = match part.len() {
                4 if !singleton && is_letters(part) => title_case(part),
                2 if !singleton && is_letters(part) => part.to_ascii_uppercase(),
                _ => part.to_ascii_lowercase(),
            };
            singleton |= part.len() == 1;
            canonical.push('-');
            canonical.push_str(&part);
        }
        // A tag does not end with what only announces more.
        if canonical.rsplit('-').next().is_some_and(|last| last.len() == 1) {
            return Err(InvalidLocale);
        }
        Ok(Self(canonical.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tags under which a text for this reader is looked for, the best first: `zh-Hant-TW`, `zh-Hant`, `zh`. Where the
    /// tag names a region in which Chinese has one usual script, that script counts as named: `zh-TW` is followed by
    /// `zh-Hant-TW` and `zh-Hant`.
    pub fn chain(&self) -> Vec<Self> {
        let mut chain = vec![self.clone()];
        if let Some(scripted) = self.with_usual_script() {
            chain.extend(scripted.truncations());
        }
        for shorter in self.truncations() {
            if !chain.contains(&shorter) {
                chain.push(shorter);
            }
        }
        // The bare language is the last resort of all.
        if let Some(language) = self.0.split('-').next().map(|language| Self(language.into())) {
            chain.retain(|tag| *tag != language);
            chain.push(language);
        }
        chain
    }

    /// The best of these for this reader.
    pub fn best<'a, T>(&self, of: &'a [(Self, T)]) -> Option<&'a (Self, T)> {
        self.chain().iter().find_map(|tag| of.iter().find(|(locale, _)| locale == tag))
    }

    /// This tag and what is left of it part by part (RFC 4647, 3.4).
    fn truncations(&self) -> Vec<Self> {
        let mut found = vec![self.clone()];
        let mut rest: &str = &self.0;
        while let Some((shorter, _)) = rest.rsplit_once('-') {
            // A part of one letter announces what was cut off.
            rest = match shorter.rsplit_once('-') {
                Some((before, last)) if last.len() == 1 => before,
                _ => shorter,
            };
            found.push(Self(rest.into()));
        }
        found
    }

    fn with_usual_script(&self) -> Option<Self> {
        let (language, rest) = self.0.split_once('-')?;
        let script = match (language, rest.split('-').next()?) {
            ("zh", "TW" | "HK" | "MO") => "Hant",
            ("zh", "CN" | "SG" | "MY") => "Hans",
            _ => return None,
        };
        Some(Self(format!("{language}-{script}-{rest}").into()))
    }
}

fn is_language(part: &str) -> bool {
    (2..=8).contains(&part.len()) && is_letters(part)
}

fn is_letters(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_alphabetic())
}

fn title_case(part: &str) -> String {
    let (first, rest) = part.split_at(1);
    first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
}

impl Default for Locale {
    /// What a template's texts are in where it does not say.
    fn default() -> Self {
        Self("en".into())
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locale(text: &str) -> Locale {
        Locale::new(text).unwrap_or_else(|_| panic!("{text} is a tag"))
    }

    #[test]
    fn tags_get_their_canonical_case() {
        for (sent, canonical) in [
            ("EN", "en"),
            ("de-ch", "de-CH"),
            ("ZH-HANT-tw", "zh-Hant-TW"),
            ("sl-rozaj-biske", "sl-rozaj-biske"),
            ("en-US-u-CA-Buddhist", "en-US-u-ca-buddhist"),
            ("es-419", "es-419"),
        ] {
            assert_eq!(locale(sent).as_str(), canonical);
        }
        for bad in
            ["", "e", "-", "en-", "-en", "en--US", "zh_CN", "en US", "中文", "1en", "en-x", "en-abcdefghi", "en\n"]
        {
            assert_eq!(Locale::new(bad), Err(InvalidLocale), "{bad:?}");
        }
        assert!(Locale::new(&format!("en-{}", "abcdefgh-".repeat(8))).is_err());
    }

    #[test]
    fn a_reader_without_a_text_of_their_own_gets_the_next_best() {
        let chain = |text: &str| locale(text).chain().iter().map(Locale::to_string).collect::<Vec<_>>();
        assert_eq!(chain("zh-Hant-TW"), ["zh-Hant-TW", "zh-Hant", "zh"]);
        assert_eq!(chain("zh-TW"), ["zh-TW", "zh-Hant-TW", "zh-Hant", "zh"]);
        assert_eq!(chain("zh-CN"), ["zh-CN", "zh-Hans-CN", "zh-Hans", "zh"]);
        assert_eq!(chain("en"), ["en"]);
        assert_eq!(chain("de-CH-1996"), ["de-CH-1996", "de-CH", "de"]);
        assert_eq!(chain("en-US-u-ca-buddhist"), ["en-US-u-ca-buddhist", "en-US-u-ca", "en-US", "en"]);
    }

    #[test]
    fn the_best_of_several_is_the_first_of_the_chain() {
        let texts: Vec<_> = ["en", "zh", "zh-Hant"].map(|tag| (locale(tag), tag)).into();
        let best = |reader: &str| locale(reader).best(&texts).map(|(_, text)| *text);
        assert_eq!(best("zh-HK"), Some("zh-Hant"));
        assert_eq!(best("zh-CN"), Some("zh"));
        assert_eq!(best("en-GB"), Some("en"));
        assert_eq!(best("fr"), None);
    }
}

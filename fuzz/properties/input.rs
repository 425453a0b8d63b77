//! The bytes of a run as the parts that a property wants: fields that end at a byte which no UTF-8 has, so that texts stay
//! readable in a corpus and a mutation of one field leaves the others alone.

use std::borrow::Cow;

/// What ends a field.
const END: u8 = 0xff;

/// What is left of the bytes. At their end every part is empty, so any bytes will do.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// One byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number of eight bytes, with zeros for those that are missing.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// The bytes of the next field.
    pub fn field(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == END);
        let field = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = end.map_or(&[], |end| &self.0[end + 1..]);
        field
    }

    /// The next field as text; what is no UTF-8 becomes U+FFFD.
    pub fn text(&mut self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.field())
    }

    /// A field as text, where it is not empty.
    pub fn some_text(&mut self) -> Option<String> {
        Some(self.text().into_owned()).filter(|text| !text.is_empty())
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

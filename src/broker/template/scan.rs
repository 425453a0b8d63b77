//! What a template may say, and where its values stand: read by us before the engine sees it, since a parser of a whole
//! language can be led into its own depths.
//!
//! There are values with filters (`{{ user.name|truncate(20) }}`), `if` with comparisons, `for` over a declared list, and
//! remarks. Each name must be declared and each filter fit what it is given, so that what was registered can be sent.
//! Every value is written back with the escape of the place where it stands, by its medium: nobody can turn it off.
//!
//! **Invariant**: nothing here recurses, and blocks nest at most [`MAX_NESTING`] deep.

use std::fmt::Write as _;

use super::filter;
use super::place::{Form, Place};
use super::token::{Tag, Token, tag};
use crate::model::{MAX_TEMPLATE_TEXT_BYTES, Variable, VariableKind, Variables};
use crate::wire::template::is_variable_name;

/// How deep blocks nest at most; each `elif` counts, since it nests in the engine.
const MAX_NESTING: usize = 12;
/// How deep loops nest at most.
const MAX_LOOPS: usize = 2;
/// Tags of one text at most.
const MAX_TAGS: usize = 1_000;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What a value is, as far as places and filters care.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind<'v> {
    Text,
    Number,
    Boolean,
    Date,
    Moment,
    Link,
    List(&'v Variables),
}

impl<'v> Kind<'v> {
    fn of(variable: &'v Variable) -> Self {
        match &variable.kind {
            VariableKind::Text => Self::Text,
            VariableKind::Integer | VariableKind::Number => Self::Number,
            VariableKind::Boolean => Self::Boolean,
            VariableKind::Date => Self::Date,
            VariableKind::Moment => Self::Moment,
            VariableKind::Link => Self::Link,
            VariableKind::List(fields) => Self::List(fields),
        }
    }
}

struct Block<'t, 'v> {
    kind: BlockKind<'t, 'v>,
    /// Where it begins, and with it each of its branches.
    begun: Place,
    /// Where the branches end that were read.
    ended: Option<Place>,
    /// Whether `else` came.
    otherwise: bool,
}

enum BlockKind<'t, 'v> {
    /// How deep it is in the engine.
    If {
        depth: usize,
    },
    For {
        item: &'t str,
        fields: &'v Variables,
    },
}

impl Block<'_, '_> {
    /// A branch ends here; where the next one begins.
    fn branch(&mut self, here: Place) -> Result<Place, Fault> {
        let here = match (&self.kind, self.otherwise) {
            (BlockKind::For { .. }, false) => self.begun.clone().repeated(here)?,
            _ => here,
        };
        self.ended = Some(match self.ended.take() {
            Some(ended) => ended.or(here)?,
            None => here,
        });
        Ok(self.begun.clone())
    }

    /// Where one is behind the block, whose last branch ends here.
    fn end(mut self, here: Place) -> Result<Place, Fault> {
        let begun = self.branch(here)?;
        match self.ended {
            Some(ended) if self.otherwise => Ok(ended),
            Some(ended) => ended.or(begun),
            None => Ok(begun),
        }
    }
}

/// Reads a text and writes it as the engine is to run it.
///
/// # Errors
/// [`Fault`], with the line it stands on.
pub(super) fn rewrite(text: &str, form: Form, variables: &Variables) -> Result<String, Fault> {
    if text.len() > MAX_TEMPLATE_TEXT_BYTES {
        return Err(Fault(format!("has {} bytes; at most {MAX_TEMPLATE_TEXT_BYTES} are taken", text.len())));
    }
    let mut scan = Scan {
        variables,
        place: Place::new(form),
        blocks: Vec::new(),
        depth: 0,
        tags: 0,
        left: text.len(),
        out: String::new(),
        unread: 0,
        trims: false,
    };
    let mut rest = text;
    loop {
        rest = match scan.step(rest) {
            Ok(Some(behind)) => behind,
            Ok(None) => break,
            Err(Fault(what)) => {
                let line = text[..text.len() - scan.left].matches('\n').count() + 1;
                return Err(Fault(format!("near line {line}: {what}")));
            }
        };
    }
    match scan.blocks.last() {
        None => Ok(scan.out),
        Some(Block { kind: BlockKind::If { .. }, .. }) => Err(Fault::new("an `if` is not closed by `endif`")),
        Some(Block { kind: BlockKind::For { .. }, .. }) => Err(Fault::new("a `for` is not closed by `endfor`")),
    }
}

struct Scan<'t, 'v> {
    variables: &'v Variables,
    place: Place,
    blocks: Vec<Block<'t, 'v>>,
    depth: usize,
    tags: usize,
    /// Bytes from the tag that is read to the end.
    left: usize,
    out: String,
    /// From where on what was written is text that `place` has not read: remarks are gone from it.
    unread: usize,
    /// Whether the tag before that takes the white space behind it.
    trims: bool,
}

impl<'t, 'v> Scan<'t, 'v> {
    /// Takes the text up to the next tag, and the tag; what stands behind it, or `None` at the end.
    fn step(&mut self, text: &'t str) -> Result<Option<&'t str>, Fault> {
        let next = ["{{", "{%", "{#"].iter().filter_map(|open| text.find(open)).min();
        let (literal, rest) = text.split_at(next.unwrap_or(text.len()));
        self.out.push_str(literal);
        self.left = rest.len();
        if rest.is_empty() {
            self.literal(false)?;
            return Ok(None);
        }
        self.tags += 1;
        if self.tags > MAX_TAGS {
            return Err(Fault(format!("has more than {MAX_TAGS} tags")));
        }
        let inside = &rest[2..];
        match &rest[..2] {
            "{#" => {
                let end = inside.find("#}").ok_or_else(|| Fault::new("a remark is not closed"))?;
                Ok(Some(&inside[end + 2..]))
            }
            "{{" => {
                let tag = tag(inside, "}}")?;
                self.literal(tag.trims.0)?;
                self.value(&tag)?;
                self.behind(tag.trims.1);
                Ok(Some(tag.behind))
            }
            _ => {
                let tag = tag(inside, "%}")?;
                self.literal(tag.trims.0)?;
                self.block(&tag)?;
                self.behind(tag.trims.1);
                Ok(Some(tag.behind))
            }
        }
    }

    /// Reads the text before a tag as it will come out: without the white space that the tags beside it take.
    fn literal(&mut self, trims: bool) -> Result<(), Fault> {
        let mut literal = &self.out[self.unread..];
        if self.trims {
            literal = literal.trim_start();
        }
        if trims {
            literal = literal.trim_end();
        }
        self.place.read(literal)
    }

    fn behind(&mut self, trims: bool) {
        self.unread = self.out.len();
        self.trims = trims;
    }

    fn value(&mut self, tag: &Tag<'t>) -> Result<(), Fault> {
        let mut words = Words { tokens: &tag.tokens, at: 0 };
        let mut text = String::new();
        let kind = self.operand(&mut words, &mut text)?;
        words.end()?;
        if matches!(kind, Kind::List(_)) {
            return Err(Fault::new("a list can't be written; use `for`, `join` or `length`"));
        }
        let escape = self.place.escape(kind)?;
        let (before, behind) = marks(tag.trims);
        let _ = write!(self.out, "{{{{{before} {text}|{escape} {behind}}}}}");
        Ok(())
    }

    fn block(&mut self, tag: &Tag<'t>) -> Result<(), Fault> {
        let mut words = Words { tokens: &tag.tokens, at: 0 };
        let Some(Token::Name(verb)) = words.next() else { return Err(Fault::new("a tag names no block")) };
        let mut text = verb.to_owned();
        match verb {
            "if" | "elif" => {
                text.push(' ');
                self.condition(&mut words, &mut text)?;
                self.deeper()?;
                match (verb, self.blocks.last_mut()) {
                    ("elif", Some(block @ Block { kind: BlockKind::If { .. }, otherwise: false, .. })) => {
                        self.place = block.branch(self.place.clone())?;
                        if let BlockKind::If { depth } = &mut block.kind {
                            *depth += 1;
                        }
                    }
                    ("elif", _) => return Err(Fault::new("`elif` stands in no `if`")),
                    _ => self.begin(BlockKind::If { depth: 1 }),
                }
            }
            "else" => match self.blocks.last_mut() {
                Some(block) if !block.otherwise => {
                    self.place = block.branch(self.place.clone())?;
                    block.otherwise = true;
                }
                _ => return Err(Fault::new("`else` stands in no `if` or `for`")),
            },
            "endif" => match self.blocks.pop() {
                Some(block @ Block { kind: BlockKind::If { depth }, .. }) => {
                    self.depth -= depth;
                    self.place = block.end(self.place.clone())?;
                }
                _ => return Err(Fault::new("`endif` closes no `if`")),
            },
            "for" => {
                let (item, fields) = self.loop_head(&mut words)?;
                let _ = write!(text, " {item} in ");
                text.push_str(fields.0);
                self.deeper()?;
                self.begin(BlockKind::For { item, fields: fields.1 });
                let loops = self.blocks.iter().filter(|block| matches!(block.kind, BlockKind::For { .. })).count();
                if loops > MAX_LOOPS {
                    return Err(Fault(format!("loops nest deeper than {MAX_LOOPS}")));
                }
            }
            "endfor" => match self.blocks.pop() {
                Some(block @ Block { kind: BlockKind::For { .. }, .. }) => {
                    self.depth -= 1;
                    self.place = block.end(self.place.clone())?;
                }
                _ => return Err(Fault::new("`endfor` closes no `for`")),
            },
            other => {
                return Err(Fault(format!("`{other}` is no block; there are `if`, `elif`, `else` and `for`")));
            }
        }
        words.end()?;
        let (before, behind) = marks(tag.trims);
        let _ = write!(self.out, "{{%{before} {text} {behind}%}}");
        Ok(())
    }

    fn begin(&mut self, kind: BlockKind<'t, 'v>) {
        self.blocks.push(Block { kind, begun: self.place.clone(), ended: None, otherwise: false });
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_NESTING { Err(Fault(format!("blocks nest deeper than {MAX_NESTING}"))) } else { Ok(()) }
    }

    fn loop_head(&self, words: &mut Words<'_, 't>) -> Result<(&'t str, (&'t str, &'v Variables)), Fault> {
        let (Some(Token::Name(item)), Some(Token::Name("in")), Some(Token::Name(list))) =
            (words.next(), words.next(), words.next())
        else {
            return Err(Fault::new("a loop is `for NAME in LIST`"));
        };
        if !is_variable_name(item) || self.variables.contains_key(item) || self.item(item).is_some() {
            return Err(Fault(format!("`{item}` can't be the name of a loop's item")));
        }
        match self.variables.get(list).map(Kind::of) {
            Some(Kind::List(fields)) => Ok((item, (list, fields))),
            Some(_) => Err(Fault(format!("`{list}` is no list"))),
            None => Err(undeclared(list)),
        }
    }

    /// Writes `not? operand (== operand)? ((and|or) …)*`.
    fn condition(&self, words: &mut Words<'_, 't>, text: &mut String) -> Result<(), Fault> {
        loop {
            if words.take(Token::Name("not")) {
                text.push_str("not ");
            }
            self.comparable(words, text)?;
            for sign in ["==", "!=", "<=", ">=", "<", ">"] {
                if words.take(Token::Sign(sign)) {
                    let _ = write!(text, " {sign} ");
                    self.comparable(words, text)?;
                    break;
                }
            }
            match ["and", "or"].into_iter().find(|word| words.take(Token::Name(word))) {
                Some(word) => {
                    let _ = write!(text, " {word} ");
                }
                None => return Ok(()),
            }
        }
    }

    fn comparable(&self, words: &mut Words<'_, 't>, text: &mut String) -> Result<(), Fault> {
        match words.peek() {
            Some(Token::Text(word)) => {
                let _ = write!(text, "\"{word}\"");
                words.at += 1;
            }
            Some(Token::Number(word) | Token::Name(word @ ("true" | "false"))) => {
                text.push_str(word);
                words.at += 1;
            }
            _ => {
                self.operand(words, text)?;
            }
        }
        Ok(())
    }

    /// Writes a value with its filters; what it is then.
    fn operand(&self, words: &mut Words<'_, 't>, text: &mut String) -> Result<Kind<'v>, Fault> {
        let Some(Token::Name(name)) = words.next() else { return Err(Fault::new("a value's name is missing")) };
        let field = if words.take(Token::Sign(".")) {
            let Some(Token::Name(field)) = words.next() else { return Err(Fault::new("a field's name is missing")) };
            Some(field)
        } else {
            None
        };
        let mut kind = self.resolve(name, field)?;
        text.push_str(name);
        if let Some(field) = field {
            let _ = write!(text, ".{field}");
        }
        while words.take(Token::Sign("|")) {
            let Some(Token::Name(filter)) = words.next() else { return Err(Fault::new("a filter's name is missing")) };
            let arguments = words.arguments()?;
            kind = filter::check(filter, kind, &arguments)?;
            let _ = write!(text, "|{filter}");
            if !arguments.is_empty() {
                let written: Vec<String> = arguments.iter().map(written).collect();
                let _ = write!(text, "({})", written.join(", "));
            }
        }
        Ok(kind)
    }

    fn resolve(&self, name: &str, field: Option<&str>) -> Result<Kind<'v>, Fault> {
        if name == "loop" && self.blocks.iter().any(|block| matches!(block.kind, BlockKind::For { .. })) {
            return match field {
                Some("index" | "index0" | "length") => Ok(Kind::Number),
                Some("first" | "last") => Ok(Kind::Boolean),
                _ => Err(Fault::new("of `loop` there are index, index0, length, first and last")),
            };
        }
        match (self.item(name), field) {
            (Some(fields), Some(field)) => {
                fields.get(field).map(Kind::of).ok_or_else(|| undeclared(&format!("{name}.{field}")))
            }
            (Some(_), None) => Err(Fault(format!("`{name}` is an item; name one of its fields"))),
            (None, None) => self.variables.get(name).map(Kind::of).ok_or_else(|| undeclared(name)),
            (None, Some(_)) if self.variables.contains_key(name) => Err(Fault(format!("`{name}` has no fields"))),
            (None, Some(_)) => Err(undeclared(name)),
        }
    }

    /// The fields of the loop's item of this name.
    fn item(&self, name: &str) -> Option<&'v Variables> {
        self.blocks.iter().find_map(|block| match block.kind {
            BlockKind::For { item, fields } if item == name => Some(fields),
            _ => None,
        })
    }
}

fn marks((before, behind): (bool, bool)) -> (&'static str, &'static str) {
    (if before { "-" } else { "" }, if behind { "-" } else { "" })
}

fn written(argument: &Token<'_>) -> String {
    match argument {
        Token::Text(text) => format!("\"{text}\""),
        Token::Number(word) | Token::Name(word) => (*word).to_owned(),
        Token::Sign(sign) => (*sign).to_owned(),
    }
}

fn undeclared(name: &str) -> Fault {
    Fault(format!("`{name}` is not among the declared variables"))
}

struct Words<'w, 't> {
    tokens: &'w [Token<'t>],
    at: usize,
}

impl<'t> Words<'_, 't> {
    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> Option<Token<'t>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn take(&mut self, wanted: Token<'_>) -> bool {
        let found = self.peek().is_some_and(|token| token == wanted);
        self.at += usize::from(found);
        found
    }

    /// What stands in the brackets behind a filter: texts and numbers.
    fn arguments(&mut self) -> Result<Vec<Token<'t>>, Fault> {
        let mut arguments = Vec::new();
        if !self.take(Token::Sign("(")) {
            return Ok(arguments);
        }
        loop {
            match self.next() {
                Some(token @ (Token::Text(_) | Token::Number(_))) => arguments.push(token),
                _ => return Err(Fault::new("a filter takes texts and numbers")),
            }
            if self.take(Token::Sign(")")) {
                return Ok(arguments);
            }
            if !self.take(Token::Sign(",")) {
                return Err(Fault::new("a filter's brackets are not closed"));
            }
        }
    }

    fn end(&self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(token) => Err(Fault(format!("`{}` is not understood here", written(&token)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::token;
    use super::*;
    use crate::model::Need;

    fn variables() -> Variables {
        let of = |kind| Variable { kind, need: Need::Required };
        let fields =
            BTreeMap::from([("title".to_owned(), of(VariableKind::Text)), ("url".to_owned(), of(VariableKind::Link))]);
        BTreeMap::from([
            ("name".to_owned(), of(VariableKind::Text)),
            ("count".to_owned(), of(VariableKind::Integer)),
            ("due".to_owned(), of(VariableKind::Moment)),
            ("link".to_owned(), of(VariableKind::Link)),
            ("books".to_owned(), of(VariableKind::List(fields))),
        ])
    }

    fn fault(text: &str) -> String {
        match rewrite(text, Form::Html, &variables()) {
            Err(Fault(what)) => what,
            Ok(written) => panic!("{text} was taken: {written}"),
        }
    }

    #[test]
    fn values_are_written_with_the_escape_of_their_place() {
        let written = |text: &str, form| rewrite(text, form, &variables()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(written("Hi {{ name }}!", Form::Html), "Hi {{ name|e_html }}!");
        assert_eq!(written("{{-name|upper-}}", Form::Line), "{{- name|upper|e_line -}}");
        assert_eq!(
            written("<a href=\"{{ link }}\">{{ name }}</a>", Form::Html),
            "<a href=\"{{ link|e_html }}\">{{ name|e_html }}</a>"
        );
        assert_eq!(written("[{{ name }}]({{ link }})", Form::Markdown), "[{{ name|e_md }}]({{ link|e_md_url }})");
        assert_eq!(
            written("{\"a\":{{ name }},\"b\":\"{{ name }}\"}", Form::Json),
            "{\"a\":{{ name|e_json }},\"b\":\"{{ name|e_json_part }}\"}"
        );
        assert_eq!(
            written("{% for b in books %}{{ b.title }}{% if not loop.last %}, {% endif %}{% endfor %}", Form::Plain),
            "{% for b in books %}{{ b.title|e_plain }}{% if not loop.last %}, {% endif %}{% endfor %}"
        );
        assert_eq!(
            written(
                "{# a {{ remark }} #}{% if count >= 2 and name != 'x' %}{{ due|date('%H:%M', \"UTC\") }}{% else %}-{% endif %}",
                Form::Plain
            ),
            "{% if count >= 2 and name != \"x\" %}{{ due|date(\"%H:%M\", \"UTC\")|e_plain }}{% else %}-{% endif %}"
        );
    }

    #[test]
    fn nothing_else_of_the_engine_is_reached() {
        for bad in [
            "{% include \"x\" %}",
            "{% extends \"x\" %}",
            "{% macro m() %}{% endmacro %}",
            "{% set a = 1 %}",
            "{% import \"x\" as y %}",
            "{% raw %}{% endraw %}",
            "{% autoescape false %}{% endautoescape %}",
            "{% filter upper %}{% endfilter %}",
            "{% call m() %}",
            "{{ name|safe }}",
            "{{ name|replace(\"a\", \"b\") }}",
            "{{ name|indent(9999999) }}",
            "{{ name|format }}",
            "{{ name * 9999999 }}",
            "{{ name ~ name }}",
            "{{ name[0] }}",
            "{{ name() }}",
            "{{ range(9) }}",
            "{{ name if count else name }}",
            "{{ books }}",
            "{{ unknown }}",
            "{{ name.x }}",
            "{{ loop.index }}",
            "{% for x in name %}{% endfor %}",
            "{% for x in books|reverse %}{% endfor %}",
            "{% for x in books recursive %}{% endfor %}",
            "{% for name in books %}{% endfor %}",
            "{% for b in books %}{{ b }}{% endfor %}",
            "{% for b in books %}{{ b.none }}{% endfor %}",
            "{% if name is defined %}{% endif %}",
            "{% if (name) %}{% endif %}",
            "{% if %}{% endif %}",
            "{% if name %}",
            "{% endif %}",
            "{% else %}",
            "{% for b in books %}",
            "{{ name }",
            "{{ }}",
            "{% %}",
            "{# a",
            "{{ name|date }}",
            "{{ count|upper }}",
            "{{ due|date(\"%9999999d\") }}",
            "{{ due|date(\"%Y\", \"Mars/Olympus\") }}",
            "{{ count|number(99) }}",
            "{{ 'x' }}",
        ] {
            assert!(!fault(bad).is_empty());
        }
    }

    #[test]
    fn depth_is_bounded_before_anything_is_parsed() {
        let nested = |n: usize| "{% if name %}".repeat(n) + &"{% endif %}".repeat(n);
        assert!(rewrite(&nested(MAX_NESTING), Form::Plain, &variables()).is_ok());
        assert!(fault(&nested(MAX_NESTING + 1)).contains("nest"));
        assert!(fault(&nested(1_000)).contains("nest"));
        let elifs = format!("{{% if name %}}{}{{% endif %}}", "{% elif name %}".repeat(100));
        assert!(fault(&elifs).contains("nest"));
        assert!(fault(&"{{ (".repeat(3_000)).contains("not known"));
        assert!(fault(&format!("{{% if {} name %}}", "not ".repeat(token::MAX_TOKENS))).contains("words"));
        assert!(fault(&"{{ name }}".repeat(MAX_TAGS + 1)).contains("tags"));
        let loops = "{% for a in books %}{% for b in books %}{% for c in books %}{% endfor %}{% endfor %}{% endfor %}";
        assert!(fault(loops).contains("loops"));
        assert!(fault(&"x".repeat(MAX_TEMPLATE_TEXT_BYTES + 1)).contains("bytes"));
    }

    #[test]
    fn a_fault_names_its_line() {
        assert!(fault("a\nb\n{{ unknown }}").starts_with("near line 3: "), "{}", fault("a\nb\n{{ unknown }}"));
    }
}

//! What of a text is not its values: the tags and attributes of HTML, the signs of Markdown and JSON, the site of an
//! address. Two texts that differ in values alone have the same; read by the standards' own rules, as a reader's program
//! does, and not by the code that wrote them.

/// Attributes whose value is a text for people.
const TEXTS: [&str; 3] = ["title", "alt", "aria-label"];
/// Attributes whose value is an address.
const LINKS: [&str; 2] = ["href", "src"];
/// Schemes of addresses that run nothing.
const HARMLESS: [&str; 5] = ["", "http", "https", "mailto", "tel"];
/// Elements whose content is no markup, up to their own end.
const RAW: [&str; 5] = ["style", "script", "xmp", "iframe", "noembed"];
/// Elements whose content is text, up to their own end.
const TEXT_ONLY: [&str; 2] = ["title", "textarea"];

/// The tags of HTML with all that is in them, in order, but what people read and the rest of an address; comments and what
/// stands in a style or script as they are. As a browser cuts it (HTML, 13.2.5).
pub fn html(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            let (inside, behind) = comment_end(comment);
            found.push(format!("<!--{inside}"));
            rest = behind;
        } else if rest.starts_with(['!', '?'])
            || (rest.starts_with('/') && !rest[1..].starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            let (inside, behind) = rest.split_once('>').unwrap_or((rest, ""));
            found.push(format!("<{inside}"));
            rest = behind;
        } else if rest.trim_start_matches('/').starts_with(|c: char| c.is_ascii_alphabetic()) {
            let (name, behind) = tag(rest, &mut found);
            rest = behind;
            let is_raw = RAW.contains(&name.as_str());
            if is_raw || TEXT_ONLY.contains(&name.as_str()) {
                let end = closing(rest, &name);
                found.extend(is_raw.then(|| rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
    }
    found
}

/// Where the tag that closes an element begins, or the end.
fn closing(text: &str, name: &str) -> usize {
    let (lower, tag) = (text.to_ascii_lowercase(), format!("</{name}"));
    let ends = |at: &usize| lower[at + tag.len()..].starts_with(|c: char| c.is_ascii_whitespace() || "/>".contains(c));
    lower.match_indices(&tag).map(|(at, _)| at).find(ends).unwrap_or(text.len())
}

fn comment_end(text: &str) -> (&str, &str) {
    for empty in [">", "->"] {
        if let Some(behind) = text.strip_prefix(empty) {
            return ("", behind);
        }
    }
    let ends = ["-->", "--!>"].iter().filter_map(|end| text.find(end).map(|at| (at, at + end.len())));
    ends.min().map_or((text, ""), |(at, behind)| (&text[..at], &text[behind..]))
}

/// Reads a tag from its name on, and tells it; its name, with `/` for one that closes, and what stands behind.
fn tag<'a>(text: &'a str, found: &mut Vec<String>) -> (String, &'a str) {
    let blank = |c: char| c.is_ascii_whitespace();
    let slashes = usize::from(text.starts_with('/'));
    let end = text[slashes..].find(|c: char| blank(c) || c == '/' || c == '>').map_or(text.len(), |at| at + slashes);
    let name = text[..end].to_ascii_lowercase();
    found.push(format!("<{name}"));
    let mut rest = &text[end..];
    loop {
        rest = rest.trim_start_matches(|c: char| blank(c) || c == '/');
        if rest.is_empty() {
            return (name, rest);
        }
        if let Some(behind) = rest.strip_prefix('>') {
            return (name, behind);
        }
        // A `=` that begins a name belongs to it.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find(|c: char| blank(c) || "/>=".contains(c)).map_or(rest.len(), |at| at + first);
        let attribute = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start_matches(blank);
        let Some(behind) = rest.strip_prefix('=') else {
            found.push(attribute);
            continue;
        };
        rest = behind.trim_start_matches(blank);
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value;
        (value, rest) = match quote {
            Some(quote) => rest[1..].split_once(quote).unwrap_or((&rest[1..], "")),
            None => rest.split_at(rest.find(|c: char| blank(c) || c == '>').unwrap_or(rest.len())),
        };
        found.push(match attribute.as_str() {
            _ if quote.is_none() => format!("{attribute}={value}"),
            name if TEXTS.contains(&name) => attribute,
            name if LINKS.contains(&name) => format!("{attribute}={}", site(value)),
            _ => format!("{attribute}={value}"),
        });
    }
}

/// To whom an address leads: its scheme and host; all of one that may run. As a browser reads it (URL, 4.4), with what a
/// host can't have made `x`.
pub fn site(address: &str) -> String {
    let entities = [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'")];
    let read = entities.iter().fold(address.to_owned(), |text, (entity, sign)| text.replace(entity, sign));
    let text: String = read.trim_start_matches(|c: char| c <= ' ').chars().filter(|c| !"\t\n\r".contains(*c)).collect();
    let scheme = text
        .split_once(':')
        .map(|(scheme, _)| scheme)
        .filter(|scheme| scheme.starts_with(|c: char| c.is_ascii_alphabetic()))
        .filter(|scheme| scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)))
        .unwrap_or_default();
    if !HARMLESS.contains(&scheme.to_ascii_lowercase().as_str()) {
        return read;
    }
    let behind = if scheme.is_empty() { text.as_str() } else { &text[scheme.len() + 1..] };
    let slash = |c: char| matches!(c, '/' | '\\');
    let special = scheme.to_ascii_lowercase().starts_with("http");
    let host = if special || behind.chars().take(2).filter(|c| slash(*c)).count() == 2 {
        let from = behind.trim_start_matches(slash);
        &from[..from.find(|c: char| slash(c) || "?#".contains(c)).unwrap_or(from.len())]
    } else {
        ""
    };
    format!("{scheme}:{}", host.replace(NO_HOST, "x"))
}

/// Signs that end something somewhere, and that no host has.
pub const NO_HOST: [char; 12] = ['<', '>', '"', '\'', '&', '(', ')', '[', ']', '`', '*', '|'];

/// The signs of Markdown that mean something, in order: those that no backslash stands before. Line breaks too.
pub fn markdown(text: &str) -> String {
    let mut found = String::new();
    let mut signs = text.chars();
    let mut begins = true;
    while let Some(c) = signs.next() {
        let block = begins && "-+=".contains(c);
        begins = c == '\n' || (begins && c == ' ');
        match c {
            '\\' => drop(signs.next()),
            c if block || "`*_[]()#!|<>~\n".contains(c) => found.push(c),
            _ => {}
        }
    }
    found
}

/// What of JSON stands outside its strings and is no number.
pub fn json(text: &str) -> String {
    let mut found = String::new();
    let mut signs = text.chars();
    let mut inside = false;
    while let Some(c) = signs.next() {
        match c {
            '\\' if inside => drop(signs.next()),
            '"' => inside = !inside,
            c if !inside && "{}[]:,".contains(c) => found.push(c),
            _ => {}
        }
    }
    found
}

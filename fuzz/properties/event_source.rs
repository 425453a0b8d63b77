//! A decoder of `text/event-stream`, written from the standard (WHATWG HTML, 9.2.6) and not from our encoder.

/// One event as a client dispatches it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last event id as of this event; `None` where none was ever set.
    pub id: Option<String>,
    /// The `event` field; empty means `message`.
    pub kind: String,
    pub data: String,
    /// Milliseconds, where its block said so.
    pub retry: Option<u64>,
}

/// What a stream comes to. An event that no blank line ends is discarded, as the standard says.
pub fn decode(stream: &[u8]) -> Vec<Event> {
    let text = String::from_utf8(stream.to_vec()).expect("a stream of ours is UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut events, mut now, mut id) = (Vec::new(), Event::default(), None);
    let mut lines = split(text);
    // What follows the last line ending is no line.
    lines.pop();
    for line in lines {
        if line.is_empty() {
            let event = std::mem::take(&mut now);
            if !event.data.is_empty() {
                let data = event.data.strip_suffix('\n').expect("each data line ends with one").to_owned();
                events.push(Event { id: id.clone(), data, ..event });
            }
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut now.kind),
            "data" => {
                now.data.push_str(value);
                now.data.push('\n');
            }
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => now.retry = value.parse().ok(),
            _ => {}
        }
    }
    events
}

/// Cuts at CR LF, LF and CR alike.
fn split(text: &str) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.find(['\r', '\n']) {
        lines.push(&rest[..end]);
        let broken = &rest[end..];
        rest = broken.strip_prefix("\r\n").unwrap_or(&broken[1..]);
    }
    lines.push(rest);
    lines
}

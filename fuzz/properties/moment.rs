//! A moment that is read is written so that it is read as the same, and never lies before what was sent; a duration is whole
//! seconds and no more than its digits say.

use tidings::wire::measure::{duration, moment as read};

pub fn moment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(moment) = read(text) {
        let written = moment.to_string();
        assert_eq!(read(&written), Some(moment), "{text} is written as {written}");
        let exact = text.parse::<jiff::Timestamp>().expect("a moment is one to everybody").as_nanosecond();
        let ours = i128::from(moment.as_millis()) * 1_000_000;
        assert!((0..1_000_000).contains(&(ours - exact)), "{text} became {written}");
    }
    if let Some(span) = duration(text) {
        assert_eq!(span.subsec_nanos(), 0);
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let unit = text.trim().chars().last().expect("an empty text is no duration");
        let factor = match unit {
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => 1,
        };
        assert_eq!(digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)), Some(span.as_secs()), "{text}");
        assert!(!text.contains(['+', '-', '.']), "{text}");
    }
}

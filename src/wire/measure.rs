//! Durations and moments as people write them, in a request as in the settings. Pure text to value.
//!
//! Which of them a field takes, and between which bounds, is for its reader to say.

use std::time::Duration;

use crate::model::Timestamp;

/// What a duration must be, for people.
pub const DURATION_RULE: &str = "must be a duration such as \"90s\", \"10m\", \"2h\", \"7d\", or whole seconds";
/// What a moment must be, for people.
pub const MOMENT_RULE: &str = "must be a time in RFC 3339, such as 2026-05-01T09:00:00+02:00";

const NANOS_A_MILLI: i128 = 1_000_000;
/// The first moment that RFC 3339 can write, 0000-01-01T00:00:00Z, in milliseconds since the Unix epoch.
const FIRST_MILLI: i64 = -62_167_219_200_000;

/// Reads `90s`, `10m`, `2h`, `7d`, or a number of seconds. `None` where it is none of these.
pub fn duration(text: &str) -> Option<Duration> {
    measured(text, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("", 1)]).map(Duration::from_secs)
}

/// Reads a whole number with a unit behind it. The first unit that ends the text counts.
pub fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (digits, factor) = units.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|d| (d, factor)))?;
    let digits = digits.trim_end();
    // `parse` would take a leading plus.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Reads a moment in RFC 3339. What is finer than a millisecond is rounded up, so that nothing happens early. `None`
/// where it is none, and where it could not be written again: an offset can lead out of the years that have four digits.
pub fn moment(text: &str) -> Option<Timestamp> {
    if !has_shape_of_rfc3339(text) {
        return None;
    }
    let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    let millis = nanos.div_euclid(NANOS_A_MILLI) + i128::from(nanos.rem_euclid(NANOS_A_MILLI) > 0);
    let can_be_written = |millis: &i64| *millis >= FIRST_MILLI && jiff::Timestamp::from_millisecond(*millis).is_ok();
    i64::try_from(millis).ok().filter(can_be_written).map(Timestamp::from_millis)
}

/// Whether it is `2026-05-01T09:00:00`, a fraction of a second if any, and `Z` or an offset of hours and minutes. The
/// parser behind takes more than that: other separators, shorter offsets, names of time zones.
fn has_shape_of_rfc3339(text: &str) -> bool {
    const BEGINNING: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let Some((beginning, rest)) = text.as_bytes().split_at_checked(BEGINNING.len()) else { return false };
    let offset = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            &fraction[digits..]
        }
    };
    // Two digits each, so they compare as text; the parser would take 25:00 for a day and an hour.
    let of_a_day = || offset[1..3] <= b"23"[..] && offset[4..] <= b"59"[..];
    fits(beginning, BEGINNING)
        && (fits(offset, b"Z") || ((fits(offset, b"+dd:dd") || fits(offset, b"-dd:dd")) && of_a_day()))
}

/// Whether a text has a pattern's length, digits where that has a `d`, and its letters in either case.
fn fits(text: &[u8], pattern: &[u8]) -> bool {
    let fits = |(byte, wanted): (&u8, &u8)| match wanted {
        b'd' => byte.is_ascii_digit(),
        letter => byte.eq_ignore_ascii_case(letter),
    };
    text.len() == pattern.len() && text.iter().zip(pattern).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (text, seconds) in
            [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800), ("15", 15), (" 1 h ", 3600), ("0s", 0)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "s", "1w", "-1s", "+1s", "1.5h", "99999999999999999999", "9999999999999999999d", "1h30m"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments_are_rfc_3339_and_nothing_else() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:01z", 1_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T23:00:00.250-01:00", 250),
            ("2026-05-01T09:00:00Z", 1_777_626_000_000),
        ] {
            assert_eq!(moment(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "now",
            "1777626000",
            "2026-05-01",
            "2026-05-01T09:00:00",
            "2026-05-01 09:00:00Z",
            "2026-05-01T09:00Z",
            "2026-05-01T09:00:00.Z",
            "2026-05-01T09:00:00+02",
            "2026-05-01T09:00:00+0200",
            "2026-05-01T09:00:00Z[UTC]",
            "2026-05-01T09:00:00Z ",
            "2026-13-01T09:00:00Z",
            "2026-02-30T09:00:00Z",
            "2026-05-01T25:00:00Z",
            "2026-05-01T09:00:00+25:00",
            "2026-05-01T09:00:00+02:60",
            "+002026-05-01T09:00:00Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-30T22:00:00.9Z",
            "9999-12-30T22:00:00.9999Z",
            "２026-05-01T09:00:00Z",
        ] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_moment_is_never_rounded_to_an_earlier_one() {
        for (text, millis) in [
            ("1970-01-01T00:00:00.0010Z", 1),
            ("1970-01-01T00:00:00.0010001Z", 2),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("1969-12-31T23:59:59.9985Z", -1),
        ] {
            assert_eq!(moment(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
    }
}

//! Durations as people write them: `100ms`, `1m30s`, `500us` (Go's `time.ParseDuration`).
//!
//! For: reading a duration that anyone may have written, without a panic, and its schema.
//! Not for: a type of its own. Values are [`kube::core::Duration`], whose own parser multiplies without a
//! check: it panics on `1s-5s` and on a number of hours that does not fit, so nothing unchecked may reach it.

use kube::core::Duration;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Go's grammar less the sign: no field of the API means anything with a negative duration.
/// Both spellings of micro are in Go's grammar, and a `Duration` writes the first of them.
const PATTERN: &str = "^(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|\u{b5}s|\u{3bc}s|ms|s|m|h))+)$";

/// In characters. Go itself never writes more than 25.
const MAX_LENGTH: usize = 32;

/// Go keeps nanoseconds in an `int64`: some 292 years.
const MAX_NANOSECONDS: f64 = i64::MAX as f64;

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not in Go's format.
    #[error(
        "`{0}` is not a duration; write a number and a unit, such as `100ms`, `30s` or `1m30s`"
    )]
    Malformed(String),
    /// Starts with `-`.
    #[error("`{0}` is negative; durations here are zero or more")]
    Negative(String),
    /// More than an `int64` of nanoseconds, or a text of more than 32 characters.
    #[error("`{0}` is too long; the longest duration is some 292 years, in at most 32 characters")]
    TooLong(String),
}

/// Reads a duration in Go's format.
///
/// # Errors
///
/// Says what is wrong with `text`, and quotes at most its first 32 characters.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let quoted = || text.chars().take(MAX_LENGTH).collect::<String>();
    if text.chars().nth(MAX_LENGTH).is_some() {
        return Err(DurationError::TooLong(quoted()));
    }
    if text.starts_with('-') {
        return Err(DurationError::Negative(quoted()));
    }
    let nanoseconds = nanoseconds(text).ok_or_else(|| DurationError::Malformed(quoted()))?;
    if nanoseconds >= MAX_NANOSECONDS {
        return Err(DurationError::TooLong(quoted()));
    }
    text.parse().map_err(|_| DurationError::Malformed(quoted()))
}

/// The sum of all parts; none if the text breaks the grammar.
fn nanoseconds(text: &str) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    let mut rest = text;
    let mut total = 0.0;
    loop {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, from_unit) = rest.split_at(unit_at);
        let unit_end = from_unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(from_unit.len());
        let (unit, after) = from_unit.split_at(unit_end);
        total += number.parse::<f64>().ok()? * unit_nanoseconds(unit)?;
        rest = after;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

fn unit_nanoseconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

/// For `#[serde(deserialize_with)]` on a `Duration`.
///
/// # Errors
///
/// As [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(de::Error::custom)
}

/// For `#[serde(deserialize_with)]` on an `Option<Duration>`; needs `#[serde(default)]` beside it.
///
/// # Errors
///
/// As [`parse`].
pub fn deserialize_option<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(de::Error::custom))
        .transpose()
}

/// For `#[schemars(schema_with)]`: what [`parse`] takes.
pub fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": MAX_LENGTH, "pattern": PATTERN })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration as StdDuration;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("0", StdDuration::ZERO),
            ("0s", StdDuration::ZERO),
            ("100ms", StdDuration::from_millis(100)),
            ("1m30s", StdDuration::from_secs(90)),
            ("500us", StdDuration::from_micros(500)),
            ("500\u{b5}s", StdDuration::from_micros(500)),
            ("500\u{3bc}s", StdDuration::from_micros(500)),
            ("7ns", StdDuration::from_nanos(7)),
            ("1.5h", StdDuration::from_secs(5400)),
            (".5s", StdDuration::from_millis(500)),
            ("1.s", StdDuration::from_secs(1)),
            ("0s10ms", StdDuration::from_millis(10)),
        ];
        for (text, want) in cases {
            let got = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(StdDuration::from(got), want, "{text}");
            let again = parse(&got.to_string()).unwrap();
            assert_eq!(again, got, "{text} was written as {got}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_without_a_panic() {
        for text in [
            "", "s", "5", ".", ".s", "1e3s", "1.2.3s", "5 s", "5days", "1s-5s", "+5s", "10s0",
        ] {
            assert_eq!(
                parse(text),
                Err(DurationError::Malformed(text.to_owned())),
                "{text:?}"
            );
        }
        assert!(matches!(parse("-1s"), Err(DurationError::Negative(_))));
        assert!(matches!(
            parse("99999999999999999999999h"),
            Err(DurationError::TooLong(_))
        ));
        assert!(matches!(
            parse(&"9".repeat(400)),
            Err(DurationError::TooLong(_))
        ));
    }

    #[test]
    fn the_pattern_of_the_schema_takes_what_the_parser_takes() {
        let pattern = regex::Regex::new(PATTERN).unwrap();
        let texts = [
            "0",
            "0s",
            "100ms",
            "1m30s",
            "500us",
            "500\u{b5}s",
            "500\u{3bc}s",
            "7ns",
            "1.5h",
            ".5s",
            "1.s",
            "0s10ms",
            "",
            "s",
            "5",
            ".",
            ".s",
            "1e3s",
            "1.2.3s",
            "5 s",
            "5days",
            "1s-5s",
            "+5s",
            "-5s",
            "10s0",
            "1h\n",
        ];
        for text in texts {
            assert_eq!(pattern.is_match(text), parse(text).is_ok(), "{text:?}");
        }
    }
}

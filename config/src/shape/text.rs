//! Texts with a form of their own: durations and socket addresses.

use std::net::SocketAddr;
use std::time::Duration;

/// Ten years: longer is a slip, and sums of such times must not overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Form of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Go's `time.ParseDuration`, without a sign.
    Duration,
    /// `ip:port`.
    SocketAddress,
}

impl Format {
    /// The error is a message and a remedy.
    pub(crate) fn check(self, text: &str) -> Result<(), (String, String)> {
        match self {
            Self::Duration => parse_duration(text).map(drop).map_err(|message| {
                let remedy = "write a number and a unit such as `250ms`, `30s`, `5m` or `1h30m`";
                (message, remedy.to_owned())
            }),
            Self::SocketAddress => text.parse::<SocketAddr>().map(drop).map_err(|_| {
                let remedy = "write ip:port such as `0.0.0.0:8080` or `[::1]:8080`";
                (
                    format!("{text:?} is not an ip address and a port"),
                    remedy.to_owned(),
                )
            }),
        }
    }
}

/// Go's duration syntax. Checked here first because `kube`'s parser panics on amounts such as
/// `1s-5s` and `1e300h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration");
    if text.starts_with('-') {
        return Err(format!("{text:?} is negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * factor;
        rest = tail;
    }
    if seconds > LONGEST.as_secs_f64() {
        return Err(format!("{text:?} is longer than ten years"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

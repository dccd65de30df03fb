//! `strftime_now`: today in the words of a template. Dates are in UTC, where engines' containers run;
//! a template's date changes the prompt once a day, and the engine reads its own clock.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A moment taken apart, in the proleptic Gregorian calendar.
struct Civil {
    year: i64,
    /// 0 to 11.
    month: usize,
    /// 1 to 31.
    day: i64,
    /// 0 is Sunday.
    weekday: usize,
    /// 0 to 365.
    day_of_year: i64,
    hour: i64,
    minute: i64,
    second: i64,
    microsecond: u32,
}

impl Civil {
    /// Days to date by the algorithm of Howard Hinnant, "chrono-compatible low-level date algorithms".
    fn of(moment: SystemTime) -> Self {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let month = (shifted_month + 2) % 12;
        let year = year_of_era + era * 400 + i64::from(month < 2);
        let leap = i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        Self {
            year,
            month: usize::try_from(month).unwrap_or(0),
            day: from_march - (153 * shifted_month + 2) / 5 + 1,
            weekday: usize::try_from((days + 4) % 7).unwrap_or(0),
            day_of_year: if month < 2 {
                from_march - 306
            } else {
                from_march + 59 + leap
            },
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            microsecond: since.subsec_micros(),
        }
    }
}

/// The moment in the form `format`; a directive of Python's `strftime` that we do not know stays as written.
pub(super) fn strftime(format: &str, moment: SystemTime) -> String {
    let civil = Civil::of(moment);
    let mut out = String::with_capacity(format.len() * 2);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            // glibc: no padding.
            Some('-') => {
                let mut padded = String::new();
                directive(&mut padded, chars.next(), &civil);
                let bare = padded.trim_start_matches('0');
                out.push_str(if bare.is_empty() && !padded.is_empty() {
                    "0"
                } else {
                    bare
                });
            }
            which => directive(&mut out, which, &civil),
        }
    }
    out
}

fn directive(out: &mut String, which: Option<char>, civil: &Civil) {
    let hour12 = if civil.hour % 12 == 0 {
        12
    } else {
        civil.hour % 12
    };
    let month = civil.month + 1;
    let written = match which {
        Some('Y') => write!(out, "{:04}", civil.year),
        Some('y') => write!(out, "{:02}", civil.year % 100),
        Some('m') => write!(out, "{month:02}"),
        Some('B') => write!(out, "{}", MONTHS[civil.month]),
        Some('b' | 'h') => write!(out, "{}", &MONTHS[civil.month][..3]),
        Some('d') => write!(out, "{:02}", civil.day),
        Some('e') => write!(out, "{:2}", civil.day),
        Some('j') => write!(out, "{:03}", civil.day_of_year + 1),
        Some('A') => write!(out, "{}", DAYS[civil.weekday]),
        Some('a') => write!(out, "{}", &DAYS[civil.weekday][..3]),
        Some('w') => write!(out, "{}", civil.weekday),
        Some('H') => write!(out, "{:02}", civil.hour),
        Some('I') => write!(out, "{hour12:02}"),
        Some('M') => write!(out, "{:02}", civil.minute),
        Some('S') => write!(out, "{:02}", civil.second),
        Some('f') => write!(out, "{:06}", civil.microsecond),
        Some('p') => write!(out, "{}", if civil.hour < 12 { "AM" } else { "PM" }),
        Some('F') => write!(out, "{:04}-{month:02}-{:02}", civil.year, civil.day),
        Some('T') => write!(
            out,
            "{:02}:{:02}:{:02}",
            civil.hour, civil.minute, civil.second
        ),
        // A naive datetime has no zone: Python prints nothing.
        Some('Z' | 'z') => Ok(()),
        Some('%') | None => write!(out, "%"),
        Some(other) => write!(out, "%{other}"),
    };
    written.expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_as_python_writes_them() {
        // 2024-07-26 15:04:09 UTC, a Friday.
        let moment = at(1_722_006_249);
        assert_eq!(strftime("%d %b %Y", moment), "26 Jul 2024");
        assert_eq!(
            strftime("%A, %B %-d, %Y %I:%M:%S %p", moment),
            "Friday, July 26, 2024 03:04:09 PM"
        );
        assert_eq!(
            strftime("%Y-%m-%d|%F|%T|%j|%y|%a|100%%|%Q", moment),
            "2024-07-26|2024-07-26|15:04:09|208|24|Fri|100%|%Q"
        );
    }

    #[test]
    fn years_end_and_leap_days_are_right() {
        assert_eq!(strftime("%F %j", at(0)), "1970-01-01 001");
        assert_eq!(strftime("%F %j", at(951_782_400)), "2000-02-29 060");
        assert_eq!(strftime("%F %j", at(1_735_603_200)), "2024-12-31 366");
        assert_eq!(strftime("%F %j %-H", at(1_735_689_600)), "2025-01-01 001 0");
    }
}

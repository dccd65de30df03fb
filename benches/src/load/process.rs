//! CPU time of this process, so that a result says what the generator itself took of the machine.

use std::time::Duration;

/// Clock ticks in a second: what Linux has shown in /proc on every platform for decades.
const TICKS: u64 = 100;

/// User and system time of all threads so far; zero where there is no /proc.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Duration::from_millis(ticks(&stat).unwrap_or(0) * 1000 / TICKS)
}

/// Fields 14 and 15; the name in field 2 may hold anything, so counting starts behind its bracket.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_hostile_name() {
        let stat = "1 (a) b (c) S 0 1 1 0 -1 0 0 0 0 0 70 30 0 0 20 0 1 0 5 0";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("1 (a) S"), None);
    }
}

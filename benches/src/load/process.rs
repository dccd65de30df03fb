//! CPU time and memory of processes, so that a result says what the generator itself took of the machine, and what
//! the measured one did.

use std::time::Duration;

/// Clock ticks in a second: what Linux has shown in /proc on every platform for decades.
const TICKS: u64 = 100;

/// User and system time of all threads so far; zero where there is no /proc.
pub fn cpu_time() -> Duration {
    cpu_time_of("self")
}

/// As [`cpu_time`], of the process with this number.
pub fn cpu_time_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    Duration::from_millis(ticks(&stat).unwrap_or(0) * 1000 / TICKS)
}

/// Memory of a process in MiB, as the line of this name in its status gives it: `VmRSS` is now, `VmHWM` the most so far.
/// Zero where there is no /proc.
pub fn memory_mib(process: &str, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    kibibytes(&status, line).unwrap_or(0.0) / 1024.0
}

fn kibibytes(status: &str, line: &str) -> Option<f64> {
    let line = status.lines().find_map(|text| text.strip_prefix(line))?;
    line.strip_prefix(':')?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()
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

    #[test]
    fn memory_is_found_by_the_name_of_its_line() {
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t    512 kB\n";
        assert_eq!(kibibytes(status, "VmRSS"), Some(512.0));
        assert_eq!(kibibytes(status, "VmHWM"), Some(2048.0));
        assert_eq!(kibibytes(status, "Vm"), None);
    }
}

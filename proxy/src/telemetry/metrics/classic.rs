//! OpenMetrics text turned into the older text format of Prometheus (0.0.4), as Kthena's Go library writes it: what
//! parsers, scripts and `le="1"` in someone's queries count on. Only with Kthena's families.
//!
//! What differs: counters carry `_total` in their `TYPE` and `HELP` too, infos are gauges, whole bucket bounds have no
//! `.0`, and there is neither `UNIT` nor `EOF`.

/// `Content-Type` of what [`classic`] returns.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same page in the older format.
pub(super) fn classic(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    // `HELP` comes before the `TYPE` that tells how it is called.
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, words)| words);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.rsplit_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some(help) = help.take() {
                out.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            sample(line, &mut out);
        }
    }
    out
}

/// A quote in a label's value is escaped, so what looks like a bound here is one.
fn sample(line: &str, out: &mut String) {
    const BOUND: &str = "le=\"";
    let bound = ["{", ","].iter().find_map(|before| {
        let at = line.find(&format!("{before}{BOUND}"))?;
        Some(at + before.len() + BOUND.len())
    });
    let whole = bound.and_then(|start| {
        let end = start + line[start..].find('"')?;
        line[start..end].ends_with(".0").then_some(end)
    });
    match whole {
        Some(end) => out.extend([&line[..end - 2], &line[end..], "\n"]),
        None => out.extend([line, "\n"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_and_bounds_are_those_of_the_older_format() {
        let page = "\
# HELP a_build What was built.
# TYPE a_build info
a_build_info{version=\"1\"} 1
# HELP a_requests Finished requests.
# TYPE a_requests counter
a_requests_total{model=\"x,le=\\\"1.0\\\"\"} 3
# HELP a_seconds Time.
# TYPE a_seconds histogram
# UNIT a_seconds seconds
a_seconds_sum{model=\"x\"} 1.0
a_seconds_bucket{le=\"0.5\",model=\"x\"} 1
a_seconds_bucket{le=\"60.0\",model=\"x\"} 2
a_seconds_bucket{model=\"x\",le=\"+Inf\"} 2
# EOF
";
        let expected = "\
# HELP a_build_info What was built.
# TYPE a_build_info gauge
a_build_info{version=\"1\"} 1
# HELP a_requests_total Finished requests.
# TYPE a_requests_total counter
a_requests_total{model=\"x,le=\\\"1.0\\\"\"} 3
# HELP a_seconds Time.
# TYPE a_seconds histogram
a_seconds_sum{model=\"x\"} 1.0
a_seconds_bucket{le=\"0.5\",model=\"x\"} 1
a_seconds_bucket{le=\"60\",model=\"x\"} 2
a_seconds_bucket{model=\"x\",le=\"+Inf\"} 2
";
        assert_eq!(classic(page), expected);
    }
}

//! Reads numbers out of `/metrics`.

/// Sum of all samples of `name` whose labels contain every one of `labels`, such as `reason="invalid_body"`.
///
/// # Panics
/// When a value is not a number.
pub fn series_sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    metrics
        .lines()
        .filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| {
            let value = line.rsplit(' ').next().unwrap_or_default();
            value.parse::<f64>().expect("a sample ends with its value")
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let text = "a_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_totals 9\nb 1\n";
        assert_eq!(series_sum(text, "a_total", &["x=\"1\""]), 7.0);
        assert_eq!(series_sum(text, "a_total", &["y=\"3\""]), 4.0);
        assert_eq!(series_sum(text, "b", &[]), 1.0);
    }
}

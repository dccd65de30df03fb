//! The metrics page, with vLLM's names and labels; only those a router reads, and a few of our own.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shared::Shared;

/// Upper bounds of the latency buckets in seconds, as in vLLM's time to first token.
const BOUNDS: [f64; 20] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0,
];

/// Observed durations in fixed buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    buckets: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    pub(crate) fn observe(&mut self, value: Duration) {
        let seconds = value.as_secs_f64();
        self.buckets[BOUNDS.partition_point(|&bound| bound < seconds)] += 1;
        self.sum += seconds;
    }

    fn render(&self, page: &mut String, name: &str, labels: &str) {
        let _ = writeln!(page, "# TYPE {name} histogram");
        let mut total = 0;
        for (count, bound) in self
            .buckets
            .iter()
            .zip(BOUNDS.iter().copied().chain([f64::INFINITY]))
        {
            total += count;
            let bound = if bound.is_finite() {
                bound.to_string()
            } else {
                "+Inf".to_owned()
            };
            let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(page, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(page, "{name}_count{{{labels}}} {total}");
    }
}

/// What the driver measures on the wall clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) first_token: Histogram,
    pub(crate) inter_token: Histogram,
    pub(crate) prompt_tokens: u64,
    pub(crate) generated_tokens: u64,
    pub(crate) finished: u64,
    pub(crate) aborted: u64,
    /// Time of all steps, on the engine's clock.
    pub(crate) busy: Duration,
}

/// The whole page.
pub(crate) fn render(shared: &Shared) -> String {
    let mut page = String::with_capacity(8192);
    let model = shared
        .options
        .models
        .first()
        .map_or("", String::as_str)
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    let labels = format!("engine=\"0\",model_name=\"{model}\"");
    let (gauges, latencies, counts) = (
        shared.driver.gauges(),
        shared.driver.latencies(),
        shared.counters.counts(),
    );
    let mut line = |kind: &str, name: &str, more: &str, value: f64| {
        let _ = writeln!(
            page,
            "# TYPE {name} {kind}\n{name}{{{labels}{more}}} {value}"
        );
    };
    line(
        "gauge",
        "vllm:num_requests_running",
        "",
        gauges.running.max(shared.paced_streams()) as f64,
    );
    line(
        "gauge",
        "vllm:num_requests_waiting",
        "",
        gauges.waiting as f64,
    );
    line("gauge", "vllm:kv_cache_usage_perc", "", gauges.kv_usage);
    line(
        "counter",
        "vllm:prefix_cache_queries_total",
        "",
        gauges.prefix_queries as f64,
    );
    line(
        "counter",
        "vllm:prefix_cache_hits_total",
        "",
        gauges.prefix_hits as f64,
    );
    line(
        "counter",
        "vllm:prompt_tokens_total",
        "",
        latencies.prompt_tokens as f64,
    );
    line(
        "counter",
        "vllm:generation_tokens_total",
        "",
        latencies.generated_tokens as f64,
    );
    line(
        "counter",
        "vllm:num_preemptions_total",
        "",
        gauges.preemptions as f64,
    );
    line(
        "counter",
        "vllm:request_success_total",
        ",finished_reason=\"length\"",
        latencies.finished as f64,
    );
    let _ = writeln!(
        page,
        "vllm:request_success_total{{{labels},finished_reason=\"abort\"}} {}",
        latencies.aborted
    );
    latencies
        .first_token
        .render(&mut page, "vllm:time_to_first_token_seconds", &labels);
    latencies
        .inter_token
        .render(&mut page, "vllm:inter_token_latency_seconds", &labels);
    let profile = &shared.options.profile;
    let _ = writeln!(
        page,
        "# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{engine=\"0\",block_size=\"{}\",\
         num_gpu_blocks=\"{}\",enable_prefix_caching=\"True\"}} 1",
        profile.block_tokens,
        profile.kv_blocks()
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let _ = writeln!(
        page,
        "# TYPE vllm:lora_requests_info gauge\nvllm:lora_requests_info{{max_lora=\"{}\",\
         running_lora_adapters=\"{}\",waiting_lora_adapters=\"\"}} {now}",
        shared.options.max_loras,
        shared.running_loras().join(",")
    );
    for (name, value) in [
        ("received", counts.received),
        ("completed", counts.completed),
        ("cancelled", counts.cancelled),
        ("faulted", counts.faulted),
    ] {
        let _ = writeln!(
            page,
            "# TYPE sluice_engine_{name}_total counter\nsluice_engine_{name}_total {value}"
        );
    }
    let _ = writeln!(
        page,
        "# TYPE sluice_engine_in_flight gauge\nsluice_engine_in_flight {}",
        counts.in_flight
    );
    let _ = writeln!(
        page,
        "# TYPE sluice_engine_busy_seconds_total counter\nsluice_engine_busy_seconds_total {}",
        latencies.busy.as_secs_f64()
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_at_the_count() {
        let mut histogram = Histogram::default();
        for millis in [1, 3, 30, 500_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut page = String::new();
        histogram.render(&mut page, "x", "a=\"b\"");
        assert!(page.contains("x_bucket{a=\"b\",le=\"0.001\"} 1\n"));
        assert!(page.contains("x_bucket{a=\"b\",le=\"0.04\"} 3\n"));
        assert!(page.contains("x_bucket{a=\"b\",le=\"160\"} 3\n"));
        assert!(page.contains("x_bucket{a=\"b\",le=\"+Inf\"} 4\n"));
        assert!(page.contains("x_count{a=\"b\"} 4\n"));
    }
}

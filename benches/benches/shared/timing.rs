//! Best-of-N timing for the figures files: the least disturbed run on a busy machine.

use std::time::Instant;

/// Microseconds of the fastest of many calls.
pub(crate) fn best_us<T>(mut call: impl FnMut() -> T) -> f64 {
    let started = Instant::now();
    let mut best = f64::INFINITY;
    let mut calls = 0;
    while calls < 20 || (started.elapsed().as_millis() < 200 && calls < 20_000) {
        let call_started = Instant::now();
        std::hint::black_box(call());
        best = best.min(call_started.elapsed().as_secs_f64() * 1e6);
        calls += 1;
    }
    (best * 1000.0).round() / 1000.0
}

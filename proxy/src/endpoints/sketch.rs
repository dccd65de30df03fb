//! What was measured lately: a mean that forgets with time, and a small sketch of quantiles that does too.
//!
//! Constant memory, constant time. Time comes in as an argument, measured from any fixed point. Not for exported
//! histograms: those count for ever (`telemetry`).

use std::time::Duration;

/// A mean weighted by `exp(-age / memory)`.
#[derive(Debug, Clone, Copy)]
pub struct DecayingMean {
    memory: Duration,
    sum: f64,
    weight: f64,
    at: Duration,
}

impl DecayingMean {
    /// A mean over about `memory`.
    pub fn new(memory: Duration) -> Self {
        Self {
            memory,
            sum: 0.0,
            weight: 0.0,
            at: Duration::ZERO,
        }
    }

    /// Adds a value measured at `now`. One that is no number is passed over.
    pub fn add(&mut self, value: f64, now: Duration) {
        if !value.is_finite() {
            return;
        }
        let age = now.saturating_sub(self.at).as_secs_f64();
        let kept = (-age / self.memory.as_secs_f64().max(f64::MIN_POSITIVE)).exp();
        self.sum = self.sum * kept + value;
        self.weight = self.weight * kept + 1.0;
        self.at = self.at.max(now);
    }

    /// The mean; `None` before the first value.
    pub fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

const BUCKETS: usize = 96;
/// Upper bound of the first bucket, in the unit of the values.
const SMALLEST: f64 = 0.1;
/// Each bucket's upper bound over the one before: 96 of them reach 0.1 x 1.2^95 = 3.3 million.
const RATIO: f64 = 1.2;

/// Counts in buckets spaced by a fixed ratio, halved every half-life: a quantile is right within 10 %.
///
/// For milliseconds: what lies outside 0.1 ms to 55 min counts in the outermost bucket.
#[derive(Debug, Clone)]
pub struct QuantileSketch {
    counts: [f32; BUCKETS],
    half_life: Duration,
    halved_at: Duration,
}

impl QuantileSketch {
    /// An empty sketch.
    pub fn new(half_life: Duration) -> Self {
        Self {
            counts: [0.0; BUCKETS],
            half_life,
            halved_at: Duration::ZERO,
        }
    }

    /// Counts a value measured at `now`. One that is negative or no number is passed over.
    pub fn add(&mut self, value: f64, now: Duration) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        self.decay(now);
        self.counts[bucket(value)] += 1.0;
    }

    /// The value that a share `q` (0 to 1) of what was counted does not exceed; `None` when nothing was.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total: f64 = self.counts.iter().copied().map(f64::from).sum();
        if total <= 0.0 {
            return None;
        }
        let wanted = q.clamp(0.0, 1.0) * total;
        let mut below = 0.0;
        let mut last = 0;
        for (index, count) in self.counts.iter().copied().map(f64::from).enumerate() {
            if count <= 0.0 {
                continue;
            }
            if below + count >= wanted {
                return Some(within(index, (wanted - below) / count));
            }
            below += count;
            last = index;
        }
        // Rounding alone can get here.
        Some(within(last, 1.0))
    }

    /// In steps of whole half-lives, so that most values cost one addition.
    fn decay(&mut self, now: Duration) {
        let half_life = self.half_life.as_secs_f64().max(f64::MIN_POSITIVE);
        let halvings = (now.saturating_sub(self.halved_at).as_secs_f64() / half_life).floor();
        if halvings < 1.0 {
            return;
        }
        let kept = 0.5_f64.powf(halvings) as f32;
        for count in &mut self.counts {
            *count *= kept;
            // Remains of long ago must not be the only ones left to speak.
            if *count < 1e-3 {
                *count = 0.0;
            }
        }
        self.halved_at = now;
    }
}

fn bucket(value: f64) -> usize {
    if value <= SMALLEST {
        return 0;
    }
    let index = ((value / SMALLEST).ln() / RATIO.ln()).ceil();
    (index as usize).min(BUCKETS - 1)
}

/// The value at a share of a bucket's width, on the logarithmic scale.
fn within(index: usize, share: f64) -> f64 {
    SMALLEST * RATIO.powf(index as f64 - 1.0 + share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_mean_follows_a_change_within_its_memory() {
        let mut mean = DecayingMean::new(at(10));
        assert_eq!(mean.mean(), None);
        for second in 0..100 {
            mean.add(10.0, at(second));
        }
        assert!((mean.mean().unwrap() - 10.0).abs() < 1e-9);
        for second in 100..130 {
            mean.add(40.0, at(second));
        }
        assert!(mean.mean().unwrap() > 38.0);
        mean.add(f64::NAN, at(131));
        assert!(mean.mean().unwrap() > 38.0);
    }

    #[test]
    fn a_sketch_forgets() {
        let mut sketch = QuantileSketch::new(at(30));
        assert_eq!(sketch.quantile(0.5), None);
        for _ in 0..1000 {
            sketch.add(1000.0, at(1));
        }
        for second in 400..430 {
            sketch.add(20.0, at(second));
        }
        let high = sketch.quantile(0.99).unwrap();
        assert!((16.6..24.1).contains(&high), "{high}");
    }

    #[test]
    fn a_sketch_is_small() {
        assert!(std::mem::size_of::<QuantileSketch>() < 1024);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_bucket(
            mut values in proptest::collection::vec(0.2..100_000.0_f64, 1..300),
            q in 0.0..1.0_f64,
        ) {
            let mut sketch = QuantileSketch::new(at(30));
            for value in &values {
                sketch.add(*value, at(1));
            }
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let found = sketch.quantile(q).unwrap();
            prop_assert!(found / exact < 1.21 && exact / found < 1.21, "{found} for {exact}");
        }

        #[test]
        fn no_value_breaks_it(values in proptest::collection::vec(any::<f64>(), 0..50)) {
            let mut sketch = QuantileSketch::new(at(1));
            for (second, value) in values.iter().enumerate() {
                sketch.add(*value, at(second as u64));
            }
            prop_assert!(sketch.quantile(0.9).is_none_or(f64::is_finite));
        }
    }
}

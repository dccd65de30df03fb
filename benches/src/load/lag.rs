//! How late this machine runs what is due: the bound on what any time measured on it can mean.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Between two looks; at most so many are kept.
const PERIOD: Duration = Duration::from_millis(20);
const LOOKS: usize = 1 << 18;

/// Looks at the clock all the time, beside the load and on its thread.
#[derive(Debug)]
pub struct LagMeter {
    /// Seconds beyond the period. Locked without awaiting.
    late: Arc<Mutex<Vec<f64>>>,
    task: JoinHandle<()>,
}

impl LagMeter {
    /// Starts looking.
    pub fn start() -> Self {
        let late = Arc::new(Mutex::new(Vec::new()));
        let seen = late.clone();
        let task = tokio::spawn(async move {
            loop {
                let start = Instant::now();
                sleep(PERIOD).await;
                let late = start.elapsed().saturating_sub(PERIOD).as_secs_f64();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.len() < LOOKS {
                    seen.push(late);
                }
            }
        });
        Self { late, task }
    }

    /// Stops; the sorted delays in seconds.
    pub fn finish(self) -> Vec<f64> {
        self.task.abort();
        let mut late =
            std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        late.sort_by(f64::total_cmp);
        late
    }
}

//! The tasks of the process: none may end unnoticed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout_at};

/// Every task with its name.
#[derive(Default)]
pub(super) struct Tasks {
    /// Run for ever, and are cut off in the end.
    endless: JoinSet<()>,
    /// End by themselves when the process is told to stop, and have something to finish.
    finishing: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// One that has nothing to finish.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.endless.spawn(task).id();
        self.names.insert(id, name);
    }

    /// One that ends by itself, and is waited for.
    pub(super) fn spawn_until_stop(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.finishing.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends although nobody told it to. Kubernetes starts the process anew, which is better than half
    /// of it.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.endless.join_next_with_id() => ended,
            Some(ended) = self.finishing.join_next_with_id() => ended,
            else => std::future::pending().await,
        };
        let name = |id| self.names.get(&id).copied().unwrap_or("unknown");
        match ended {
            Ok((id, ())) => anyhow::anyhow!("the task `{}` ended by itself", name(id)),
            Err(error) => {
                let name = name(error.id());
                anyhow::Error::new(error).context(format!("the task `{name}` failed"))
            }
        }
    }

    /// Waits for those that have something to finish, no longer than `grace`; the rest is cut off.
    pub(super) async fn finish(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        while let Ok(Some(ended)) = timeout_at(deadline, self.finishing.join_next_with_id()).await {
            if let Ok((id, ())) = ended {
                self.names.remove(&id);
            }
        }
        if !self.finishing.is_empty() {
            tracing::warn!(
                left = self.finishing.len(),
                "cut off after {} s",
                grace.as_secs()
            );
        }
        self.finishing.abort_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_or_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("endless", std::future::pending());
        tasks.spawn_until_stop("quitter", async {});
        assert!(tasks.failed().await.to_string().contains("`quitter` ended"));
        tasks.spawn("faulty", async { panic!("on purpose") });
        assert!(tasks.failed().await.to_string().contains("`faulty` failed"));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_finish_are_waited_for_and_no_longer_than_the_grace() {
        let mut tasks = Tasks::default();
        tasks.spawn("endless", std::future::pending());
        tasks.spawn_until_stop("quick", tokio::time::sleep(Duration::from_secs(2)));
        let start = Instant::now();
        tasks.finish(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
        tasks.spawn_until_stop("slow", std::future::pending());
        tasks.finish(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 12);
    }
}

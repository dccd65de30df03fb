//! Writes one pod's status whenever something of it has changed; what comes fast is written once.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::pod::PodContext;
use super::status;

const RETRY: Duration = Duration::from_millis(200);

/// The task that writes; dropping it ends it.
pub(super) struct StatusWriter {
    finish: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    pub(super) fn start(pod: Arc<PodContext>) -> Self {
        let (finish, finished) = oneshot::channel();
        Self {
            finish: Some(finish),
            task: tokio::spawn(write(pod, finished)),
        }
    }

    /// Returns when all is written.
    pub(super) async fn finish(mut self) {
        self.finish.take();
        (&mut self.task).await.ok();
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write(pod: Arc<PodContext>, mut finished: oneshot::Receiver<()>) {
    let mut changes = pod.board.changes();
    let mut object = pod.object.clone();
    let mut written: Option<PodStatus> = None;
    let mut last = false;
    loop {
        changes.mark_unchanged();
        let seen = object.borrow_and_update().clone();
        let status = status::compose(
            &seen,
            &pod.facts,
            &pod.board.views(),
            written.as_ref(),
            pod.start,
            Timestamp::now(),
        );
        if written.as_ref() != Some(&status) {
            match patch(&pod, &status).await {
                Ok(()) => written = Some(status),
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 422) => {
                    // Gone, or another pod of this name (the UID differs).
                    tracing::debug!(pod = %pod.name, message = answer.message, "status not written");
                    return;
                }
                Err(error) => {
                    tracing::debug!(pod = %pod.name, %error, "status not written yet");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if last {
            return;
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = object.changed() => {}
            _ = &mut finished => last = true,
        }
    }
}

async fn patch(pod: &PodContext, status: &PodStatus) -> kube::Result<()> {
    // With the UID a status can never be written to a namesake.
    let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
    let parameters = PatchParams::default();
    pod.api()
        .patch_status(&pod.name, &parameters, &Patch::Strategic(patch))
        .await?;
    Ok(())
}

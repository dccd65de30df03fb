//! Fetches keys in the background: at once when a keyring comes into force, then now and then, sooner after a failure,
//! and when a request asks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use super::{Authenticator, Keyring};

/// A service of its own, off the threads that serve.
pub struct Refresher(pub Arc<Authenticator>);

#[async_trait]
impl BackgroundService for Refresher {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut keyrings = self.0.keyrings();
        loop {
            let keyring = keyrings.borrow_and_update().clone();
            tokio::select! {
                changed = keyrings.changed() => if changed.is_err() { return },
                _ = shutdown.changed() => return,
                () = keep_fresh(keyring) => {}
            }
        }
    }
}

/// Never ends.
async fn keep_fresh(keyring: Option<Arc<Keyring>>) {
    let Some(keyring) = keyring else {
        return std::future::pending().await;
    };
    loop {
        let pause = keyring.fetch().await;
        tokio::select! {
            () = sleep(pause) => {}
            () = keyring.asked() => {}
        }
    }
}

async fn sleep(pause: Duration) {
    match pause {
        Duration::MAX => std::future::pending().await,
        pause => tokio::time::sleep(pause).await,
    }
}

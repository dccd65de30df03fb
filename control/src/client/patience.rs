//! A deadline for the head of every answer: an API server that takes a request and is silent would else hold up its kind
//! of objects for good. What a watch sends after its head may take its time.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use kube::client::Body;
use tokio::time::timeout;
use tower::{BoxError, Layer, Service};

/// How long to wait for a head. The time counts from the first poll: not while a request waits to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience(pub(super) Duration);

/// A service whose answers begin in time or fail.
#[derive(Debug)]
pub(super) struct Patient<S> {
    inner: S,
    patience: Duration,
}

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, inner: S) -> Patient<S> {
        Patient {
            inner,
            patience: self.0,
        }
    }
}

impl<S> Service<Request<Body>> for Patient<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, patience) = (self.inner.call(request), self.patience);
        Box::pin(async move {
            match timeout(patience, answer).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(format!("no answer within {} s", patience.as_secs()).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{Pending, pending};
    use http::Response;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, Client};

    use super::*;

    /// Takes requests and says nothing.
    struct Silent;

    impl Service<Request<Body>> for Silent {
        type Response = Response<Body>;
        type Error = BoxError;
        type Future = Pending<Result<Response<Body>, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_not_waited_for_for_ever() {
        let service = Patience(Duration::from_secs(70)).layer(Silent);
        let maps: Api<ConfigMap> = Api::default_namespaced(Client::new(service, "default"));
        let error = maps.get_opt("none").await.unwrap_err();
        assert!(
            error.to_string().contains("no answer within 70 s"),
            "{error}"
        );
    }
}

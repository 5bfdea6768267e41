//! Work that goes on when the client hangs up: what the inner service has begun is recorded, whoever listens.

use std::{future::Future, sync::Arc};

use axum::body::Body;
use http::Response;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;

use crate::{
    protocol::rejection::{Rejection, RejectionKind},
    service::layer::Core,
};

impl<St> Core<St> {
    /// A place among the births and deaths under way: hanging up does not end them, so their number is bounded here.
    pub(crate) fn begin_work(&self) -> Result<OwnedSemaphorePermit, RejectionKind> {
        Arc::clone(&self.live.works)
            .try_acquire_owned()
            .map_err(|_| RejectionKind::Busy)
    }

    /// Runs to its end even if nobody waits for its answer any more.
    pub(crate) async fn see_through<E: Send + 'static>(
        &self,
        work: impl Future<Output = Result<Response<Body>, E>> + Send + 'static,
    ) -> Result<Response<Body>, E> {
        match tokio::spawn(work.in_current_span()).await {
            Ok(answer) => answer,
            // A panic of the inner service is the caller's, as it would be without us.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime shuts down under it.
            Err(_) => Ok(self.answer(Rejection::new(RejectionKind::Draining))),
        }
    }
}

//! Work that goes on when the client hangs up: what the inner service has begun is recorded, whoever listens.

use std::{future::Future, sync::Arc};

use axum::body::Body;
use http::Response;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
};
use tracing::Instrument as _;

use super::Lifecycle;
use crate::protocol::{Rejection, RejectionKind};

/// What is under way. Hanging up does not end it, so its number is bounded here.
pub(crate) struct Background(Arc<Semaphore>);

impl Default for Background {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX)))
    }
}

impl Background {
    /// A place, until what this answers is dropped.
    pub(crate) fn begin(&self) -> Result<OwnedSemaphorePermit, RejectionKind> {
        Arc::clone(&self.0)
            .try_acquire_owned()
            .map_err(|_| RejectionKind::Busy)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.0.available_permits() < MAX
    }
}

/// Runs work to its end even if nobody waits for its answer any more.
pub(crate) async fn run_to_its_end<E: Send + 'static>(
    lifecycle: Arc<Lifecycle>,
    work: impl Future<Output = Result<Response<Body>, E>> + Send + 'static,
) -> Result<Response<Body>, E> {
    let answer = run(work).await;
    // Lets the server hear of a client that has gone meanwhile: it drops the answer, and so shows that nobody has the id.
    // More than once, for another thread may be the one that asks the system.
    for _ in 0..TURNS {
        yield_now().await;
    }
    // The runtime shuts down under it.
    answer.unwrap_or_else(|| Ok(lifecycle.answer(Rejection::new(RejectionKind::Draining))))
}

/// Runs work to its end even if nobody waits for its answer any more. `None` if the runtime shuts down under it.
pub(super) async fn run<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(answer) => Some(answer),
        // A panic of the inner service is the caller's, as it would be without us.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

const MAX: usize = 4096;

/// For how many turns an answer waits.
const TURNS: usize = 3;

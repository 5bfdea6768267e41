//! Work that goes on when the client hangs up: what the inner service has begun is recorded, whoever listens.

use std::{future::Future, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use crate::protocol::RejectionKind;

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

/// Runs work to its end even if nobody waits for its answer any more. `None` if the runtime shuts down under it.
pub(crate) async fn run<T: Send + 'static>(
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

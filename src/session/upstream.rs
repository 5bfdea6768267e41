//! An inner service without its type, for what the layer sends by itself.

use std::{any::TypeId, pin::Pin, sync::Arc};

use axum::{BoxError, body::Body};
use http::{Request, Response};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// The answer of an [`Upstream`], to come.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// An inner service, its type left behind.
pub(crate) struct Upstream {
    /// An app may wrap the same service anew for each connection (axum does, under `Router::layer` over handlers), and
    /// what differs in nothing but that is one place for all sessions.
    pub(crate) kind: TypeId,
    /// It may be one of several services that make up the endpoint: one of axum's routes, in which another method is
    /// another handler's.
    pub(crate) is_part: bool,
    pub(crate) trial: Trial,
    /// The digest of the route that it was put into last.
    noted: AtomicU64,
    call: Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>,
}

impl Upstream {
    pub(crate) fn new(
        kind: TypeId,
        is_part: bool,
        call: impl Fn(Request<Body>) -> Answering + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            is_part,
            trial: Trial::default(),
            noted: AtomicU64::new(0),
            call: Box::new(call),
        }
    }

    /// Whether the route of this digest got to know it.
    #[inline]
    pub(crate) fn is_noted(&self, digest: u64) -> bool {
        self.noted.load(Relaxed) == digest
    }

    /// The route of this digest gets to know it.
    pub(super) fn note(&self, digest: u64) {
        self.noted.store(digest, Relaxed);
    }

    pub(crate) fn call(&self, request: Request<Body>) -> Answering {
        (self.call)(request)
    }
}

/// Whether an inner service answers a `ping` of the layer's own as it should: asked once, about a session that lives.
#[derive(Default)]
pub(crate) struct Trial {
    /// How it went; or how often it was no trial, because no answer came.
    state: AtomicU8,
    turn: Arc<Mutex<()>>,
}

impl Trial {
    /// Begins the trial, if nobody has. Whoever wants to know how it went waits until this is dropped.
    pub(crate) fn begin(&self) -> Option<OwnedMutexGuard<()>> {
        let turn = Arc::clone(&self.turn).try_lock_owned().ok()?;
        (self.state.load(Relaxed) < TRIES).then_some(turn)
    }

    pub(crate) fn pass(&self) {
        self.state.store(PASSED, Relaxed);
    }

    pub(crate) fn fail(&self) {
        self.state.store(FAILED, Relaxed);
    }

    /// There was no answer. `false` if that was so too often.
    pub(crate) fn try_again(&self) -> bool {
        let tries = self.state.load(Relaxed) + 1;
        self.state.store(tries, Relaxed);
        tries < TRIES
    }

    /// Whether it is over and has failed, or never came to anything.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.state.load(Relaxed), TRIES..=FAILED)
    }

    /// As [`has_failed`](Self::has_failed), after a trial that is under way.
    pub(crate) async fn fails(&self) -> bool {
        if self.state.load(Relaxed) != PASSED {
            drop(self.turn.lock().await);
        }
        self.has_failed()
    }
}

const TRIES: u8 = 3;
const FAILED: u8 = 4;
const PASSED: u8 = 5;

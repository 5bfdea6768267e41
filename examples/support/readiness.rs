//! Whether a load balancer should send requests here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use mcp_session_layer::Sessions;

#[derive(Clone)]
pub(crate) struct Readiness {
    sessions: Sessions,
    is_leaving: Arc<AtomicBool>,
}

impl Readiness {
    pub(crate) fn of(sessions: Sessions) -> Self {
        let is_leaving = Arc::default();
        Self {
            sessions,
            is_leaving,
        }
    }

    /// This node is about to leave. Whatever comes all the same is served until it does, new sessions included.
    pub(crate) fn withdraw(&self) {
        self.is_leaving.store(true, Relaxed);
    }

    /// `/ready`: 200, or 503 while the node is leaving, drained, or without its store.
    pub(crate) fn routes(&self) -> Router {
        Router::new()
            .route("/ready", get(ready))
            .with_state(self.clone())
    }
}

async fn ready(State(readiness): State<Readiness>) -> StatusCode {
    match !readiness.is_leaving.load(Relaxed) && readiness.sessions.ready().await {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

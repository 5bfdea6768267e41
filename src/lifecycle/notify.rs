//! Notifying the inner service of sessions whose end it did not see.

use std::{error::Error, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::Lifecycle;
use crate::{
    protocol::SessionId,
    session::{Route, Session},
};

/// Sends a DELETE for each end: a few at a time, none dropped, retried for an hour while it fails.
pub(crate) struct Notifier(Arc<Semaphore>);

impl Default for Notifier {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_AT_ONCE)))
    }
}

impl Notifier {
    /// In the background. An inner service that is gone is not notified.
    pub(crate) fn notify(&self, route: Arc<Route>, session: &Session) {
        self.start(route, session.id().clone(), Some(session.clone()));
    }

    /// The same of an id that no session has.
    pub(crate) fn notify_of(&self, route: Arc<Route>, id: SessionId) {
        self.start(route, id, None);
    }

    fn start(&self, route: Arc<Route>, id: SessionId, session: Option<Session>) {
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!(session = %id.reference(), "outside a runtime the inner service cannot be notified of a session's end");
            return;
        };
        runtime.spawn(retry(Arc::clone(&self.0), route, id, session));
    }
}

async fn retry(turns: Arc<Semaphore>, route: Arc<Route>, id: SessionId, session: Option<Session>) {
    let given_up = Instant::now() + LONGEST;
    let mut pause = FIRST_PAUSE;
    while Instant::now() < given_up {
        let turn = turns.acquire().await;
        let Some(upstream) = route.upstream() else {
            return;
        };
        let mut request = route.request(Method::DELETE, &id);
        if let Some(session) = &session {
            // As in every request of a session: its values may say where it is.
            request.extensions_mut().insert(session.clone());
        }
        let answer = timeout(PATIENCE, upstream.call(request)).await;
        drop(upstream);
        drop(turn);
        match answer.map(|answer| answer.map(|response| response.status())) {
            Ok(Ok(status)) if is_understood(status) => return,
            Ok(Ok(status)) => {
                tracing::warn!(session = %id.reference(), %status, "the inner service refused the DELETE that notifies it of a session's end");
                if !may_change(status) {
                    return;
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(session = %id.reference(), error = &*error as &dyn Error, "the inner service could not be notified of a session's end");
            }
            Err(_) => {
                tracing::warn!(session = %id.reference(), "the inner service took too long to answer the DELETE that notifies it of a session's end");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    tracing::error!(session = %id.reference(), "gave up notifying the inner service of a session's end");
}

impl Lifecycle {
    /// Notifies the inner service of a session's end, once.
    pub(crate) fn notify_inner(&self, session: &Session) {
        if self.inner_knows(session)
            && let Some(route) = session.route()
            && session.state().mark_notified()
        {
            self.alive.notifier.notify(route, session);
        }
    }
}

/// Ended now, or unknown already, or the service does not let clients end sessions.
fn is_understood(status: StatusCode) -> bool {
    status.is_success()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        )
}

/// Whether another try may be answered otherwise.
pub(super) fn may_change(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        )
}

const MAX_AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An inner service that fails for longer must forget the session by its own means. Without a bound the
/// notifications would pile up.
const LONGEST: Duration = Duration::from_secs(60 * 60);

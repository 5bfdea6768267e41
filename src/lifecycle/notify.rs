//! Notifying the inner service of sessions whose end it did not see.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    BoxError,
    body::{Body, HttpBody as _},
};
use http::{Method, Request, Response, StatusCode};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::{BodyBudget, Buffered, Lifecycle, ReadEnd};
use crate::{
    protocol::{AnswerHead, SessionId, denies_session, message::Answer},
    session::{Route, Session, Upstream},
};

/// Sends a DELETE for each end: a few at a time, none dropped, retried for an hour while it fails.
pub(crate) struct Notifier {
    turns: Arc<Semaphore>,
    budget: BodyBudget,
}

/// The end of one session, for its inner service to hear of.
struct Notice<L> {
    route: Arc<Route>,
    id: SessionId,
    session: Option<Session>,
    /// Called when the inner service has not ended it.
    is_left: L,
}

impl Notifier {
    /// `budget` is for what is read of the answers.
    pub(crate) fn new(budget: BodyBudget) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            budget,
        }
    }

    /// In the background. An inner service that is gone is not notified.
    pub(crate) fn notify(&self, route: Arc<Route>, session: &Session) {
        self.start(Notice {
            route,
            id: session.id().clone(),
            session: Some(session.clone()),
            is_left: || {},
        });
    }

    /// The same of an id that no session has. `is_left` is called whenever the inner service has not ended it.
    pub(crate) fn notify_of(
        &self,
        route: Arc<Route>,
        id: SessionId,
        is_left: impl Fn() + Send + 'static,
    ) {
        self.start(Notice {
            route,
            id,
            session: None,
            is_left,
        });
    }

    fn start<L: Fn() + Send + 'static>(&self, notice: Notice<L>) {
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!(session = %notice.id.reference(), "outside a runtime the inner service cannot be notified of a session's end");
            return;
        };
        runtime.spawn(retry(Arc::clone(&self.turns), self.budget.clone(), notice));
    }
}

async fn retry<L: Fn()>(turns: Arc<Semaphore>, budget: BodyBudget, notice: Notice<L>) {
    let Notice {
        route,
        id,
        session,
        is_left,
    } = notice;
    let given_up = Instant::now() + LONGEST;
    let mut pause = FIRST_PAUSE;
    let mut has_warned = false;
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
        let heard = timeout(PATIENCE, hear(&upstream, request, &budget)).await;
        drop(upstream);
        drop(turn);
        if !matches!(heard, Ok(Ok(Heard::Ended))) {
            is_left();
        }
        match heard {
            Ok(Ok(Heard::Ended | Heard::Unknown)) => return,
            Ok(Ok(Heard::Other(status))) => {
                if !std::mem::replace(&mut has_warned, true) {
                    tracing::warn!(
                        session = %id.reference(),
                        %status,
                        "the inner service did not understand the DELETE that notifies it of a session's end, so it may keep \
                         the session; it may have to be named as a whole (see `with_inner`), or to be told by whom it is \
                         called (see `with_inner_context`)"
                    );
                }
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

/// What an inner service said to the DELETE of a session.
enum Heard {
    /// It has ended it.
    Ended,
    /// It has no such session, or does not let clients end any.
    Unknown,
    /// Nothing that means either.
    Other(StatusCode),
}

async fn hear(
    upstream: &Upstream,
    request: Request<Body>,
    budget: &BodyBudget,
) -> Result<Heard, BoxError> {
    let response = upstream.call(request).await?;
    let status = response.status();
    // No DELETE is answered with events: this was taken for a GET or a POST.
    let is_event_stream = AnswerHead::read(response.headers()).is_event_stream;
    let is_understood = match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(Heard::Unknown),
        StatusCode::BAD_REQUEST => denies_session(&read(response, budget).await?),
        _ if !status.is_success() || is_event_stream => false,
        // A POST's handler, for one, that has found no JSON-RPC in it.
        _ => !matches!(
            Answer::read(&read(response, budget).await?),
            Answer::Error | Answer::AnonymousError
        ),
    };
    Ok(match is_understood {
        true if status.is_success() => Heard::Ended,
        true => Heard::Unknown,
        false => Heard::Other(status),
    })
}

/// An answer's body; of a long one the beginning, which no error is.
async fn read(response: Response<Body>, budget: &BodyBudget) -> Result<Vec<u8>, BoxError> {
    let body = response.into_body();
    if body.is_end_stream() {
        return Ok(Vec::new());
    }
    let mut body = Buffered::new(body);
    match body.read(budget).await {
        ReadEnd::Complete | ReadEnd::TooLong => Ok(body.bytes().to_vec()),
        ReadEnd::TooSlow | ReadEnd::Broken | ReadEnd::OverBudget => {
            Err("its answer could not be read".into())
        }
    }
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

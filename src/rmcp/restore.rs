//! One session restored: what its first request here waits for.

use std::{cell::Cell, sync::Arc, time::Duration};

use axum::{body::Body, response::IntoResponse as _};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName,
        TRANSFER_ENCODING,
    },
    request::Parts,
};
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        SessionManager, StreamableHttpService,
        session::{SessionState, SessionStore as RmcpStore, SessionStoreError},
    },
};
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    manager::Manager,
    places::{Arrival, Outcome, Place, Places, Turn},
    refusal::refused,
    store::{cannot_restore, state_of},
};
use crate::{
    lifecycle::BoundedStore,
    protocol::{LAST_EVENT_ID, Rejection, RejectionKind},
    session::Session,
};

/// What the clones of a service have in common.
pub(super) struct Shared<S, M> {
    pub(super) rmcp: StreamableHttpService<S, Manager<M>>,
    pub(super) manager: Arc<Manager<M>>,
    pub(super) places: Arc<Places>,
    pub(super) store: BoundedStore,
    /// How many sessions may be restored at a time.
    pub(super) restoring: Semaphore,
}

impl<S: ServerHandler, M: SessionManager> Shared<S, M> {
    /// Sees to it that rmcp holds the session of a request. Of requests that arrive at once the first has it restored, and
    /// all wait for that and for nothing else.
    ///
    /// # Errors
    ///
    /// With the answer for the client, if the session could not be restored.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        id: &str,
        session: Option<&Session>,
        parts: &Parts,
    ) -> Result<(), Response<Body>> {
        loop {
            let mut is_mine = false;
            let mut coming = match (self.places.find(id), session) {
                (Some(Place::Here(_)), _) => return Ok(()),
                (Some(Place::Restoring(coming)), _) => coming,
                // Not one that the layer has let through: nothing is restored for it.
                (None, None) => return Ok(()),
                (None, Some(session)) => match self.places.arrive(id) {
                    Arrival::Here => return Ok(()),
                    Arrival::Restoring(coming) => coming,
                    Arrival::Turn(turn) => {
                        is_mine = true;
                        self.begin(turn, session.clone(), parts.clone())
                    }
                },
            };
            let outcome = match coming.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.unwrap_or(Outcome::BROKEN),
                Err(_) => Outcome::BROKEN,
            };
            return match outcome {
                Outcome::Restored => Ok(()),
                // rmcp refuses it as well.
                Outcome::Refused if is_mine => Ok(()),
                Outcome::Refused => continue,
                Outcome::Rejected(kind) => Err(Rejection::new(kind).into_response()),
                Outcome::Failed(status) => {
                    Err(refused(status, "The session could not be restored"))
                }
            };
        }
    }

    /// In a task of its own, so that it comes to its end although the client hangs up.
    fn begin(
        self: &Arc<Self>,
        mut turn: Turn,
        session: Session,
        parts: Parts,
    ) -> watch::Receiver<Option<Outcome>> {
        let outcome = turn.outcome();
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            turn.outcome = shared.restore_in_line(&session, parts).await;
            // Whatever has come of it.
            if session.has_ended() {
                turn.outcome = Outcome::Rejected(RejectionKind::Ended);
            }
            if turn.outcome != Outcome::Restored {
                // What came about by half would be taken for a session.
                let _ = shared.manager.close_session(turn.id()).await;
            }
        });
        outcome
    }

    async fn restore_in_line(&self, session: &Session, parts: Parts) -> Outcome {
        let place = timeout(LONGEST_LINE, self.restoring.acquire()).await;
        match place {
            Ok(_place) => timeout(LONGEST, self.restore(session, parts)).await,
            Err(late) => Err(late),
        }
        .unwrap_or(Outcome::Rejected(RejectionKind::Busy))
    }

    async fn restore(&self, session: &Session, parts: Parts) -> Outcome {
        // Some stores hand it out with every answer; the others have to be asked.
        let state = match state_of(session) {
            Ok(None) => match self.store.load(session.id()).await {
                Ok(Some(found)) => state_of(&found.session),
                Ok(None) => return Outcome::Rejected(RejectionKind::Unknown),
                Err(error) => Err(error),
            },
            state => state,
        };
        match state {
            Ok(Some(state)) => self.replay(session, state, parts).await,
            Ok(None) => {
                cannot_restore(session);
                Outcome::Failed(StatusCode::NOT_FOUND)
            }
            Err(error) => {
                tracing::warn!(
                    session = %session.reference(),
                    error = &error as &dyn std::error::Error,
                    "could not load a session to restore it"
                );
                Outcome::Rejected(RejectionKind::StoreUnavailable)
            }
        }
    }

    /// Lets rmcp restore it, for a request that asks for nothing else.
    async fn replay(&self, session: &Session, state: SessionState, parts: Parts) -> Outcome {
        let mut state = Some(state);
        for _ in 0..TRIES {
            let handover = Cell::new(state.take());
            let ping = ping(parts.clone());
            let answer = async {
                let answer = self.rmcp.handle(ping).await;
                (answer.status(), STATE.with(Cell::take))
            };
            let (status, left) = STATE.scope(handover, answer).await;
            state = left;
            let is_taken = state.is_none();
            match status {
                _ if status.is_success() => return Outcome::Restored,
                // rmcp keeps the outcome of a restore that failed for a moment longer, and did not even ask.
                StatusCode::NOT_FOUND if !is_taken => sleep(BETWEEN).await,
                StatusCode::NOT_FOUND => return Outcome::Failed(status),
                // It looks at the rest of the request after it has restored the session.
                _ if status.is_client_error() && is_taken => return Outcome::Restored,
                _ if status.is_client_error() => return Outcome::Refused,
                _ => return Outcome::Failed(status),
            }
        }
        tracing::warn!(session = %session.reference(), "rmcp does not restore a session");
        Outcome::BROKEN
    }
}

tokio::task_local! {
    /// What rmcp may restore in this task.
    static STATE: Cell<Option<SessionState>>;
}

/// What rmcp takes for its store: it finds there what was loaded for it, and nothing else.
pub(super) struct Handover;

#[async_trait::async_trait]
impl RmcpStore for Handover {
    async fn load(&self, _: &str) -> Result<Option<SessionState>, SessionStoreError> {
        Ok(STATE.try_with(Cell::take).ok().flatten())
    }

    async fn store(&self, _: &str, _: &SessionState) -> Result<(), SessionStoreError> {
        Ok(())
    }

    async fn delete(&self, _: &str) -> Result<(), SessionStoreError> {
        Ok(())
    }
}

/// A request as the one that came, which asks for nothing.
fn ping(mut parts: Parts) -> Request<Body> {
    parts.method = Method::POST;
    let headers = &mut parts.headers;
    for name in OF_THE_MESSAGE {
        headers.remove(name);
    }
    headers.remove(&LAST_EVENT_ID);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ACCEPT, JSON_OR_EVENTS);
    Request::from_parts(parts, Body::from(PING))
}

const PING: &str = r#"{"jsonrpc":"2.0","id":"restore","method":"ping"}"#;

/// What is said of a message that is not sent.
const OF_THE_MESSAGE: [HeaderName; 6] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    TRANSFER_ENCODING,
    EXPECT,
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const JSON_OR_EVENTS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// How long a session waits for its turn where many come at once: half of what the most impatient clients allow.
const LONGEST_LINE: Duration = Duration::from_secs(30);
/// How long it may take then.
const LONGEST: Duration = Duration::from_secs(10);
const TRIES: usize = 5;
const BETWEEN: Duration = Duration::from_millis(10);

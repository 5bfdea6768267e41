//! Ending a session: at its client's word, at an operator's, at the inner service's, or because it ended elsewhere.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header::ALLOW};

use super::{Buffered, Lifecycle, ReadEnd, SessionEvent};
use crate::{
    metrics,
    protocol::{
        AnswerHead, Rejection, RejectionKind, SESSION_ID, SessionId, SessionRef, message::Answer,
    },
    registry::Ended,
    session::{InFlight, Session, times},
    store::{EndReason, SessionFilter, StoreError, StoreErrorKind},
};

/// Ends a session whose id this layer issued: the inner service is not asked. The session is gone from the store before the
/// answer says so.
pub(crate) async fn terminate(lifecycle: &Arc<Lifecycle>, session: &Session) -> Response<Body> {
    let failed = end_for_client(lifecycle, session).await;
    failed.unwrap_or_else(no_content)
}

/// What the inner service's answer to a DELETE on a live session comes to. It is done as the inner service does.
pub(crate) async fn terminate_as_inner(
    lifecycle: &Arc<Lifecycle>,
    in_flight: &InFlight,
    mut response: Response<Body>,
) -> Response<Body> {
    let status = response.status();
    if status.as_u16() >= 400 && in_flight.session().has_ended() {
        return lifecycle.answer(Rejection::new(RejectionKind::Ended));
    }
    if !status.is_success() && status != StatusCode::NOT_FOUND {
        return response;
    }
    let session = in_flight.session();
    // It knows, so it is not notified, whoever hears of this end first.
    session.state().mark_notified();
    let failed = end_for_client(lifecycle, session).await;
    // It is no longer the id of anything.
    response.headers_mut().remove(&SESSION_ID);
    failed.unwrap_or_else(|| match status {
        // That the inner service did not know it was one more reason to forget it here.
        StatusCode::NOT_FOUND => lifecycle.answer(Rejection::new(RejectionKind::InnerGone)),
        _ => response,
    })
}

/// The inner service's 404 to a request on a live session: what the client gets.
pub(crate) async fn inner_not_found(
    lifecycle: &Arc<Lifecycle>,
    in_flight: &InFlight,
    mut response: Response<Body>,
) -> Response<Body> {
    if AnswerHead::read(response.headers()).is_plain_json {
        let mut body = Buffered::new(std::mem::take(response.body_mut()));
        let end = body.read(&lifecycle.alive.body_budget).await;
        // An error that answers the request is about the request, not about its session.
        let is_about_request =
            end != ReadEnd::Complete || Answer::read(body.bytes()) == Answer::Error;
        if is_about_request {
            *response.body_mut() = body.into_body();
            return response;
        }
    }
    if lifecycle.settings.ends_with_inner {
        let session = in_flight.session();
        // It knows.
        session.state().mark_notified();
        // The client's answer is the same whether the store has forgotten it yet or not.
        let _ = end(lifecycle, session, EndReason::InnerGone).await;
    }
    lifecycle.answer(Rejection::new(RejectionKind::InnerGone))
}

/// Ends a session at its client's word. Answers for itself if it was not there, or if the store cannot tell.
async fn end_for_client(lifecycle: &Arc<Lifecycle>, session: &Session) -> Option<Response<Body>> {
    let kind = match end(lifecycle, session, EndReason::Deleted).await {
        Ok(true) => return None,
        Ok(false) => RejectionKind::Unknown,
        Err(error) => {
            tracing::warn!(session = %session.reference(), error = &error as &dyn std::error::Error, "could not delete a session");
            RejectionKind::StoreUnavailable
        }
    };
    Some(lifecycle.answer(Rejection::new(kind)))
}

/// Deletes a session from the store and ends it here. If the store cannot tell, the session is refused here from now
/// on, and the store is asked until it answers.
async fn end(
    lifecycle: &Arc<Lifecycle>,
    session: &Session,
    reason: EndReason,
) -> Result<bool, StoreError> {
    let deleted = lifecycle.store.delete(session.id(), reason).await;
    if deleted.is_err() {
        delete_in_background(lifecycle, session.id().clone(), reason);
    }
    end_in_registry(lifecycle, session.reference(), reason);
    deleted
}

/// Deletes a session however long it takes. Until then this node refuses it.
pub(super) fn delete_in_background(lifecycle: &Arc<Lifecycle>, id: SessionId, reason: EndReason) {
    let lifecycle = Arc::clone(lifecycle);
    let reference = id.reference();
    lifecycle.alive.registry.delete_pending(&reference);
    tokio::spawn(async move {
        lifecycle.store.delete_until_answered(&id, reason).await;
        lifecycle.alive.registry.delete_done(&reference);
    });
}

/// Ends what is open here of a session that the store no longer holds, and notifies the inner service, which did not
/// see it.
pub(crate) fn end_here(lifecycle: &Lifecycle, reference: &SessionRef, reason: EndReason) {
    if let Ended::Served(session) = end_in_registry(lifecycle, reference, reason) {
        lifecycle.notify_inner(&session);
    }
}

/// As [`end_here`], for an end that was heard from elsewhere.
pub(super) fn end_heard(lifecycle: &Lifecycle, reference: &SessionRef, reason: EndReason) {
    let announce = |session: Option<&_>| announce(lifecycle, reference, reason, session);
    if let Ended::Served(session) = lifecycle.alive.registry.end_heard(reference, announce) {
        lifecycle.notify_inner(&session);
    }
}

fn end_in_registry(lifecycle: &Lifecycle, reference: &SessionRef, reason: EndReason) -> Ended {
    let announce = |session: Option<&_>| announce(lifecycle, reference, reason, session);
    lifecycle.alive.registry.end(reference, announce)
}

/// `session` is the one that this node served, if it did.
fn announce(
    lifecycle: &Lifecycle,
    reference: &SessionRef,
    reason: EndReason,
    session: Option<&Session>,
) {
    if let Some(session) = session {
        let error = (reason == EndReason::InnerGone).then(|| reason.as_str());
        metrics::session_ended(reason.as_str(), error, || {
            let age = session.times().age(times::now());
            (age, session.protocol_version())
        });
    }
    lifecycle.alive.admission.open();
    lifecycle.alive.events.announce(SessionEvent::Ended {
        reference: *reference,
        reason,
    });
}

/// Ends a session at an operator's word, here and on every node that shares the store, and says whether it was live.
///
/// # Errors
///
/// When the store cannot tell whether it took effect.
pub(crate) async fn revoke(
    lifecycle: &Lifecycle,
    reference: &SessionRef,
) -> Result<bool, StoreError> {
    let reason = EndReason::Revoked;
    let ended = match lifecycle.alive.registry.get(reference) {
        // Its id is known here, so that the store need not search.
        Some(session) => lifecycle.store.delete(session.id(), reason).await?,
        None => {
            let directory = lifecycle.store.directory();
            let directory = directory.ok_or_else(|| unsupported("end a session"))?;
            let scope = &lifecycle.settings.anonymous.scope;
            directory.end(scope, reference, reason).await?
        }
    };
    if ended {
        end_here(lifecycle, reference, reason);
    }
    Ok(ended)
}

/// As [`revoke`], for all sessions that are meant. Those that began to be created before are refused.
pub(crate) async fn revoke_all(
    lifecycle: &Lifecycle,
    filter: &SessionFilter,
) -> Result<u64, StoreError> {
    let directory = lifecycle.store.directory();
    let directory = directory.ok_or_else(|| unsupported("end sessions"))?;
    let alive = &lifecycle.alive;
    let before = alive.registry.sessions();
    alive.admission.revoke(filter);
    let ended = directory.end_all(filter, EndReason::Revoked).await?;
    // An anonymous session may have become somebody's on another node, and then it was not meant.
    let is_certain = !matches!(filter, SessionFilter::Owner(owner) if owner.principal.is_none());
    for session in before {
        if is_certain && filter.includes(session.owner()) {
            end_here(lifecycle, session.reference(), EndReason::Revoked);
        }
    }
    // Of those that came meanwhile, too, some were ended and some were not: ask.
    for session in alive.registry.sessions() {
        if filter.includes(session.owner()) {
            let tracker = &alive.registry.tracker;
            tracker.wake(crate::session::Wake::Check(session));
        }
    }
    Ok(ended)
}

fn unsupported(doing: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, doing)
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    // Around method handlers axum would say `allow: POST` for us, of a DELETE that has just succeeded.
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

/// The methods of an MCP endpoint that has sessions (2025-11-25, transports, Streamable HTTP).
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");

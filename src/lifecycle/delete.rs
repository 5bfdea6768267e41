//! A client's DELETE of its live session.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header::ALLOW};

use super::{
    Lifecycle,
    forgotten::{believes, has_served, judge, mark},
    forwarded::Forwarded,
    question::suspects,
    terminate::end,
};
use crate::{
    protocol::{Rejection, RejectionKind, SESSION_ID},
    session::{Session, Verdict},
    store::EndReason,
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
    forwarded: &Forwarded,
    mut response: Response<Body>,
) -> Response<Body> {
    let session = forwarded.session();
    let status = response.status();
    if status.is_success() {
        // It knows, so it is not notified, whoever hears of this end first.
        session.state().mark_notified();
        let failed = end_for_client(lifecycle, session).await;
        // It is no longer the id of anything.
        response.headers_mut().remove(&SESSION_ID);
        return failed.unwrap_or(response);
    }
    let is_forgotten = suspects(lifecycle, session, status)
        && judge(lifecycle, forwarded).await == Verdict::Forgotten;
    if status.as_u16() >= 400 && session.has_ended() {
        lifecycle.answer(Rejection::new(RejectionKind::Ended))
    } else if is_forgotten {
        terminate_forgotten(lifecycle, forwarded).await
    } else {
        response
    }
}

/// The inner service has nothing to end, and the session's owner wants it gone.
async fn terminate_forgotten(lifecycle: &Arc<Lifecycle>, forwarded: &Forwarded) -> Response<Body> {
    let session = forwarded.session();
    let gone = || lifecycle.answer(Rejection::new(RejectionKind::InnerGone));
    if !believes(lifecycle, forwarded) {
        mark(lifecycle, forwarded, false);
        return gone();
    }
    session.state().mark_notified();
    match end_for_client(lifecycle, session).await {
        Some(failed) => failed,
        None if has_served(session) => gone(),
        // Another node's inner service has it. Of DELETEs on several nodes this one is the end.
        None => no_content(),
    }
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

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    // Around method handlers axum would say `allow: POST` for us, of a DELETE that has just succeeded.
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

/// The methods of an MCP endpoint that has sessions (2025-11-25, transports, Streamable HTTP).
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");

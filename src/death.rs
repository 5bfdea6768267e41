//! The death of a session: a DELETE from its client.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::{
    inner::Inner,
    layer::Core,
    live::Visit,
    rejection::{Rejection, RejectionKind},
    request::SESSION_ID,
    service::Call,
    store::{EndReason, SessionStore},
    works::see_through,
};

/// Serves a DELETE on a live session. The session is gone from the store before the answer says so, and what was sent inward
/// is seen through although the client hangs up.
pub(crate) async fn delete<S: Inner, St: SessionStore>(
    call: Call<S, St>,
    visit: Visit,
) -> Result<Response<Body>, S::Failure> {
    let core = Arc::clone(&call.core);
    let work = match core.begin_work() {
        Ok(work) => work,
        Err(kind) => return Ok(call.refuse(Rejection::new(kind))),
    };
    let done = see_through(async move {
        let _work = work;
        if call.core.inner_knows(visit.session()) {
            return forward(call, visit).await;
        }
        call.core.live.drain.swallow(&call.parts.headers, call.body);
        let failed = call.core.bury(&visit).await;
        Ok(failed.unwrap_or_else(no_content))
    });
    match done.await {
        Ok(answer) => answer,
        Err(kind) => Ok(core.answer(Rejection::new(kind))),
    }
}

/// Asks the inner service, and does as it does.
async fn forward<S: Inner, St: SessionStore>(
    mut call: Call<S, St>,
    visit: Visit,
) -> Result<Response<Body>, S::Failure> {
    let core = call.core;
    let request = Request::from_parts(call.parts, call.body);
    let mut response = core.judge_answer(call.inner.send(request).await?, &visit);
    let status = response.status();
    if !status.is_success() && status != StatusCode::NOT_FOUND {
        return Ok(response);
    }
    // It knows, so nobody need tell it, whoever hears of this end first.
    visit.live().inner_knows_of_end();
    let failed = core.bury(&visit).await;
    // It is no longer the id of anything.
    response.headers_mut().remove(&SESSION_ID);
    Ok(failed.unwrap_or_else(|| match status {
        // That the inner service did not know it was one more reason to forget it here.
        StatusCode::NOT_FOUND => core.answer(Rejection::new(RejectionKind::InnerGone)),
        _ => response,
    }))
}

impl<St: SessionStore> Core<St> {
    /// Deletes the session from the store and ends it here. Answers for itself if it was not there, or if the store
    /// cannot tell.
    async fn bury(self: &Arc<Self>, visit: &Visit) -> Option<Response<Body>> {
        let session = visit.session();
        let deleted = self.delete(session.id(), EndReason::Deleted).await;
        if deleted.is_err() {
            // Refused here from now on; the store is asked until it answers.
            self.delete_at_last(session.id().clone(), EndReason::Deleted);
        }
        self.live.end(session.reference(), EndReason::Deleted);
        let kind = match deleted {
            Ok(true) => return None,
            Ok(false) => RejectionKind::Unknown,
            Err(error) => {
                tracing::warn!(session = %session.reference(), error = &error as &dyn std::error::Error, "could not delete a session");
                RejectionKind::StoreUnavailable
            }
        };
        Some(self.answer(Rejection::new(kind)))
    }
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

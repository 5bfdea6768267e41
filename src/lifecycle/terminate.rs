//! The death of a session: a DELETE from its client, an inner service that has forgotten it, an end elsewhere.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, StatusCode};

use crate::{
    lifecycle::buffered::{Peek, Seen, is_plain_json},
    lifecycle::upstream::Inner,
    protocol::SessionRef,
    protocol::message::Answer,
    protocol::rejection::{Rejection, RejectionKind},
    protocol::request::SESSION_ID,
    registry::{Ended, Visit},
    service::Call,
    service::layer::Core,
    session::Session,
    store::{EndReason, SessionStore, StoreError},
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
    core.see_through(async move {
        let _work = work;
        if call.core.inner_knows(visit.session()) {
            return forward(call, visit).await;
        }
        call.core.live.drain.swallow(&call.parts.headers, call.body);
        let failed = call.core.bury(visit.session()).await;
        Ok(failed.unwrap_or_else(no_content))
    })
    .await
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
    let failed = core.bury(visit.session()).await;
    // It is no longer the id of anything.
    response.headers_mut().remove(&SESSION_ID);
    Ok(failed.unwrap_or_else(|| match status {
        // That the inner service did not know it was one more reason to forget it here.
        StatusCode::NOT_FOUND => core.answer(Rejection::new(RejectionKind::InnerGone)),
        _ => response,
    }))
}

impl<St: SessionStore> Core<St> {
    /// Forgets a session at its client's word. Answers for itself if it was not there, or if the store cannot tell.
    async fn bury(self: &Arc<Self>, session: &Session) -> Option<Response<Body>> {
        let kind = match self.forget(session, EndReason::Deleted).await {
            Ok(true) => return None,
            Ok(false) => RejectionKind::Unknown,
            Err(error) => {
                tracing::warn!(session = %session.reference(), error = &error as &dyn std::error::Error, "could not delete a session");
                RejectionKind::StoreUnavailable
            }
        };
        Some(self.answer(Rejection::new(kind)))
    }

    /// The inner service's 404 to a request on a live session: what the client gets.
    pub(crate) async fn inner_gone(
        self: &Arc<Self>,
        mut response: Response<Body>,
        visit: Visit,
    ) -> Response<Body> {
        if is_plain_json(response.headers()) {
            let mut peek = Peek::new(std::mem::take(response.body_mut()));
            let seen = peek.read(&self.live.body_bytes).await;
            // An error that answers the request is about the request, not about its session.
            let about_request = seen != Seen::Whole || Answer::read(peek.seen()) == Answer::Error;
            if about_request {
                *response.body_mut() = peek.into_body();
                return response;
            }
        }
        if self.settings.ends_with_inner {
            // It knows.
            visit.live().inner_knows_of_end();
            // The client's answer is the same whether the store has forgotten it yet or not.
            let _ = self.forget(visit.session(), EndReason::InnerGone).await;
        }
        self.answer(Rejection::new(RejectionKind::InnerGone))
    }

    /// Deletes a session from the store and ends it here. If the store cannot tell, the session is refused here from now
    /// on, and the store is asked until it answers.
    async fn forget(
        self: &Arc<Self>,
        session: &Session,
        reason: EndReason,
    ) -> Result<bool, StoreError> {
        let deleted = self.delete(session.id(), reason).await;
        if deleted.is_err() {
            self.delete_at_last(session.id().clone(), reason);
        }
        self.live.end(session.reference(), reason);
        deleted
    }
}

impl<St> Core<St> {
    /// Ends what is open here of a session that the store no longer holds, and tells the inner service, which did not
    /// see it.
    pub(crate) fn end_here(&self, reference: &SessionRef, reason: EndReason) {
        if let Ended::Served(live) = self.live.end(reference, reason) {
            self.tell_inner(&live);
        }
    }
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

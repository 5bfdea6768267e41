//! Finding the session of a request, and letting the request in.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response, request::Parts};

use crate::{
    lifecycle::terminate,
    lifecycle::upstream::{Inner, Route, Tell},
    protocol::SessionId,
    protocol::rejection::{Rejection, RejectionKind},
    protocol::request::SESSION_ID,
    registry::Visit,
    service::Call,
    service::future::Answered,
    service::layer::Core,
    session::Owner,
    session::stream::StreamKind,
    store::{Found, Now, SessionStore, StoreErrorKind},
};

/// What is known of the session that a request names.
pub(crate) enum Verdict {
    /// It is live and the caller's.
    Live(Visit),
    /// The request is refused.
    Refused(RejectionKind),
    /// The store has to be asked.
    Ask,
}

/// Serves a request on a session that has to wait for more than the inner service.
pub(crate) async fn serve<S: Inner, St: SessionStore>(
    mut call: Call<S, St>,
    verdict: Verdict,
    id: SessionId,
    owner: Owner,
) -> Result<Response<Body>, S::Failure> {
    let found = match verdict {
        Verdict::Live(visit) => Ok(visit),
        Verdict::Refused(kind) => Err(kind),
        Verdict::Ask => call.core.touch_or_claim(&id, &owner).await,
    };
    let visit = match found {
        Ok(visit) => visit,
        Err(kind) => return Ok(call.refuse(Rejection::new(kind))),
    };
    call.core.let_in(&visit, id, &mut call.parts, &call.teller);
    if call.parts.method == Method::DELETE {
        return terminate::delete(call, visit).await;
    }
    let kind = StreamKind::of(&call.parts.method);
    let request = Request::from_parts(call.parts, call.body);
    let response = call.inner.send(request).await?;
    match call.core.answer_on_session(response, visit, kind) {
        Answered::Now(response) => Ok(response),
        Answered::InnerGone(response, visit) => Ok(call.core.inner_gone(response, visit).await),
    }
}

impl<St: SessionStore> Core<St> {
    /// What this process's memory says of a session. A touch, if it says anything.
    pub(crate) fn touch_now(&self, id: &SessionId, owner: &Owner) -> Verdict {
        match self.store.touch_now(id, owner, self.settings.idle) {
            Now::Live(found) => match self.enter(&found) {
                Ok(visit) => Verdict::Live(visit),
                Err(kind) => Verdict::Refused(kind),
            },
            Now::Absent if self.may_claim(owner) => Verdict::Ask,
            Now::Absent => Verdict::Refused(RejectionKind::Unknown),
            Now::Unknown => Verdict::Ask,
        }
    }

    async fn touch_or_claim(&self, id: &SessionId, owner: &Owner) -> Result<Visit, RejectionKind> {
        let mut found = self.touch(id, owner).await;
        if self.may_claim(owner)
            && let Ok(None) = found
        {
            found = match self.claim(id, owner).await {
                Err(error) if error.kind() == StoreErrorKind::Unsupported => Ok(None),
                claimed => claimed,
            };
        }
        match found {
            Ok(Some(found)) => self.enter(&found),
            Ok(None) => Err(RejectionKind::Unknown),
            Err(error) => {
                tracing::warn!(session = %id.reference(), error = &error as &dyn std::error::Error, "could not look up a session");
                Err(RejectionKind::StoreUnavailable)
            }
        }
    }

    /// Lets a request on a live session in, unless this node knows better.
    fn enter(&self, found: &Found) -> Result<Visit, RejectionKind> {
        let visit = self.live.enter(found, self.settings.rest_after());
        visit.ok_or(RejectionKind::Ended)
    }

    fn may_claim(&self, owner: &Owner) -> bool {
        self.settings.claims && owner.principal.is_some()
    }

    /// Prepares a request on a live session for the inner service.
    pub(crate) fn let_in(
        &self,
        visit: &Visit,
        id: SessionId,
        parts: &mut Parts,
        teller: &Arc<dyn Tell>,
    ) {
        let session = visit.session();
        if self.inner_knows(session) {
            // Where it was taken from: an insert would make a full map grow, although the name is there already.
            if let Some(place) = parts.headers.get_mut(&SESSION_ID) {
                *place = id.into_header();
            }
        } else {
            parts.headers.remove(&SESSION_ID);
        }
        let has_ended = visit.note_route(
            |route| route.is_of(parts, teller),
            || Route::of(parts, teller),
        );
        if has_ended {
            self.tell_inner(visit.live());
        }
        parts.extensions.insert(session.clone());
    }
}

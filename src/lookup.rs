//! Finding the session of a request, and letting the request in.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response, request::Parts};

use crate::{
    death,
    future::Answered,
    id::{SessionId, SessionRef},
    inner::{Inner, Route, Tell},
    layer::Core,
    live::{Ended, LiveSession, Visit},
    message::Answer,
    owner::Owner,
    peek::{Peek, Seen, is_plain_json},
    rejection::{Rejection, RejectionKind},
    request::SESSION_ID,
    service::Call,
    session::{Issuer, Session},
    store::{EndReason, Found, Now, SessionStore, StoreErrorKind},
    watch::StreamKind,
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
        return death::delete(call, visit).await;
    }
    let kind = StreamKind::of(&call.parts.method);
    let request = Request::from_parts(call.parts, call.body);
    let response = call.inner.send(request).await?;
    match call.core.answer_on_session(response, visit, kind) {
        Answered::Now(response) => Ok(response),
        Answered::InnerGone(response, visit) => Ok(call.core.inner_gone(response, visit).await),
    }
}

impl<St> Core<St> {
    /// Lets a request on a live session in, unless this node knows better.
    pub(crate) fn enter(&self, found: &Found) -> Result<Visit, RejectionKind> {
        let visit = self.live.enter(found, self.settings.rest_after());
        visit.ok_or(RejectionKind::Ended)
    }

    /// Ends what is open here of a session that the store no longer holds, and tells the inner service, which did not
    /// see it.
    pub(crate) fn end_here(&self, reference: &SessionRef, reason: EndReason) {
        if let Ended::Served(live) = self.live.end(reference, reason) {
            self.tell_inner(&live);
        }
    }

    /// Tells the inner service of a session's end, once.
    pub(crate) fn tell_inner(&self, live: &LiveSession) {
        let session = live.session();
        if let (true, Some(route)) = (self.inner_knows(&session), live.route_to_tell()) {
            route.tell(session.id().clone(), &self.live);
        }
    }

    /// Whether the inner service knows a session by its id.
    pub(crate) fn inner_knows(&self, session: &Session) -> bool {
        session.record().issuer == Issuer::Inner || self.settings.forwards_issued
    }
}

impl<St: SessionStore> Core<St> {
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
            let session = visit.session();
            // It knows.
            visit.live().inner_knows_of_end();
            if self
                .delete(session.id(), EndReason::InnerGone)
                .await
                .is_err()
            {
                self.delete_at_last(session.id().clone(), EndReason::InnerGone);
            }
            self.live.end(session.reference(), EndReason::InnerGone);
        }
        self.answer(Rejection::new(RejectionKind::InnerGone))
    }

    /// What this process's memory says of a session. A touch, if it says anything.
    pub(crate) fn touch_now(&self, id: &SessionId, owner: &Owner) -> Verdict {
        match self.store.touch_now(id, owner, self.settings.idle) {
            Now::Live(found) => match self.enter(&found) {
                Ok(visit) => Verdict::Live(visit),
                Err(kind) => Verdict::Refused(kind),
            },
            Now::Absent if self.may_claim(owner) => Verdict::Ask,
            Now::Absent => Verdict::Refused(RejectionKind::Unknown),
            Now::AskMe => Verdict::Ask,
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

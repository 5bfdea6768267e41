//! What becomes of the inner service's answer on its way out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Lifecycle, strip::strip_ids, terminate::inner_not_found};
use crate::{
    protocol::{AnswerHead, Rejection, RejectionKind},
    session::{self, InFlight, StreamKind},
};

/// An answer to a request on a session.
pub(crate) enum Answered {
    /// It can go out.
    Now(Response<Body>),
    /// It is a 404, which may mean that the inner service has forgotten the session.
    NotFound(Response<Body>, InFlight),
}

impl Answered {
    /// Waits, where more has to be found out.
    pub(crate) async fn resolve(self, lifecycle: &Arc<Lifecycle>) -> Response<Body> {
        match self {
            Self::Now(response) => response,
            Self::NotFound(response, in_flight) => {
                inner_not_found(lifecycle, &in_flight, response).await
            }
        }
    }
}

/// Removes every session id from an answer but the one of the session it was asked on, and keeps the session in use until
/// its body ends.
#[inline]
pub(crate) fn answer_on_session(
    lifecycle: &Arc<Lifecycle>,
    mut response: Response<Body>,
    in_flight: InFlight,
    kind: StreamKind,
) -> Answered {
    let head = AnswerHead::read(response.headers());
    if head.has_id {
        strip_to_own(lifecycle, &mut response, &in_flight);
    }
    if response.status().as_u16() >= 400
        && let Some(refusal) = refusal_for(lifecycle, &mut response, &in_flight)
    {
        return Answered::Now(refusal);
    }
    if response.status() == StatusCode::NOT_FOUND {
        return Answered::NotFound(response, in_flight);
    }
    if response.body().is_end_stream() {
        return Answered::Now(response);
    }
    let (parts, body) = response.into_parts();
    let body = match head.is_event_stream {
        true => session::watch(body, in_flight, kind),
        false => Ok(Body::new(UntilEnd {
            body,
            in_flight: Some(in_flight),
        })),
    };
    Answered::Now(match body {
        Ok(body) => Response::from_parts(parts, body),
        Err(kind) => lifecycle.answer(Rejection::new(kind)),
    })
}

/// What the client is told instead of an error. Whatever the inner service made of a request whose session has ended
/// meanwhile, to its client it is a dead session; and a refusal by a service inside that knows the store looks like one of the
/// layer's own.
#[cold]
fn refusal_for(
    lifecycle: &Lifecycle,
    response: &mut Response<Body>,
    in_flight: &InFlight,
) -> Option<Response<Body>> {
    let refusal = match in_flight.session().has_ended() {
        true => Rejection::new(RejectionKind::Ended),
        false => response.extensions_mut().remove::<Rejection>()?,
    };
    Some(lifecycle.answer(refusal))
}

/// As [`answer_on_session`] does with ids.
pub(crate) fn strip_to_own(
    lifecycle: &Arc<Lifecycle>,
    response: &mut Response<Body>,
    in_flight: &InFlight,
) {
    let session = in_flight.session();
    let (id, route) = (session.id(), session.route());
    strip_ids(lifecycle, response.headers_mut(), Some(id), route);
}

/// Removes every session id from an answer to a request that has nothing to do with sessions.
pub(crate) fn answer_without_session(
    lifecycle: &Arc<Lifecycle>,
    response: &mut Response<Body>,
    route_digest: u64,
) {
    if AnswerHead::read(response.headers()).has_id {
        let route = lifecycle.alive.registry.routes.find(route_digest);
        strip_ids(lifecycle, response.headers_mut(), None, route);
    }
}

/// A body that keeps its session in use until it ends.
struct UntilEnd {
    body: Body,
    in_flight: Option<InFlight>,
}

impl HttpBody for UntilEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(None | Some(Err(_))) => self.in_flight = None,
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.in_flight = None,
            Poll::Ready(_) => {}
            Poll::Pending => {
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.waited();
                }
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

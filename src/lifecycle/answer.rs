//! What becomes of the inner service's answer on its way out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{
    Lifecycle,
    forgotten::{conclude, judge},
    forwarded::Forwarded,
    question::suspects,
    strip::strip_ids,
};
use crate::{
    protocol::{AnswerHead, Rejection, RejectionKind},
    session::{self, InFlight, Route, Verdict},
};

/// Makes of an answer what may go out: removes every session id but the one of the session it was asked on, and keeps the
/// session in use until the body ends. `true` if the answer may mean that the inner service has forgotten the session: then
/// it has to be [resolved](resolve) first.
///
/// All of it happens where answer and request are: on a live session nothing is moved about.
#[inline(always)]
pub(crate) fn answer_on_session(
    lifecycle: &Arc<Lifecycle>,
    response: &mut Response<Body>,
    forwarded: &mut Option<Forwarded>,
) -> bool {
    let request = forwarded.as_mut().expect("polled after completion");
    if response.status().as_u16() >= 400 {
        return answer_failed(lifecycle, response, forwarded);
    }
    request.served(lifecycle);
    let head = AnswerHead::read(response.headers());
    if head.has_id {
        strip_to_own(lifecycle, response, request);
    }
    hold(lifecycle, response, forwarded, head.is_event_stream);
    false
}

#[cold]
fn answer_failed(
    lifecycle: &Arc<Lifecycle>,
    response: &mut Response<Body>,
    forwarded: &mut Option<Forwarded>,
) -> bool {
    let Some(request) = forwarded else {
        return false;
    };
    strip_to_own(lifecycle, response, request);
    if let Some(refusal) = refusal_for(lifecycle, response, request) {
        *response = refusal;
    } else if suspects(lifecycle, request.session(), response.status()) {
        return true;
    } else {
        hold_failed(lifecycle, response, forwarded);
    }
    false
}

/// Finds out whether the inner service has forgotten the session, and answers accordingly.
pub(crate) async fn resolve(
    lifecycle: &Arc<Lifecycle>,
    mut response: Response<Body>,
    forwarded: Forwarded,
) -> Response<Body> {
    let verdict = judge(lifecycle, &forwarded).await;
    if forwarded.session().has_ended() {
        return refuse(lifecycle, RejectionKind::Ended);
    }
    if verdict == Verdict::Forgotten {
        conclude(lifecycle, &forwarded).await;
        return refuse(lifecycle, RejectionKind::InnerGone);
    }
    hold_failed(lifecycle, &mut response, &mut Some(forwarded));
    response
}

fn hold_failed(
    lifecycle: &Lifecycle,
    response: &mut Response<Body>,
    forwarded: &mut Option<Forwarded>,
) {
    let is_event_stream = AnswerHead::read(response.headers()).is_event_stream;
    hold(lifecycle, response, forwarded, is_event_stream);
}

/// Keeps the session in use until the answer's body ends; ends the body with the session, if it is a stream.
#[inline]
fn hold(
    lifecycle: &Lifecycle,
    response: &mut Response<Body>,
    forwarded: &mut Option<Forwarded>,
    is_event_stream: bool,
) {
    if !response.body().is_end_stream() {
        hold_body(lifecycle, response, forwarded, is_event_stream);
    }
    *forwarded = None;
}

fn hold_body(
    lifecycle: &Lifecycle,
    response: &mut Response<Body>,
    forwarded: &mut Option<Forwarded>,
    is_event_stream: bool,
) {
    let Some(Forwarded {
        in_flight, kind, ..
    }) = forwarded.take()
    else {
        return;
    };
    let body = std::mem::take(response.body_mut());
    let held = match is_event_stream {
        true => session::watch(body, in_flight, kind),
        false => Ok(Body::new(UntilEnd {
            body,
            in_flight: Some(in_flight),
        })),
    };
    match held {
        Ok(body) => *response.body_mut() = body,
        Err(kind) => *response = refuse(lifecycle, kind),
    }
}

/// What the client is told instead of an error. Whatever the inner service made of a request whose session has ended
/// meanwhile, to its client it is a dead session; and a refusal by a service inside that knows the store looks like one of the
/// layer's own.
fn refusal_for(
    lifecycle: &Lifecycle,
    response: &mut Response<Body>,
    forwarded: &Forwarded,
) -> Option<Response<Body>> {
    let refusal = match forwarded.session().has_ended() {
        true => Rejection::new(RejectionKind::Ended),
        false => response.extensions_mut().remove::<Rejection>()?,
    };
    Some(lifecycle.answer(refusal))
}

#[cold]
fn refuse(lifecycle: &Lifecycle, kind: RejectionKind) -> Response<Body> {
    lifecycle.answer(Rejection::new(kind))
}

/// As [`answer_on_session`] does with ids.
pub(crate) fn strip_to_own(
    lifecycle: &Arc<Lifecycle>,
    response: &mut Response<Body>,
    forwarded: &Forwarded,
) {
    if AnswerHead::read(response.headers()).has_id {
        let route = forwarded.route();
        strip_ids(lifecycle, response.headers_mut(), Some(forwarded), route);
    }
}

/// Removes every session id from an answer to a request that has nothing to do with sessions.
pub(crate) fn answer_without_session(
    lifecycle: &Arc<Lifecycle>,
    response: &mut Response<Body>,
    route: impl FnOnce() -> Option<Arc<Route>>,
) {
    if AnswerHead::read(response.headers()).has_id {
        strip_ids(lifecycle, response.headers_mut(), None, route());
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

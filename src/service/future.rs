//! The hot way: pass, refuse, forward. What has to wait is one box.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;
use tower::BoxError;

use crate::{
    lifecycle::strip,
    lifecycle::upstream::{Inner, Route},
    protocol::rejection::{Rejection, RejectionKind},
    registry::{Underway, Visit},
    service::Call,
    service::layer::Core,
    session::stream::StreamKind,
    store::SessionStore,
};

pin_project! {
    /// The answer of a [`McpSessionService`](crate::McpSessionService), to come.
    pub struct ResponseFuture<F, E, St> {
        #[pin]
        state: State<F, E, St>,
        // Once there was something to wait for.
        #[pin]
        cut: Option<OwnedNotified>,
    }
}

pin_project! {
    #[project = StateProjection]
    pub(crate) enum State<F, E, St> {
        /// A path that is not guarded.
        Untouched { #[pin] inner: F },
        /// A request that has nothing to do with sessions: its answer may carry no id.
        Pass { #[pin] inner: F, core: Arc<Core<St>>, route: Route },
        /// A request on a live session.
        Forward { #[pin] inner: F, core: Arc<Core<St>>, visit: Option<Visit>, kind: StreamKind },
        /// A refusal.
        Refuse { rejection: Rejection, core: Arc<Core<St>> },
        /// Whatever has to wait for more than the inner service.
        Slow { future: Slow<E>, core: Arc<Core<St>>, _underway: Underway },
    }
}

/// A future of its own making, in a box.
pub(crate) type Slow<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<F, E, St> From<State<F, E, St>> for ResponseFuture<F, E, St> {
    fn from(state: State<F, E, St>) -> Self {
        Self { state, cut: None }
    }
}

impl<F, E, St> fmt::Debug for ResponseFuture<F, E, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, E, St, B> Future for ResponseFuture<F, E, St>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    St: SessionStore,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = this.state.as_mut().poll(cx);
        if answer.is_ready() {
            return answer;
        }
        // Shutting down waits only so long for the answers in flight.
        let Some(core) = this.state.project().may_be_cut() else {
            return Poll::Pending;
        };
        if this.cut.is_none() {
            this.cut.set(Some(core.live.cut()));
        }
        let cut = this.cut.as_pin_mut().expect("was just set");
        if cut.poll(cx).is_pending() && !core.live.is_cut() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(core.answer(Rejection::new(RejectionKind::Draining))))
    }
}

impl<F, E, St, B> State<F, E, St>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    St: SessionStore,
{
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, E>> {
        loop {
            let slow = match self.as_mut().project() {
                StateProjection::Untouched { inner } => {
                    return inner.poll(cx).map_ok(|response| response.map(Body::new));
                }
                StateProjection::Pass { inner, core, route } => {
                    let mut response = ready!(inner.poll(cx))?.map(Body::new);
                    strip::judge(response.headers_mut(), None, core, || route.clone());
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Forward {
                    inner,
                    core,
                    visit,
                    kind,
                } => {
                    let response = ready!(inner.poll(cx))?.map(Body::new);
                    let visit = visit.take().expect("polled after completion");
                    match core.answer_on_session(response, visit, *kind) {
                        Answered::Now(response) => return Poll::Ready(Ok(response)),
                        Answered::InnerGone(response, visit) => {
                            let answering = Arc::clone(core);
                            let answer =
                                async move { Ok(answering.inner_gone(response, visit).await) };
                            Self::Slow {
                                future: Box::pin(answer),
                                _underway: core.live.underway(),
                                core: Arc::clone(core),
                            }
                        }
                    }
                }
                StateProjection::Refuse { rejection, core } => {
                    return Poll::Ready(Ok(core.answer(rejection.clone())));
                }
                StateProjection::Slow { future, .. } => return future.as_mut().poll(cx),
            };
            self.set(slow);
        }
    }
}

impl<'a, F, E, St> StateProjection<'a, F, E, St> {
    /// The core, if the answer is one that a session, or a birth, waits for.
    fn may_be_cut(self) -> Option<&'a Arc<Core<St>>> {
        match self {
            Self::Forward { core, .. } | Self::Slow { core, .. } => Some(core),
            Self::Untouched { .. } | Self::Pass { .. } | Self::Refuse { .. } => None,
        }
    }
}

/// What becomes of the inner service's answer to a request on a session.
pub(crate) enum Answered {
    /// It can go out.
    Now(Response<Body>),
    /// It is a 404, which may mean that the inner service has forgotten the session.
    InnerGone(Response<Body>, Visit),
}

impl<St: SessionStore> Core<St> {
    /// Makes of the inner service's answer what the client gets.
    pub(crate) fn answer_on_session(
        self: &Arc<Self>,
        response: Response<Body>,
        visit: Visit,
        kind: StreamKind,
    ) -> Answered {
        let response = self.judge_answer(response, &visit);
        if response.status() == StatusCode::NOT_FOUND {
            return Answered::InnerGone(response, visit);
        }
        let watched = self.watch(response, visit, kind);
        Answered::Now(watched.unwrap_or_else(|kind| self.answer(Rejection::new(kind))))
    }

    /// Removes every session id from an answer but the one of the session it was asked on.
    pub(crate) fn judge_answer(
        self: &Arc<Self>,
        mut response: Response<Body>,
        visit: &Visit,
    ) -> Response<Body> {
        let headers = response.headers_mut();
        if strip::has_id(headers)
            && let Some(route) = visit.live().route()
        {
            strip::judge(headers, Some(visit.session().id()), self, || route);
        }
        response
    }

    /// Lets an answer out; if it is a stream, it ends with the session. If that has ended already there is no stream.
    ///
    /// # Errors
    ///
    /// Why there is no stream.
    pub(crate) fn watch(
        &self,
        response: Response<Body>,
        visit: Visit,
        kind: StreamKind,
    ) -> Result<Response<Body>, RejectionKind> {
        if !crate::lifecycle::buffered::is_event_stream(response.headers()) {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = crate::session::stream::watch(body, visit, kind)?;
        Ok(Response::from_parts(head, body))
    }
}

/// Lets a request through that has nothing to do with sessions, after it had to be read.
pub(crate) async fn pass<S: Inner, St: SessionStore>(
    mut call: Call<S, St>,
) -> Result<Response<Body>, S::Failure> {
    let route = Route::of(&call.parts, &call.teller);
    let request = Request::from_parts(call.parts, call.body);
    let mut response = call.inner.send(request).await?;
    strip::judge(response.headers_mut(), None, &call.core, || route);
    Ok(response)
}

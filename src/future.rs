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
use tower::BoxError;

use crate::{
    inner::{Inner, Route},
    layer::Core,
    live::Visit,
    outward,
    rejection::{Rejection, RejectionKind},
    service::Call,
    store::SessionStore,
    watch::StreamKind,
};

pin_project! {
    /// The answer of a [`McpSessionService`](crate::McpSessionService), to come.
    pub struct ResponseFuture<F, E, St> {
        #[pin]
        state: State<F, E, St>,
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
        Slow { future: Slow<E> },
    }
}

/// A future of its own making, in a box.
pub(crate) type Slow<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<F, E, St> From<State<F, E, St>> for ResponseFuture<F, E, St> {
    fn from(state: State<F, E, St>) -> Self {
        Self { state }
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
        let mut state = self.project().state;
        loop {
            let slow = match state.as_mut().project() {
                StateProjection::Untouched { inner } => {
                    return inner.poll(cx).map_ok(|response| response.map(Body::new));
                }
                StateProjection::Pass { inner, core, route } => {
                    let mut response = ready!(inner.poll(cx))?.map(Body::new);
                    outward::judge(response.headers_mut(), None, core, || route.clone());
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
                            let core = Arc::clone(core);
                            let answer = async move { Ok(core.inner_gone(response, visit).await) };
                            Box::pin(answer) as Slow<E>
                        }
                    }
                }
                StateProjection::Refuse { rejection, core } => {
                    return Poll::Ready(Ok(core.answer(rejection.clone())));
                }
                StateProjection::Slow { future } => return future.as_mut().poll(cx),
            };
            state.set(State::Slow { future: slow });
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
        Answered::Now(self.watch(response, visit, kind))
    }

    /// Removes every session id from an answer but the one of the session it was asked on.
    pub(crate) fn judge_answer(
        self: &Arc<Self>,
        mut response: Response<Body>,
        visit: &Visit,
    ) -> Response<Body> {
        let headers = response.headers_mut();
        if let (true, Some(route)) = (outward::has_id(headers), visit.route()) {
            outward::judge(headers, Some(visit.session().id()), self, || route);
        }
        response
    }

    /// Lets an answer out; if it is a stream, it ends with the session. If that has ended already there is no stream.
    pub(crate) fn watch(
        &self,
        response: Response<Body>,
        visit: Visit,
        kind: StreamKind,
    ) -> Response<Body> {
        if !crate::peek::is_event_stream(response.headers()) {
            return response;
        }
        if kind == StreamKind::Standing && visit.is_closing() {
            return self.answer(Rejection::new(RejectionKind::Draining));
        }
        let (head, body) = response.into_parts();
        match crate::watch::watch(body, visit, kind) {
            Some(body) => Response::from_parts(head, body),
            None => self.answer(Rejection::new(RejectionKind::Ended)),
        }
    }
}

/// Lets a request through that has nothing to do with sessions, after it had to be read.
pub(crate) async fn pass<S: Inner, St: SessionStore>(
    mut call: Call<S, St>,
) -> Result<Response<Body>, S::Failure> {
    let route = Route::of(&call.parts, &call.teller);
    let request = Request::from_parts(call.parts, call.body);
    let mut response = call.inner.send(request).await?;
    outward::judge(response.headers_mut(), None, &call.core, || route);
    Ok(response)
}

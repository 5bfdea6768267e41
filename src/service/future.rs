//! The answer to come: passed on, forwarded, refused, or waited for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::Response;
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower::BoxError;

use crate::{
    lifecycle::{
        Forwarded, Lifecycle,
        answer::{answer_on_session, answer_without_session, resolve},
    },
    protocol::{Rejection, RejectionKind},
    session::{Counted, CutWaiter},
};

pin_project! {
    /// The answer of a [`McpSessionService`](crate::McpSessionService), to come.
    pub struct ResponseFuture<F, E> {
        #[pin]
        state: State<F, E>,
        // Once there was something to wait for.
        cut: Option<CutWaiter>,
    }
}

pin_project! {
    #[project = StateProjection]
    pub(super) enum State<F, E> {
        /// A path that is not guarded.
        Untouched { #[pin] inner: F },
        /// A request that has nothing to do with sessions: its answer may carry no id.
        Pass { #[pin] inner: F, lifecycle: Arc<Lifecycle>, route_digest: u64 },
        /// A request on a live session.
        Forward {
            #[pin]
            inner: F,
            lifecycle: Arc<Lifecycle>,
            forwarded: Option<Forwarded>,
        },
        /// A refusal.
        Refused { response: Option<Response<Body>> },
        /// Whatever has to wait for more than the inner service.
        Waiting { future: Waiting<E>, lifecycle: Arc<Lifecycle>, _counted: Counted },
    }
}

/// A future of its own making, in a box.
pub(super) type Waiting<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<F, E> From<State<F, E>> for ResponseFuture<F, E> {
    #[inline]
    fn from(state: State<F, E>) -> Self {
        Self { state, cut: None }
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, E, B> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = this.state.as_mut().poll(cx);
        if answer.is_ready() {
            return answer;
        }
        // Shutting down waits only so long for the answers in flight.
        let lifecycle = match this.state.project() {
            StateProjection::Forward {
                lifecycle,
                forwarded,
                ..
            } => {
                forwarded.iter_mut().for_each(Forwarded::waited);
                lifecycle
            }
            StateProjection::Waiting { lifecycle, .. } => lifecycle,
            _ => return Poll::Pending,
        };
        let tracker = &lifecycle.alive.registry.tracker;
        match this.cut {
            Some(waiter) => waiter.renew(cx.waker()),
            none => *none = Some(tracker.wait_for_cut(cx.waker())),
        }
        // Looked at after the waker is left there: who cuts off from here on finds it.
        if !tracker.is_cut() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(lifecycle.answer(Rejection::new(RejectionKind::Draining))))
    }
}

impl<F, E, B> State<F, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, E>> {
        loop {
            let waiting = match self.as_mut().project() {
                StateProjection::Untouched { inner } => {
                    return inner.poll(cx).map_ok(|response| response.map(Body::new));
                }
                StateProjection::Pass {
                    inner,
                    lifecycle,
                    route_digest,
                } => {
                    let mut response = ready!(inner.poll(cx))?.map(Body::new);
                    let routes = &lifecycle.alive.registry.routes;
                    answer_without_session(lifecycle, &mut response, || routes.find(*route_digest));
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Forward {
                    inner,
                    lifecycle,
                    forwarded,
                } => {
                    let mut response = ready!(inner.poll(cx))?.map(Body::new);
                    if !answer_on_session(lifecycle, &mut response, forwarded) {
                        return Poll::Ready(Ok(response));
                    }
                    let forwarded = forwarded.take().expect("it was there just now");
                    Self::resolve(response, forwarded, Arc::clone(lifecycle))
                }
                StateProjection::Refused { response } => {
                    let response = response.take().expect("polled after completion");
                    return Poll::Ready(Ok(response));
                }
                StateProjection::Waiting { future, .. } => return future.as_mut().poll(cx),
            };
            self.set(waiting);
        }
    }

    #[cold]
    fn resolve(response: Response<Body>, forwarded: Forwarded, lifecycle: Arc<Lifecycle>) -> Self {
        Self::Waiting {
            _counted: lifecycle.alive.registry.tracker.begin(),
            lifecycle: Arc::clone(&lifecycle),
            future: Box::pin(async move { Ok(resolve(&lifecycle, response, forwarded).await) }),
        }
    }
}

//! The service: it looks at a request and chooses a future.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http::{HeaderValue, Method, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tower::{BoxError, Service};

pub(crate) mod future;
pub(crate) mod layer;
mod lookup;

pub use self::{future::ResponseFuture, layer::McpSessionLayer};
use crate::{
    lifecycle::create,
    lifecycle::upstream::{Inner, Route, Tell},
    protocol::SessionId,
    protocol::rejection::{Rejection, RejectionKind},
    protocol::request::{LAST_EVENT_ID, RequestKind, SESSION_ID},
    service::future::State,
    service::layer::Core,
    service::lookup::Verdict,
    session::stream::StreamKind,
    store::SessionStore,
};

/// An MCP service behind the session check. Made by [`McpSessionLayer`](crate::McpSessionLayer).
pub struct McpSessionService<S, St> {
    inner: S,
    teller: Arc<dyn Tell>,
    core: Arc<Core<St>>,
}

/// A request on its way, and what serves it.
pub(crate) struct Call<S, St> {
    pub(crate) core: Arc<Core<St>>,
    /// Ready for one call.
    pub(crate) inner: S,
    pub(crate) teller: Arc<dyn Tell>,
    pub(crate) parts: Parts,
    pub(crate) body: Body,
}

impl<S, St> Call<S, St> {
    /// Refuses the request: the answer now, the rest of its body swallowed meanwhile.
    pub(crate) fn refuse(self, rejection: Rejection) -> Response<Body> {
        self.core.live.drain.swallow(&self.parts.headers, self.body);
        self.core.answer(rejection)
    }
}

impl<S, St> McpSessionService<S, St> {
    pub(crate) fn new(inner: S, teller: Arc<dyn Tell>, core: Arc<Core<St>>) -> Self {
        Self {
            inner,
            teller,
            core,
        }
    }
}

impl<S, St, ReqB, ResB> Service<Request<ReqB>> for McpSessionService<S, St>
where
    S: Service<Request<Body>, Response = Response<ResB>, Error: Send, Future: Send>
        + Clone
        + Send
        + 'static,
    St: SessionStore,
    ReqB: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    ResB: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error, St>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let body = Body::new(body);
        let settings = &self.core.settings;
        if !settings.guards(&parts) {
            let inner = self.inner.call(Request::from_parts(parts, body));
            return State::Untouched { inner }.into();
        }
        self.core.start_keeper();
        match RequestKind::of(&parts.method, &parts.headers, settings.rules) {
            RequestKind::Pass => self.pass(parts, body),
            RequestKind::PassModern => {
                parts.headers.remove(&LAST_EVENT_ID);
                self.pass(parts, body)
            }
            RequestKind::MaybeBirth => self.slow(parts, body, create::read_then_bear),
            RequestKind::PassMaybeBirth => self.slow(parts, body, |call| create::bear(call, None)),
            RequestKind::Session(_) | RequestKind::Delete(_) => self.look_up(parts, body),
            RequestKind::Refuse(kind) => self.refuse(kind, &parts, body),
            RequestKind::RefuseVersion(version) => {
                let rejection = Rejection::unsupported_version(version, &settings.supported);
                self.slow(parts, body, |call| create::refuse_version(call, rejection))
            }
        }
    }
}

impl<S, St> McpSessionService<S, St> {
    /// Lets a request through that has nothing to do with sessions.
    fn pass<F, E>(&mut self, mut parts: Parts, body: Body) -> ResponseFuture<F, E, St>
    where
        S: Service<Request<Body>, Future = F, Error = E>,
    {
        parts.headers.remove(&SESSION_ID);
        State::Pass {
            route: Route::of(&parts, &self.teller),
            inner: self.inner.call(Request::from_parts(parts, body)),
            core: Arc::clone(&self.core),
        }
        .into()
    }

    /// Lets a request through if the store holds its session: at once, if this process's memory can tell.
    fn look_up<F, E>(&mut self, mut parts: Parts, body: Body) -> ResponseFuture<F, E, St>
    where
        S: Service<Request<Body>, Future = F, Error = E> + Inner<Failure = E>,
        E: Send + 'static,
        St: SessionStore,
    {
        let core = &self.core;
        let (id, owner) = match (take_id(&mut parts), core.settings.owner(&parts)) {
            (Ok(id), Ok(owner)) => (id, owner),
            (Err(kind), _) | (_, Err(kind)) => return self.refuse(kind, &parts, body),
        };
        match core.touch_now(&id, &owner) {
            Verdict::Live(visit) if parts.method != Method::DELETE => {
                core.let_in(&visit, id, &mut parts, &self.teller);
                State::Forward {
                    kind: StreamKind::of(&parts.method),
                    inner: self.inner.call(Request::from_parts(parts, body)),
                    core: Arc::clone(core),
                    visit: Some(visit),
                }
                .into()
            }
            Verdict::Refused(kind) => self.refuse(kind, &parts, body),
            verdict => self.slow(parts, body, |call| lookup::serve(call, verdict, id, owner)),
        }
    }

    fn refuse<F, E>(
        &self,
        kind: RejectionKind,
        parts: &Parts,
        body: Body,
    ) -> ResponseFuture<F, E, St> {
        self.core.live.drain.swallow(&parts.headers, body);
        State::Refuse {
            rejection: Rejection::new(kind),
            core: Arc::clone(&self.core),
        }
        .into()
    }

    /// Serves a request in a future that has to wait before it calls inward. It gets the inner service that said it was
    /// ready; what stays behind has to be asked again.
    fn slow<F, E, Fut>(
        &mut self,
        parts: Parts,
        body: Body,
        serve: impl FnOnce(Call<S, St>) -> Fut,
    ) -> ResponseFuture<F, E, St>
    where
        S: Clone,
        Fut: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    {
        let not_ready = self.inner.clone();
        let call = Call {
            core: Arc::clone(&self.core),
            inner: std::mem::replace(&mut self.inner, not_ready),
            teller: Arc::clone(&self.teller),
            parts,
            body,
        };
        State::Slow {
            future: Box::pin(serve(call)),
            _underway: self.core.live.underway(),
            core: Arc::clone(&self.core),
        }
        .into()
    }
}

impl<S: Clone, St> Clone for McpSessionService<S, St> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            teller: Arc::clone(&self.teller),
            core: Arc::clone(&self.core),
        }
    }
}

impl<S: fmt::Debug, St> fmt::Debug for McpSessionService<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSessionService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// Takes the id out of the headers without copying it; an empty value keeps its place.
fn take_id(parts: &mut Parts) -> Result<SessionId, RejectionKind> {
    let value = parts.headers.get_mut(&SESSION_ID);
    let value = value.map(|value| std::mem::replace(value, HeaderValue::from_static("")));
    value
        .and_then(|value| SessionId::from_header(value).ok())
        .ok_or(RejectionKind::Malformed)
}

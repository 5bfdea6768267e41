//! The tower layer, its service and its response future.
//!
//! All that knows tower is here. A request that needs no waiting is served here with no allocation; one that does is a
//! boxed future of `waiting`. Imports everything below: `lifecycle`, `registry`, `store`, `session`, `protocol`; and
//! `handle`, which the layer gives out.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http::{Method, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tower::{BoxError, Service};

pub use self::{future::ResponseFuture, layer::McpSessionLayer};
use self::{future::State, waiting::Call};
use crate::{
    lifecycle::{Forwarded, Lifecycle, keeper},
    protocol::{
        Credentials, Head, LAST_EVENT_ID, Lines, Rejection, RejectionKind, SESSION_ID, SessionId,
        request::RequestKind,
    },
    session::{Owner, Upstream},
    store::{Found, Now},
};

mod future;
mod layer;
mod look_up;
mod upstream;
mod waiting;

/// An MCP service behind the session check. Made by [`McpSessionLayer`].
#[derive(Clone)]
pub struct McpSessionService<S> {
    inner: S,
    upstream: Arc<Upstream>,
    lifecycle: Arc<Lifecycle>,
}

impl<S> McpSessionService<S> {
    fn new(inner: S, upstream: Arc<Upstream>, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            inner,
            upstream,
            lifecycle,
        }
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for McpSessionService<S>
where
    S: Service<Request<Body>, Response = Response<ResB>, Error: Send, Future: Send>
        + Clone
        + Send
        + 'static,
    ReqB: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    ResB: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let body = Body::new(body);
        let lifecycle = &*self.lifecycle;
        if !lifecycle.settings.guards(&parts) {
            let inner = self.inner.call(Request::from_parts(parts, body));
            return State::Untouched { inner }.into();
        }
        keeper::start(&self.lifecycle);
        let head = Head::read(&mut parts.headers);
        let settings = &lifecycle.settings;
        let digest = || {
            let routes = &lifecycle.alive.registry.routes;
            routes.digest(&parts.uri, head.host, head.version.one(), &self.upstream)
        };
        match RequestKind::of(&parts.method, &head, settings.rules) {
            RequestKind::Session(id) | RequestKind::Delete(id) => {
                let credentials = || settings.credentials_at_first_sight(&head, &parts.uri);
                if settings.signed_ids.is_some() {
                    let about = (digest(), credentials());
                    return self.verify_and_look_up(about, parts, body);
                }
                let id = SessionId::copied(id.as_bytes());
                if settings.principal.is_some() {
                    let about = (digest(), credentials());
                    return self.look_up(&id, about, parts, body);
                }
                // Where all callers are alike the look-up goes first: a dead session needs no route.
                let caller = &settings.anonymous;
                if lifecycle.alive.marked.contains_of(&id, caller) {
                    let caller = caller.clone();
                    return self.wait(parts, body, |call| call.ask_about_marked(id, caller));
                }
                match lifecycle.store.touch_now(&id, caller, settings.idle) {
                    Now::Live(found) => {
                        let about = (digest(), credentials());
                        self.admit(found, true, about, parts, body)
                    }
                    Now::Absent => self.refuse_dead(RejectionKind::Unknown, parts, body),
                    Now::Unknown => {
                        let caller = caller.clone();
                        self.wait(parts, body, |call| call.ask_store(id, caller))
                    }
                }
            }
            RequestKind::Pass => {
                let has_id = !matches!(head.id, Lines::None);
                let has_last_event_id = head.has_last_event_id;
                let digest = digest();
                self.pass(has_id, has_last_event_id, digest, parts, body)
            }
            RequestKind::MaybeInitialize(otherwise) => {
                self.wait(parts, body, |call| call.read_and_serve(otherwise))
            }
            RequestKind::Refuse(kind) => self.refuse_dead(kind, parts, body),
            RequestKind::RefuseVersion(version) => {
                let version = String::from_utf8_lossy(version.as_bytes()).into_owned();
                let rejection = Rejection::unsupported_version(version, &settings.supported);
                self.wait(parts, body, |call| call.refuse_version(rejection))
            }
        }
    }
}

/// What a request's head says beside its id: the digest of its route, and its credentials, if they were seen at once.
type About = (u64, Option<Credentials>);

impl<S, B> McpSessionService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Send, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// Lets a request through if the store holds its session: at once, if this process's memory can tell.
    #[inline(always)]
    fn look_up(
        &mut self,
        id: &SessionId,
        about: About,
        mut parts: Parts,
        body: Body,
    ) -> ResponseFuture<S::Future, S::Error> {
        match self.lifecycle.settings.caller(&parts) {
            Ok(caller) => self.look_up_for(caller, id, about, parts, body),
            Err(kind) => self.refuse(kind, &mut parts, body),
        }
    }

    /// As [`look_up`](Self::look_up), where an id has to prove first that it was issued to its caller.
    fn verify_and_look_up(
        &mut self,
        about: About,
        mut parts: Parts,
        body: Body,
    ) -> ResponseFuture<S::Future, S::Error> {
        let lifecycle = &*self.lifecycle;
        let settings = &lifecycle.settings;
        let caller = match settings.caller(&parts) {
            Ok(caller) => caller,
            Err(kind) => return self.refuse(kind, &mut parts, body),
        };
        let Some(id) = settings.verify_id(&caller, &mut parts) else {
            return self.refuse_dead(RejectionKind::Forged, parts, body);
        };
        self.look_up_for(caller, &id, about, parts, body)
    }

    #[inline]
    fn look_up_for(
        &mut self,
        caller: Owner,
        id: &SessionId,
        about: About,
        parts: Parts,
        body: Body,
    ) -> ResponseFuture<S::Future, S::Error> {
        let lifecycle = &*self.lifecycle;
        let settings = &lifecycle.settings;
        if lifecycle.alive.marked.contains_of(id, &caller) {
            let id = id.clone();
            return self.wait(parts, body, |call| call.ask_about_marked(id, caller));
        }
        match lifecycle.store.touch_now(id, &caller, settings.idle) {
            Now::Live(found) => {
                let is_anonymous = caller.principal.is_none();
                self.admit(found, is_anonymous, about, parts, body)
            }
            Now::Absent if !settings.may_claim(&caller) => {
                self.refuse_dead(RejectionKind::Unknown, parts, body)
            }
            Now::Absent | Now::Unknown => {
                let id = id.clone();
                self.wait(parts, body, |call| call.ask_store(id, caller))
            }
        }
    }

    /// Lets a request in on a session that is live for its caller.
    #[inline(always)]
    fn admit(
        &mut self,
        found: Found,
        is_anonymous: bool,
        (digest, credentials): About,
        mut parts: Parts,
        body: Body,
    ) -> ResponseFuture<S::Future, S::Error> {
        let lifecycle = &*self.lifecycle;
        let in_flight = match lifecycle.alive.registry.enter(found, is_anonymous) {
            Ok(in_flight) => in_flight,
            Err(kind) => return self.refuse_dead(kind, parts, body),
        };
        if parts.method == Method::DELETE {
            return self.wait(parts, body, |call| call.forward(in_flight));
        }
        let upstream = &self.upstream;
        let forwarded = Forwarded::prepare(
            lifecycle,
            in_flight,
            &mut parts,
            digest,
            credentials,
            upstream,
        );
        State::Forward {
            inner: self.inner.call(Request::from_parts(parts, body)),
            lifecycle: Arc::clone(&self.lifecycle),
            forwarded: Some(forwarded),
        }
        .into()
    }

    /// Refuses a request, unless it may create a session although it names a dead one.
    fn refuse_dead(
        &mut self,
        kind: RejectionKind,
        mut parts: Parts,
        body: Body,
    ) -> ResponseFuture<S::Future, S::Error> {
        match self.lifecycle.settings.may_resend(kind, &parts) {
            true => self.wait(parts, body, |call| call.refuse_or_create(kind)),
            false => self.refuse(kind, &mut parts, body),
        }
    }
}

impl<S> McpSessionService<S> {
    /// Lets a request through that has nothing to do with sessions.
    #[inline]
    fn pass<F, E>(
        &mut self,
        has_id: bool,
        has_last_event_id: bool,
        route_digest: u64,
        mut parts: Parts,
        body: Body,
    ) -> ResponseFuture<F, E>
    where
        S: Service<Request<Body>, Future = F, Error = E>,
    {
        if has_id {
            parts.headers.remove(&SESSION_ID);
        }
        if has_last_event_id {
            parts.headers.remove(&LAST_EVENT_ID);
        }
        let registry = &self.lifecycle.alive.registry;
        registry.routes.note(route_digest, &parts, &self.upstream);
        State::Pass {
            inner: self.inner.call(Request::from_parts(parts, body)),
            lifecycle: Arc::clone(&self.lifecycle),
            route_digest,
        }
        .into()
    }

    #[inline]
    fn refuse<F, E>(
        &self,
        kind: RejectionKind,
        head: &mut Parts,
        body: Body,
    ) -> ResponseFuture<F, E> {
        let response = self.lifecycle.refuse(Rejection::new(kind), head, body);
        let response = Some(response);
        State::Refused { response }.into()
    }

    /// Serves a request in a future that has to wait before it calls inward. It gets the inner service that said it was
    /// ready; what stays behind has to be asked again.
    fn wait<F, E, Fut>(
        &mut self,
        parts: Parts,
        body: Body,
        serve: impl FnOnce(Call<S>) -> Fut,
    ) -> ResponseFuture<F, E>
    where
        S: Clone,
        Fut: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    {
        let not_ready = self.inner.clone();
        let call = Call {
            lifecycle: Arc::clone(&self.lifecycle),
            inner: std::mem::replace(&mut self.inner, not_ready),
            upstream: Arc::clone(&self.upstream),
            parts,
            body,
        };
        State::Waiting {
            future: Box::pin(serve(call)),
            _counted: self.lifecycle.alive.registry.tracker.begin(),
            lifecycle: Arc::clone(&self.lifecycle),
        }
        .into()
    }
}

impl<S: fmt::Debug> fmt::Debug for McpSessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSessionService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

//! The services in front of which the layer is put, and what it is compared with.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready as done},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use mcp_session_layer::{
    Issuer, MemoryStore, Owner, Principal, Scope, Session, SessionId, SessionRecord, SessionStore,
    store::{AtLimit, Created, EndReason, Expiry, Found, StoreError, Terms},
};
use pin_project_lite::pin_project;
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tower::{BoxError, Service};

/// What a guarded service is to the programs here, so that its type need not be written down.
pub trait Served:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Served for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Answers at once: with nothing, or with JSON.
#[derive(Clone, Copy)]
pub struct Inner {
    pub json: bool,
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(std::hint::black_box(request));
        if !self.json {
            return ready(Ok(Response::new(Body::empty())));
        }
        let mut answer = Response::new(Body::from(Bytes::from_static(ANSWER)));
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, json);
        ready(Ok(answer))
    }
}

const ANSWER: &[u8] =
    br#"{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"done"}]}}"#;

/// The layer without what it is for: it takes a request apart and puts it together, and so the answer. With a
/// session it puts that into the request's extensions.
#[derive(Clone)]
pub struct Noop<S> {
    pub inner: S,
    pub session: Option<Session>,
}

impl<S, B> Service<Request<Body>> for Noop<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = NoopFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        if let Some(session) = &self.session {
            parts.extensions.insert(session.clone());
        }
        NoopFuture {
            inner: self.inner.call(Request::from_parts(parts, Body::new(body))),
        }
    }
}

pin_project! {
    pub struct NoopFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, B, E> Future for NoopFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = done!(self.project().inner.poll(cx));
        Poll::Ready(answer.map(|response| response.map(Body::new)))
    }
}

/// A store that has to be asked with a future, and answers it at once.
pub struct Asked(pub MemoryStore);

impl SessionStore for Asked {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.0.create(session, terms).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.0.load(id).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.0.touch(id, owner, idle).await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.0.delete(id, reason).await
    }

    async fn expire(&self, id: &SessionId) -> Result<Expiry, StoreError> {
        self.0.expire(id).await
    }
}

/// Whom a session belongs to here.
#[must_use]
pub fn owner(principal: Option<Principal>) -> Owner {
    // One for all, as it is in a layer.
    static SCOPE: LazyLock<Scope> = LazyLock::new(Scope::default);
    Owner {
        scope: SCOPE.clone(),
        principal,
    }
}

/// On what terms sessions are created here.
#[must_use]
pub fn terms() -> Terms {
    Terms {
        idle: HOUR,
        initial_idle: HOUR,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    }
}

/// A session that the store holds live.
pub async fn live_session(store: &MemoryStore, principal: Option<Principal>) -> Session {
    let record = SessionRecord::new(owner(principal), Issuer::Inner);
    let session = Session::new(SessionId::issue(), record);
    let created = store.create(&session, &terms()).await;
    assert!(matches!(created, Ok(Created::New { .. })));
    session
}

#[derive(Clone)]
pub struct Tools;

impl ServerHandler for Tools {}

/// The official SDK's service, with nothing to offer.
#[must_use]
pub fn rmcp() -> StreamableHttpService<Tools, LocalSessionManager> {
    let config = StreamableHttpServerConfig::default();
    StreamableHttpService::new(|| Ok(Tools), Arc::default(), config)
}

pub const HOUR: Duration = Duration::from_secs(60 * 60);

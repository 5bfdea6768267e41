//! The world around the layer: an inner service that writes down what reaches it, a store that can be in a bad mood,
//! and short ways to say a request.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, DATE},
    request::Builder,
};
use http_body_util::BodyExt as _;
use mcp_session_layer::{
    Issuer, McpSessionLayer, MemoryStore, Owner, Principal, Rejection, RejectionKind, Scope,
    Session, SessionId, SessionRecord, SessionStore,
    store::{AtLimit, Created, Directory, EndReason, Found, StoreError, StoreErrorKind, Terms},
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tower::{Layer as _, Service, ServiceExt as _};

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"probe","version":"1.2"}}}"#;
pub(crate) const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
pub(crate) const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
pub(crate) const NOT_FOUND: &str =
    r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;
pub(crate) const UNAVAILABLE: &str = "Service temporarily unavailable";
pub(crate) const NO_SESSION: &str = "Mcp-Session-Id header is required";

/// An inner service that writes down each request and answers as it is told.
#[derive(Clone)]
pub(crate) struct Inner {
    calls: Arc<Mutex<Vec<Call>>>,
    tells: Arc<Mutex<Vec<Call>>>,
    answer: Arc<AnswerTo>,
}

type AnswerTo = dyn Fn(&Call) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// A request that reached the inner service.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) session: Option<Session>,
}

impl Inner {
    pub(crate) fn new(answer: impl Fn(&Call) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::slow(move |call| Box::pin(std::future::ready(answer(call))))
    }

    pub(crate) fn slow(
        answer: impl Fn(&Call) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            calls: Arc::default(),
            tells: Arc::default(),
            answer: Arc::new(answer),
        }
    }

    /// Answers everything with a JSON-RPC result and no session id.
    pub(crate) fn silent() -> Self {
        Self::new(|_| json(200, RESULT))
    }

    /// Answers everything with a JSON-RPC result and these session ids.
    pub(crate) fn issuing(ids: &'static [&'static str]) -> Self {
        Self::new(|_| with_ids(json(200, RESULT), ids))
    }

    /// The clients' requests that have reached the service since this was asked last.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }

    /// The layer's own requests that have reached the service since this was asked last.
    pub(crate) async fn tells(&self) -> Vec<Call> {
        settled().await;
        std::mem::take(&mut self.tells.lock())
    }

    /// The ids of sessions that the layer has told the service to end since this was asked last.
    pub(crate) async fn told(&self) -> Vec<String> {
        let tells = self.tells().await;
        assert!(tells.iter().all(|call| call.method == Method::DELETE));
        tells.iter().map(Call::id).collect()
    }
}

impl Call {
    /// The one session id that came with it.
    pub(crate) fn id(&self) -> String {
        let ids = lines(&self.headers, "mcp-session-id");
        assert_eq!(ids.len(), 1, "not one session id: {ids:?}");
        ids[0].clone()
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            let call = Call {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                body: body.unwrap_or_default(),
                session: parts.extensions.get().cloned(),
            };
            // Every client here sends this header; the layer has no reason to.
            let log = match call.headers.contains_key(ACCEPT) {
                true => &inner.calls,
                false => &inner.tells,
            };
            log.lock().push(call.clone());
            Ok((inner.answer)(&call).await)
        })
    }
}

/// What came out.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) rejection: Option<Rejection>,
}

impl Answer {
    pub(crate) fn ids(&self) -> Vec<String> {
        lines(&self.headers, "mcp-session-id")
    }

    /// The one session id that came with it.
    pub(crate) fn id(&self) -> String {
        let ids = self.ids();
        assert_eq!(ids.len(), 1, "{}", self.wire());
        ids[0].clone()
    }

    pub(crate) fn kind(&self) -> Option<RejectionKind> {
        self.rejection.as_ref().map(Rejection::kind)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// All that a client sees of it, but the date.
    pub(crate) fn wire(&self) -> String {
        let headers = self.headers.iter().filter(|(name, _)| *name != DATE);
        let headers: String = headers
            .map(|(name, value)| format!("{name}: {}\n", value.as_bytes().escape_ascii()))
            .collect();
        format!("{}\n{headers}\n{}", self.status, self.body)
    }

    /// That it is a refusal, as every refusal has to be.
    #[track_caller]
    pub(crate) fn assert_refused(&self, kind: RejectionKind, status: u16, body: &str) {
        assert_eq!(
            (self.kind(), self.status, &*self.body),
            (Some(kind), status, body)
        );
        let content_type = match body.starts_with('{') {
            true => "application/json",
            false => "text/plain; charset=utf-8",
        };
        assert_eq!(self.header("content-type"), Some(content_type));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("retry-after"), (status == 503).then_some("1"));
        assert!(self.ids().is_empty());
    }

    #[track_caller]
    pub(crate) fn assert_not_found(&self, kind: RejectionKind) {
        self.assert_refused(kind, 404, NOT_FOUND);
    }

    #[track_caller]
    pub(crate) fn assert_unavailable(&self, kind: RejectionKind) {
        self.assert_refused(kind, 503, UNAVAILABLE);
    }
}

pub(crate) async fn send<S>(service: &S, request: Request<Body>) -> Answer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let response = service.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
        rejection: head.extensions.get().cloned(),
    }
}

/// A layer over a store that stays at hand.
pub(crate) fn over<St: SessionStore>(store: &Arc<St>) -> McpSessionLayer {
    McpSessionLayer::new(Arc::clone(store))
}

/// The inner service behind a layer with the defaults.
pub(crate) fn guard(
    inner: &Inner,
) -> (
    Arc<MemoryStore>,
    impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + use<>,
) {
    let store = Arc::new(MemoryStore::new());
    let service = over(&store).layer(inner.clone());
    (store, service)
}

/// Births a session through the layer and says its id. What the inner service saw of it is forgotten.
pub(crate) async fn born<S>(service: &S, inner: &Inner) -> String
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let answer = send(service, initialize()).await;
    assert_eq!(answer.status, 200, "{}", answer.wire());
    inner.calls();
    answer.id()
}

/// The head of a request to the endpoint.
pub(crate) fn ask(method: &str) -> Builder {
    let builder = Request::builder().method(method).uri("/mcp");
    builder
        .header("host", "mcp.test")
        .header("content-type", "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
}

pub(crate) fn initialize() -> Request<Body> {
    ask("POST").body(INITIALIZE.into()).unwrap()
}

/// A request on a session.
pub(crate) fn on(id: &str, method: &str) -> Request<Body> {
    let body = if method == "POST" { PING } else { "" };
    ask(method)
        .header("mcp-session-id", id)
        .header("mcp-protocol-version", "2025-11-25")
        .body(body.into())
        .unwrap()
}

pub(crate) fn ping(id: &str) -> Request<Body> {
    on(id, "POST")
}

pub(crate) fn json(status: u16, body: &str) -> Response<Body> {
    let mut response = plain(status, body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn plain(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn with_ids(mut response: Response<Body>, ids: &[&str]) -> Response<Body> {
    for id in ids {
        let value = HeaderValue::from_bytes(id.as_bytes()).unwrap();
        response.headers_mut().append("mcp-session-id", value);
    }
    response
}

/// A body that arrives byte by byte and says nothing of its length.
pub(crate) fn byte_by_byte(body: &[u8]) -> Body {
    let bytes: Vec<_> = body.iter().map(|byte| vec![*byte]).collect();
    Body::from_stream(stream::iter(bytes).map(Ok::<_, Infallible>))
}

pub(crate) fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines
        .map(|line| line.as_bytes().escape_ascii().to_string())
        .collect()
}

/// Lets everything in the background run that does not wait for time to pass.
pub(crate) async fn settled() {
    sleep(Duration::from_millis(1)).await;
}

pub(crate) fn owner(principal: Option<&str>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.map(Principal::new),
    }
}

pub(crate) fn id(text: &str) -> SessionId {
    text.parse().unwrap()
}

/// Puts a session into a store without the layer: with an hour to be idle, a quarter of an hour until its first request.
pub(crate) async fn plant(store: &impl SessionStore, text: &str, owner: Owner, issuer: Issuer) {
    let session = Session::new(id(text), SessionRecord::new(owner, issuer));
    let terms = Terms {
        idle: Duration::from_secs(3600),
        initial_idle: Duration::from_secs(900),
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    };
    let created = store.create(&session, &terms).await.unwrap();
    assert!(matches!(created, Created::New { .. }));
}

/// How long a session may still be idle, if it is live.
pub(crate) async fn left(store: &impl SessionStore, text: &str) -> Option<Duration> {
    let found = store.load(&id(text)).await.unwrap();
    found.map(|found| found.idle_left)
}

pub(crate) async fn is_live(store: &impl SessionStore, text: &str) -> bool {
    left(store, text).await.is_some()
}

/// A store each verb of which can be in a mood of its own. It has no memory to answer from at once.
#[derive(Default)]
pub(crate) struct Moody {
    pub(crate) store: MemoryStore,
    moods: Mutex<HashMap<&'static str, Mood>>,
    calls: Mutex<Vec<&'static str>>,
}

#[derive(Clone, Copy)]
pub(crate) enum Mood {
    Fails(StoreErrorKind),
    FailsUntil(Instant),
    Hangs,
    /// Does it and says that it failed.
    Lies,
}

pub(crate) const AWAY: Mood = Mood::Fails(StoreErrorKind::Unavailable);

impl Moody {
    pub(crate) fn put(&self, verbs: &[&'static str], mood: Mood) {
        self.moods
            .lock()
            .extend(verbs.iter().map(|verb| (*verb, mood)));
    }

    pub(crate) fn cheer_up(&self) {
        self.moods.lock().clear();
    }

    /// The verbs that were called since this was asked last.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock())
    }

    async fn moodily<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.lock().push(verb);
        let mood = self.moods.lock().get(verb).copied();
        let kind = match mood {
            Some(Mood::Hangs) => std::future::pending().await,
            Some(Mood::Fails(kind)) => kind,
            Some(Mood::FailsUntil(then)) if Instant::now() < then => StoreErrorKind::Unavailable,
            Some(Mood::Lies) => {
                call.await?;
                StoreErrorKind::Unavailable
            }
            _ => return call.await,
        };
        Err(StoreError::new(kind, verb))
    }
}

impl SessionStore for Moody {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.moodily("create", self.store.create(session, terms))
            .await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.moodily("load", self.store.load(id)).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.moodily("touch", self.store.touch(id, owner, idle))
            .await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.moodily("delete", self.store.delete(id, reason)).await
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.store.directory()
    }
}

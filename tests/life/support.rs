//! A node with an inner service that does what a request's `x-do` says, and a store that can be watched and disturbed.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use http_body::Frame;
use http_body_util::BodyExt as _;
use mcp_session_layer::{
    McpSessionLayer, McpSessionService, MemoryStore, Owner, Principal, Rejection, RejectionKind,
    Scope, Session, SessionId, SessionRef, SessionStore,
    store::{Created, Directory, EndReason, Feed, Found, Now, StoreError, StoreErrorKind, Terms},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    task::yield_now,
    time::timeout,
};
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneSyncService};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// A layer over an inner service of its own.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) layer: McpSessionLayer,
    pub(crate) service: McpSessionService<InnerService>,
    pub(crate) inner: Arc<Inner>,
}

impl Node {
    pub(crate) fn new(store: &Spy) -> Self {
        Self::with(store, |layer| layer)
    }

    pub(crate) fn with(store: &Spy, set: impl FnOnce(McpSessionLayer) -> McpSessionLayer) -> Self {
        let layer = McpSessionLayer::new(store.clone()).with_principal(|parts| {
            let name = parts.headers.get("x-user");
            Ok(name.map(|name| Principal::new(name.to_str().unwrap())))
        });
        let layer = set(layer);
        let inner = Arc::<Inner>::default();
        Self {
            service: layer.layer(inner.service()),
            layer,
            inner,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.service.clone().oneshot(request).await.unwrap()
    }

    /// The id of a session born here; nobody's.
    pub(crate) async fn born(&self) -> String {
        id_of(&self.send(initialize()).await).expect("a session is born")
    }

    pub(crate) async fn born_of(&self, user: &str) -> String {
        let response = self.send(by(initialize(), user)).await;
        id_of(&response).expect("a session is born")
    }

    pub(crate) async fn open(&self, id: &str) -> Body {
        let response = self.send(get(id)).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    }

    /// The status of a call on this session.
    pub(crate) async fn call(&self, id: &str) -> StatusCode {
        self.send(post(id)).await.status()
    }

    pub(crate) async fn delete(&self, id: &str) -> StatusCode {
        self.send(delete(id)).await.status()
    }
}

pub(crate) fn initialize() -> Request<Body> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    Request::post("/mcp")
        .header("host", "localhost")
        .body(Body::from(body))
        .unwrap()
}

pub(crate) fn on(id: &str, method: Method) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri("/mcp")
        .header("host", "localhost")
        .header("mcp-session-id", id)
        .body(Body::empty())
        .unwrap()
}

pub(crate) fn get(id: &str) -> Request<Body> {
    on(id, Method::GET)
}

pub(crate) fn post(id: &str) -> Request<Body> {
    on(id, Method::POST)
}

pub(crate) fn delete(id: &str) -> Request<Body> {
    on(id, Method::DELETE)
}

/// Tells the inner service what to do.
pub(crate) fn doing(mut request: Request<Body>, what: &'static str) -> Request<Body> {
    request.headers_mut().insert("x-do", what.parse().unwrap());
    request
}

pub(crate) fn by(mut request: Request<Body>, user: &str) -> Request<Body> {
    request
        .headers_mut()
        .insert("x-user", user.parse().unwrap());
    request
}

pub(crate) fn id_of(response: &Response<Body>) -> Option<String> {
    let id = response.headers().get("mcp-session-id")?;
    Some(id.to_str().unwrap().to_owned())
}

pub(crate) fn kind_of(response: &Response<Body>) -> Option<RejectionKind> {
    response.extensions().get().map(Rejection::kind)
}

pub(crate) fn session_id(id: &str) -> SessionId {
    id.parse().unwrap()
}

pub(crate) fn reference(id: &str) -> SessionRef {
    session_id(id).reference()
}

/// Reads a stream to its clean end and answers how long it took and what came.
pub(crate) async fn ending(body: Body) -> (Duration, Bytes) {
    let start = tokio::time::Instant::now();
    let read = timeout(24 * HOUR, body.collect()).await.expect("ends");
    let read = read.expect("ends cleanly");
    (start.elapsed(), read.to_bytes())
}

pub(crate) async fn ends_within(limit: Duration, body: Body) -> Bytes {
    let ended = timeout(limit, ending(body)).await;
    ended.expect("the stream ends in time").1
}

/// Whether a stream stays open for that long and says nothing.
pub(crate) async fn stays_silent(body: &mut Body, time: Duration) -> bool {
    timeout(time, body.frame()).await.is_err()
}

pub(crate) type InnerService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// An inner service that issues ids and keeps a list of its sessions.
pub(crate) struct Inner {
    pub(crate) sessions: Mutex<BTreeSet<String>>,
    /// Every DELETE it was sent: id, path, all headers.
    pub(crate) deletes: Mutex<Vec<(String, String, HeaderMap)>>,
    /// What it answers to a DELETE; each of these once, before it does as it should.
    pub(crate) answers: Mutex<Vec<u16>>,
    /// How long a DELETE takes it.
    pub(crate) delete_takes: Mutex<Duration>,
    deleting: AtomicUsize,
    pub(crate) most_deleting: AtomicUsize,
    /// Bodies of streams that exist.
    pub(crate) bodies: Arc<AtomicUsize>,
    /// Requests that wait at the gate, by all time.
    pub(crate) waiting: AtomicUsize,
    /// Lets those through that `wait`.
    pub(crate) gate: Semaphore,
    pub(crate) streams: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            deletes: Mutex::default(),
            answers: Mutex::default(),
            delete_takes: Mutex::default(),
            deleting: AtomicUsize::new(0),
            most_deleting: AtomicUsize::new(0),
            bodies: Arc::default(),
            waiting: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            streams: Mutex::default(),
        }
    }
}

impl Inner {
    pub(crate) fn service(self: &Arc<Self>) -> InnerService {
        let inner = Arc::clone(self);
        BoxCloneSyncService::new(service_fn(move |request| {
            let inner = Arc::clone(&inner);
            async move { Ok(inner.serve(request).await) }
        }))
    }

    pub(crate) fn bodies(&self) -> usize {
        self.bodies.load(SeqCst)
    }

    pub(crate) fn deleted(&self) -> Vec<String> {
        let deletes = self.deletes.lock();
        deletes.iter().map(|(id, _, _)| id.clone()).collect()
    }

    /// Waits until so many requests have come to the gate, in all.
    pub(crate) async fn reached(&self, number: usize) {
        while self.waiting.load(SeqCst) < number {
            yield_now().await;
        }
    }

    pub(crate) async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (request, _) = request.into_parts();
        let header = |name| {
            let value = request.headers.get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let id = header("mcp-session-id");
        let what = header("x-do").unwrap_or_default();
        if request.method == Method::DELETE {
            return self.delete(id.unwrap(), request).await;
        }
        let mut response = Response::new(Body::empty());
        if what.contains("wait") {
            self.waiting.fetch_add(1, SeqCst);
            self.gate.acquire().await.unwrap().forget();
        }
        if what.contains("forget") {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        if what.contains("refuse") {
            *response.status_mut() = StatusCode::NOT_FOUND;
            set(&mut response, "content-type", "application/json");
            let error =
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no such tool"}}"#;
            *response.body_mut() = Body::from(error);
            return response;
        }
        if id.is_none() || what.contains("stray") {
            let issued = uuid::Uuid::new_v4().to_string();
            set(&mut response, "mcp-session-id", &issued);
            self.sessions.lock().insert(issued);
        }
        if what.contains("stream") || request.method == Method::GET {
            set(&mut response, "content-type", "text/event-stream");
            *response.body_mut() = self.stream();
        } else {
            set(&mut response, "content-type", "application/json");
            *response.body_mut() = Body::from(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        }
        response
    }

    async fn delete(&self, id: String, request: Parts) -> Response<Body> {
        let now = self.deleting.fetch_add(1, SeqCst) + 1;
        self.most_deleting.fetch_max(now, SeqCst);
        let time = *self.delete_takes.lock();
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        self.deleting.fetch_sub(1, SeqCst);
        let path = request.uri.path().to_owned();
        let headers = request.headers;
        let has_host = headers.contains_key("host");
        self.deletes.lock().push((id.clone(), path, headers));
        let answer = self.answers.lock().pop();
        let status = match answer {
            Some(status) => status,
            None if !has_host => 400,
            None if self.sessions.lock().remove(&id) => 204,
            None => 404,
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    fn stream(&self) -> Body {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.streams.lock().push(sender);
        self.bodies.fetch_add(1, SeqCst);
        Body::new(Events {
            receiver,
            bodies: Arc::clone(&self.bodies),
        })
    }
}

fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    response.headers_mut().insert(name, value.parse().unwrap());
}

/// The body of a stream. Its number is taken back when it is dropped.
struct Events {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    bodies: Arc<AtomicUsize>,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.receiver.poll_recv(cx);
        next.map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.bodies.fetch_sub(1, SeqCst);
    }
}

/// A memory store that counts its verbs and can be away, without a feed, slow to answer from memory, or yielding.
#[derive(Clone, Default)]
pub(crate) struct Spy {
    pub(crate) memory: MemoryStore,
    whims: Arc<Whims>,
    /// Of this node: others may have it.
    is_deaf: bool,
}

#[derive(Default)]
struct Whims {
    is_away: AtomicBool,
    asks: AtomicBool,
    yields: AtomicUsize,
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl Spy {
    /// The same store as another node sees it that has no feed.
    pub(crate) fn deaf(&self) -> Self {
        Self {
            is_deaf: true,
            ..self.clone()
        }
    }

    /// Every answer takes a future, which yields before and after its effect, a little differently each time.
    pub(crate) fn yielding(self) -> Self {
        self.whims.asks.store(true, SeqCst);
        self.whims.yields.store(1, SeqCst);
        self
    }

    /// No answers from this process's memory.
    pub(crate) fn asking(self) -> Self {
        self.whims.asks.store(true, SeqCst);
        self
    }

    pub(crate) fn is_away(&self, is_away: bool) {
        self.whims.is_away.store(is_away, SeqCst);
    }

    /// How often this verb was called since the last time this was asked of any.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut *self.whims.counts.lock())
    }

    /// Looks without being counted, and without extending.
    pub(crate) async fn look(&self, id: &str) -> Option<Found> {
        self.memory.load(&session_id(id)).await.unwrap()
    }

    pub(crate) async fn owner(&self, id: &str) -> Option<String> {
        let found = self.look(id).await?;
        let principal = found.session.owner().principal.as_ref();
        principal.map(|principal| principal.as_str().to_owned())
    }

    fn note(&self, verb: &'static str) {
        *self.whims.counts.lock().entry(verb).or_default() += 1;
    }

    async fn begin(&self, verb: &'static str) -> Result<(), StoreError> {
        self.note(verb);
        self.pause().await;
        match self.whims.is_away.load(SeqCst) {
            true => Err(StoreError::new(StoreErrorKind::Unavailable, verb)),
            false => Ok(()),
        }
    }

    async fn pause(&self) {
        let random = self.whims.yields.load(SeqCst);
        if random > 0 {
            self.whims.yields.fetch_add(7, SeqCst);
            for _ in 0..(random * 2_654_435_761) >> 7 & 3 {
                yield_now().await;
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl SessionStore for Spy {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.begin("create").await?;
        let created = self.memory.create(session, terms).await;
        self.pause().await;
        created
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        self.begin("load").await?;
        let found = self.memory.load(id).await;
        self.pause().await;
        found
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.begin("touch").await?;
        let found = self.memory.touch(id, owner, idle).await;
        self.pause().await;
        found
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.begin("delete").await?;
        let ended = self.memory.delete(id, reason).await;
        self.pause().await;
        ended
    }

    fn touch_now(&self, id: &SessionId, owner: &Owner, idle: Duration) -> Now {
        if self.whims.asks.load(SeqCst) || self.whims.is_away.load(SeqCst) {
            return Now::Unknown;
        }
        self.note("touch_now");
        self.memory.touch_now(id, owner, idle)
    }

    async fn claim(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        self.begin("claim").await?;
        let found = self.memory.claim(id, owner, idle).await;
        self.pause().await;
        found
    }

    fn directory(&self) -> Option<&dyn Directory> {
        self.memory.directory()
    }

    fn feed(&self) -> Option<Feed> {
        if self.is_deaf {
            return None;
        }
        self.memory.feed()
    }
}

pub(crate) fn owner(principal: Option<&str>) -> Owner {
    Owner {
        scope: Scope::default(),
        principal: principal.map(Principal::new),
    }
}

/// Polls a service's future once, so that the request is on its way.
pub(crate) async fn on_its_way<F: Future + Unpin>(future: &mut F) {
    assert!(futures_util::poll!(future).is_pending());
    yield_now().await;
}

/// Waits for what happens on other threads.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

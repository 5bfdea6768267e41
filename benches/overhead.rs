//! What the layer costs, counted: instructions by `valgrind --tool=callgrind`, and allocations. Times are not taken, for
//! they say more about the machine and its neighbours.
//!
//! `overhead SERVICE REQUEST N` sends N requests of that kind to that service and prints how often it allocated. The
//! difference of two runs is what that many requests cost. `.ci/bench` does this for all of them and prints a table.

use std::{
    convert::Infallible,
    env,
    fmt::Debug,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready as done},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use mcp_session_layer::{
    BoxSessionStore, Issuer, McpSessionLayer, MemoryStore, Owner, Scope, Session, SessionId,
    SessionRecord, SessionStore,
    store::{AtLimit, Created, EndReason, Found, StoreError, Terms},
};
use pin_project_lite::pin_project;
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::runtime::Builder;
use tower::{Layer as _, Service, ServiceExt as _};

fn main() {
    // `cargo bench` adds a flag of its own.
    let words: Vec<_> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let [service, request, requests] = &words[..] else {
        println!("overhead SERVICE REQUEST N; .ci/bench runs them all");
        return;
    };
    let requests = requests.parse().expect("a number of requests");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    // One thread: the tasks that a request leaves behind are counted too.
    let counted = allocation_counter::measure(|| {
        runtime.block_on(run(service, request, requests));
    });
    println!("{}", counted.count_total);
}

async fn run(service: &str, request: &str, requests: usize) {
    let store = MemoryStore::new();
    let session = live_session(&store).await;
    let id = session.id().clone();
    let noop = Noop {
        inner: Inner,
        session: None,
    };
    let mut plain = Template::new(request, &id);
    if matches!(service, "bare" | "noop" | "handin") {
        plain.expected = StatusCode::OK;
    }
    match service {
        "bare" => drive(Inner, &plain, requests).await,
        "noop" => drive(noop, &plain, requests).await,
        "handin" => {
            let session = Some(session);
            drive(Noop { session, ..noop }, &plain, requests).await;
        }
        "memory" => drive(layer(store).layer(Inner), &plain, requests).await,
        "boxed" => {
            let store = BoxSessionStore::new(store);
            drive(layer(store).layer(Inner), &plain, requests).await;
        }
        "async" => drive(layer(Asked(store)).layer(Inner), &plain, requests).await,
        "rmcp" => {
            let mcp = rmcp();
            let id = initialize(mcp.clone()).await;
            drive(mcp, &Template::new(request, &id), requests).await;
        }
        "layer+rmcp" => {
            let mcp = layer(store).layer(rmcp());
            let id = initialize(mcp.clone()).await;
            drive(mcp, &Template::new(request, &id), requests).await;
        }
        _ => panic!("no such service"),
    }
}

async fn drive<S, B>(mut service: S, template: &Template, requests: usize)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Error: Debug>,
{
    for _ in 0..requests {
        let Ok(ready) = service.ready().await;
        let Ok(answer) = ready.call(template.request()).await;
        assert_eq!(answer.status(), template.expected);
        answer.into_body().collect().await.unwrap();
        // Lets the tasks run that a request leaves behind.
        tokio::task::yield_now().await;
    }
}

/// A request, to be had cheaply and often, as hyper makes it: what stands in its head is shared.
struct Template {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    expected: StatusCode,
}

impl Template {
    fn new(kind: &str, live: &SessionId) -> Self {
        let dead = "5a2cbd3c-6c1c-4f0e-9f2f-000000000000";
        let (uri, id, version, size, expected) = match kind {
            "live" | "ping" => ("/mcp", live.expose(), LEGACY, 0, StatusCode::OK),
            "dead" => ("/mcp", dead, LEGACY, 0, StatusCode::NOT_FOUND),
            "dead64k" => ("/mcp", dead, LEGACY, 64 << 10, StatusCode::NOT_FOUND),
            "modern" => ("/mcp", "", "2026-07-28", 0, StatusCode::OK),
            "unguarded" => ("/health", "", "", 0, StatusCode::OK),
            _ => panic!("no such request"),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "localhost:3000"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("user-agent", "overhead/1"),
            ("mcp-protocol-version", version),
            ("mcp-session-id", id),
        ] {
            if !value.is_empty() {
                let value = HeaderValue::from_maybe_shared(shared(value)).unwrap();
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let padding = "x".repeat(size);
        let body = match size {
            0 => PING.to_owned(),
            _ => PING.replace("{}", &format!(r#"{{"_meta":{{"padding":"{padding}"}}}}"#)),
        };
        Self {
            method: Method::POST,
            uri: Uri::from_maybe_shared(shared(uri)).unwrap(),
            headers,
            body: shared(&body),
            expected,
        }
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

fn shared(text: &str) -> Bytes {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    // The first clone is what makes it shared.
    drop(bytes.clone());
    bytes
}

fn layer<St: SessionStore>(store: St) -> McpSessionLayer {
    McpSessionLayer::new(store).with_paths(["/mcp"])
}

/// Answers at once, with nothing.
#[derive(Clone)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(std::hint::black_box(request));
        ready(Ok(Response::new(Body::empty())))
    }
}

/// The layer without what it is for: it takes a request apart and puts it together, and so the answer. With a
/// session it puts that into the request's extensions.
#[derive(Clone)]
struct Noop<S> {
    inner: S,
    session: Option<Session>,
}

impl<S> Service<Request<Body>> for Noop<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
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
    struct NoopFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, E> Future for NoopFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = done!(self.project().inner.poll(cx));
        Poll::Ready(answer.map(|response| response.map(Body::new)))
    }
}

/// A store that has to be asked with a future, and answers it at once.
struct Asked(MemoryStore);

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
}

async fn live_session(store: &MemoryStore) -> Session {
    let owner = Owner {
        scope: Scope::default(),
        principal: None,
    };
    let id = SessionId::issue();
    let session = Session::new(id, SessionRecord::new(owner, Issuer::Inner));
    let terms = Terms {
        idle: HOUR,
        initial_idle: HOUR,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    };
    store.create(&session, &terms).await.unwrap();
    session
}

#[derive(Clone)]
struct Tools;

impl ServerHandler for Tools {}

fn rmcp() -> StreamableHttpService<Tools, LocalSessionManager> {
    let config = StreamableHttpServerConfig::default();
    StreamableHttpService::new(|| Ok(Tools), Arc::default(), config)
}

/// Opens a session, as a client does.
async fn initialize<S, B>(service: S) -> SessionId
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Error: Debug>,
{
    let mut template = Template::new("modern", &SessionId::issue());
    template.headers.remove("mcp-protocol-version");
    template.body = Bytes::from_static(INITIALIZE.as_bytes());
    let Ok(answer) = service.clone().oneshot(template.request()).await;
    let id = answer.headers()["mcp-session-id"].to_str().unwrap();
    let id: SessionId = id.parse().unwrap();
    answer.into_body().collect().await.unwrap();

    let mut template = Template::new("live", &id);
    template.body = Bytes::from_static(INITIALIZED.as_bytes());
    let Ok(answer) = service.oneshot(template.request()).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    id
}

const LEGACY: &str = "2025-11-25";
const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping","params":{}}"#;
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"overhead","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const HOUR: Duration = Duration::from_secs(60 * 60);

//! What tower asks of a service, and what a service that is wrapped may ask of us: to be called when it said that it
//! is ready, and only then.

use std::{
    convert::Infallible,
    fmt::{self, Debug},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use mcp_session_layer::{
    BoxSessionStore, ClientInfo, InvalidSessionId, InvalidSessionRef, Issuer, McpSessionLayer,
    McpSessionService, MemoryStore, NoSession, Owner, Principal, Rejection, RejectionKind,
    ResponseFuture, Scope, Session, SessionEvent, SessionEvents, SessionId, SessionRecord,
    SessionRef, SessionStore, Sessions, store,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    time::timeout,
};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{
    BoxError, Layer as _, Service, ServiceBuilder, ServiceExt, buffer::Buffer,
    limit::ConcurrencyLimit, service_fn,
};
use tower_test::mock::{self, Mock};

use late::Late;

mod late;

type Handle = mock::Handle<Request<Body>, Response<Body>>;
type Guarded = McpSessionService<Mock<Request<Body>, Response<Body>>>;

/// A layer around a mock, and a live session in its store.
struct Rig {
    service: mock::Spawn<Guarded>,
    inner: Handle,
    store: MemoryStore,
    id: SessionId,
}

impl Rig {
    /// Over a store that answers at once, or later.
    async fn new(pace: Pace) -> Self {
        let memory = MemoryStore::new();
        let store = match pace {
            Pace::AtOnce => BoxSessionStore::new(memory.clone()),
            Pace::Later => BoxSessionStore::new(Late(memory.clone(), A_WHILE)),
        };
        let layer = McpSessionLayer::new(store).with_paths(["/mcp"]);
        let (service, inner) = mock::spawn_with(|mock| layer.layer(mock));
        let id = live_session(&memory).await;
        Self {
            service,
            inner,
            store: memory,
            id,
        }
    }

    /// Makes the service ready for one call and calls it.
    fn call(&mut self, way: Way) -> <Guarded as Service<Request<Body>>>::Future {
        self.inner.allow(1);
        assert_ready_ok!(self.service.poll_ready::<Request<Body>>());
        let request = way.request(&self.id);
        self.service.call(request)
    }

    async fn is_live(&self) -> bool {
        self.store.load(&self.id).await.unwrap().is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    AtOnce,
    Later,
}

const PACES: [Pace; 2] = [Pace::AtOnce, Pace::Later];

/// A way through the layer on which the inner service is called.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Unguarded,
    Modern,
    ReadAndPassed,
    OnSession,
    Birth,
    Death,
}

const WAYS: [Way; 6] = [
    Way::Unguarded,
    Way::Modern,
    Way::ReadAndPassed,
    Way::OnSession,
    Way::Birth,
    Way::Death,
];

impl Way {
    fn request(self, id: &SessionId) -> Request<Body> {
        match self {
            Self::Unguarded => request(Method::GET, "/health", &[], ""),
            Self::Modern => request(
                Method::POST,
                "/mcp",
                &[("mcp-protocol-version", "2026-07-28")],
                PING,
            ),
            Self::ReadAndPassed => request(Method::POST, "/mcp", &[], MODERN_PING),
            Self::OnSession => on(id.expose(), Method::POST, PING),
            Self::Birth => request(Method::POST, "/mcp", &[], INITIALIZE),
            Self::Death => on(id.expose(), Method::DELETE, ""),
        }
    }
}

fn request(method: Method, uri: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

fn on(id: &str, method: Method, body: &str) -> Request<Body> {
    request(method, "/mcp", &[("mcp-session-id", id)], body)
}

/// A session of nobody's that the inner service issued.
async fn live_session(store: &impl SessionStore) -> SessionId {
    let owner = Owner {
        scope: Scope::default(),
        principal: None,
    };
    let id = SessionId::issue();
    let session = Session::new(id.clone(), SessionRecord::new(owner, Issuer::Inner));
    let terms = store::Terms {
        idle: HOUR,
        initial_idle: HOUR,
        life: None,
        total: None,
        per_principal: None,
        at_limit: store::AtLimit::Refuse,
        started_ago: Duration::ZERO,
    };
    store.create(&session, &terms).await.unwrap();
    id
}

/// Polls the answer here, in the test's task, while the inner service does its part.
async fn served<F, T>(answer: F, inner: impl Future<Output = T>) -> (F::Output, T)
where
    F: Future,
{
    let both = async { tokio::join!(answer, inner) };
    timeout(HOUR, both).await.expect("answer and inner call")
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_inner_service_is() {
    let mut rig = Rig::new(Pace::AtOnce).await;
    rig.inner.allow(0);
    assert_pending!(rig.service.poll_ready::<Request<Body>>());
    rig.inner.allow(1);
    assert!(rig.service.is_woken());
    assert_ready_ok!(rig.service.poll_ready::<Request<Body>>());
}

#[tokio::test(start_paused = true)]
async fn it_fails_when_the_inner_service_does() {
    let mut rig = Rig::new(Pace::AtOnce).await;
    rig.inner.send_error(Broken);
    let error = assert_ready_err!(rig.service.poll_ready::<Request<Body>>());
    assert!(error.to_string().contains(&Broken.to_string()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_does_not_reach_the_inner_service() {
    let dead = SessionId::issue();
    let refused = || {
        let long = "x".repeat(1025);
        let twice = [("mcp-session-id", "a"), ("mcp-session-id", "b")];
        let versions = [
            ("mcp-protocol-version", "2025-06-18"),
            ("mcp-protocol-version", "2026-07-28"),
        ];
        [
            (404, on(dead.expose(), Method::POST, PING)),
            (404, on(dead.expose(), Method::POST, INITIALIZE)),
            (404, on(dead.expose(), Method::GET, "")),
            (404, on(dead.expose(), Method::DELETE, "")),
            (404, on("two words", Method::POST, PING)),
            (404, on(&long, Method::POST, PING)),
            (400, on("", Method::POST, PING)),
            (400, request(Method::POST, "/mcp", &[], PING)),
            (400, request(Method::GET, "/mcp", &[], "")),
            (400, request(Method::DELETE, "/mcp", &[], "")),
            (400, request(Method::POST, "/mcp", &twice, PING)),
            (400, request(Method::POST, "/mcp", &versions, PING)),
        ]
    };
    for pace in PACES {
        let mut rig = Rig::new(pace).await;
        for (nth, (status, request)) in refused().into_iter().enumerate() {
            rig.inner.allow(1);
            assert_ready_ok!(rig.service.poll_ready::<Request<Body>>());
            let answer = timeout(HOUR, rig.service.call(request))
                .await
                .expect("an answer");
            assert_eq!(answer.unwrap().status(), status, "{pace:?} {nth}");
        }
        // Nor does it later, from a task of its own.
        tokio::time::sleep(HOUR).await;
        assert_pending!(rig.inner.poll_request(), "{pace:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_waits_for_the_inner_service() {
    for (pace, way) in PACES
        .into_iter()
        .flat_map(|pace| WAYS.map(|way| (pace, way)))
    {
        let mut rig = Rig::new(pace).await;
        let mut answer = task::spawn(rig.call(way));
        let called = async {
            while answer.poll().is_pending() {
                if let Poll::Ready(call) = rig.inner.poll_request() {
                    return call.unwrap();
                }
                tokio::time::sleep(A_WHILE).await;
            }
            panic!("answered without the inner service");
        };
        let (_, respond) = timeout(HOUR, called).await.expect("an inner call");
        tokio::time::sleep(HOUR).await;
        assert_pending!(answer.poll(), "{pace:?} {way:?}");
        respond.send_response(Response::new(Body::from("done")));
        let answer = timeout(HOUR, answer).await.expect("an answer").unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{pace:?} {way:?}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "done", "{pace:?} {way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_inner_error_is_passed_on_as_it_is() {
    for (pace, way) in PACES
        .into_iter()
        .flat_map(|pace| WAYS.map(|way| (pace, way)))
    {
        let mut rig = Rig::new(pace).await;
        let answer = rig.call(way);
        let fails = async {
            let (_, respond) = rig.inner.next_request().await.unwrap();
            respond.send_error(Broken);
        };
        let (answer, ()) = served(answer, fails).await;
        let error = answer.expect_err("an error");
        assert!(error.is::<Broken>(), "{pace:?} {way:?}: {error}");
        // What failed has ended nothing.
        assert!(rig.is_live().await, "{pace:?} {way:?}");
    }
}

/// The mock panics when it is called without having said that it is ready, as a buffer or a limit does: so this fails
/// where a clone is called in place of the service that was asked.
#[tokio::test(start_paused = true)]
async fn only_the_service_that_said_it_was_ready_is_called() {
    for (pace, way) in PACES
        .into_iter()
        .flat_map(|pace| WAYS.map(|way| (pace, way)))
    {
        let mut rig = Rig::new(pace).await;
        for _ in 0..3 {
            if !rig.is_live().await {
                rig.id = live_session(&rig.store).await;
            }
            let answer = rig.call(way);
            // What stays behind has to ask again, before the inner service is called as after.
            rig.inner.allow(0);
            assert_pending!(
                rig.service.poll_ready::<Request<Body>>(),
                "{pace:?} {way:?}"
            );
            let answers = async {
                let (_, respond) = rig.inner.next_request().await.unwrap();
                respond.send_response(Response::new(Body::empty()));
            };
            let (answer, ()) = served(answer, answers).await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "{pace:?} {way:?}");
            assert_pending!(
                rig.service.poll_ready::<Request<Body>>(),
                "{pace:?} {way:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_refused_at_once_uses_no_permission_up() {
    let mut rig = Rig::new(Pace::AtOnce).await;
    rig.inner.allow(1);
    for _ in 0..3 {
        assert_ready_ok!(rig.service.poll_ready::<Request<Body>>());
        let request = on(SessionId::issue().expose(), Method::POST, PING);
        let mut answer = task::spawn(rig.service.call(request));
        let answer = assert_ready_ok!(answer.poll());
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
}

/// An inner service that takes its time, counts, and opens sessions.
fn slow_inner(
    calls: &Arc<AtomicUsize>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    let calls = Arc::clone(calls);
    service_fn(move |request: Request<Body>| {
        let calls = Arc::clone(&calls);
        async move {
            tokio::time::sleep(A_WHILE).await;
            let mut response = Response::new(Body::empty());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if body == INITIALIZE {
                let id = SessionId::issue().to_header();
                response.headers_mut().insert("mcp-session-id", id);
            }
            calls.fetch_add(1, Relaxed);
            Ok(response)
        }
    })
}

/// A hundred callers at once, on every way through the layer: `inner` takes one at a time.
async fn a_hundred_at_once<S>(inner: S, calls: &AtomicUsize)
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let inner = inner.map_err(Into::into as fn(S::Error) -> BoxError);
    let memory = MemoryStore::new();
    let store = Late(memory.clone(), A_WHILE);
    let service = McpSessionLayer::new(store)
        .with_paths(["/mcp"])
        .layer(inner);
    let mut expected = 0;
    let mut callers = Vec::new();
    for nth in 0..100 {
        let id = live_session(&memory).await;
        let (request, status) = match WAYS.get(nth % 8) {
            Some(way) => (way.request(&id), StatusCode::OK),
            None => {
                let dead = SessionId::issue();
                let method = [Method::POST, Method::DELETE][nth % 2].clone();
                (on(dead.expose(), method, PING), StatusCode::NOT_FOUND)
            }
        };
        expected += usize::from(status == StatusCode::OK);
        let service = service.clone();
        callers.push(async move {
            let answer = service.oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{nth}");
        });
    }
    timeout(HOUR, join_all(callers)).await.expect("no deadlock");
    assert_eq!(calls.load(Relaxed), expected, "each once");
    // Nothing holds a place that it does not use.
    let one_more = service.oneshot(request(Method::GET, "/health", &[], ""));
    timeout(HOUR, one_more).await.expect("a place").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_limit_inside_gets_its_permits_back() {
    let permits = Arc::new(Semaphore::new(1));
    let calls = Arc::default();
    let inner = ConcurrencyLimit::with_semaphore(slow_inner(&calls), Arc::clone(&permits));
    a_hundred_at_once(inner, &calls).await;
    assert_eq!(permits.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_inside_loses_nobody() {
    let permits = Arc::new(Semaphore::new(1));
    let calls = Arc::default();
    let limited = ConcurrencyLimit::with_semaphore(slow_inner(&calls), Arc::clone(&permits));
    a_hundred_at_once(Buffer::new(limited, 1), &calls).await;
    assert_eq!(permits.available_permits(), 1);
}

/// A caller that gives up while the store is being asked takes nothing with it.
#[tokio::test(start_paused = true)]
async fn a_dropped_answer_gives_its_permit_back() {
    for way in WAYS {
        let permits = Arc::new(Semaphore::new(1));
        let calls = Arc::default();
        let memory = MemoryStore::new();
        let id = live_session(&memory).await;
        let inner = ConcurrencyLimit::with_semaphore(slow_inner(&calls), Arc::clone(&permits));
        let store = Late(memory, A_WHILE);
        let mut service = McpSessionLayer::new(store)
            .with_paths(["/mcp"])
            .layer(inner);
        let ready = ServiceExt::<Request<Body>>::ready(&mut service)
            .await
            .unwrap();
        let mut answer = task::spawn(ready.call(way.request(&id)));
        assert_pending!(answer.poll());
        assert_eq!(permits.available_permits(), 0, "{way:?}");
        drop((answer, service));
        // What was sent inward already is seen through.
        tokio::time::sleep(HOUR).await;
        assert_eq!(permits.available_permits(), 1, "{way:?}");
    }
}

#[tokio::test]
async fn it_stands_in_a_tower_stack_without_a_router() {
    let layer = McpSessionLayer::new(MemoryStore::new());
    // Other bodies than axum's on both sides.
    let service = ServiceBuilder::new()
        .map_request(|request: Request<hyper::body::Incoming>| request)
        .concurrency_limit(8)
        .layer(layer)
        .timeout(HOUR)
        .service_fn(async |request: Request<Body>| {
            assert!(request.extensions().get::<Session>().is_none());
            let body = Full::new(Bytes::from_static(
                br#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            ));
            let mut response = Response::new(body);
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", json);
            Ok::<_, BoxError>(response)
        });
    let (mut client, server) = tokio::io::duplex(1 << 16);
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), TowerToHyperService::new(service)),
    );
    let head = |more: &str, body: &str| {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{more}\r\n{body}")
    };
    let dead = head("mcp-session-id: dead\r\n", PING);
    let birth = head("connection: close\r\n", INITIALIZE);
    client.write_all(dead.as_bytes()).await.unwrap();
    client.write_all(birth.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    let (refusal, birth) = answers.split_once("not found\"}}").unwrap();
    assert!(refusal.starts_with("HTTP/1.1 404 "), "{answers}");
    assert!(birth.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(birth.contains("\r\nmcp-session-id: "), "{answers}");
}

/// Compiles, and that is all.
#[test]
fn public_types_go_wherever_they_are_needed() {
    fn value<T: Debug + Send + Sync + 'static>() {}
    fn handle<T: Debug + Clone + Send + Sync + 'static>() {}
    fn future<T: Debug + Send + 'static>() {}

    handle::<McpSessionLayer>();
    handle::<McpSessionService<axum::Router>>();
    future::<ResponseFuture<std::future::Ready<()>, BoxError>>();
    handle::<Sessions>();
    value::<SessionEvents>();
    handle::<SessionEvent>();
    handle::<Session>();
    handle::<SessionRecord>();
    handle::<SessionId>();
    handle::<SessionRef>();
    handle::<InvalidSessionId>();
    handle::<InvalidSessionRef>();
    handle::<ClientInfo>();
    handle::<Issuer>();
    handle::<Owner>();
    handle::<Scope>();
    handle::<Principal>();
    handle::<Rejection>();
    handle::<RejectionKind>();
    value::<NoSession>();
    handle::<MemoryStore>();
    handle::<BoxSessionStore>();
    handle::<store::Terms>();
    handle::<store::AtLimit>();
    handle::<store::Created>();
    handle::<store::Limit>();
    handle::<store::Found>();
    handle::<store::Now>();
    handle::<store::EndReason>();
    handle::<store::FeedEvent>();
    handle::<store::SessionInfo>();
    handle::<store::SessionFilter>();
    value::<store::StoreError>();
    handle::<store::StoreErrorKind>();
}

/// An error of the inner service's own.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the inner service is broken")
    }
}

impl std::error::Error for Broken {}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
const MODERN_PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

const A_WHILE: Duration = Duration::from_millis(2);
const HOUR: Duration = Duration::from_secs(60 * 60);

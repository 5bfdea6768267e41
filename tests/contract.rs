//! The tower contract: readiness, back-pressure, errors, and what everybody may expect of the types.

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use mcp_session_layer::{
    BoxSessionStore, McpSessionLayer, McpSessionService, MemoryStore, Owner, Session, SessionId,
    SessionStore, Sessions,
    store::{Created, EndReason, Found, StoreError, Terms},
};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock;

type Mock = mock::Mock<Request<Body>, Response<Body>>;
type Handle = mock::Handle<Request<Body>, Response<Body>>;

fn behind<St: SessionStore>(store: St) -> (McpSessionService<Mock, St>, Handle) {
    let (inner, handle) = mock::pair();
    (McpSessionLayer::new(store).layer(inner), handle)
}

fn request(method: Method, id: Option<&str>, body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/mcp");
    if let Some(id) = id {
        request = request.header("mcp-session-id", id);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

fn initialize() -> Request<Body> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    request(Method::POST, None, body)
}

fn ping(id: &str) -> Request<Body> {
    let body = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
    request(Method::POST, Some(id), body)
}

#[tokio::test]
async fn it_is_ready_when_the_inner_service_is() {
    let (service, mut handle) = behind(MemoryStore::new());
    let mut service = tokio_test::task::spawn(service);
    let mut ready = |expected: bool| {
        let polled = service.enter(|cx, mut service| {
            <McpSessionService<Mock, MemoryStore> as Service<Request<Body>>>::poll_ready(
                &mut *service,
                cx,
            )
        });
        assert_eq!(polled.is_ready(), expected);
    };
    handle.allow(0);
    ready(false);
    handle.allow(1);
    ready(true);
}

#[tokio::test]
async fn a_refused_request_does_not_reach_the_inner_service() {
    for method in [Method::POST, Method::GET, Method::DELETE, Method::PUT] {
        let (mut service, mut handle) = behind(MemoryStore::new());
        handle.allow(1);
        let service: &mut McpSessionService<Mock, MemoryStore> =
            ServiceExt::<Request<Body>>::ready(&mut service)
                .await
                .unwrap();
        let request = request(method, Some("dead"), "");
        let mut answer = tokio_test::task::spawn(service.call(request));
        let Poll::Ready(answer) = answer.poll() else {
            panic!("a store in memory answers at once");
        };
        assert_eq!(answer.unwrap().status(), StatusCode::NOT_FOUND);
        assert!(
            tokio_test::task::spawn(handle.next_request())
                .poll()
                .is_pending()
        );
    }
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_through() {
    let store = MemoryStore::new();
    let id = born_in(&store).await;
    // At once, after a look-up that waits, at a birth and at a death.
    for (request, store) in [
        (ping(&id), BoxSessionStore::new(store.clone())),
        (ping(&id), BoxSessionStore::new(Later(store.clone()))),
        (initialize(), BoxSessionStore::new(store.clone())),
        (
            request(Method::DELETE, Some(&id), ""),
            BoxSessionStore::new(store.clone()),
        ),
    ] {
        let layer = McpSessionLayer::new(store).with_issued_ids_forwarded();
        let inner = service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>("broken") });
        assert_eq!(
            layer.layer(inner).oneshot(request).await.unwrap_err(),
            "broken"
        );
    }
}

/// A service that must be asked whether it is ready before each call, and says so by failing.
#[derive(Debug, Default)]
struct Strict {
    ready: bool,
}

impl Clone for Strict {
    /// A clone has not been asked.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request<Body>> for Strict {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(Body::empty());
        if !std::mem::take(&mut self.ready) {
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
        }
        std::future::ready(Ok(response))
    }
}

#[tokio::test]
async fn only_a_service_that_said_it_was_ready_is_called() {
    let store = Later(MemoryStore::new());
    let id = born_in(&store.0).await;
    let mut service = McpSessionLayer::new(store)
        .with_issued_ids_forwarded()
        .layer(Strict::default());
    for request in [
        request(Method::OPTIONS, None, ""),
        ping(&id),
        initialize(),
        request(Method::DELETE, Some(&id), ""),
    ] {
        let what = format!("{} {:?}", request.method(), request.headers().len());
        let ready = ServiceExt::<Request<Body>>::ready(&mut service)
            .await
            .unwrap();
        let answer = ready.call(request).await.unwrap();
        assert_ne!(answer.status(), StatusCode::IM_A_TEAPOT, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_pressure_loses_nobody() {
    let store = Later(MemoryStore::new());
    let id = born_in(&store.0).await;
    let served = Arc::new(AtomicUsize::new(0));
    let at_once = Arc::new(AtomicUsize::new(0));
    let inner = {
        let (served, at_once) = (Arc::clone(&served), Arc::clone(&at_once));
        service_fn(move |_: Request<Body>| {
            let (served, at_once) = (Arc::clone(&served), Arc::clone(&at_once));
            async move {
                assert_eq!(at_once.fetch_add(1, SeqCst), 0, "one at a time");
                tokio::time::sleep(Duration::from_millis(1)).await;
                at_once.fetch_sub(1, SeqCst);
                served.fetch_add(1, SeqCst);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        })
    };
    let service = ServiceBuilder::new()
        .layer(McpSessionLayer::new(store))
        .buffer(1)
        .concurrency_limit(1)
        .service(inner);
    let mut callers = JoinSet::new();
    for caller in 0..100 {
        let service = service.clone();
        // Every fifth is refused, and must give its place back.
        let (id, expected) = match caller % 5 {
            0 => ("dead".to_owned(), StatusCode::NOT_FOUND),
            _ => (id.clone(), StatusCode::OK),
        };
        callers.spawn(async move {
            let answer = service.oneshot(ping(&id)).await.unwrap();
            assert_eq!(answer.status(), expected);
        });
    }
    let all = async { while callers.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(30), all)
        .await
        .expect("nobody waits for ever");
    assert_eq!(served.load(SeqCst), 80);
}

#[tokio::test]
async fn a_stack_without_a_router_will_do() {
    let inner = service_fn(|request: Request<Body>| async move {
        let session = request.extensions().get::<Session>().is_some();
        Ok::<_, Infallible>(Response::new(Body::from(session.to_string())))
    });
    let store = MemoryStore::new();
    let id = born_in(&store).await;
    let service = ServiceBuilder::new()
        .layer(McpSessionLayer::new(store))
        .service(inner);
    let answer = service.oneshot(ping(&id)).await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), 64).await.unwrap();
    assert_eq!(body, "true");
}

#[tokio::test]
async fn a_panic_in_a_birth_is_the_callers() {
    let inner = service_fn(|_: Request<Body>| async {
        if true {
            panic!("inner")
        }
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let service = McpSessionLayer::new(MemoryStore::new()).layer(inner);
    let caller = tokio::spawn(service.oneshot(initialize()));
    let panic = caller.await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"inner"));
}

#[test]
fn what_is_shared_is_send_and_sync() {
    fn is<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    is::<McpSessionLayer<MemoryStore>>();
    is::<McpSessionService<Strict, MemoryStore>>();
    is::<Session>();
    is::<Sessions>();
    is::<MemoryStore>();
    is::<BoxSessionStore>();
    is::<mcp_session_layer::Rejection>();
    is::<mcp_session_layer::SessionEvent>();
    is::<SessionId>();
    is::<Found>();
    is::<Terms>();
    fn is_future<T: Send + std::fmt::Debug>() {}
    is_future::<
        mcp_session_layer::ResponseFuture<
            std::future::Ready<Result<Response<Body>, Infallible>>,
            Infallible,
            MemoryStore,
        >,
    >();
}

/// The id of a session in this store.
async fn born_in(store: &MemoryStore) -> String {
    let inner = service_fn(|_: Request<Body>| async {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let response = Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(response.body(Body::from(body)).unwrap())
    });
    let service = McpSessionLayer::new(store.clone()).layer(inner);
    let answer = service.oneshot(initialize()).await.unwrap();
    answer.headers()["mcp-session-id"]
        .to_str()
        .unwrap()
        .to_owned()
}

/// A store that answers later.
struct Later(MemoryStore);

impl SessionStore for Later {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        later().await;
        self.0.create(session, terms).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        later().await;
        self.0.load(id).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        later().await;
        self.0.touch(id, owner, idle).await
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        later().await;
        self.0.delete(id, reason).await
    }
}

async fn later() {
    let mut polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

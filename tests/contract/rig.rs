//! A layer around a mock, and the ways through it on which the inner service is called.

use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, request::Builder};
use mcp_session_layer::{MemoryStore, SessionId, SessionStore};
use tokio::time::timeout;
use tokio_test::assert_ready_ok;
use tower::{Layer as _, Service};
use tower_test::mock::{self, Mock};

use crate::support::{
    layer::{SessionService, layer},
    requests::{MODERN_PING, PING, delete, initialize, post, request},
    sessions::{fresh_session, insert, is_live, terms},
    store::TestStore,
    time::HOUR,
};

type Handle = mock::Handle<Request<Body>, Response<Body>>;
type Guarded = SessionService<Mock<Request<Body>, Response<Body>>>;

/// A layer around a mock, and a live session in its store.
pub(crate) struct Rig {
    pub(crate) service: mock::Spawn<Guarded>,
    pub(crate) inner: Handle,
    pub(crate) store: MemoryStore,
    pub(crate) id: SessionId,
}

impl Rig {
    /// Over a store that answers at once, or later.
    pub(crate) async fn new(pace: Pace) -> Self {
        let memory = MemoryStore::new();
        let layer = match pace {
            Pace::AtOnce => layer(memory.clone()),
            Pace::Later => layer(slow(&memory)),
        };
        let layer = layer.with_paths(["/mcp"]);
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
    pub(crate) fn call(&mut self, way: Way) -> <Guarded as Service<Request<Body>>>::Future {
        self.inner.allow(1);
        assert_ready_ok!(self.service.poll_ready::<Request<Body>>());
        let request = way.request(&self.id);
        self.service.call(request)
    }

    pub(crate) async fn is_live(&self) -> bool {
        is_live(&self.store, self.id.expose()).await
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    AtOnce,
    Later,
}

pub(crate) const PACES: [Pace; 2] = [Pace::AtOnce, Pace::Later];

/// A way through the layer on which the inner service is called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    Unguarded,
    Modern,
    ReadAndPassed,
    OnSession,
    Initialize,
    Delete,
}

pub(crate) const WAYS: [Way; 6] = [
    Way::Unguarded,
    Way::Modern,
    Way::ReadAndPassed,
    Way::OnSession,
    Way::Initialize,
    Way::Delete,
];

impl Way {
    pub(crate) fn request(self, id: &SessionId) -> Request<Body> {
        let head = |request: Builder, body: &str| request.body(body.to_owned().into()).unwrap();
        let modern = ("mcp-protocol-version", "2026-07-28");
        match self {
            Self::Unguarded => head(request("GET").uri("/health"), ""),
            Self::Modern => head(request("POST").header(modern.0, modern.1), PING),
            Self::ReadAndPassed => head(request("POST"), MODERN_PING),
            Self::OnSession => post(id.expose()),
            Self::Initialize => initialize(),
            Self::Delete => delete(id.expose()),
        }
    }
}

/// A session that the inner service issued, anonymous.
pub(crate) async fn live_session(store: &impl SessionStore) -> SessionId {
    let session = fresh_session();
    insert(store, &session, &terms()).await;
    session.id().clone()
}

/// The same sessions behind calls that take their time.
pub(crate) fn slow(memory: &MemoryStore) -> TestStore {
    let store = TestStore::over(memory);
    store.without_feed().with_delay(A_WHILE)
}

/// Polls the answer here, in the test's task, while the inner service does its part.
pub(crate) async fn served<F, T>(answer: F, inner: impl Future<Output = T>) -> (F::Output, T)
where
    F: Future,
{
    let both = async { tokio::join!(answer, inner) };
    timeout(HOUR, both).await.expect("answer and inner call")
}

pub(crate) const A_WHILE: Duration = Duration::from_millis(2);

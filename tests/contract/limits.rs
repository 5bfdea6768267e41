//! Inner services that take so many calls at a time and no more.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::body::Body;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mcp_session_layer::{MemoryStore, SessionId};
use tokio::{sync::Semaphore, time::timeout};
use tokio_test::{assert_pending, task};
use tower::{
    BoxError, Layer as _, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit, service_fn,
};

use crate::{
    rig::{A_WHILE, WAYS, Way, live_session, slow},
    support::{
        layer::layer,
        requests::{INITIALIZE, on},
        time::HOUR,
    },
};

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
    let store = slow(&memory);
    let service = layer(store).with_paths(["/mcp"]).layer(inner);
    let mut expected = 0;
    let mut callers = Vec::new();
    for nth in 0..100 {
        let id = live_session(&memory).await;
        let (request, status) = match WAYS.get(nth % 8) {
            Some(way) => (way.request(&id), StatusCode::OK),
            None => {
                let dead = SessionId::issue();
                let method = ["POST", "DELETE"][nth % 2];
                (on(dead.expose(), method), StatusCode::NOT_FOUND)
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
    let one_more = service.oneshot(Way::Unguarded.request(&SessionId::issue()));
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
        let store = slow(&memory);
        let mut service = layer(store).with_paths(["/mcp"]).layer(inner);
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

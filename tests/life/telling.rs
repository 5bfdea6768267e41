//! The inner service is told of every end that it did not see.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing,
};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use mcp_session_layer::MemoryStore;
use tokio::time::sleep;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    inner::{Inner, scripted},
    node::Node,
    support::{
        answers::id_of,
        layer::{SessionLayer, layer},
        requests::{initialize, post, with_header},
        rmcp_server::rmcp_server,
        sessions::reference,
        store::TestStore,
        time::{HOUR, MINUTE, SECOND, set_off},
    },
};

async fn send(app: &Router, request: Request) -> Response {
    app.clone().oneshot(request).await.unwrap()
}

/// Three sessions through an app, each ended behind the inner service's back.
async fn is_told(app: Router, layer: SessionLayer, inner: &Inner, path: &str) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        let created = send(&app, initialize()).await;
        assert_eq!(created.status(), 200);
        ids.push(id_of(&created).unwrap());
        created.into_body().collect().await.unwrap();
    }
    let older = with_header(post(&ids[0]), "mcp-protocol-version", "2025-06-18");
    assert_eq!(send(&app, older).await.status(), 200);
    let sessions = layer.sessions();
    assert!(sessions.end(&reference(&ids[0])).await.unwrap());
    sleep(SECOND).await;
    assert_eq!(inner.deleted(), [ids[0].clone()]);
    let (_, at, headers) = inner.deletes.lock()[0].clone();
    assert_eq!(at, path);
    assert_eq!(headers["host"], "localhost");
    assert_eq!(headers["mcp-protocol-version"], "2025-06-18");

    assert_eq!(sessions.end_all().await.unwrap(), 2);
    sleep(SECOND).await;
    assert_eq!(inner.deletes.lock().len(), 3);
    assert!(inner.sessions.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn around_a_service_on_a_route() {
    let inner = Arc::<Inner>::default();
    let layer = layer(MemoryStore::new());
    let app = Router::new().route_service("/mcp", layer.layer(inner.service()));
    is_told(app, layer, &inner, "/mcp").await;
}

#[tokio::test(start_paused = true)]
async fn around_a_nested_service() {
    let inner = Arc::<Inner>::default();
    let layer = layer(MemoryStore::new());
    let app = Router::new().nest_service("/mcp", layer.layer(inner.service()));
    is_told(app, layer, &inner, "/").await;
}

#[tokio::test(start_paused = true)]
async fn around_a_whole_router() {
    let inner = Arc::<Inner>::default();
    let layer = layer(MemoryStore::new()).with_paths(["/mcp"]);
    let app = Router::new().route_service("/mcp", inner.service());
    let guarded = layer.layer(app);
    is_told(
        Router::new().fallback_service(guarded),
        layer,
        &inner,
        "/mcp",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn as_a_layer_of_a_router_with_a_service() {
    let inner = Arc::<Inner>::default();
    let layer = layer(MemoryStore::new()).with_paths(["/mcp"]);
    let app = Router::new()
        .route_service("/mcp", inner.service())
        .layer(layer.clone());
    is_told(app, layer, &inner, "/mcp").await;
}

#[tokio::test(start_paused = true)]
async fn as_a_layer_over_method_handlers_with_the_router_named() {
    async fn handle(State(inner): State<Arc<Inner>>, request: Request) -> Response {
        inner.serve(request).await
    }
    let inner = Arc::<Inner>::default();
    let mcp: Router = Router::new()
        .route("/mcp", routing::post(handle).delete(handle))
        .with_state(Arc::clone(&inner));
    let guard = layer(MemoryStore::new())
        .with_paths(["/mcp"])
        .with_inner(mcp.clone());
    is_told(mcp.layer(guard.clone()), guard, &inner, "/mcp").await;

    let inner = Arc::<Inner>::default();
    let mcp: Router = Router::new().route(
        "/mcp",
        routing::delete_service(inner.service()).post_service(inner.service()),
    );
    let guard = layer(MemoryStore::new())
        .with_paths(["/mcp"])
        .with_inner(mcp.clone());
    is_told(mcp.layer(guard.clone()), guard, &inner, "/mcp").await;
}

#[tokio::test(start_paused = true)]
async fn it_is_not_told_of_what_it_saw_and_other_nodes_are() {
    let store = TestStore::default();
    let (here, there, stranger) = (Node::new(&store), Node::new(&store), Node::new(&store));
    stranger.initialize().await;
    let id = here.initialize().await;
    there.post(&id).await;
    here.delete(&id).await;
    sleep(MINUTE).await;
    assert_eq!(
        here.inner.deleted(),
        std::slice::from_ref(&id),
        "the client's own"
    );
    assert_eq!(there.inner.deleted(), [id], "it served it");
    assert!(stranger.inner.deleted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_layer_s_own_is_none_of_its_business() {
    let inner = Arc::<Inner>::default();
    let layer = layer(MemoryStore::new());
    let deletes = Arc::clone(&inner);
    let app = layer.layer(tower::service_fn(move |request: Request| {
        let deletes = Arc::clone(&deletes);
        async move {
            let mut response = deletes.serve(request).await;
            response.headers_mut().remove("mcp-session-id");
            Ok::<_, std::convert::Infallible>(response)
        }
    }));
    let created = app.clone().oneshot(initialize()).await.unwrap();
    assert!(id_of(&created).is_some());
    layer.sessions().end_all().await.unwrap();
    sleep(HOUR).await;
    assert!(inner.deleted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_is_told_again_until_it_listens() {
    for (name, failures, told) in [
        ("failed twice", vec![500, 503], 3),
        ("busy", vec![429, 408], 3),
        ("away for over half an hour", vec![503; 30], 31),
        ("refused: another try would change nothing", vec![403], 1),
        ("does not know deletes", vec![405], 1),
    ] {
        let node = Node::new(&TestStore::default());
        let id = node.initialize().await;
        *node.inner.answers.lock() = failures;
        node.layer.sessions().end(&reference(&id)).await.unwrap();
        sleep(HOUR).await;
        assert_eq!(node.inner.deletes.lock().len(), told, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_told_again() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    *node.inner.delete_takes.lock() = HOUR;
    node.layer.sessions().end(&reference(&id)).await.unwrap();
    sleep(MINUTE).await;
    assert!(node.inner.deleted().is_empty());
    *node.inner.delete_takes.lock() = Duration::ZERO;
    sleep(MINUTE).await;
    assert_eq!(node.inner.deleted(), [id]);
}

#[tokio::test(start_paused = true)]
async fn many_ends_at_once_are_told_a_few_at_a_time_none_dropped() {
    const SESSIONS: usize = 10_000;
    let store = TestStore::default();
    let node = Node::new(&store);
    for _ in 0..SESSIONS {
        node.initialize().await;
    }
    *node.inner.delete_takes.lock() = Duration::from_millis(10);
    sleep(6 * MINUTE).await;
    assert!(node.inner.sessions.lock().is_empty());
    assert_eq!(node.inner.deletes.lock().len(), SESSIONS);
    let most = node.inner.most_deleting.load(SeqCst);
    assert!((2..=16).contains(&most), "{most} at a time");
}

#[tokio::test(start_paused = true)]
async fn clients_that_hang_up_leave_nothing_behind() {
    const CLIENTS: usize = 1_000;
    let store = TestStore::default();
    let node = Node::new(&store);
    for nth in 0..CLIENTS {
        let how = if nth % 2 == 0 { "wait" } else { "wait, stream" };
        let mut call = Box::pin(node.send(scripted(initialize(), how)));
        assert!(futures_util::poll!(&mut call).is_pending());
        if nth % 3 > 0 {
            node.inner.until_waiting(nth + 1).await;
        }
        drop(call);
        // One that was not sent inward creates nothing.
        node.inner.waiting.store(nth + 1, SeqCst);
    }
    node.inner.gate.add_permits(CLIENTS);
    sleep(SECOND).await;
    let created = node.inner.sessions.lock().len();
    assert!(
        created >= CLIENTS * 2 / 3,
        "{created} were created all the same"
    );
    let recorded = node.layer.sessions().count().await.unwrap();
    assert_eq!(recorded, created as u64);
    sleep(6 * MINUTE).await;
    assert!(node.inner.sessions.lock().is_empty());
    assert_eq!(node.inner.bodies(), 0);
}

#[tokio::test(start_paused = true)]
async fn ids_handed_out_where_they_should_not_be_are_taken_back() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    for what in ["stray", "stray, stream"] {
        let answer = node.send(scripted(post(&id), what)).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(id_of(&answer), None);
    }
    // Also when the session ended meanwhile.
    let mut late = Box::pin(node.send(scripted(post(&id), "wait, stray")));
    set_off(&mut late).await;
    node.layer.sessions().end_all().await.unwrap();
    node.inner.gate.add_permits(1);
    assert_eq!(id_of(&late.await), None);
    sleep(SECOND).await;
    assert!(node.inner.sessions.lock().is_empty());
    assert_eq!(node.inner.deletes.lock().len(), 4);
}

/// rmcp itself, which checks `Host`, issues ids and keeps its sessions for ever when told so.
#[tokio::test(start_paused = true)]
async fn rmcp_s_sessions_are_gone_when_ours_are() {
    // 10,000 take half a minute without optimisation.
    const SESSIONS: usize = 2_000;
    let (rmcp, manager) = rmcp_server(Default::default());
    let layer = layer(MemoryStore::new());
    let service = layer.layer(rmcp);
    for nth in 0..SESSIONS {
        let mut call = Box::pin(service.clone().oneshot(initialize()));
        if nth % 10 == 0 {
            // This one hangs up.
            let _ = call.as_mut().now_or_never();
            continue;
        }
        assert_eq!(call.await.unwrap().status(), 200, "{nth}");
    }
    sleep(SECOND).await;
    let open = manager.sessions.read().await.len();
    assert!(open >= SESSIONS * 9 / 10, "{open} sessions at rmcp");
    assert_eq!(layer.sessions().count().await.unwrap(), open as u64);
    sleep(6 * MINUTE).await;
    assert_eq!(layer.sessions().count().await.unwrap(), 0);
    assert_eq!(manager.sessions.read().await.len(), 0);
}

//! Named values of a session: where they come from, who sees them, and when.

#[path = "support/mod.rs"]
mod support;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use mcp_session_layer::{
    CachedStore, Change, McpSessionService, RejectionKind, Session, SessionStore, Sessions, Values,
    store::StoreErrorKind,
};
use tower::{Layer as _, service_fn, util::BoxCloneSyncService};

use support::{
    answers::{RESULT, send},
    layer::{SessionLayer, layer, user_header},
    requests::{as_user, get, initialize, post, with_header},
    store::TestStore,
    time::{HOUR, settled},
};
use tokio::time::sleep;

type Inner = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A layer over a service that shows in each answer what values its session has.
struct Node {
    service: McpSessionService<Inner>,
    sessions: Sessions,
}

impl Node {
    fn new(store: impl SessionStore) -> Self {
        Self::with(store, |layer| layer)
    }

    fn with(store: impl SessionStore, set: impl FnOnce(SessionLayer) -> SessionLayer) -> Self {
        let layer = set(layer(store).with_principal(user_header));
        Self {
            service: layer.layer(BoxCloneSyncService::new(service_fn(inner))),
            sessions: layer.sessions(),
        }
    }

    /// A new session to which the inner service gives these values, as JSON.
    async fn initialize(&self, values: &str) -> String {
        let request = with_header(initialize(), "x-give", values);
        send(&self.service, request).await.id()
    }

    async fn values(&self, id: &str) -> String {
        let answer = send(&self.service, post(id)).await;
        assert_eq!(answer.status, 200);
        answer.header("x-values").unwrap().to_owned()
    }
}

async fn inner(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::from(RESULT));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    if let Some(session) = request.extensions().get::<Session>() {
        let shown = HeaderValue::from_str(&shown(&session.values())).unwrap();
        response.headers_mut().insert("x-values", shown);
        response.extensions_mut().insert(session.clone());
    }
    if let Some(values) = request.headers().get("x-give") {
        let values: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(values.as_bytes()).unwrap();
        let values = values
            .iter()
            .map(|(name, value)| (name, value.as_str().unwrap()));
        response
            .extensions_mut()
            .insert(Values::of(values).unwrap());
    }
    Ok(response)
}

fn shown(values: &Values) -> String {
    let pairs: Vec<_> = values
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(" ")
}

/// The live handle that a request gets.
async fn handle(node: &Node, id: &str) -> Session {
    use tower::ServiceExt as _;

    let Ok(response) = node.service.clone().oneshot(post(id)).await;
    response.extensions().get::<Session>().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_gives_them_with_its_answer() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let (here, there) = (Node::new(store.clone()), Node::new(store));
        let id = here.initialize(r#"{"tenant":"acme","locale":"de"}"#).await;
        for node in [&here, &there] {
            assert_eq!(node.values(&id).await, "locale=de tenant=acme");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_request_gives_them_and_the_inner_service_has_the_last_word() {
    let node = Node::with(TestStore::default(), |layer| {
        layer.with_values(|parts| {
            let tenant = parts.headers.get("x-tenant").ok_or("no tenant")?;
            Ok(Values::of([
                ("tenant", tenant.to_str()?),
                ("locale", "en"),
            ])?)
        })
    });
    let tenant = |request| with_header(request, "x-tenant", "acme");
    let id = send(&node.service, tenant(initialize())).await.id();
    assert_eq!(node.values(&id).await, "locale=en tenant=acme");
    let given = with_header(tenant(initialize()), "x-give", r#"{"locale":"de"}"#);
    let id = send(&node.service, given).await.id();
    assert_eq!(node.values(&id).await, "locale=de tenant=acme");
    let refused = send(&node.service, initialize()).await;
    refused.assert_refused(RejectionKind::ValuesFailed, 500, "Internal server error");
}

#[tokio::test(start_paused = true)]
async fn too_many_together_open_no_session() {
    let store = TestStore::default();
    let node = Node::with(store.clone(), |layer| {
        layer.with_values(|_| Ok(Values::of((0..16).map(|nth| (nth.to_string(), "")))?))
    });
    let request = with_header(initialize(), "x-give", r#"{"one":"more"}"#);
    let refused = send(&node.service, request).await;
    refused.assert_refused(RejectionKind::ValuesFailed, 500, "Internal server error");
    assert_eq!(node.sessions.count().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_shows_at_once_on_all_nodes_with_a_feed() {
    let store = TestStore::default().remote().without_expire();
    let (here, there) = (Node::new(store.clone()), Node::new(store));
    let id = here.initialize(r#"{"upstream":"a"}"#).await;
    let (mine, theirs) = (handle(&here, &id).await, handle(&there, &id).await);
    let before = mine.values();
    let change = Change::new().set("upstream", "b");
    let changed = here.sessions.change(&mine, &change).await.unwrap();
    assert_eq!(shown(&changed.unwrap()), "upstream=b");
    assert_eq!(shown(&mine.values()), "upstream=b");
    assert_eq!(shown(&before), "upstream=a", "a snapshot stays as it is");
    settled().await;
    // Without a request there.
    assert_eq!(shown(&theirs.values()), "upstream=b");
}

#[tokio::test(start_paused = true)]
async fn without_a_feed_a_change_shows_with_the_next_request() {
    let store = TestStore::default()
        .remote()
        .without_feed()
        .without_expire();
    let (here, there) = (Node::new(store.clone()), Node::new(store));
    let id = here.initialize(r#"{"upstream":"a"}"#).await;
    let (mine, theirs) = (handle(&here, &id).await, handle(&there, &id).await);
    let change = Change::new().set("upstream", "b").remove("none");
    here.sessions.change(&mine, &change).await.unwrap();
    settled().await;
    assert_eq!(shown(&theirs.values()), "upstream=a");
    assert_eq!(there.values(&id).await, "upstream=b");
    assert_eq!(shown(&theirs.values()), "upstream=b", "the same handle");
}

#[tokio::test(start_paused = true)]
async fn a_cache_hears_of_a_change() {
    let store = TestStore::default().remote().without_expire();
    let cached = || Arc::new(CachedStore::new(store.clone(), HOUR));
    let (here, there) = (Node::new(cached()), Node::new(cached()));
    let id = here.initialize(r#"{"upstream":"a"}"#).await;
    assert_eq!(there.values(&id).await, "upstream=a");
    store.take_calls();
    assert_eq!(there.values(&id).await, "upstream=a");
    assert!(store.take_calls().is_empty(), "it is served from memory");
    let change = Change::new().set("upstream", "b");
    let mine = handle(&here, &id).await;
    here.sessions.change(&mine, &change).await.unwrap();
    assert_eq!(here.values(&id).await, "upstream=b");
    settled().await;
    assert_eq!(there.values(&id).await, "upstream=b");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_what_is_over_or_too_much_is_said_to_be_so() {
    let store = TestStore::default().remote();
    let node = Node::with(store, |layer| {
        layer.with_idle_timeout(Duration::from_secs(60))
    });
    let id = node.initialize("{}").await;
    let session = handle(&node, &id).await;
    let long = Change::new().set("a", "x".repeat(Values::MAX_BYTES));
    let error = node.sessions.change(&session, &long).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert_eq!(node.values(&id).await, "");
    sleep(Duration::from_secs(61)).await;
    let change = Change::new().set("a", "");
    let changed = node.sessions.change(&session, &change).await.unwrap();
    assert_eq!(changed, None);
}

/// Who may not use a session learns nothing of it.
#[tokio::test(start_paused = true)]
async fn they_are_shown_to_the_owner_alone_and_in_no_log() {
    let node = Node::new(TestStore::default());
    let give = with_header(initialize(), "x-give", r#"{"tenant":"acme"}"#);
    let id = send(&node.service, as_user(give, "ann")).await.id();
    let stranger = send(&node.service, as_user(get(&id), "bob")).await;
    assert_eq!((stranger.status, stranger.header("x-values")), (404, None));
    let owner = send(&node.service, as_user(post(&id), "ann")).await;
    assert_eq!(owner.header("x-values"), Some("tenant=acme"));
    let listed = node.sessions.list(None, 9).await.unwrap();
    assert_eq!(shown(&listed[0].record.values), "tenant=acme");
    assert!(!format!("{listed:?}").contains("acme"));
}

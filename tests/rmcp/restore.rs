//! What the requests of a session wait for while it is restored, and what they are told if it cannot be.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_util::{future::join_all, stream};
use mcp_session_layer::{
    MemoryStore, Owner, RejectionKind, Session, SessionId, SessionStore,
    store::{Created, EndReason, Found, StoreError, StoreErrorKind, Terms},
};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    node::{Node, call, text},
    support::{
        requests::{delete, get, post},
        store::{AWAY, Fault, TestStore},
        time::SECOND,
    },
};

/// A store as others are: what `touch` answers is not enough to restore a session.
#[derive(Clone, Default)]
struct Remote {
    store: TestStore,
    /// The session ends just before it is loaded.
    ends_first: Arc<AtomicBool>,
}

impl SessionStore for Remote {
    async fn create(&self, session: &Session, terms: &Terms) -> Result<Created, StoreError> {
        self.store.create(session, terms).await
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        if self.ends_first.load(SeqCst) {
            self.store.memory.delete(id, EndReason::Deleted).await?;
        }
        self.store.load(id).await
    }

    async fn touch(
        &self,
        id: &SessionId,
        owner: &Owner,
        idle: Duration,
    ) -> Result<Option<Found>, StoreError> {
        let mut found = self.store.touch(id, owner, idle).await?;
        if let Some(found) = &mut found {
            let mut record = found.session.record();
            record.initialize_params = None;
            found.session = Session::new(id.clone(), record);
        }
        Ok(found)
    }

    async fn delete(&self, id: &SessionId, reason: EndReason) -> Result<bool, StoreError> {
        self.store.delete(id, reason).await
    }
}

fn nodes() -> (Remote, Node, Arc<Node>) {
    let store = Remote::default();
    let (a, b) = (Node::new(&store), Node::new(&store));
    (store, a, Arc::new(b))
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_503_and_the_next_request_tries_again() {
    for fault in [AWAY, Fault::Hangs, Fault::Fails(StoreErrorKind::Failed)] {
        let (store, a, b) = nodes();
        let id = a.initialize("alice").await;
        store.store.disturb(&["load"], fault);
        let requests = [post(&id), get(&id), post(&id)];
        let answers = requests.map(|request| b.send("alice", request));
        for answer in join_all(answers).await {
            answer.assert_unavailable(RejectionKind::StoreUnavailable);
        }
        assert_eq!(b.holds().await, 0);
        store.store.recover();
        assert_eq!(b.ping("alice", &id).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_moment_is_waited_for() {
    let (store, a, b) = nodes();
    let id = a.initialize("alice").await;
    store
        .store
        .disturb(&["load"], Fault::FailsUntil(Instant::now() + SECOND));
    assert_eq!(b.ping("alice", &id).await, 200);
}

#[tokio::test(start_paused = true)]
async fn the_store_is_asked_once_for_all() {
    let (store, a, b) = nodes();
    let id = a.initialize("alice").await;
    store.store.take_calls();
    let answers = (0..9).map(|_| b.ping("alice", &id));
    assert_eq!(join_all(answers).await, [200; 9]);
    assert_eq!(store.store.take_counts()["load"], 1);
    assert_eq!(b.service.restored.load(SeqCst), 1);
    assert_eq!(b.service.created.load(SeqCst), 0);
}

#[tokio::test]
async fn a_session_that_ends_before_it_is_restored_is_404() {
    let (store, a, b) = nodes();
    let id = a.initialize("alice").await;
    store.ends_first.store(true, SeqCst);
    let answers = [post(&id), post(&id)].map(|request| b.send("alice", request));
    for answer in join_all(answers).await {
        answer.assert_not_found(RejectionKind::Unknown);
    }
    assert_eq!(b.holds().await, 0);
}

#[tokio::test]
async fn a_session_that_ends_while_it_is_restored_is_404_and_left_nowhere() {
    let store = MemoryStore::new();
    let (a, b) = (Node::new(&store), Arc::new(Node::new(&store)));
    let id = a.initialize("alice").await;
    b.service.slow.store(300, SeqCst);
    let restored = tokio::spawn({
        let (b, id) = (Arc::clone(&b), id.clone());
        async move { b.send("alice", post(&id)).await }
    });
    while b.service.restored.load(SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(a.send("alice", delete(&id)).await.status, 202);
    restored
        .await
        .unwrap()
        .assert_not_found(RejectionKind::Ended);
    b.until_it_holds(0).await;
}

#[tokio::test]
async fn an_error_of_the_service_stays_what_it_is() {
    let (_, a, b) = nodes();
    let id = a.initialize("alice").await;
    b.service.fails.store(true, SeqCst);
    for _ in 0..2 {
        let answers = (0..5).map(|_| b.send("alice", post(&id)));
        for answer in join_all(answers).await {
            assert_eq!((answer.status, answer.kind()), (500, None));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    // Nothing of it is taken for a session afterwards.
    b.service.fails.store(false, SeqCst);
    assert_eq!(b.ping("alice", &id).await, 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_breaks_nothing_off() {
    let (_, a, b) = nodes();
    let id = a.initialize("alice").await;
    b.service.slow.store(300, SeqCst);
    let first = tokio::spawn({
        let (b, id) = (Arc::clone(&b), id.clone());
        async move { b.ping("alice", &id).await }
    });
    while b.service.restored.load(SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let answers = (0..5).map(|_| b.ping("alice", &id));
    assert_eq!(join_all(answers).await, [200; 5]);
    assert_eq!(b.service.restored.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_another_s_call() {
    let (_, a, b) = nodes();
    let id = a.initialize("alice").await;
    let began = Instant::now();
    let sleeping = call(&id, "sleep", json!({ "milliseconds": 1000 }));
    let (head, body) = sleeping.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let calls = (0..10).map(|number| {
        let body = String::from_utf8(body.to_vec()).unwrap();
        let body = body.replace(r#""id":7"#, &format!(r#""id":{number}"#));
        b.send(
            "alice",
            http::Request::from_parts(head.clone(), body.into()),
        )
    });
    for answer in join_all(calls).await {
        assert_eq!(text(&answer), "slept");
    }
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
}

/// What does not come to its end: a body, and a restore.
#[tokio::test(start_paused = true)]
async fn nothing_that_hangs_holds_the_others_for_ever() {
    let (_, a, b) = nodes();
    let id = a.initialize("alice").await;
    let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let mut endless = post(&id);
    *endless.body_mut() = never;
    let endless = tokio::spawn({
        let b = Arc::clone(&b);
        async move { b.open("alice", endless).await }
    });
    sleep(SECOND).await;
    assert_eq!(b.ping("alice", &id).await, 200);
    assert!(!endless.is_finished());
    endless.abort();

    let other = a.initialize("alice").await;
    b.service.slow.store(60_000, SeqCst);
    let began = Instant::now();
    let answer = b.send("alice", post(&other)).await;
    answer.assert_unavailable(RejectionKind::Busy);
    assert!(began.elapsed() < 11 * SECOND);
    assert_eq!(b.ping("alice", &id).await, 200);
}

#[tokio::test]
async fn a_refusal_looks_as_the_layer_s_own_do() {
    let store = Remote::default();
    let a = Node::new(&store);
    let set = |layer: mcp_session_layer::McpSessionLayer| {
        layer.with_rejection(|rejection| {
            let mut response = http::Response::new(Body::from("as we say"));
            *response.status_mut() = rejection.status();
            response
        })
    };
    let b = Node::with(&store, LocalSessionManager::default(), set, None);
    let id = a.initialize("alice").await;
    let dead = b.send("alice", post("dead")).await;
    store.ends_first.store(true, SeqCst);
    let ended = b.send("alice", post(&id)).await;
    assert_eq!((ended.status, &*ended.body), (404, "as we say"));
    assert_eq!(ended.wire(), dead.wire());
}

#[tokio::test]
async fn a_session_that_rmcp_gave_up_is_restored_again() {
    let store = MemoryStore::new();
    let mut manager = LocalSessionManager::default();
    manager.session_config.keep_alive = Some(Duration::from_millis(100));
    let node = Node::with(&store, manager, |layer| layer, None);
    let id = node.initialize("alice").await;
    for _ in 0..3 {
        node.until_it_holds(0).await;
        let answers = (0..3).map(|_| node.ping("alice", &id));
        assert_eq!(join_all(answers).await, [200; 3]);
    }
    assert_eq!(node.service.restored.load(SeqCst), 3);
}

#[tokio::test]
async fn without_the_parameters_nothing_is_restored() {
    let store = MemoryStore::new();
    let forgetful = crate::support::layer::layer(store.clone());
    let (mcp, _) = crate::support::rmcp_server::rmcp_server(Default::default());
    let app = tower::Layer::layer(&forgetful, mcp);
    let id = crate::support::answers::send(&app, crate::support::requests::initialize())
        .await
        .id();
    let b = Node::with(
        &store,
        LocalSessionManager::default(),
        |layer| layer.with_principal(|_| Ok(None)),
        None,
    );
    assert_eq!(b.ping("nobody", &id).await, 404);
    assert_eq!(b.holds().await, 0);
}

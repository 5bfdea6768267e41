//! Limits, and logins.

use std::num::NonZeroU64;

use mcp_session_layer::{RejectionKind, store::SessionStore as _};
use tokio::time::sleep;

use crate::{
    inner::scripted,
    node::Node,
    reading::{ends_within, stays_silent},
    support::{
        answers::{id_of, kind_of},
        log::Log,
        requests::{as_user, get, initialize, post},
        sessions::{owner, session_id},
        store::TestStore,
        time::{HOUR, MINUTE, SECOND, set_off},
    },
};

fn number(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_a_newcomer_is_refused() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| layer.with_max_sessions(number(2)));
    let first = node.initialize().await;
    node.initialize().await;
    for _ in 0..3 {
        let refused = node.send(initialize()).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        assert_eq!(kind_of(&refused), Some(RejectionKind::Full));
        assert_eq!(id_of(&refused), None);
        sleep(2 * SECOND).await;
    }
    node.delete(&first).await;
    node.initialize().await;
    sleep(SECOND).await;
    assert_eq!(
        node.inner.sessions.lock().len(),
        2,
        "no session but those in the store"
    );
}

#[tokio::test(start_paused = true)]
async fn each_principal_has_a_limit_and_anonymous_callers_have_none() {
    let node = Node::with(&TestStore::default(), |layer| {
        layer.with_max_sessions_per_principal(number(2))
    });
    for user in ["alice", "bob"] {
        node.initialize_as(user).await;
        node.initialize_as(user).await;
        let refused = node.send(as_user(initialize(), user)).await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "30");
    }
    for _ in 0..5 {
        node.initialize().await;
    }
}

#[tokio::test(start_paused = true)]
async fn eviction_takes_unused_sessions_first_then_the_one_longest_untouched() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| layer.with_max_sessions(number(10)));
    let mut touched = Vec::new();
    for _ in 0..8 {
        let id = node.initialize().await;
        node.post(&id).await;
        touched.push(id);
        sleep(MINUTE).await;
    }
    // The oldest is in use, so it is never the one.
    let _stream = node.open(&touched[0]).await;
    sleep(41 * MINUTE).await;
    let mut all_unused = Vec::new();
    for _ in 0..2 {
        all_unused.push(node.initialize().await);
        // So that it is known which of them is the longest untouched.
        sleep(SECOND).await;
    }
    sleep(MINUTE).await;

    let live = async |id: &String| store.peek(id).await.is_some();
    for unused in &all_unused {
        assert!(live(unused).await);
        let newcomer = node.initialize().await;
        assert_eq!(node.post(&newcomer).await, 200);
        assert!(!live(unused).await, "an unused one is the first to go");
    }
    for next in &touched[1..] {
        assert!(live(next).await);
        let newcomer = node.initialize().await;
        assert_eq!(node.post(&newcomer).await, 200);
        assert!(!live(next).await, "the one longest untouched");
    }
    assert!(live(&touched[0]).await, "in use");
    // All others were touched just now.
    assert_eq!(node.send(initialize()).await.status(), 503);
    sleep(SECOND).await;
    assert_eq!(node.inner.sessions.lock().len(), 10);
    assert_eq!(node.layer.sessions().count().await.unwrap(), 10);
}

#[tokio::test(start_paused = true)]
async fn sessions_in_use_are_never_evicted() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| layer.with_max_sessions(number(10)));
    let mut streams = Vec::new();
    for _ in 0..10 {
        let id = node.initialize().await;
        streams.push((node.open(&id).await, id));
    }
    for _ in 0..50 {
        sleep(7 * MINUTE).await;
        assert_eq!(node.send(initialize()).await.status(), 503);
    }
    for (_, id) in &streams {
        assert_eq!(node.post(id).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_principal_s_eviction_is_among_its_own() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| {
        layer.with_max_sessions_per_principal(number(1))
    });
    let (bob, alice) = (
        node.initialize_as("bob").await,
        node.initialize_as("alice").await,
    );
    sleep(MINUTE).await;
    node.initialize_as("alice").await;
    assert!(store.peek(&alice).await.is_none());
    assert!(store.peek(&bob).await.is_some());
}

/// They were idle for longer than anybody who is evicted, and stay all the same.
#[tokio::test(start_paused = true)]
async fn a_principal_s_session_never_goes_for_somebody_else_s() {
    let store = TestStore::default();
    let node = Node::with(&store, |layer| {
        layer
            .with_max_sessions(number(2))
            .with_reserve_for_principals(0)
    });
    let mut ids = Vec::new();
    for user in ["alice", "bob"] {
        ids.push(node.initialize_as(user).await);
        node.send(as_user(post(&ids[ids.len() - 1]), user)).await;
    }
    sleep(50 * MINUTE).await;
    for newcomer in [initialize(), as_user(initialize(), "carol")] {
        assert_eq!(node.send(newcomer).await.status(), 503);
    }
    for (id, user) in ids.iter().zip(["alice", "bob"]) {
        assert_eq!(node.send(as_user(post(id), user)).await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn operators_hear_of_a_limit_at_once_and_then_each_minute() {
    let log = Log::default();
    let _listening = log.listen();
    let node = Node::with(&TestStore::default(), |layer| {
        layer
            .with_max_sessions(number(1))
            .with_reserve_for_principals(0)
    });
    let said = || {
        let lines = log.take_lines("a limit on new sessions is met");
        lines
            .iter()
            .map(|line| line.split_once("limit=").expect("which limit").1.to_owned())
            .collect::<Vec<_>>()
    };
    node.initialize().await;
    for _ in 0..3 {
        assert_eq!(node.send(initialize()).await.status(), 503);
    }
    let setting = r#""sessions in all""#;
    let expected = format!(r#"{setting} refused=1 evicted=0 setting="with_max_sessions""#);
    assert_eq!(said(), [expected]);
    sleep(MINUTE).await;
    node.initialize().await;
    let expected = format!(r#"{setting} refused=2 evicted=1 setting="with_max_sessions""#);
    assert_eq!(said(), [expected]);
}

fn with_claims(store: &TestStore) -> Node {
    Node::with(store, |layer| layer.with_claim_on_login())
}

#[tokio::test(start_paused = true)]
async fn a_login_takes_the_session_over_and_ends_what_was_open() {
    for store in [TestStore::default(), TestStore::default().remote()] {
        let node = with_claims(&store);
        let id = node.initialize().await;
        let stream = node.open(&id).await;
        assert_eq!(node.send(as_user(post(&id), "alice")).await.status(), 200);
        ends_within(SECOND, stream).await;
        assert_eq!(node.inner.bodies(), 0);
        assert_eq!(store.principal_of(&id).await.as_deref(), Some("alice"));
        assert_eq!(node.post(&id).await, 404, "no longer anonymous");
        assert_eq!(
            node.send(as_user(post(&id), "bob")).await.status(),
            404,
            "once"
        );
        let mut own = node.send(as_user(get(&id), "alice")).await.into_body();
        assert!(stays_silent(&mut own, HOUR).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_let_in_before_the_login_gets_no_stream_after_it() {
    let store = TestStore::default();
    let node = with_claims(&store);
    let id = node.initialize().await;
    let mut answer = Box::pin(node.send(scripted(get(&id), "wait")));
    set_off(&mut answer).await;
    node.send(as_user(post(&id), "alice")).await;
    node.inner.gate.add_permits(1);
    assert_eq!(answer.await.status(), 404);
    assert_eq!(node.inner.bodies(), 0);
    assert_eq!(node.send(as_user(post(&id), "alice")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_login_elsewhere_ends_what_was_open_within_a_beat() {
    let store = TestStore::default();
    let (here, there) = (with_claims(&store), with_claims(&store));
    let id = here.initialize().await;
    let stream = here.open(&id).await;
    there.send(as_user(post(&id), "alice")).await;
    ends_within(20 * MINUTE, stream).await;
    assert_eq!(here.post(&id).await, 404);
    assert_eq!(here.send(as_user(post(&id), "alice")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_a_session_is_lost_at_login() {
    let store = TestStore::default();
    let node = Node::new(&store);
    let id = node.initialize().await;
    assert_eq!(node.send(as_user(post(&id), "alice")).await.status(), 404);
    assert_eq!(node.post(&id).await, 200);
    // The store could have.
    let (id, alice) = (session_id(&id), owner(Some("alice")));
    let claimed = store.memory.claim(&id, &alice, HOUR);
    assert!(claimed.await.unwrap().is_some());
}

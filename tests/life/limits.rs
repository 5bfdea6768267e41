//! Limits, and logins.

use std::num::NonZeroU64;

use mcp_session_layer::{RejectionKind, store::SessionStore as _};
use tokio::time::sleep;

use crate::support::*;

fn number(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_a_newcomer_is_refused() {
    let store = Spy::default();
    let node = Node::with(&store, |layer| layer.with_max_sessions(number(2)));
    let first = node.born().await;
    node.born().await;
    for _ in 0..3 {
        let refused = node.send(initialize()).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        assert_eq!(kind_of(&refused), Some(RejectionKind::Full));
        assert_eq!(id_of(&refused), None);
        sleep(2 * SECOND).await;
    }
    node.delete(&first).await;
    node.born().await;
    sleep(SECOND).await;
    assert_eq!(
        node.inner.sessions.lock().len(),
        2,
        "no session but those in the store"
    );
}

#[tokio::test(start_paused = true)]
async fn each_principal_has_a_limit_and_nobody_has_none() {
    let node = Node::with(&Spy::default(), |layer| {
        layer.with_max_sessions_per_principal(number(2))
    });
    for user in ["alice", "bob"] {
        node.born_of(user).await;
        node.born_of(user).await;
        let refused = node.send(by(initialize(), user)).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
    }
    for _ in 0..5 {
        node.born().await;
    }
}

#[tokio::test(start_paused = true)]
async fn eviction_takes_newborns_first_then_the_one_longest_untouched() {
    let store = Spy::default();
    let node = Node::with(&store, |layer| {
        layer.with_max_sessions(number(10)).with_eviction()
    });
    let mut touched = Vec::new();
    for _ in 0..8 {
        let id = node.born().await;
        node.call(&id).await;
        touched.push(id);
        sleep(MINUTE).await;
    }
    // The oldest is in use, so it is never the one.
    let _stream = node.open(&touched[0]).await;
    sleep(41 * MINUTE).await;
    let mut newborns = Vec::new();
    for _ in 0..2 {
        newborns.push(node.born().await);
        // So that it is known which of them is the longest untouched.
        sleep(SECOND).await;
    }
    sleep(MINUTE).await;

    let live = async |id: &String| store.look(id).await.is_some();
    for newborn in &newborns {
        assert!(live(newborn).await);
        let newcomer = node.born().await;
        assert_eq!(node.call(&newcomer).await, 200);
        assert!(!live(newborn).await, "a newborn is the first to go");
    }
    for next in &touched[1..] {
        assert!(live(next).await);
        let newcomer = node.born().await;
        assert_eq!(node.call(&newcomer).await, 200);
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
    let store = Spy::default();
    let node = Node::with(&store, |layer| {
        layer.with_max_sessions(number(10)).with_eviction()
    });
    let mut streams = Vec::new();
    for _ in 0..10 {
        let id = node.born().await;
        streams.push((node.open(&id).await, id));
    }
    for _ in 0..50 {
        sleep(7 * MINUTE).await;
        assert_eq!(node.send(initialize()).await.status(), 503);
    }
    for (_, id) in &streams {
        assert_eq!(node.call(id).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_principal_s_eviction_is_among_its_own() {
    let store = Spy::default();
    let node = Node::with(&store, |layer| {
        layer
            .with_max_sessions_per_principal(number(1))
            .with_eviction()
    });
    let (bob, alice) = (node.born_of("bob").await, node.born_of("alice").await);
    sleep(MINUTE).await;
    node.born_of("alice").await;
    assert!(store.look(&alice).await.is_none());
    assert!(store.look(&bob).await.is_some());
}

fn with_claims(store: &Spy) -> Node {
    Node::with(store, |layer| layer.with_claim_on_login())
}

#[tokio::test(start_paused = true)]
async fn a_login_takes_the_session_over_and_ends_what_was_open() {
    for store in [Spy::default(), Spy::default().asking()] {
        let node = with_claims(&store);
        let id = node.born().await;
        let stream = node.open(&id).await;
        assert_eq!(node.send(by(post(&id), "alice")).await.status(), 200);
        ends_within(SECOND, stream).await;
        assert_eq!(node.inner.bodies(), 0);
        assert_eq!(store.owner(&id).await.as_deref(), Some("alice"));
        assert_eq!(node.call(&id).await, 404, "nobody's no more");
        assert_eq!(node.send(by(post(&id), "bob")).await.status(), 404, "once");
        let mut own = node.send(by(get(&id), "alice")).await.into_body();
        assert!(stays_silent(&mut own, HOUR).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_let_in_before_the_login_gets_no_stream_after_it() {
    let store = Spy::default();
    let node = with_claims(&store);
    let id = node.born().await;
    let mut answer = Box::pin(node.send(doing(get(&id), "wait")));
    on_its_way(&mut answer).await;
    node.send(by(post(&id), "alice")).await;
    node.inner.gate.add_permits(1);
    assert_eq!(answer.await.status(), 404);
    assert_eq!(node.inner.bodies(), 0);
    assert_eq!(node.send(by(post(&id), "alice")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_login_elsewhere_ends_what_was_open_within_a_beat() {
    let store = Spy::default();
    let (here, there) = (with_claims(&store), with_claims(&store));
    let id = here.born().await;
    let stream = here.open(&id).await;
    there.send(by(post(&id), "alice")).await;
    ends_within(20 * MINUTE, stream).await;
    assert_eq!(here.call(&id).await, 404);
    assert_eq!(here.send(by(post(&id), "alice")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_a_session_is_lost_at_login() {
    let store = Spy::default();
    let node = Node::new(&store);
    let id = node.born().await;
    assert_eq!(node.send(by(post(&id), "alice")).await.status(), 404);
    assert_eq!(node.call(&id).await, 200);
    // The store could have.
    let (id, alice) = (session_id(&id), owner(Some("alice")));
    let claimed = store.memory.claim(&id, &alice, HOUR);
    assert!(claimed.await.unwrap().is_some());
}

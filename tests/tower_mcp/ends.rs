//! However a session ends, it ends inside too.

use std::num::NonZeroU64;

use tokio::time::sleep;

use crate::{
    rig::{Rig, all, by, context, tower_mcp, tower_mcp_by_routes, transport},
    support::{
        layer::layer,
        log::Log,
        requests::{delete, initialize, post, with_header},
        sessions::reference,
        time::{HOUR, MINUTE, SECOND},
    },
};

async fn assert_equal(rig: &Rig, expected: usize) {
    sleep(SECOND).await;
    let numbers = (rig.counted().await, rig.inside().await);
    assert_eq!(numbers, (expected, expected), "{}", rig.name);
}

#[tokio::test(start_paused = true)]
async fn after_each_kind_of_end_there_are_as_many_inside() {
    for rig in all(|layer| layer) {
        for user in ["alice", "bob"] {
            let ids = [rig.open(user).await, rig.open(user).await];
            assert_equal(&rig, 2).await;
            assert_eq!(rig.send(by(user, delete(&ids[0]))).await.status / 100, 2);
            assert_equal(&rig, 1).await;
            let sessions = rig.layer.sessions();
            assert!(sessions.end(&reference(&ids[1])).await.unwrap());
            assert_equal(&rig, 0).await;
            rig.open(user).await;
            rig.open("carol").await;
            assert_equal(&rig, 2).await;
            assert_eq!(sessions.end_all().await.unwrap(), 2);
            assert_equal(&rig, 0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_expiry_there_are_as_many_inside() {
    for rig in all(|layer| layer.with_idle_timeout(10 * MINUTE)) {
        rig.open("alice").await;
        let unused = rig.send(by("alice", initialize())).await;
        assert_eq!(unused.ids().len(), 1);
        assert_equal(&rig, 2).await;
        sleep(6 * MINUTE).await;
        assert_equal(&rig, 1).await;
        sleep(6 * MINUTE).await;
        assert_equal(&rig, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_evictions_there_are_as_many_inside() {
    let two = |layer: mcp_session_layer::McpSessionLayer| {
        layer.with_max_sessions(NonZeroU64::new(2).unwrap())
    };
    for rig in all(two) {
        rig.open("alice").await;
        rig.open("alice").await;
        for _ in 0..3 {
            sleep(50 * MINUTE).await;
            rig.open("alice").await;
            assert_equal(&rig, 2).await;
        }
    }
}

/// tower-mcp opens one more session for each `initialize` on a live one.
#[tokio::test(start_paused = true)]
async fn after_an_initialize_on_a_live_session_there_are_as_many_inside() {
    for rig in all(|layer| layer) {
        let id = rig.open("alice").await;
        for _ in 0..5 {
            let again = with_header(initialize(), "mcp-session-id", &id);
            assert!(rig.send(by("alice", again)).await.ids().is_empty());
        }
        assert_equal(&rig, 1).await;
        assert_eq!(rig.send(by("alice", post(&id))).await.status, 200);
        rig.layer.sessions().end_all().await.unwrap();
        assert_equal(&rig, 0).await;
    }
}

/// What was not said to the layer costs a bounded number of sessions inside, and a warning where it can be seen.
#[tokio::test(start_paused = true)]
async fn without_what_the_service_needs_to_know_the_surplus_has_a_bound() {
    let log = Log::default();
    let _listening = log.listen();
    // It says 404 to whoever is not the session's principal, so there is nothing to warn of.
    let rig = tower_mcp(layer(mcp_session_layer::MemoryStore::new()));
    let id = rig.open("alice").await;
    for _ in 0..5 {
        let again = with_header(initialize(), "mcp-session-id", &id);
        rig.send(by("alice", again)).await;
        sleep(SECOND).await;
    }
    assert_eq!((rig.counted().await, rig.inside().await), (1, 2));

    // Under `Router::layer` alone the DELETE reaches the handler of POST, which says 200 and means an error.
    let (mcp, handle) = transport().into_router_at_with_handle("/mcp");
    let layer = layer(mcp_session_layer::MemoryStore::new())
        .with_paths(["/mcp"])
        .with_inner_context(context);
    let app: axum::Router = mcp.layer(layer.clone());
    log.take();
    let opened = crate::support::answers::send(&app, by("alice", initialize())).await;
    assert_eq!(log.take_lines("`with_inner`").len(), 1);
    for _ in 0..5 {
        let again = with_header(initialize(), "mcp-session-id", &opened.id());
        crate::support::answers::send(&app, by("alice", again)).await;
        sleep(SECOND).await;
    }
    assert_eq!(handle.session_count().await, 2);
    layer.sessions().end_all().await.unwrap();
    sleep(HOUR).await;
    let misunderstood = log.take_lines("did not understand the DELETE");
    assert_eq!(misunderstood.len(), 2, "the surplus one and the session");
    assert_eq!(
        handle.session_count().await,
        2,
        "nor is it taken for success"
    );

    let rig = tower_mcp_by_routes(crate::support::layer::layer(
        mcp_session_layer::MemoryStore::new(),
    ));
    rig.send(by("alice", initialize())).await;
    assert!(log.take_lines("`with_inner`").is_empty(), "it is named");
}

//! The contract of stores, run against [`MemoryStore`].

#![cfg(feature = "conformance")]

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use mcp_session_layer::{
    BoxSessionStore, Issuer, MemoryStore, Owner, Principal, Scope, Session, SessionId,
    SessionRecord, SessionStore, conformance,
    store::{AtLimit, Created, Now, Terms},
};
use tokio::time::{advance, sleep};

const HOUR: Duration = Duration::from_secs(3600);

async fn keeps_everything(store: &(impl SessionStore + Clone)) {
    conformance::all(store, sleep).await;
    conformance::limits_hold_at_once(store, sleep).await;
    conformance::a_long_list_is_read_in_pages(store, sleep, 2_500).await;
    conformance::a_slow_listener_misses_nothing_without_a_gap(store, sleep, 3_000).await;
}

#[tokio::test(start_paused = true)]
async fn keeps_the_contract() {
    keeps_everything(&MemoryStore::new()).await;
}

#[tokio::test(start_paused = true)]
async fn keeps_it_boxed() {
    keeps_everything(&BoxSessionStore::new(MemoryStore::new())).await;
}

#[tokio::test(start_paused = true)]
async fn keeps_it_in_an_arc() {
    keeps_everything(&Arc::new(MemoryStore::new())).await;
}

#[tokio::test(start_paused = true)]
async fn keeps_it_when_the_clock_is_advanced_by_hand() {
    conformance::all(&MemoryStore::new(), advance).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_it_on_threads_and_a_real_clock() {
    keeps_everything(&MemoryStore::new()).await;
}

#[test]
fn a_touch_allocates_nothing() {
    let owner = Owner {
        scope: Scope::default(),
        principal: Some(Principal::new("me")),
    };
    let session = Session::new(SessionId::issue(), SessionRecord::new(owner, Issuer::Layer));
    let terms = Terms {
        idle: HOUR,
        initial_idle: HOUR,
        life: None,
        total: None,
        per_principal: None,
        at_limit: AtLimit::Refuse,
        started_ago: Duration::ZERO,
    };
    let store = MemoryStore::new();
    let created = store.create(&session, &terms).now_or_never();
    assert!(matches!(created, Some(Ok(Created::New { .. }))));
    let touch = allocation_counter::measure(|| {
        let now = store.touch_now(session.id(), session.owner(), HOUR);
        assert!(matches!(now, Now::Live(_)));
    });
    assert_eq!(touch.count_total, 0);
}

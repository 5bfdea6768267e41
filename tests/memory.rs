//! The contract of stores, run against [`MemoryStore`].

#![cfg(feature = "conformance")]

use std::sync::Arc;

use futures_util::FutureExt as _;
use mcp_session_layer::{BoxSessionStore, MemoryStore, SessionStore, conformance, store::Now};
use tokio::time::advance;

use support::{
    contract::keeps_everything,
    sessions::{fresh_session, insert, terms},
    time::HOUR,
};

mod support;

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
    let store = MemoryStore::new();
    let session = fresh_session();
    let terms = terms();
    let inserted = insert(&store, &session, &terms);
    inserted.now_or_never().expect("at once");
    let touch = allocation_counter::measure(|| {
        let now = store.touch_now(session.id(), session.owner(), HOUR);
        assert!(matches!(now, Now::Live(_)));
    });
    assert_eq!(touch.count_total, 0);
}

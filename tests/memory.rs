//! The contract of stores, run against [`MemoryStore`].

#![cfg(feature = "conformance")]

use std::sync::Arc;

use mcp_session_layer::{BoxSessionStore, MemoryStore, SessionStore, conformance};
use tokio::time::{advance, sleep};

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

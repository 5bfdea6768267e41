//! The contract of stores, run against stores in memory.

#![cfg(feature = "conformance")]

mod naive;

use std::sync::Arc;

use mcp_session_layer::{BoxSessionStore, conformance};
use naive::NaiveStore;
use tokio::time::sleep;

mod naive_store {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        let store = NaiveStore::default();
        conformance::all(&store, sleep).await;
        conformance::limits_hold_at_once(&store, sleep).await;
        conformance::a_long_list_is_read_in_pages(&store, sleep, 10_000).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_it_boxed() {
        conformance::all(&BoxSessionStore::new(NaiveStore::default()), sleep).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_it_in_an_arc() {
        conformance::all(&Arc::new(NaiveStore::default()), sleep).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_it_when_the_clock_is_advanced_by_hand() {
        conformance::all(&NaiveStore::default(), tokio::time::advance).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn keeps_it_on_threads_and_a_real_clock() {
        let store = NaiveStore::default();
        conformance::all(&store, sleep).await;
        conformance::limits_hold_at_once(&store, sleep).await;
    }
}

//! The store contract, on one server and on a cluster.

use std::{sync::Arc, time::Duration};

use mcp_session_layer::{BoxSessionStore, CachedStore, conformance};
use tokio::time::sleep;

use crate::{cluster, server};

#[tokio::test(flavor = "multi_thread")]
async fn is_kept() {
    let Some((store, url, prefix)) = server::shared().await else {
        return;
    };
    conformance::all(&store, sleep).await;
    // On one server limits are exact.
    conformance::limits_hold_at_once(&store, sleep).await;
    conformance::a_long_list_is_read_in_pages(&store, sleep, 10_000).await;
    conformance::a_slow_listener_misses_nothing_without_a_gap(&store, sleep, 3000).await;
    server::clean(&url, &prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_kept_boxed() {
    let Some((store, url, prefix)) = server::shared().await else {
        return;
    };
    conformance::all(&BoxSessionStore::new(store), sleep).await;
    server::clean(&url, &prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_kept_in_an_arc() {
    let Some((store, url, prefix)) = server::shared().await else {
        return;
    };
    conformance::all(&Arc::new(store), sleep).await;
    server::clean(&url, &prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_kept_behind_a_cache() {
    let Some((store, url, prefix)) = server::shared().await else {
        return;
    };
    // One that remembers nothing. It takes an answer for as old as its question, which on a busy machine is more than
    // the suite allows where it asks how much time is left.
    let cached = Arc::new(CachedStore::new(store, Duration::ZERO));
    let exact = [
        "a_touch_extends",
        "times_are_true",
        "a_claim_extends_as_a_touch_does",
    ];
    for case in conformance::CASES {
        if !exact.contains(case) {
            conformance::one(case, &cached, sleep).await;
        }
    }
    server::clean(&url, &prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_kept_on_a_cluster() {
    let Some(server) = cluster::of_one().await else {
        return;
    };
    let store = server.store().await;
    conformance::all(&store, sleep).await;
    conformance::a_long_list_is_read_in_pages(&store, sleep, 2000).await;
}

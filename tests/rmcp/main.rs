//! rmcp behind the layer on several nodes, which share a store.
#![cfg(feature = "rmcp")]

use std::sync::Arc;

use axum::Router;
use mcp_session_layer::{MemoryStore, SessionStore};
use tower::Layer as _;

use node::Node;
use support::{
    answers::send,
    requests::{delete, initialize, post},
};

mod at_once;
mod events;
mod node;
mod restore;
#[path = "../../examples/rmcp_tools.rs"]
#[allow(dead_code)]
mod rmcp_tools;
mod signed_ids;
#[path = "../support/mod.rs"]
mod support;
mod tools;

#[tokio::test]
async fn a_session_goes_from_node_to_node() {
    let store = MemoryStore::new();
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("alice", &id).await, 200);
    assert_eq!(a.ping("alice", &id).await, 200);
    assert_eq!((a.holds().await, b.holds().await), (1, 1));
}

#[tokio::test]
async fn a_stranger_s_request_restores_nothing() {
    let store = MemoryStore::new();
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("mallory", &id).await, 404);
    assert_eq!(b.holds().await, 0);
}

#[tokio::test]
async fn a_session_terminated_on_one_node_is_404_on_the_other_and_left_nowhere() {
    let store = MemoryStore::new();
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("alice", &id).await, 200);
    let ended = a.send("alice", delete(&id)).await;
    assert_eq!(ended.status / 100, 2);
    assert_eq!(b.ping("alice", &id).await, 404);
    a.until_it_holds(0).await;
    b.until_it_holds(0).await;
}

/// The adapter alone, for services that are put together otherwise, takes a store in an `Arc` and out of it.
#[tokio::test]
async fn the_adapter_restores_too() {
    use mcp_session_layer::{McpSessionLayer, RmcpSessionStore};
    use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
    use support::rmcp_server::rmcp_server;

    fn node<St: SessionStore>(store: &Arc<MemoryStore>, adapter: RmcpSessionStore<St>) -> Router {
        let layer = McpSessionLayer::new(Arc::clone(store)).with_initialize_params();
        let mut config = StreamableHttpServerConfig::default();
        config.session_store = Some(Arc::new(adapter));
        Router::new().route_service("/mcp", layer.layer(rmcp_server(config).0))
    }
    let store = Arc::new(MemoryStore::new());
    let a = node(&store, RmcpSessionStore::new(Arc::clone(&store)));
    let b = node(&store, RmcpSessionStore::new(MemoryStore::clone(&store)));
    let id = send(&a, initialize()).await.id();
    assert_eq!(send(&b, post(&id)).await.status, 200);
    assert_eq!(send(&a, post(&id)).await.status, 200);
}

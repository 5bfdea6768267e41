//! rmcp restores on one node what was created on another: two nodes, one store, and rmcp inside each.
#![cfg(feature = "rmcp")]

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use mcp_session_layer::{MemoryStore, RmcpSessionStore};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, session::local::LocalSessionManager,
};
use tower::Layer as _;

use support::{
    answers::{Answer, send},
    layer::{layer, user_header},
    requests::{INITIALIZED, as_user, delete, initialize, post},
    rmcp_server::rmcp_server,
};

mod support;

struct Node {
    app: Router,
    manager: Arc<LocalSessionManager>,
}

impl Node {
    fn new(store: &Arc<MemoryStore>) -> Self {
        let layer = layer(Arc::clone(store))
            .with_initialize_params()
            .with_principal(user_header);
        let mut config = StreamableHttpServerConfig::default();
        config.session_store = Some(Arc::new(RmcpSessionStore::new(Arc::clone(store))));
        let (mcp, manager) = rmcp_server(config);
        Self {
            app: Router::new().route_service("/mcp", layer.layer(mcp)),
            manager,
        }
    }

    async fn send(&self, user: &str, request: Request<Body>) -> Answer {
        send(&self.app, as_user(request, user)).await
    }

    async fn initialize(&self, user: &str) -> String {
        let id = self.send(user, initialize()).await.id();
        let mut initialized = post(&id);
        *initialized.body_mut() = INITIALIZED.into();
        assert_eq!(self.send(user, initialized).await.status, 202);
        id
    }

    async fn ping(&self, user: &str, id: &str) -> u16 {
        let answer = self.send(user, post(id)).await;
        if answer.status / 100 == 2 {
            assert!(answer.body.contains("\"result\":{}"), "{:?}", answer.body);
        }
        answer.status
    }

    async fn holds(&self) -> usize {
        self.manager.sessions.read().await.len()
    }

    /// Waits until the inner service holds that many sessions.
    async fn until_it_holds(&self, sessions: usize) {
        for _ in 0..200 {
            if self.holds().await == sessions {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.holds().await, sessions);
    }
}

#[tokio::test]
async fn a_session_goes_from_node_to_node() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("alice", &id).await, 200);
    assert_eq!(a.ping("alice", &id).await, 200);
    assert_eq!((a.holds().await, b.holds().await), (1, 1));
}

#[tokio::test]
async fn a_stranger_s_request_restores_nothing() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("mallory", &id).await, 404);
    assert_eq!(b.holds().await, 0);
}

#[tokio::test]
async fn a_session_terminated_on_one_node_is_404_on_the_other_and_left_nowhere() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("alice", &id).await, 200);
    let ended = a.send("alice", delete(&id)).await;
    assert_eq!(ended.status / 100, 2);
    assert_eq!(b.ping("alice", &id).await, 404);
    a.until_it_holds(0).await;
    b.until_it_holds(0).await;
}

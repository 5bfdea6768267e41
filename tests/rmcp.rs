//! rmcp restores on one node what was born on another: two nodes, one store, and rmcp inside each.
#![cfg(feature = "rmcp")]

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Response, StatusCode},
};
use http_body_util::BodyExt as _;
use mcp_session_layer::{McpSessionLayer, MemoryStore, Principal, RmcpSessionStore};
use rmcp::{
    ServerHandler,
    model::{Implementation, ServerCapabilities, ServerConfig},
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tower::{Layer as _, ServiceExt as _};

struct Node {
    app: Router,
    manager: Arc<LocalSessionManager>,
}

impl Node {
    fn new(store: &Arc<MemoryStore>) -> Self {
        let layer = McpSessionLayer::new(Arc::clone(store))
            .with_initialize_params()
            .with_principal(|parts| Ok(parts.extensions.get::<Principal>().cloned()));
        let mut config = StreamableHttpServerConfig::default();
        config.session_store = Some(Arc::new(RmcpSessionStore::new(Arc::clone(store))));
        let manager = Arc::new(LocalSessionManager::default());
        let mcp = StreamableHttpService::new(|| Ok(Tools), Arc::clone(&manager), config);
        Self {
            app: Router::new().route_service("/mcp", layer.layer(mcp)),
            manager,
        }
    }

    async fn send(
        &self,
        who: &str,
        method: Method,
        id: Option<&str>,
        body: &str,
    ) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri("/mcp")
            .header("host", "localhost")
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .extension(Principal::new(who));
        if let Some(id) = id {
            request = request
                .header("mcp-session-id", id)
                .header("mcp-protocol-version", "2025-11-25");
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.app.clone().oneshot(request).await.unwrap()
    }

    async fn initialize(&self, who: &str) -> String {
        let response = self.send(who, Method::POST, None, INITIALIZE).await;
        let id = response.headers()["mcp-session-id"]
            .to_str()
            .unwrap()
            .to_owned();
        response.into_body().collect().await.unwrap();
        let answer = self.send(who, Method::POST, Some(&id), INITIALIZED).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        id
    }

    async fn ping(&self, who: &str, id: &str) -> StatusCode {
        let response = self.send(who, Method::POST, Some(id), PING).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status.is_success() {
            assert!(
                String::from_utf8_lossy(&body).contains("\"result\":{}"),
                "{body:?}"
            );
        }
        status
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
    assert_eq!(b.ping("alice", &id).await, StatusCode::OK);
    assert_eq!(a.ping("alice", &id).await, StatusCode::OK);
    assert_eq!((a.holds().await, b.holds().await), (1, 1));
}

#[tokio::test]
async fn nobody_elses_session_is_restored() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("mallory", &id).await, StatusCode::NOT_FOUND);
    assert_eq!(b.holds().await, 0);
}

#[tokio::test]
async fn what_was_ended_on_one_node_is_404_on_the_other_and_left_nowhere() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (Node::new(&store), Node::new(&store));
    let id = a.initialize("alice").await;
    assert_eq!(b.ping("alice", &id).await, StatusCode::OK);
    let ended = a.send("alice", Method::DELETE, Some(&id), "").await;
    assert!(ended.status().is_success());
    assert_eq!(b.ping("alice", &id).await, StatusCode::NOT_FOUND);
    a.until_it_holds(0).await;
    b.until_it_holds(0).await;
}

struct Tools;

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().build())
            .with_server_info(Implementation::new("test", "1"))
    }
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;

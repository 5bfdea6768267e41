//! The smallest MCP server with sessions: one handler, and the layer.

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use mcp_session_layer::{McpSessionLayer, MemoryStore, Session};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app()).await
}

pub(crate) fn app() -> Router {
    let sessions = McpSessionLayer::new(MemoryStore::new())
        // The rest of the app is none of its business.
        .with_paths(["/mcp"])
        // The handler below knows this revision only. Newer clients are told so, and fall back to it.
        .with_legacy_only([REVISION]);
    Router::new().route("/mcp", post(mcp)).layer(sessions)
}

/// Gets `initialize`, which has no session yet, and what is sent on a live session. Nothing else.
pub(crate) async fn mcp(session: Option<Session>, Json(message): Json<Value>) -> Response {
    let (Some(id), Some(method)) = (message.get("id"), message["method"].as_str()) else {
        // A notification: there is nothing to answer.
        return StatusCode::ACCEPTED.into_response();
    };
    let outcome = match (method, session) {
        ("initialize", None) => json!({ "result": {
            "protocolVersion": REVISION,
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "first", "version": "1.0.0" },
        }}),
        ("ping", _) => json!({ "result": {} }),
        ("tools/list", _) => json!({ "result": { "tools": [
            { "name": "whoami", "description": "Names this session", "inputSchema": { "type": "object" } },
        ]}}),
        ("tools/call", Some(session)) if message["params"]["name"] == "whoami" => {
            // The public name. The session's id is a secret.
            let text = session.reference().to_string();
            json!({ "result": { "content": [{ "type": "text", "text": text }] } })
        }
        _ => json!({ "error": { "code": -32601, "message": "Method not found" } }),
    };
    let mut answer = json!({ "jsonrpc": "2.0", "id": id });
    answer
        .as_object_mut()
        .expect("it is one")
        .extend(outcome.as_object().expect("it is one").clone());
    Json(answer).into_response()
}

const REVISION: &str = "2025-11-25";

//! An MCP server without an SDK: one handler that speaks JSON-RPC, and sessions by the layer alone.
//!
//! The handler issues no session ids, so the layer does. What belongs to a session is kept with the
//! session, and goes when it goes. The handler knows revision 2025-11-25 only; the layer refuses
//! what is newer, so that a newer client falls back.
//!
//! Try it with the lines that the `quickstart` example prints. A server that is not on a loopback address
//! also has to check `Origin` (2025-11-25, transports, "Security Warning").

#[path = "support/listen.rs"]
#[allow(dead_code)]
mod listen;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use mcp_session_layer::{McpSessionLayer, MemoryStore, Session};
use serde_json::{Map, Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = listen::listen().await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, app()).await?;
    Ok(())
}

/// The endpoint. It offers no GET stream, so GET is answered 405; DELETE is answered by the layer.
pub fn app() -> Router {
    let layer = McpSessionLayer::new(MemoryStore::new())
        .with_paths(["/mcp"])
        .with_legacy_only([REVISION]);
    Router::new().route("/mcp", post(mcp)).layer(layer)
}

/// What belongs to one session.
#[derive(Default)]
struct Counter(AtomicU64);

/// Answers one message. Only `initialize` comes without a session.
async fn mcp(session: Option<Session>, Json(message): Json<Map<String, Value>>) -> Response {
    let (Some(id), Some(method)) = (message.get("id"), message.get("method")) else {
        // A notification or a response: there is nothing to answer.
        return StatusCode::ACCEPTED.into_response();
    };
    let result = match method.as_str() {
        Some("initialize") => Ok(json!({
            "protocolVersion": REVISION,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "plain_axum", "version": env!("CARGO_PKG_VERSION")},
        })),
        Some("ping") => Ok(json!({})),
        Some("tools/list") => Ok(tools()),
        Some("tools/call") => call(
            session.as_ref(),
            message.get("params").unwrap_or(&Value::Null),
        ),
        _ => Err((-32601, "Method not found")),
    };
    Json(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    })
    .into_response()
}

fn tools() -> Value {
    let tool = |name, description, properties: Value| {
        let required: Vec<_> = properties
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .collect();
        json!({
            "name": name,
            "description": description,
            "inputSchema": {"type": "object", "properties": properties, "required": required},
        })
    };
    json!({"tools": [
        tool("echo", "Say the message again", json!({"message": {"type": "string"}})),
        tool("add", "Add two numbers", json!({"a": {"type": "number"}, "b": {"type": "number"}})),
        tool("counter", "Count the calls of this session", json!({})),
    ]})
}

fn call(session: Option<&Session>, params: &Value) -> Result<Value, (i32, &'static str)> {
    let arguments = &params["arguments"];
    let number = |name| arguments[name].as_f64();
    let text = match params["name"].as_str() {
        Some("echo") => arguments["message"].as_str().map(str::to_owned),
        Some("add") => number("a")
            .zip(number("b"))
            .map(|(a, b)| (a + b).to_string()),
        Some("counter") => session.map(|session| {
            let calls = &session.local::<Counter>().0;
            (1 + calls.fetch_add(1, Relaxed)).to_string()
        }),
        _ => return Err((-32602, "Unknown tool")),
    };
    let text = text.ok_or((-32602, "Invalid arguments"))?;
    Ok(json!({"content": [{"type": "text", "text": text}]}))
}

/// The one protocol revision that this server speaks.
const REVISION: &str = "2025-11-25";

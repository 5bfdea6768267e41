//! An MCP server with sessions: axum, the official Rust SDK, and sessions kept in memory.
//!
//! ```sh
//! cargo run --example quickstart
//! ```
//!
//! It says what to try next. With `PORT=8080` in front it listens on another port than 3000.

#[path = "support/listen.rs"]
#[allow(dead_code)]
pub(crate) mod listen;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use axum::Router;
use mcp_session_layer::{McpSessionLayer, MemoryStore};
use rmcp::{
    handler::server::wrapper::Parameters,
    schemars, tool, tool_router,
    transport::streamable_http_server::{
        StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tower::Layer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = listen::listen().await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    println!("{url}\n\n{}", TRY.replace("URL", &url));
    axum::serve(listener, app()).await?;
    Ok(())
}

/// The endpoint: the tools, and above them what keeps their sessions.
pub(crate) fn app() -> Router {
    // Session life is the layer's business. rmcp's own limit stays as a backstop, above the layer's
    // idle time of one hour.
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(Duration::from_secs(2 * 60 * 60));
    let mcp =
        StreamableHttpService::new(|| Ok(Tools::default()), sessions.into(), Default::default());
    Router::new().route_service("/mcp", McpSessionLayer::new(MemoryStore::new()).layer(mcp))
}

/// One of these is made for each session, so what it holds belongs to that session.
#[derive(Default)]
struct Tools {
    calls: AtomicU64,
}

#[tool_router(server_handler)]
impl Tools {
    #[tool(description = "Say the message again")]
    fn echo(&self, Parameters(Echo { message }): Parameters<Echo>) -> String {
        message
    }

    #[tool(description = "Add two numbers")]
    fn add(&self, Parameters(Add { a, b }): Parameters<Add>) -> String {
        (a + b).to_string()
    }

    #[tool(description = "Count the calls of this session")]
    fn counter(&self) -> String {
        (self.calls.fetch_add(1, Relaxed) + 1).to_string()
    }
}

/// What to paste into another terminal.
const TRY: &str = r#"Open a session, and keep its id:

mcp() { curl -si URL -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' -H "mcp-session-id: $id" "$@"; }
id=; id=$(mcp -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}' | sed -n 's/^mcp-session-id: \([^[:space:]]*\).*/\1/p'); mcp -d '{"jsonrpc":"2.0","method":"notifications/initialized"}'

Call a tool in it; each time it counts one more:

mcp -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"counter","arguments":{}}}'

End it, and call again. The answer's first line is then `HTTP/1.1 404 Not Found`, from the layer: the server was not asked.

mcp -X DELETE; mcp -d '{"jsonrpc":"2.0","id":3,"method":"ping"}'
"#;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    message: String,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: f64,
    b: f64,
}

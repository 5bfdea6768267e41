//! An MCP server with sessions: axum, the official Rust SDK, and sessions kept in memory.
//!
//! ```console
//! $ cargo run --example quickstart        # PORT=8080 for another port than 3000
//! http://127.0.0.1:3000/mcp
//! ```
//!
//! Open a session. Its id is in the answer's `mcp-session-id` header:
//!
//! ```console
//! $ url=http://127.0.0.1:3000/mcp
//! $ post() { curl -si "$url" -H 'accept: application/json, text/event-stream' -H 'content-type: application/json' "$@"; }
//! $ post -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
//! ```
//!
//! Call a tool in it, as often as you like; `counter` counts in each session apart:
//!
//! ```console
//! $ id=the-id-you-got
//! $ post -H "mcp-session-id: $id" -d '{"jsonrpc":"2.0","method":"notifications/initialized"}'
//! $ post -H "mcp-session-id: $id" -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"counter","arguments":{}}}'
//! ```
//!
//! End it, and call again. The id is dead now, and the answer is 404 without the server being asked:
//!
//! ```console
//! $ curl -si "$url" -X DELETE -H "mcp-session-id: $id"
//! $ post -H "mcp-session-id: $id" -d '{"jsonrpc":"2.0","id":3,"method":"ping"}'
//! ```

use std::{
    env,
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
use tokio::net::TcpListener;
use tower::Layer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, app()).await?;
    Ok(())
}

/// The endpoint: the tools, and above them what keeps their sessions.
pub fn app() -> Router {
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

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    message: String,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: f64,
    b: f64,
}

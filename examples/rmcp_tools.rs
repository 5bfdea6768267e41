//! Tools that know their session: who calls, and what they have put aside. An rmcp server behind the layer.
//!
//! ```console
//! cargo run --features rmcp --example rmcp_tools
//! ```
//!
//! Open a session as alice and put something aside (`PORT` is 3000 unless set):
//!
//! ```console
//! id=$(curl -si http://127.0.0.1:3000/mcp -H 'authorization: Bearer alice' -H 'content-type: application/json' \
//!   -H 'accept: application/json, text/event-stream' \
//!   -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}' \
//!   | tr -d '\r' | sed -n 's/^mcp-session-id: //p')
//! curl -s http://127.0.0.1:3000/mcp -H "mcp-session-id: $id" -H 'authorization: Bearer alice' -H 'content-type: application/json' \
//!   -H 'accept: application/json, text/event-stream' -d '{"jsonrpc":"2.0","method":"notifications/initialized"}'
//! curl -s http://127.0.0.1:3000/mcp -H "mcp-session-id: $id" -H 'authorization: Bearer alice' -H 'content-type: application/json' \
//!   -H 'accept: application/json, text/event-stream' \
//!   -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"put_aside","arguments":{"item":"a hat"}}}'
//! ```

#[path = "support/listen.rs"]
#[allow(dead_code)]
mod listen;

use axum::{
    Router,
    http::{header::AUTHORIZATION, request::Parts},
};
use mcp_session_layer::{McpSessionLayer, MemoryStore, Principal, RmcpService, Session};
use parking_lot::Mutex;
use rmcp::{
    ErrorData,
    handler::server::{tool::Extension, wrapper::Parameters},
    schemars, tool, tool_router,
    transport::streamable_http_server::session::local::LocalSessionManager,
};
use serde::Deserialize;
use tower::Layer as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = listen::listen().await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, app()).await?;
    Ok(())
}

pub(crate) fn app() -> Router {
    let store = MemoryStore::new();
    let layer = McpSessionLayer::new(store.clone())
        .with_initialize_params()
        .with_principal(|parts| Ok(who(parts)));
    let manager = LocalSessionManager::default().into();
    let mcp = RmcpService::new(store, || Ok(Tools), manager, Default::default());
    Router::new().route_service("/mcp", layer.layer(mcp))
}

/// In place of real authentication, the token is the name.
fn who(parts: &Parts) -> Option<Principal> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    Some(Principal::new(value.strip_prefix("Bearer ")?))
}

/// What a session has put aside. On another node, or after a restart, it begins empty.
type Basket = Mutex<Vec<String>>;

struct Tools;

#[tool_router(server_handler)]
impl Tools {
    #[tool(description = "Put something aside for this session")]
    fn put_aside(
        &self,
        Parameters(Item { item }): Parameters<Item>,
        Extension(parts): Extension<Parts>,
    ) -> Result<String, ErrorData> {
        let session = session(&parts)?;
        let basket = session.local::<Basket>();
        let mut basket = basket.lock();
        if basket.len() == MOST {
            return Err(ErrorData::invalid_params("the basket is full", None));
        }
        basket.push(item);
        let owner = session.owner().principal.as_ref();
        let owner = owner.map_or("nobody in particular", Principal::as_str);
        Ok(format!("put aside for {owner}: {}", basket.join(", ")))
    }
}

/// The session that a tool is called on: rmcp hands on the head of the request, and the layer has put it there.
fn session(parts: &Parts) -> Result<&Session, ErrorData> {
    let session = parts.extensions.get();
    // Revisions from 2026-07-28 on have none.
    session.ok_or_else(|| ErrorData::invalid_request("this tool needs a session", None))
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Item {
    item: String,
}

const MOST: usize = 10;

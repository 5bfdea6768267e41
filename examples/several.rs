//! Several MCP services in one application, with one store for all of them.
//!
//! ```sh
//! cargo run --example several
//! ```
//!
//! Each has a *scope* of its own. A session of one does not exist in the other, each has its own limits, and its handle lists
//! and ends its sessions only.

#[path = "first.rs"]
#[allow(dead_code)]
mod first;
#[path = "support/listen.rs"]
#[allow(dead_code)]
mod listen;

use axum::{
    Router,
    routing::{get, post},
};
use mcp_session_layer::{McpSessionLayer, MemoryStore, Scope};
use tower::Layer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = listen::listen().await?;
    let address = listener.local_addr()?;
    println!("http://{address}/notes/mcp and http://{address}/files/mcp");
    axum::serve(listener, app()).await?;
    Ok(())
}

pub(crate) fn app() -> Router {
    // A clone is the same store. In its place goes any other.
    let store = MemoryStore::new();
    let layer = |scope| McpSessionLayer::new(store.clone()).with_scope(Scope::new(scope));
    let notes = layer("notes").with_legacy_only(["2025-11-25"]);
    let files = layer("files").with_legacy_only(["2025-11-25"]);
    // Put the service of each here.
    let mcp = post(first::mcp);
    Router::new()
        .route_service("/notes/mcp", notes.layer(mcp.clone()))
        .route_service("/files/mcp", files.layer(mcp))
        .route("/health", get(async || "ok"))
}

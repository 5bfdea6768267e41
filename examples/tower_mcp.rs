//! A tower-mcp server behind the layer, whose tools know their session.
//!
//! ```sh
//! cargo run --example tower_mcp
//! ```
//!
//! The README's first three commands work here too: `counter` counts the calls of each session.

#[path = "support/listen.rs"]
#[allow(dead_code)]
mod listen;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use axum::{Router, ServiceExt, extract::Request};
use mcp_session_layer::{McpSessionLayer, McpSessionService, MemoryStore, Session};
use tower::Layer;
use tower_mcp::{
    CallToolResult, HttpTransport, McpRouter, ToolBuilder,
    extract::{Context, RawArgs},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = listen::listen().await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, ServiceExt::<Request>::into_make_service(app())).await?;
    Ok(())
}

fn app() -> McpSessionService<Router> {
    let counter = ToolBuilder::new("counter")
        .description("Count the calls of this session")
        .extractor_handler((), async |ctx: Context, RawArgs(_): RawArgs| {
            // The layer puts it into the request's extensions, `bridge_extension` hands it on.
            let session = ctx.extension::<Session>().expect("the layer is in front");
            let calls = session.local::<Calls>().0.fetch_add(1, Relaxed) + 1;
            Ok(CallToolResult::text(calls.to_string()))
        })
        .build();
    let mcp = HttpTransport::new(McpRouter::new().tool(counter))
        .bridge_extension::<Session>()
        // tower-mcp's own time (30 minutes unless set) does not see streams, nor tools that run. So the layer's has to be
        // over first, and for sessions that are in use that is never.
        .session_ttl(Duration::from_secs(24 * 60 * 60))
        .into_router_at("/mcp");
    // Around the whole of it: `Router::layer` would wrap the handler of each method apart.
    McpSessionLayer::new(MemoryStore::new())
        .with_paths(["/mcp"])
        .layer(mcp)
}

#[derive(Default)]
struct Calls(AtomicU64);

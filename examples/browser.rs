//! An MCP server for clients in web pages: the quickstart, with what a browser needs around it.
//!
//! ```sh
//! ORIGIN=http://127.0.0.1:8080 cargo run --all-features --example browser
//! ```
//!
//! `ORIGIN` is where the page comes from. The page can then use any MCP client: it reads `Mcp-Session-Id`, and the 404 after
//! which it has to begin anew. `RUST_LOG=tower_http=debug` shows the requests, with their headers and without their ids.

#[path = "quickstart.rs"]
#[allow(dead_code)]
mod quickstart;

use std::env;

use anyhow::Context as _;
use axum::{Router, http::HeaderValue};
use mcp_session_layer::{cors, sensitive_session_id};
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let origin = env::var("ORIGIN").context("set ORIGIN to where the page comes from")?;
    let origin = origin.parse().context("ORIGIN is not an origin")?;
    let listener = quickstart::listen::listen().await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, app(origin)).await?;
    Ok(())
}

/// The order of the layers, from the inside out. The session layer is inside `quickstart::app`.
fn app(origin: HeaderValue) -> Router {
    let headers = DefaultMakeSpan::new().include_headers(true);
    quickstart::app()
        // Authentication goes here: outside the session layer, which asks whose session it is.
        .layer(cors([origin]))
        .layer(TraceLayer::new_for_http().make_span_with(headers))
        // Outside the trace, or the trace has written the id down already.
        .layer(sensitive_session_id())
}

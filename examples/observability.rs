//! What watches a session layer: numbers for Prometheus, and traces that name sessions without giving them away.
//!
//! ```console
//! cargo run --features metrics --example observability        # PORT=8080 for another port than 3000
//! ```
//!
//! Open a session, ask for one that does not exist, and see both counted:
//!
//! ```console
//! url=http://127.0.0.1:3000
//! post() { curl -si "$url/mcp" -H 'accept: application/json, text/event-stream' -H 'content-type: application/json' "$@"; }
//! post -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
//! post -H 'mcp-session-id: dead' -d '{"jsonrpc":"2.0","id":2,"method":"ping"}'
//! curl -s "$url/metrics"
//! ```
//!
//! `docs/observability.md` says what the numbers mean; `docs/grafana.json` is a dashboard for them.

#[path = "support/listen.rs"]
#[allow(dead_code)]
mod listen;

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use mcp_session_layer::{McpSessionLayer, MemoryStore, Session, SessionStore, metrics};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::time::interval;
use tower_http::trace::TraceLayer;
use tracing::{Span, field};
use tracing_subscriber::EnvFilter;

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    // This part of rmcp writes session ids into its logs, and an id is a secret.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,tower_http=debug".into())
        .add_directive("rmcp::transport::streamable_http_server=off".parse()?);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();

    // Before the first request.
    let recorder = install_recorder()?;
    let upkeep = recorder.clone();
    tokio::spawn(async move {
        let mut now_and_then = interval(Duration::from_secs(5));
        loop {
            now_and_then.tick().await;
            upkeep.run_upkeep();
        }
    });

    let listener = listen::listen().await?;
    println!("http://{}/metrics", listener.local_addr()?);
    axum::serve(listener, app(MemoryStore::new(), recorder)).await?;
    Ok(())
}

/// A recorder that writes what Prometheus reads, with OpenTelemetry's names as Prometheus spells them, and with buckets
/// that suit sessions and stores.
pub(crate) fn install_recorder() -> anyhow::Result<PrometheusHandle> {
    let buckets = |name: &str| Matcher::Full(name.to_owned());
    let recorder = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(
            buckets(metrics::SESSION_DURATION),
            &metrics::SESSION_DURATION_BUCKETS,
        )?
        .set_buckets_for_metric(
            buckets(metrics::STORE_CALL_DURATION),
            &metrics::STORE_CALL_DURATION_BUCKETS,
        )?
        .install_recorder()?;
    Ok(recorder)
}

/// The endpoint, and beside it what Prometheus asks for. Where not everybody may read that, give it a port of its own.
pub(crate) fn app(store: impl SessionStore, recorder: PrometheusHandle) -> Router {
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(Duration::from_secs(2 * 60 * 60));
    let mcp = StreamableHttpService::new(|| Ok(Server), sessions.into(), Default::default());
    // From the inside out: a request comes from below.
    Router::new()
        .route_service("/mcp", mcp)
        .layer(from_fn(name_session))
        .layer(McpSessionLayer::new(store).with_paths(["/mcp"]))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .route("/metrics", get(async move || recorder.render()))
}

/// A request's span, with an empty place for its session.
fn span(request: &Request) -> Span {
    tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        mcp.session.id = field::Empty,
    )
}

/// Writes a live session's reference into its request's span. The id itself would let a reader of the traces in.
async fn name_session(session: Option<Session>, request: Request, next: Next) -> Response {
    if let Some(session) = session {
        Span::current().record("mcp.session.id", field::display(session.reference()));
    }
    next.run(request).await
}

struct Server;

impl ServerHandler for Server {}

//! tower and hyper, and no router: the layer around one service.
//!
//! ```sh
//! cargo run --example plain_hyper
//! ```

#[path = "first.rs"]
#[allow(dead_code)]
mod first;
#[path = "support/listen.rs"]
#[allow(dead_code)]
mod listen;

use std::convert::Infallible;

use axum::{Json, body::Body, response::IntoResponse};
use http::{Method, Request, Response, StatusCode};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use mcp_session_layer::{McpSessionLayer, MemoryStore, Session};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = listen::listen().await?;
    println!("http://{}/mcp", listener.local_addr()?);
    serve(listener).await
}

pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let layer = McpSessionLayer::new(MemoryStore::new()).with_legacy_only(["2025-11-25"]);
    let service = ServiceBuilder::new().layer(layer).service_fn(mcp);
    loop {
        let (connection, _) = listener.accept().await?;
        // What hyper read and what it writes are bodies of its own; the layer takes and gives any.
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let connection = TokioIo::new(connection);
            // A client that goes away is no news.
            let _ = server.serve_connection(connection, service).await;
        });
    }
}

/// Gets what the layer lets through, with the session in the request's extensions.
async fn mcp(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    if request.method() != Method::POST {
        return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let session = request.extensions().get::<Session>().cloned();
    let Ok(body) = axum::body::to_bytes(request.into_body(), 1 << 20).await else {
        return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response());
    };
    let Ok(message) = serde_json::from_slice(&body) else {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    Ok(first::mcp(session, Json(message)).await)
}

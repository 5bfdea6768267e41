//! A gateway to run in front of an MCP server in any language: it answers for the sessions, and passes everything else.
//!
//! ```console
//! cargo run --all-features --example gateway -- --upstream http://127.0.0.1:3001 --listen 127.0.0.1:3000 --store memory
//! ```
//!
//! Open a session through it:
//!
//! ```console
//! curl -si http://127.0.0.1:3000/mcp -H 'accept: application/json, text/event-stream' -H 'content-type: application/json' \
//!     -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
//! ```
//!
//! `docs/gateway.md` says what it does with requests and answers.

#[path = "../support/mod.rs"]
pub(crate) mod support;

mod allowed;
mod connect;
mod headers;
mod passing;
mod proxy;
mod upstream;
mod upstreams;

use std::{
    convert::Infallible, future::IntoFuture as _, net::SocketAddr, sync::Arc, time::Duration,
};

use anyhow::ensure;
use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderName, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, COOKIE},
    },
    middleware::{from_fn_with_state, map_request, map_response},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt as _,
};
use clap::Parser;
use mcp_session_layer::{GuardedPaths, InnerContext, Sessions};
use tokio::{net::TcpListener, time::sleep};
use tower::{Layer as _, service_fn};

use self::{
    allowed::{AllowOptions, allow},
    connect::watch,
    headers::strip_hop_by_hop,
    proxy::{Proxy, ProxyOptions, end_given_up, not_found_if_gone},
    support::{
        admin::admin,
        auth::{AuthOptions, authenticate},
        listen::listen_at,
        process::{asked_to_stop, serve_admin, write_log},
        sessions::SessionOptions,
    },
};

/// A gateway that answers for the sessions of the MCP servers behind it.
#[derive(Parser)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The path of the MCP endpoint. Repeatable. All other paths pass to the server behind, untouched.
    #[arg(long = "path", default_value = "/mcp")]
    paths: Vec<String>,
    /// The path that says whether this node should get requests: 200 if so, otherwise 503.
    #[arg(long, default_value = "/healthz", value_parser = absolute)]
    health_path: String,
    #[command(flatten)]
    proxy: ProxyOptions,
    #[command(flatten)]
    allow: AllowOptions,
    #[command(flatten)]
    sessions: SessionOptions,
    #[command(flatten)]
    auth: AuthOptions,
    /// The port to administer sessions on. Loopback only, and without authentication.
    #[arg(long)]
    admin_port: Option<u16>,
    /// How long answers under way may take at the end.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

fn absolute(path: &str) -> Result<String, &'static str> {
    match path.starts_with('/') && !path.contains(['{', '}', '?', '#']) {
        true => Ok(path.to_owned()),
        false => Err("expected a path such as /healthz"),
    }
}

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    write_log()?;
    let options = Options::parse();
    let listener = listen_at(options.listen, "name another with --listen").await?;
    serve(options, listener, asked_to_stop()).await
}

/// Serves until `stop` is ready, and for the time of grace after it.
pub(crate) async fn serve(
    options: Options,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let layer = options.sessions.layer(options.sessions.open_store().await?);
    let layer = layer.with_paths(GuardedPaths::try_new(&options.paths)?);
    // The server behind may check its callers by itself, also when it is told of an end.
    let layer = layer
        .with_inner_context(|request| InnerContext::new().with_headers_of(request, CREDENTIALS));
    let sessions = layer.sessions();
    if let Some(port) = options.admin_port {
        serve_admin(port, admin(sessions.clone())).await?;
    }

    let tokens = options.auth.tokens();
    let proxy = Proxy::new(&options.proxy, !tokens.is_empty())?;
    tokio::spawn(end_given_up(proxy.clone(), sessions.clone()));
    let proxy = service_fn(move |request: Request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.forward(request).await) }
    });
    let app = Router::new()
        .fallback_service(layer.layer(proxy))
        .layer(map_response(not_found_if_gone))
        .layer(from_fn_with_state(tokens, authenticate))
        .layer(from_fn_with_state(
            Arc::new(options.allow.allowed(address)?),
            allow,
        ))
        // First of all, so that whoever looks at a request sees what the server behind will see.
        .layer(map_request(strip_hop_by_hop))
        // Probes name the node as they like, and are told nothing else.
        .route(&options.health_path, get(health))
        .with_state(sessions.clone());

    let path = options.paths.first().map_or("", String::as_str);
    println!("http://{address}{path}");
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener.tap_io(watch), app);
    let serving = serving.with_graceful_shutdown(async move {
        stop.await;
        // Nobody listens if the server has failed meanwhile.
        let _ = stopping.send(());
        tokio::spawn(async move { sessions.shut_down(options.grace).await });
    });
    let out_of_time = async move {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(options.grace + LAST_WORDS).await;
    };
    tokio::select! {
        served = serving.into_future() => ensure!(served.is_ok(), "the listener failed: {served:?}"),
        // Streams of revisions without sessions, and of other paths, are not the layer's to end.
        () = out_of_time => tracing::info!("leaving while something is still being answered"),
    }
    Ok(())
}

async fn health(State(sessions): State<Sessions>) -> Response {
    let (status, text) = match sessions.ready().await {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    (status, [(CACHE_CONTROL, "no-store")], text).into_response()
}

/// What servers know their callers by.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, HeaderName::from_static("x-api-key")];

/// For what was cut off at the end of the time of grace to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

//! An MCP server to deploy: rmcp behind the session layer, with authentication, limits, an admin port and a graceful end.
//!
//! ```console
//! cargo run --all-features --example server -- --port 3000 --admin-port 3001 --auth s3cret=alice --auth 0ther=bob
//! ```
//!
//! Open a session as alice, and see it on the admin port:
//!
//! ```console
//! curl -si http://127.0.0.1:3000/mcp -H 'authorization: Bearer s3cret' -H 'accept: application/json, text/event-stream' \
//!     -H 'content-type: application/json' \
//!     -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
//! curl -s http://127.0.0.1:3001/sessions
//! ```
//!
//! Log alice out. Her sessions are 404 from then on, and their streams end:
//!
//! ```console
//! curl -s -X DELETE http://127.0.0.1:3001/principals/alice
//! ```
//!
//! Log everybody out:
//!
//! ```console
//! curl -s -X DELETE http://127.0.0.1:3001/sessions
//! ```

pub(crate) mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::Request,
    middleware::{from_fn_with_state, map_request},
    routing::{get, post},
};
use clap::Parser;
use mcp_session_layer::{BoxSessionStore, RmcpService};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::wrapper::Parameters,
    model::{
        Implementation, InitializeRequestParams, InitializeResult, ListResourcesResult,
        PaginatedRequestParams, ProgressNotificationParam, PromptMessage,
        ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource,
        ResourceContents, Role, ServerCapabilities, ServerConfig,
    },
    prompt, prompt_handler, prompt_router, schemars,
    service::RequestContext,
    tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, session::local::LocalSessionManager,
    },
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use tower_http::trace::TraceLayer;

use self::support::{
    admin::admin,
    audience::Audience,
    auth::{AuthOptions, authenticate},
    listen::listen_on,
    process::{asked_to_stop, serve_admin, write_log},
    readiness::Readiness,
    sessions::SessionOptions,
};

/// An MCP server with sessions.
#[derive(Parser)]
struct Options {
    /// The port of the MCP endpoint, at /mcp.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    #[command(flatten)]
    sessions: SessionOptions,
    #[command(flatten)]
    auth: AuthOptions,
    /// The port to administer sessions on. Loopback only, and without authentication.
    #[arg(long)]
    admin_port: Option<u16>,
    /// How long to go on as before when asked to stop, but for /ready, which is 503 from then on: longer than a load balancer
    /// takes to notice.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    linger: Duration,
    /// How long answers under way may take at the end.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    write_log()?;
    let options = Options::parse();
    let store = options.sessions.open_store().await?;
    let layer = options.sessions.layer(store.clone());
    let layer = layer.with_paths(["/mcp"]).with_initialize_params();
    let sessions = layer.sessions();
    // How many requests reached the MCP service.
    let hits: Arc<AtomicU64> = Arc::default();

    let audience = Audience::default();
    let readiness = Readiness::of(sessions.clone());

    if let Some(port) = options.admin_port {
        let hits = Arc::clone(&hits);
        let hits = async move || Json(json!({ "hits": hits.load(Relaxed) }));
        let audience = audience.clone();
        let notify = async move || Json(json!({ "told": audience.tell_updated(ABOUT).await }));
        let admin = admin(sessions.clone())
            .route("/hits", get(hits))
            .route("/notify", post(notify));
        serve_admin(port, admin).await?;
    }

    let app = Router::new()
        .route_service("/mcp", mcp(options.sessions.idle_timeout, store, audience))
        .layer(map_request(move |request: Request| {
            hits.fetch_add(1, Relaxed);
            std::future::ready(request)
        }))
        .layer(layer)
        .layer(from_fn_with_state(options.auth.tokens(), authenticate))
        .merge(readiness.routes())
        .layer(TraceLayer::new_for_http());

    let listener = listen_on(options.port, "name another with --port").await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            asked_to_stop().await;
            readiness.withdraw();
            sleep(options.linger).await;
            tokio::spawn(async move { sessions.shut_down(options.grace).await });
        })
        .await?;
    Ok(())
}

fn mcp(
    idle: Duration,
    store: BoxSessionStore,
    audience: Audience,
) -> RmcpService<Tools, LocalSessionManager> {
    // The layer ends sessions and says so. rmcp's own limit counts neither streams nor tools that
    // compute, so it is only a backstop, far above.
    let mut manager = LocalSessionManager::default();
    manager.session_config.keep_alive = Some(idle.max(Duration::from_secs(12 * 60 * 60)) * 2);
    // How soon clients come back whose stream was cut, as by a restart.
    manager.session_config.sse_retry = Some(COME_BACK);
    let config = StreamableHttpServerConfig::default().with_sse_retry(Some(COME_BACK));
    let tools = move || {
        Ok(Tools {
            calls: AtomicU64::new(0),
            audience: audience.clone(),
        })
    };
    // A session that was created on another node is restored here when it comes.
    RmcpService::new(store, tools, manager.into(), config)
}

const COME_BACK: Duration = Duration::from_secs(1);

/// One of these is made for each session.
struct Tools {
    calls: AtomicU64,
    audience: Audience,
}

#[tool_router]
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

    #[tool(description = "Sleep, with a progress notification each second")]
    async fn sleep(
        &self,
        Parameters(Sleep { seconds }): Parameters<Sleep>,
        context: RequestContext<RoleServer>,
    ) -> String {
        let mut slept = 0.0;
        while slept < seconds {
            let step = f64::min(1.0, seconds - slept);
            sleep(Duration::from_secs_f64(step)).await;
            slept += step;
            if let Some(token) = context.meta.get_progress_token() {
                let mut progress = ProgressNotificationParam::new(token, slept);
                progress.total = Some(seconds);
                // A client that no longer listens misses it.
                let _ = context.peer.notify_progress(progress).await;
            }
        }
        format!("slept {seconds} s")
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Echo {
    message: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Add {
    a: f64,
    b: f64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Sleep {
    /// At most an hour.
    #[schemars(range(min = 0.0, max = 3600.0))]
    seconds: f64,
}

#[prompt_router]
impl Tools {
    /// Asks for a greeting.
    #[prompt(name = "greeting")]
    async fn greeting(&self) -> Vec<PromptMessage> {
        vec![PromptMessage::new_text(Role::User, "Greet me, please.")]
    }
}

#[tool_handler]
#[prompt_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("server", env!("CARGO_PKG_VERSION")))
    }

    /// By its client, or by a restore on this node. Not in `on_initialized`: of that the client tells one node, and that may be
    /// another one.
    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        self.audience.join(context.peer);
        self.negotiate_initialize(&request)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let about = Resource::new(ABOUT, "about").with_mime_type("text/plain");
        Ok(ListResourcesResult::with_all_items(vec![about]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if request.uri != ABOUT {
            return Err(ErrorData::resource_not_found("no such resource", None));
        }
        let text = ResourceContents::text("An MCP server behind mcp-session-layer.", ABOUT);
        Ok(ReadResourceResult::new(vec![text]).into())
    }
}

const ABOUT: &str = "about://server";

//! An MCP server to deploy: rmcp behind the session layer, with authentication, limits, an admin port and a graceful end.
//!
//! ```console
//! $ cargo run --all-features --example server -- --port 3000 --admin-port 3001 --auth s3cret=alice --auth 0ther=bob
//! ```
//!
//! Open a session as alice, and see it on the admin port:
//!
//! ```console
//! $ curl -si http://127.0.0.1:3000/mcp -H 'authorization: Bearer s3cret' -H 'accept: application/json, text/event-stream' \
//!     -H 'content-type: application/json' \
//!     -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
//! $ curl -s http://127.0.0.1:3001/sessions
//! ```
//!
//! Log alice out. Her sessions are 404 from then on, and their streams end:
//!
//! ```console
//! $ curl -s -X DELETE http://127.0.0.1:3001/principals/alice
//! ```

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    num::NonZeroU64,
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state, map_request},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use clap::Parser;
use mcp_session_layer::{
    BoxSessionStore, CachedStore, McpSessionLayer, MemoryStore, PostgresStore, Principal,
    RedisStore, RmcpSessionStore, SessionRef, Sessions, SqliteStore,
    sqlx::{
        postgres::PgPoolOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
    },
    store::{SessionInfo, StoreError},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::wrapper::Parameters,
    model::{
        Implementation, ListResourcesResult, PaginatedRequestParams, ProgressNotificationParam,
        PromptMessage, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
        Resource, ResourceContents, Role, ServerCapabilities, ServerConfig,
    },
    prompt, prompt_handler, prompt_router, schemars,
    service::RequestContext,
    tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};
use tower_http::trace::TraceLayer;
use tracing_subscriber::EnvFilter;

/// An MCP server with sessions.
#[derive(Parser)]
struct Options {
    /// The port of the MCP endpoint, at /mcp.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Where sessions are kept: memory, sqlite://PATH, postgres://.. or redis://..
    #[arg(long, default_value = "memory")]
    store: String,
    /// For how many seconds a node may trust its memory of a session instead of asking the store.
    #[arg(long)]
    cached: Option<f64>,
    /// How long a session may be idle, as in 2s, 5m, 1h.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
    /// How long a session may live.
    #[arg(long, value_parser = humantime::parse_duration)]
    max_lifetime: Option<Duration>,
    /// How many sessions there may be.
    #[arg(long, default_value = "100000")]
    max_sessions: NonZeroU64,
    /// How many sessions a principal may have.
    #[arg(long)]
    max_sessions_per_principal: Option<NonZeroU64>,
    /// A bearer token and whose it is, as in TOKEN=PRINCIPAL. Repeatable. With it, a token is required.
    #[arg(long, value_parser = token)]
    auth: Vec<(String, Principal)>,
    /// The port to administer sessions on. Loopback only, and without authentication.
    #[arg(long)]
    admin_port: Option<u16>,
    /// How long answers under way may take at the end.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

fn token(text: &str) -> Result<(String, Principal), String> {
    let (token, principal) = text.split_once('=').ok_or("expected TOKEN=PRINCIPAL")?;
    Ok((token.to_owned(), Principal::new(principal)))
}

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,rmcp=warn".into());
    tracing_subscriber::fmt()
        // This part of rmcp writes session ids into its logs, and an id is a secret.
        .with_env_filter(
            filter.add_directive("rmcp::transport::streamable_http_server=off".parse()?),
        )
        .with_writer(std::io::stderr)
        .init();
    let options = Options::parse();
    let store = open(&options).await?;
    let layer = layer(&options, store.clone());
    let sessions = layer.sessions();
    let hits = Hits::default();

    if let Some(port) = options.admin_port {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        println!("http://{}/sessions", listener.local_addr()?);
        let admin = admin(sessions.clone(), hits.clone());
        tokio::spawn(async move { axum::serve(listener, admin).await });
    }

    let tokens: HashMap<_, _> = options.auth.into_iter().collect();
    let app = Router::new()
        .route_service("/mcp", mcp(options.idle_timeout, store))
        .layer(map_request(move |request: Request| {
            hits.0.fetch_add(1, Relaxed);
            std::future::ready(request)
        }))
        .layer(layer)
        .layer(from_fn_with_state(Arc::new(tokens), authenticate))
        .layer(TraceLayer::new_for_http());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            asked_to_stop().await;
            tracing::info!("shutting down");
            tokio::spawn(async move { sessions.shut_down(options.grace).await });
        })
        .await?;
    Ok(())
}

async fn open(options: &Options) -> anyhow::Result<BoxSessionStore> {
    let url = options.store.as_str();
    let store = match url.split_once("://").map_or(url, |(scheme, _)| scheme) {
        "memory" => BoxSessionStore::new(MemoryStore::new()),
        "sqlite" => {
            let file = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal);
            let store = SqliteStore::new(SqlitePoolOptions::new().connect_with(file).await?);
            store.migrate().await?;
            tokio::spawn(store.clone().keep_swept(SWEEP_EVERY));
            BoxSessionStore::new(store)
        }
        "postgres" | "postgresql" => {
            let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
            let store = PostgresStore::new(pool.connect(url).await?);
            store.migrate().await?;
            tokio::spawn(store.clone().keep_swept(SWEEP_EVERY));
            BoxSessionStore::new(store)
        }
        "redis" | "rediss" => BoxSessionStore::new(RedisStore::connect(url).await?),
        _ => anyhow::bail!("unknown store: memory, sqlite://PATH, postgres://.. or redis://.."),
    };
    Ok(match options.cached {
        Some(seconds) => {
            let max_staleness = Duration::try_from_secs_f64(seconds)?;
            BoxSessionStore::new(CachedStore::new(store, max_staleness))
        }
        None => store,
    })
}

fn layer(options: &Options, store: BoxSessionStore) -> McpSessionLayer {
    let mut layer = McpSessionLayer::new(store)
        .with_paths(["/mcp"])
        .with_principal(|parts| Ok(parts.extensions.get::<Principal>().cloned()))
        .with_initialize_params()
        .with_idle_timeout(options.idle_timeout)
        .with_max_sessions(options.max_sessions);
    if let Some(life) = options.max_lifetime {
        layer = layer.with_max_lifetime(life);
    }
    if let Some(sessions) = options.max_sessions_per_principal {
        layer = layer.with_max_sessions_per_principal(sessions);
    }
    layer
}

/// Says who the caller is, or answers 401. Outside the session layer, which asks whose session it is.
async fn authenticate(
    State(tokens): State<Arc<HashMap<String, Principal>>>,
    mut request: Request,
    next: Next,
) -> Response {
    if tokens.is_empty() {
        return next.run(request).await;
    }
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(principal) = token.and_then(|token| tokens.get(token)).cloned() else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    };
    request.extensions_mut().insert(principal);
    next.run(request).await
}

/// How many requests reached the MCP service.
#[derive(Clone, Default)]
struct Hits(Arc<AtomicU64>);

fn admin(sessions: Sessions, hits: Hits) -> Router {
    Router::new()
        .route("/sessions", get(list))
        .route("/sessions/{reference}", delete(end))
        .route("/principals/{principal}", delete(end_of))
        .route("/drain", post(drain))
        .with_state(sessions)
        .route(
            "/hits",
            get(async move || Json(json!({ "hits": hits.0.load(Relaxed) }))),
        )
}

async fn list(State(sessions): State<Sessions>) -> Result<Json<Vec<Value>>, Failed> {
    const PAGE: usize = 1000;
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = sessions.list(after.as_ref(), PAGE).await?;
        rows.extend(page.iter().map(row));
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.reference),
            _ => return Ok(Json(rows)),
        }
    }
}

fn row(listed: &SessionInfo) -> Value {
    let record = &listed.record;
    json!({
        "reference": listed.reference.to_string(),
        "principal": record.owner.principal.as_ref().map(Principal::as_str),
        "client": record.client.as_ref().map(|client| format!("{} {}", client.name, client.version)),
        "age_seconds": listed.age.as_secs_f64(),
        "idle_left_seconds": listed.idle_left.as_secs_f64(),
        "life_left_seconds": listed.life_left.map(|left| left.as_secs_f64()),
    })
}

async fn end(
    State(sessions): State<Sessions>,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failed> {
    let Ok(reference) = reference.parse::<SessionRef>() else {
        return Ok(StatusCode::BAD_REQUEST);
    };
    Ok(match sessions.end(&reference).await? {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    })
}

async fn end_of(
    State(sessions): State<Sessions>,
    Path(principal): Path<String>,
) -> Result<Json<Value>, Failed> {
    let ended = sessions.end_of(Some(&Principal::new(principal))).await?;
    Ok(Json(json!({ "ended": ended })))
}

async fn drain(State(sessions): State<Sessions>) -> StatusCode {
    sessions.drain();
    StatusCode::NO_CONTENT
}

struct Failed(StoreError);

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        tracing::error!(error = &self.0 as &dyn std::error::Error, "admin");
        (StatusCode::SERVICE_UNAVAILABLE, self.0.to_string()).into_response()
    }
}

async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn mcp(
    idle: Duration,
    store: BoxSessionStore,
) -> StreamableHttpService<Tools, LocalSessionManager> {
    // The layer ends sessions and says so. rmcp's own limit counts neither streams nor tools that
    // compute, so it is only a backstop, far above.
    let mut manager = LocalSessionManager::default();
    manager.session_config.keep_alive = Some(idle.max(Duration::from_secs(12 * 60 * 60)) * 2);
    // A session that was created on another node is restored here when it comes.
    let mut config = StreamableHttpServerConfig::default();
    config.session_store = Some(Arc::new(RmcpSessionStore::new(Arc::new(store))));
    StreamableHttpService::new(|| Ok(Tools::default()), manager.into(), config)
}

/// One of these is made for each session.
#[derive(Default)]
struct Tools {
    calls: AtomicU64,
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

const SWEEP_EVERY: Duration = Duration::from_secs(60);
const ABOUT: &str = "about://server";

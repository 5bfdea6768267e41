//! A node: an MCP server behind the layer, in a process of its own.

use std::{env, net::SocketAddr, num::NonZeroU64, process::Stdio, time::Duration};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{
        IntoResponse as _, Response,
        sse::{Event, Sse},
    },
    routing::{get, post},
};
use futures_util::StreamExt as _;
use mcp_session_layer::{
    BoxSessionStore, McpSessionLayer, MemoryStore, Principal, RedisStore, Session, Sessions,
};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::{interval, timeout},
};
use tokio_stream::wrappers::IntervalStream;

/// Serves until whoever started it is gone.
pub(crate) async fn serve(store: &str, max_sessions: Option<NonZeroU64>) -> anyhow::Result<()> {
    let store = match store {
        "memory" => BoxSessionStore::new(MemoryStore::new()),
        url => BoxSessionStore::new(RedisStore::connect(url).await?),
    };
    let mut layer = McpSessionLayer::new(store)
        .with_paths(["/mcp"])
        .with_legacy_only([REVISION])
        .with_principal(|parts| {
            let user = parts.headers.get("x-user").map(|user| user.to_str());
            Ok(user.transpose()?.map(Principal::new))
        });
    if let Some(most) = max_sessions {
        layer = layer.with_max_sessions(most);
    }
    let count = get(count).with_state(layer.sessions());
    let app = Router::new()
        .route("/mcp", post(mcp).get(listen))
        .layer(layer)
        .route("/count", count);

    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let mut starter = tokio::io::stdin();
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        _ = starter.read_u8() => {}
    }
    Ok(())
}

/// Answers with what the session remembers of its client.
async fn mcp(session: Option<Session>, Json(message): Json<Map<String, Value>>) -> Response {
    let (Some(id), Some(method)) = (message.get("id"), message.get("method")) else {
        return StatusCode::ACCEPTED.into_response();
    };
    let result = match method.as_str() {
        Some("initialize") => json!({
            "protocolVersion": REVISION,
            "capabilities": {},
            "serverInfo": {"name": "soak", "version": "1"},
        }),
        _ => json!({"client": session.as_ref().map(client)}),
    };
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

/// The same as an event, now and then.
async fn listen(session: Session) -> Response {
    let client = client(&session);
    let events = IntervalStream::new(interval(TICK));
    let events = events.map(move |_| anyhow::Ok(Event::default().data(&client)));
    Sse::new(events).into_response()
}

fn client(session: &Session) -> String {
    let client = session.record().client;
    client.map_or_else(String::new, |client| client.name)
}

async fn count(State(sessions): State<Sessions>) -> Result<String, StatusCode> {
    let count = sessions.count().await;
    let count = count.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(count.to_string())
}

/// The process. It ends with this value, and with ours.
pub(crate) struct Node {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Node {
    pub(crate) async fn start(store: &str, max_sessions: Option<u64>) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--node", store]);
        if let Some(most) = max_sessions {
            command.args(["--max-sessions", &most.to_string()]);
        }
        let mut process = command
            // Never written to: its end is ours.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().context("a piped stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = timeout(Duration::from_secs(20), lines.next_line()).await??;
        let address = address.context("the node did not start")?.parse()?;
        Ok(Self { process, address })
    }

    pub(crate) fn resident(&self) -> u64 {
        self.process.id().map_or(0, resident)
    }
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.map_or(0, |kibibytes| kibibytes << 10)
}

/// The one protocol revision that the node speaks.
pub(crate) const REVISION: &str = "2025-11-25";
/// How often a stream says something.
const TICK: Duration = Duration::from_secs(15);

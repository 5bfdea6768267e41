//! A node: the layer, and rmcp's server behind it with a few tools.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, BodyDataStream, Bytes},
    http::{Request, Response, request::Parts},
};
use futures_util::StreamExt as _;
use mcp_session_layer::{McpSessionLayer, RmcpService, Session, SessionStore};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::{tool::Extension, wrapper::Parameters},
    model::{InitializeRequestParams, InitializeResult, ServerCapabilities, ServerConfig},
    schemars,
    service::RequestContext,
    tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        SessionRestoreMarker, StreamableHttpServerConfig, session::local::LocalSessionManager,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower::{Layer as _, ServiceExt as _};

use crate::support::{
    answers::{Answer, send},
    layer::{layer, user_header},
    requests::{INITIALIZED, PING, as_user, initialize, post, request},
};

pub(crate) struct Node {
    pub(crate) app: Router,
    pub(crate) manager: Arc<LocalSessionManager>,
    pub(crate) service: Arc<Conduct>,
}

/// How the service behaves, and what became of it.
#[derive(Default)]
pub(crate) struct Conduct {
    /// It cannot be made.
    pub(crate) fails: AtomicBool,
    /// How many milliseconds it takes to answer `initialize`.
    pub(crate) slow: AtomicU64,
    /// How often it was initialized by a client, and by a restore.
    pub(crate) created: AtomicUsize,
    pub(crate) restored: AtomicUsize,
}

impl Node {
    pub(crate) fn new(store: &(impl SessionStore + Clone)) -> Self {
        Self::with(store, LocalSessionManager::default(), |layer| layer, None)
    }

    pub(crate) fn with(
        store: &(impl SessionStore + Clone),
        manager: LocalSessionManager,
        set: impl FnOnce(McpSessionLayer) -> McpSessionLayer,
        event_key: Option<&str>,
    ) -> Self {
        let layer = layer(store.clone())
            .with_initialize_params()
            .with_principal(user_header);
        let manager = Arc::new(manager);
        let service = Arc::new(Conduct::default());
        let conduct = Arc::clone(&service);
        let make = move || match conduct.fails.load(SeqCst) {
            true => Err(std::io::Error::other("no service today")),
            false => Ok(Tools(Arc::clone(&conduct))),
        };
        let config = StreamableHttpServerConfig::default();
        let mut mcp = RmcpService::new(store.clone(), make, Arc::clone(&manager), config);
        if let Some(key) = event_key {
            mcp = mcp.with_event_key(key);
        }
        Self {
            app: Router::new().route_service("/mcp", set(layer).layer(mcp)),
            manager,
            service,
        }
    }

    pub(crate) async fn send(&self, user: &str, request: Request<Body>) -> Answer {
        send(&self.app, as_user(request, user)).await
    }

    /// The head of an answer whose body may go on for ever.
    pub(crate) async fn open(&self, user: &str, request: Request<Body>) -> Response<Body> {
        let answer = self.app.clone().oneshot(as_user(request, user)).await;
        answer.unwrap()
    }

    pub(crate) async fn initialize(&self, user: &str) -> String {
        let id = self.send(user, initialize()).await.id();
        let mut initialized = post(&id);
        *initialized.body_mut() = INITIALIZED.into();
        assert_eq!(self.send(user, initialized).await.status, 202);
        id
    }

    pub(crate) async fn ping(&self, user: &str, id: &str) -> u16 {
        let answer = self.send(user, ping(id)).await;
        if answer.status / 100 == 2 {
            assert!(answer.body.contains("\"result\":{}"), "{:?}", answer.body);
        }
        answer.status
    }

    pub(crate) async fn holds(&self) -> usize {
        self.manager.sessions.read().await.len()
    }

    /// Waits until the inner service holds that many sessions.
    pub(crate) async fn until_it_holds(&self, sessions: usize) {
        for _ in 0..200 {
            if self.holds().await == sessions {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.holds().await, sessions);
    }
}

/// Under an id of its own: rmcp mixes up answers to requests that have the same.
pub(crate) fn ping(id: &str) -> Request<Body> {
    static NUMBER: AtomicUsize = AtomicUsize::new(100);
    let number = NUMBER.fetch_add(1, Relaxed);
    let mut ping = post(id);
    *ping.body_mut() = PING.replace("7", &number.to_string()).into();
    ping
}

/// A call of a tool.
#[allow(clippy::needless_pass_by_value)] // so that calls read well
pub(crate) fn call(id: &str, tool: &str, arguments: Value) -> Request<Body> {
    let params = json!({ "name": tool, "arguments": arguments });
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
    request("POST")
        .header("mcp-session-id", id)
        .header("mcp-protocol-version", "2025-11-25")
        .body(message.to_string().into())
        .unwrap()
}

/// The text of a tool's answer.
#[track_caller]
pub(crate) fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.wire());
    let mut lines = answer.body.lines().rev();
    let data = lines.find_map(|line| line.strip_prefix("data: "));
    let message: Value = serde_json::from_str(data.expect("an event")).unwrap();
    let text = &message["result"]["content"][0]["text"];
    text.as_str()
        .unwrap_or_else(|| panic!("{message}"))
        .to_owned()
}

/// A stream of events as it comes in.
pub(crate) struct Events {
    body: BodyDataStream,
    read: String,
}

impl Events {
    pub(crate) fn of(response: Response<Body>) -> Self {
        Self {
            body: response.into_body().into_data_stream(),
            read: String::new(),
        }
    }

    /// The next event, without what keeps the stream alive. `None` at its end, or if none comes in time.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let event = event.to_owned();
                self.read = rest.to_owned();
                match event.starts_with(':') {
                    true => continue,
                    false => return Some(event),
                }
            }
            let next = timeout(Duration::from_secs(2), self.body.next()).await;
            let bytes: Bytes = next.ok()??.ok()?;
            self.read += std::str::from_utf8(&bytes).unwrap();
        }
    }

    /// The next event's id.
    pub(crate) async fn next_id(&mut self) -> Option<String> {
        id_of(&self.next().await?)
    }
}

pub(crate) fn id_of(event: &str) -> Option<String> {
    let mut lines = event.lines();
    let id = lines.find_map(|line| line.strip_prefix("id:"))?;
    Some(id.trim().to_owned())
}

pub(crate) struct Tools(Arc<Conduct>);

#[derive(Deserialize, schemars::JsonSchema)]
struct Sleep {
    milliseconds: u64,
}

#[tool_router]
impl Tools {
    #[tool(description = "Sleep")]
    async fn sleep(&self, Parameters(Sleep { milliseconds }): Parameters<Sleep>) -> String {
        sleep(Duration::from_millis(milliseconds)).await;
        "slept".to_owned()
    }

    #[tool(description = "Count the calls of this session on this node, and say whose it is")]
    fn mine(&self, Extension(parts): Extension<Parts>) -> String {
        let session = parts.extensions.get::<Session>().expect("behind the layer");
        let calls = session.local::<AtomicU64>().fetch_add(1, Relaxed) + 1;
        let owner = session.owner().principal.as_ref();
        let owner = owner.map_or("nobody", |principal| principal.as_str());
        format!("{calls} {owner} {}", session.reference())
    }

    #[tool(description = "Tell the client that there are other tools")]
    async fn tell(&self, context: RequestContext<RoleServer>) -> String {
        context.peer.notify_tool_list_changed().await.unwrap();
        "told".to_owned()
    }
}

#[tool_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let extensions = &context.extensions;
        assert!(extensions.get::<Parts>().is_some());
        match extensions.get::<SessionRestoreMarker>() {
            Some(_) => &self.0.restored,
            None => &self.0.created,
        }
        .fetch_add(1, SeqCst);
        sleep(Duration::from_millis(self.0.slow.load(SeqCst))).await;
        context.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }
}

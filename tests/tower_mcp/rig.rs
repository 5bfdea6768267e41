//! Inner services behind a layer, which say how many sessions they have.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{Router, body::Body};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, header::AUTHORIZATION};
use mcp_session_layer::{InnerContext, McpSessionLayer, MemoryStore};
use parking_lot::Mutex;
use rmcp::transport::streamable_http_server::{
    StreamableHttpService, session::local::LocalSessionManager,
};
use tower::{Layer as _, service_fn, util::BoxCloneSyncService};
use tower_mcp::{HttpTransport, McpRouter};

use crate::support::{
    answers::{Answer, RESULT, question_of, result_of, send},
    layer::{SessionLayer, layer},
    requests::{initialize, post, with_header},
    rmcp_server::Server,
    time::HOUR,
};

/// Who is calling, as an authentication in front of the layer has found.
#[derive(Clone)]
pub(crate) struct Identity(pub(crate) String);

type Endpoint = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// An inner service behind a layer.
pub(crate) struct Rig {
    pub(crate) name: &'static str,
    pub(crate) layer: SessionLayer,
    pub(crate) endpoint: Endpoint,
    inside: Box<dyn Fn() -> BoxFuture<'static, usize> + Send + Sync>,
}

pub(crate) type Set = fn(SessionLayer) -> SessionLayer;

/// One for each kind of inner service, with these settings and what it needs to know its callers.
pub(crate) fn all(set: Set) -> Vec<Rig> {
    let known = |set: Set| set(layer(MemoryStore::new())).with_inner_context(context);
    vec![
        tower_mcp(known(set)),
        tower_mcp_by_routes(known(set)),
        rmcp(set(layer(MemoryStore::new()))),
        with_bearers(known(set)),
    ]
}

pub(crate) fn context(request: &http::request::Parts) -> InnerContext {
    InnerContext::new()
        .with_headers_of(request, [AUTHORIZATION])
        .with_extension_of::<Identity>(request)
}

/// tower-mcp, which binds sessions to whom the authentication in front of it names.
pub(crate) fn transport() -> HttpTransport {
    HttpTransport::new(McpRouter::new().server_info("inner", "1.0.0"))
        .disable_origin_validation()
        .bridge_extension::<Identity>()
        .session_principal_from_extension::<Identity>(|identity| identity.0.clone())
}

pub(crate) fn tower_mcp(layer: McpSessionLayer) -> Rig {
    let (mcp, handle) = transport().into_router_at_with_handle("/mcp");
    let endpoint = Endpoint::new(layer.layer(mcp));
    rig("tower-mcp", layer, endpoint, handle)
}

/// Under `Router::layer`, where each method's handler is wrapped apart.
pub(crate) fn tower_mcp_by_routes(layer: McpSessionLayer) -> Rig {
    let (mcp, handle) = transport().into_router_at_with_handle("/mcp");
    let layer = layer.with_paths(["/mcp"]).with_inner(mcp.clone());
    let app: Router = mcp.layer(layer.clone());
    rig(
        "tower-mcp under Router::layer",
        layer,
        Endpoint::new(app),
        handle,
    )
}

fn rig(
    name: &'static str,
    layer: SessionLayer,
    endpoint: Endpoint,
    handle: tower_mcp::SessionHandle,
) -> Rig {
    Rig {
        name,
        layer,
        endpoint,
        inside: Box::new(move || {
            let handle = handle.clone();
            Box::pin(async move { handle.session_count().await })
        }),
    }
}

fn rmcp(layer: McpSessionLayer) -> Rig {
    let mut manager = LocalSessionManager::default();
    // Longer than the layer's own time, as the docs say.
    manager.session_config.keep_alive = Some(24 * HOUR);
    let manager = Arc::new(manager);
    let mcp = StreamableHttpService::new(|| Ok(Server), Arc::clone(&manager), Default::default());
    Rig {
        name: "rmcp",
        endpoint: Endpoint::new(layer.layer(mcp)),
        layer,
        inside: Box::new(move || {
            let manager = Arc::clone(&manager);
            Box::pin(async move { manager.sessions.read().await.len() })
        }),
    }
}

/// As a server behind a proxy that wants a bearer token, and whose sessions belong to it.
fn with_bearers(layer: McpSessionLayer) -> Rig {
    let sessions = Arc::<Mutex<HashMap<String, String>>>::default();
    let served = Arc::clone(&sessions);
    let server = service_fn(move |request: Request<Body>| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(answer(&served, request).await) }
    });
    Rig {
        name: "a server that wants bearer tokens",
        endpoint: Endpoint::new(layer.layer(server)),
        layer,
        inside: Box::new(move || {
            let number = sessions.lock().len();
            Box::pin(std::future::ready(number))
        }),
    }
}

async fn answer(
    sessions: &Mutex<HashMap<String, String>>,
    request: Request<Body>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let status = |status: u16| {
        Response::builder()
            .status(status)
            .body(Body::empty())
            .unwrap()
    };
    let text = |headers: &HeaderMap, name: &str| {
        let value = headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let Some(token) = text(&head.headers, "authorization") else {
        return status(401);
    };
    let id = text(&head.headers, "mcp-session-id");
    let is_initialize = body.windows(12).any(|part| part == b"\"initialize\"");
    let mut sessions = sessions.lock();
    let mut response = Response::new(Body::from(match question_of(&body) {
        Some(question) => result_of(&question),
        None => RESULT.to_owned(),
    }));
    let json = "application/json".parse().unwrap();
    response.headers_mut().insert("content-type", json);
    if let Some(id) = &id
        && sessions.get(id) != Some(&token)
    {
        return status(403);
    }
    if head.method == Method::DELETE {
        sessions.remove(&id.unwrap());
        return status(204);
    }
    // With a session or without: it opens another one each time.
    if is_initialize {
        let issued = uuid::Uuid::new_v4().to_string();
        sessions.insert(issued.clone(), token);
        let issued = issued.parse().unwrap();
        response.headers_mut().insert("mcp-session-id", issued);
    }
    response
}

/// From this user, as the authentication in front passes it on.
pub(crate) fn by(user: &str, request: Request<Body>) -> Request<Body> {
    let mut request = with_header(request, "authorization", &format!("Bearer {user}"));
    request.extensions_mut().insert(Identity(user.to_owned()));
    request
}

impl Rig {
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.endpoint, request).await
    }

    /// Creates a session and uses it.
    pub(crate) async fn open(&self, user: &str) -> String {
        let created = self.send(by(user, initialize())).await;
        assert_eq!(created.status, 200, "{}", self.name);
        let id = created.id();
        let initialized = self.send(by(user, initialized(&id))).await;
        assert!(initialized.status < 300, "{}", self.name);
        assert_eq!(self.send(by(user, post(&id))).await.status, 200);
        id
    }

    /// How many sessions the inner service has.
    pub(crate) async fn inside(&self) -> usize {
        (self.inside)().await
    }

    /// How many the layer has.
    pub(crate) async fn counted(&self) -> usize {
        usize::try_from(self.layer.sessions().count().await.unwrap()).unwrap()
    }
}

pub(crate) fn initialized(id: &str) -> Request<Body> {
    let (head, _) = post(id).into_parts();
    let body = crate::support::requests::INITIALIZED;
    Request::from_parts(head, body.into())
}

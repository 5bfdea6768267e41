//! A client that starts anonymously and logs in when a tool asks it to, which is when its session becomes its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures_util::stream::BoxStream;
use mcp_session_layer::{MemoryStore, Principal};
use rmcp::{
    ServiceExt,
    model::ClientJsonRpcMessage,
    tool, tool_router,
    transport::{
        StreamableHttpClientTransport, StreamableHttpService,
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpClientTransportConfig,
            StreamableHttpError, StreamableHttpPostResponse,
        },
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use serde_json::json;
use sse_stream::Sse;

use crate::{
    Client, Ears, check, raw_as,
    relay::Relay,
    serve,
    support::{answers::NOT_FOUND, layer::layer},
    until,
};

/// A session that was created anonymously goes on after the login, for the one who logged in alone.
#[tokio::test]
async fn login() -> anyhow::Result<()> {
    let url = serve(app()).await;
    let (relay, through) = Relay::start(&url).await?;
    let http = LogsIn {
        http: client_of(StreamableHttpClientTransport::from_uri),
        token: Arc::default(),
    };
    let token = Arc::clone(&http.token);
    // For the relay, to which a connection is an exchange.
    let close = HashMap::from([(header::CONNECTION, HeaderValue::from_static("close"))]);
    let config = StreamableHttpClientTransportConfig::with_uri(through).custom_headers(close);
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let rmcp = Ears::default().serve(transport).await?;
    let client = Client { rmcp, relay };

    let gets = || {
        let exchanges = client.relay.exchanges().into_iter();
        let gets = exchanges.filter(|exchange| exchange.method() == "GET");
        gets.collect::<Vec<_>>()
    };
    until(|| gets().iter().any(|get| get.status() == "200")).await;
    check("opens a stream anonymously", gets()[0].status(), "200");
    check("has not logged in", token.get(), None);
    let id = client.id();
    let (status, _) = raw_as(None, &url, "POST", &id).await?;
    check("is served anonymously", status, 200);

    let count = client.call("counter", json!({})).await?;
    check("a tool asks for a login, and answers", count, "1");
    check("has logged in", token.get().is_some(), true);
    let refused = client.exchange(|exchange| exchange.status() == "401");
    check("because of a 401", refused.is_some(), true);
    check("has one session", client.session_ids(), [id.clone()]);
    until(|| gets()[0].ended).await;
    check("the anonymous stream has ended", gets()[0].ended, true);
    let count = client.call("counter", json!({})).await?;
    check("the session goes on", count, "2");
    check("and has no successor", client.session_ids().len(), 1);

    for stranger in [None, Some("0ther")] {
        let (status, body) = raw_as(stranger, &url, "POST", &id).await?;
        check("is 404 to everybody else", status, 404);
        check("and they learn no more", body, NOT_FOUND);
    }
    let (status, _) = raw_as(Some("s3cret"), &url, "POST", &id).await?;
    check("and served to its owner", status, 200);
    Ok(())
}

/// Everybody may open a session; who calls a tool has to say who it is.
fn app() -> Router {
    let layer = layer(MemoryStore::new())
        .with_principal(|parts| Ok(parts.extensions.get::<Principal>().cloned()))
        .with_claim_on_login();
    let mcp = StreamableHttpService::new(
        || Ok(Tools::default()),
        Arc::<LocalSessionManager>::default(),
        Default::default(),
    );
    Router::new()
        .route_service("/mcp", mcp)
        .layer(from_fn(ask))
        .layer(layer)
        .layer(from_fn(authenticate))
}

async fn authenticate(mut request: Request, next: Next) -> Response {
    let principal = match request.headers().get(header::AUTHORIZATION) {
        Some(token) if token == "Bearer s3cret" => Some(Principal::new("alice")),
        Some(token) if token == "Bearer 0ther" => Some(Principal::new("bob")),
        _ => None,
    };
    if let Some(principal) = principal {
        request.extensions_mut().insert(principal);
    }
    next.run(request).await
}

async fn ask(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 * 1024).await.expect("a short body");
    let calls = String::from_utf8_lossy(&body).contains(r#""tools/call""#);
    if calls && parts.extensions.get::<Principal>().is_none() {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

#[derive(Default)]
struct Tools(AtomicU64);

#[tool_router(server_handler)]
impl Tools {
    #[tool(description = "Count the calls of this session")]
    fn counter(&self) -> String {
        (self.0.fetch_add(1, Relaxed) + 1).to_string()
    }
}

/// rmcp's HTTP client, which gets itself a token when it is told 401 and says the same again.
#[derive(Clone)]
struct LogsIn<C> {
    http: C,
    token: Arc<OnceLock<String>>,
}

impl<C: StreamableHttpClient + Sync> LogsIn<C> {
    fn token(&self) -> Option<String> {
        self.token.get().cloned()
    }
}

impl<C: StreamableHttpClient + Sync> StreamableHttpClient for LogsIn<C> {
    type Error = C::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        id: Option<Arc<str>>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<C::Error>> {
        let post = || {
            let (uri, message, id) = (uri.clone(), message.clone(), id.clone());
            self.http
                .post_message(uri, message, id, self.token(), headers.clone())
        };
        match post().await {
            Err(StreamableHttpError::AuthRequired(_)) => {
                self.token.get_or_init(|| "s3cret".to_owned());
                post().await
            }
            answer => answer,
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        id: Arc<str>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), StreamableHttpError<C::Error>> {
        let token = self.token();
        self.http.delete_session(uri, id, token, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        id: Option<Arc<str>>,
        last: Option<String>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, StreamableHttpError<C::Error>> {
        let token = self.token();
        self.http.get_stream(uri, id, last, token, headers).await
    }
}

/// The HTTP client of a transport, whose type has no name here.
fn client_of<C: Default + StreamableHttpClient>(
    _: impl FnOnce(&'static str) -> StreamableHttpClientTransport<C>,
) -> C {
    C::default()
}

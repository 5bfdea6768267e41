//! A client that does what it is told, and keeps its session id.

use axum::body::{Body, to_bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response,
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use tower::{BoxError, Service, ServiceExt as _};

use crate::protocol::{PROTOCOL_VERSION, SESSION_ID};

/// An MCP client over a service in the same process, an axum `Router` for example.
///
/// It does what it is told and nothing else: it keeps the session id that it got, and sends it also when it was told that
/// the session is gone. An answer is read whole; a refusal has its [`Rejection`](crate::Rejection) in the extensions.
///
/// What does my app tell a client while its store hangs, and after its MCP service was restarted?
///
/// ```
/// # use axum::Router;
/// # use mcp_session_layer::{McpSessionLayer, MemoryStore};
/// # use tower::Layer;
/// use mcp_session_layer::testing::{Fault, FaultyStore, McpClient, McpServer, Verb};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let (store, server) = (FaultyStore::new(MemoryStore::new()), McpServer::new());
/// let layer = McpSessionLayer::new(store.clone());
/// let app: Router = Router::new().route_service("/mcp", layer.layer(server.clone()));
///
/// let mut client = McpClient::new(app, "/mcp");
/// client.initialize().await?;
/// assert_eq!(client.ping().await?.status(), 200);
/// store.disturb([Verb::Touch], Fault::Hangs);
/// assert_eq!(client.ping().await?.status(), 503);
/// store.recover();
/// server.forget_sessions();
/// assert_eq!(client.ping().await?.status(), 404);
/// # Ok(())
/// # }
/// ```
///
/// A test that is `#[tokio::test(start_paused = true)]` (tokio's feature `test-util`) waits for none of this.
#[derive(Debug, Clone)]
pub struct McpClient<S> {
    service: S,
    path: String,
    headers: HeaderMap,
    session: Option<HeaderValue>,
}

impl<S> McpClient<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>> + Clone,
{
    /// A client of the MCP endpoint at this path.
    #[must_use]
    pub fn new(service: S, path: impl Into<String>) -> Self {
        Self {
            service,
            path: path.into(),
            headers: HeaderMap::new(),
            session: None,
        }
    }

    /// Sends this header with every request, its credentials for example.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Uses another client's session, whether it may or not.
    pub fn use_session(&mut self, id: Option<HeaderValue>) {
        self.session = id;
    }

    /// The session id that it has.
    #[must_use]
    pub fn session(&self) -> Option<&HeaderValue> {
        self.session.as_ref()
    }

    /// Begins a new session.
    ///
    /// # Errors
    ///
    /// When the service fails, or an answer breaks off.
    pub async fn initialize(&mut self) -> Result<Response<String>, BoxError> {
        self.session = None;
        let answer = self.post(INITIALIZE).await?;
        self.session = answer.headers().get(&SESSION_ID).cloned();
        Ok(answer)
    }

    /// Sends a `ping`.
    ///
    /// # Errors
    ///
    /// As [`initialize`](Self::initialize).
    pub async fn ping(&self) -> Result<Response<String>, BoxError> {
        self.post(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)
            .await
    }

    /// Sends a JSON-RPC message.
    ///
    /// # Errors
    ///
    /// As [`initialize`](Self::initialize).
    pub async fn post(&self, message: &str) -> Result<Response<String>, BoxError> {
        read(self.send(Method::POST, message.to_owned().into()).await?).await
    }

    /// Opens a stream. The answer's body is still to come.
    ///
    /// # Errors
    ///
    /// When the service fails.
    pub async fn open_stream(&self) -> Result<Response<Body>, BoxError> {
        self.send(Method::GET, Body::empty()).await
    }

    /// Ends its session.
    ///
    /// # Errors
    ///
    /// As [`initialize`](Self::initialize).
    pub async fn delete(&self) -> Result<Response<String>, BoxError> {
        read(self.send(Method::DELETE, Body::empty()).await?).await
    }

    async fn send(&self, method: Method, body: Body) -> Result<Response<Body>, BoxError> {
        let mut request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(body)?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        if let Some(id) = &self.session {
            headers.insert(&SESSION_ID, id.clone());
            headers.insert(&PROTOCOL_VERSION, HeaderValue::from_static(VERSION));
        }
        let answer = self.service.clone().oneshot(request);
        answer.await.map_err(Into::into)
    }
}

async fn read(answer: Response<Body>) -> Result<Response<String>, BoxError> {
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await?;
    Ok(Response::from_parts(head, String::from_utf8(body.into())?))
}

const VERSION: &str = "2025-11-25";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test-kit","version":"1"}}}"#;

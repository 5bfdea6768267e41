//! A small MCP server.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, to_bytes};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::Service;

use crate::protocol::{SESSION_ID, SessionId};

/// A small MCP server to put behind the layer: it speaks the revisions with sessions, and nothing of it is asynchronous that
/// need not be.
///
/// It issues session ids, answers `initialize`, and every other request with an empty result. It opens a stream for a GET,
/// ends a session for a DELETE, and answers 404 on sessions that it does not have. Clones are the same server.
#[derive(Clone, Default)]
pub struct McpServer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    issues_no_ids: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each with its streams.
    sessions: HashMap<HeaderValue, Vec<mpsc::UnboundedSender<Bytes>>>,
    requests: u64,
}

impl McpServer {
    /// A server that issues session ids.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A server that knows nothing of sessions, so that the layer issues ids.
    #[must_use]
    pub fn without_sessions() -> Self {
        Self(Arc::new(Shared {
            issues_no_ids: true,
            ..Shared::default()
        }))
    }

    /// How many requests have reached it, the layer's own included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.state.lock().requests
    }

    /// How many sessions it has.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.state.lock().sessions.len()
    }

    /// Sends a JSON-RPC message on every open stream.
    pub fn notify(&self, message: &str) {
        let event = Bytes::from(format!("data: {message}\n\n"));
        let mut state = self.0.state.lock();
        for streams in state.sessions.values_mut() {
            streams.retain(|stream| stream.send(event.clone()).is_ok());
        }
    }

    /// Forgets all sessions and ends their streams, as a restart does.
    pub fn forget_sessions(&self) {
        self.0.state.lock().sessions.clear();
    }

    async fn serve(self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return status(StatusCode::BAD_REQUEST);
        };
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut state = self.0.state.lock();
        state.requests += 1;
        let id = head.headers.get(&SESSION_ID);
        if message["method"] == "initialize" && id.is_none() {
            let mut response = result(&message, &introduction(&message));
            if !self.0.issues_no_ids {
                let id = SessionId::issue().to_header();
                state.sessions.insert(id.clone(), Vec::new());
                response.headers_mut().insert(&SESSION_ID, id);
            }
            return response;
        }
        if !self.0.issues_no_ids && !id.is_some_and(|id| state.sessions.contains_key(id)) {
            return status(StatusCode::NOT_FOUND);
        }
        match head.method {
            Method::DELETE => {
                id.and_then(|id| state.sessions.remove(id));
                status(StatusCode::NO_CONTENT)
            }
            Method::GET => {
                let (events, body) = mpsc::unbounded_channel();
                let id = id.cloned().unwrap_or(HeaderValue::from_static("-"));
                state.sessions.entry(id).or_default().push(events);
                stream(Body::new(Events(body)))
            }
            Method::POST if message.get("id").is_some() => result(&message, &json!({})),
            Method::POST => status(StatusCode::ACCEPTED),
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

impl Service<Request<Body>> for McpServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.serve(request).await) })
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer")
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

/// A stream's body. It ends when the session does.
struct Events(mpsc::UnboundedReceiver<Bytes>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = self.0.poll_recv(cx);
        event.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

/// The result of `initialize`.
fn introduction(message: &Value) -> Value {
    let asked = message["params"]["protocolVersion"].as_str();
    json!({
        "protocolVersion": asked.unwrap_or("2025-11-25"),
        "capabilities": {},
        "serverInfo": { "name": "mcp-session-layer test-kit", "version": env!("CARGO_PKG_VERSION") },
    })
}

fn result(message: &Value, result: &Value) -> Response<Body> {
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    typed("application/json", Body::from(answer.to_string()))
}

fn stream(body: Body) -> Response<Body> {
    typed("text/event-stream", body)
}

fn typed(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(content_type);
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

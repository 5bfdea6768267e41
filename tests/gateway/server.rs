//! A small MCP server that says what it has seen.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
    routing::any,
};
use futures_util::StreamExt as _;
use http::request::Parts;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::rig::PATIENCE;

pub(crate) type Events = mpsc::UnboundedSender<Result<Bytes, std::io::Error>>;

/// Clones are the same server.
#[derive(Clone)]
pub(crate) struct Server {
    seen: Arc<Mutex<Vec<Parts>>>,
    /// The senders of the streams that it has opened.
    events: Arc<Mutex<Vec<Events>>>,
    /// The ids of its sessions.
    issued: Arc<Mutex<HashSet<String>>>,
    /// One for each answer whose reader went away.
    hung_up: Arc<Semaphore>,
    /// What every request has to have as its `Authorization`, if anything.
    token: Option<&'static str>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            seen: Arc::default(),
            events: Arc::default(),
            issued: Arc::default(),
            hung_up: Arc::new(Semaphore::new(0)),
            token: None,
        }
    }

    /// One that checks its callers by itself.
    pub(crate) fn with_token(token: &'static str) -> Self {
        Self {
            token: Some(token),
            ..Self::new()
        }
    }

    /// A new one that runs, and where.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let server = Self::new();
        let (address, _) = server.listen(0).await;
        (server, address)
    }

    /// Runs until it is aborted.
    pub(crate) async fn listen(&self, port: u16) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/mcp", any(mcp))
            .fallback(other)
            .with_state(self.clone());
        let running = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (address, running)
    }

    /// The heads of all requests until now, without those by which the layer asks whether a session lives.
    pub(crate) fn seen(&self) -> Vec<Parts> {
        self.seen.lock().clone()
    }

    /// The headers of the last request.
    pub(crate) fn last(&self) -> HeaderMap {
        self.seen.lock().last().expect("a request").headers.clone()
    }

    /// How many sessions it has.
    pub(crate) fn sessions(&self) -> usize {
        self.issued.lock().len()
    }

    /// Forgets its sessions, as a restart does.
    pub(crate) fn forget(&self) {
        self.issued.lock().clear();
    }

    /// To send on the stream that it opened last.
    pub(crate) fn stream(&self) -> Events {
        self.events.lock().last().expect("a stream").clone()
    }

    /// Closes the streams, properly.
    pub(crate) fn close(&self) {
        self.events.lock().clear();
    }

    /// Waits until one more reader of an answer has gone.
    pub(crate) async fn hung_up(&self) {
        let permit = timeout(PATIENCE, self.hung_up.acquire()).await;
        permit.expect("noticed in time").unwrap().forget();
    }

    pub(crate) async fn until_seen(&self, count: usize) {
        let seen = async {
            while self.seen.lock().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, seen).await.expect("seen in time");
    }

    fn guard(&self) -> Guard {
        Guard(Arc::clone(&self.hung_up))
    }
}

/// Says at its end that nobody reads any more.
struct Guard(Arc<Semaphore>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// The endpoint. `x-do` in a request says what to do with it.
async fn mcp(State(server): State<Server>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Nobody has called: it is the layer that asks, whenever it has a reason.
    let is_question = head.method == Method::POST && !head.headers.contains_key("x-forwarded-for");
    if !is_question {
        server.seen.lock().push(head.clone());
    }
    let token = head.headers.get("authorization");
    if server
        .token
        .is_some_and(|wanted| token.is_none_or(|token| token != wanted))
    {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match head.headers.get("x-do").map(|what| what.as_bytes()) {
        Some(b"refuse") => return StatusCode::BAD_REQUEST.into_response(),
        Some(b"wait") => {
            let _guard = server.guard();
            std::future::pending::<()>().await;
        }
        Some(b"six seconds") => sleep(Duration::from_secs(6)).await,
        Some(b"one second") => sleep(Duration::from_secs(1)).await,
        _ => {}
    }
    let id = head.headers.get("mcp-session-id");
    let id = id.map(|id| id.to_str().unwrap());
    if id.is_some_and(|id| !server.issued.lock().contains(id)) {
        return (StatusCode::BAD_REQUEST, "no such session").into_response();
    }
    match head.method {
        Method::GET => stream(&server),
        Method::DELETE => {
            server.issued.lock().remove(id.unwrap());
            StatusCode::NO_CONTENT.into_response()
        }
        _ => {
            let body = body.collect().await.map(|body| body.to_bytes());
            let message: Value =
                serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
            let answer = Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": {} }));
            if message["method"] != "initialize" {
                return answer.into_response();
            }
            let id = uuid::Uuid::new_v4().to_string();
            server.issued.lock().insert(id.clone());
            ([("mcp-session-id", id)], answer).into_response()
        }
    }
}

/// Every other path: an endless stream at /stream, somewhere else at /moved, what is asked for at /echo.
async fn other(State(server): State<Server>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    server.seen.lock().push(head.clone());
    match head.uri.path() {
        "/stream" => stream(&server),
        "/moved" => {
            let host = head.headers["host"].to_str().unwrap();
            let place = format!("http://{host}/moved/?here");
            (StatusCode::TEMPORARY_REDIRECT, [("location", place)]).into_response()
        }
        "/elsewhere" => {
            let place = "http://elsewhere.example/";
            (StatusCode::TEMPORARY_REDIRECT, [("location", place)]).into_response()
        }
        "/cors" => {
            let origin = head.headers["origin"].clone();
            [("access-control-allow-origin", origin)].into_response()
        }
        "/headers" => Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("connection", "keep-alive, x-mine")
            .header("keep-alive", "timeout=5")
            .header("x-mine", "for the gateway alone")
            .header("x-many", "one")
            .header("x-many", "two")
            .header("www-authenticate", "Bearer resource_metadata=\"x\"")
            .body(Body::from("tea"))
            .unwrap(),
        _ => Response::new(body),
    }
}

fn stream(server: &Server) -> Response {
    let (events, coming) = mpsc::unbounded_channel();
    server.events.lock().push(events);
    let guard = server.guard();
    let stream = UnboundedReceiverStream::new(coming).map(move |event| {
        let _held = &guard;
        event
    });
    let body = Body::from_stream(stream);
    ([("content-type", "text/event-stream; charset=utf-8")], body).into_response()
}

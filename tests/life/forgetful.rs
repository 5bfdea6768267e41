//! An inner service that checks its sessions by itself and may forget them: each of its ways is some real server's.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mcp_session_layer::SessionStore;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneSyncService};

use crate::support::{
    answers::id_of,
    layer::{SessionLayer, SessionService, layer},
    requests,
    time::settled,
};

/// In what a server differs from others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Plain,
    /// It knows no `ping`, and says so with this status.
    NoPing(u16),
    /// Whoever has not said `initialized` may ask nothing.
    InitializedFirst,
    /// Whoever has no `Authorization` is 401.
    WantsAuthorization,
    /// A GET of a session that it does not know is 500.
    GetFails,
    /// Everything is 500.
    Broken,
    /// Everything hangs.
    Hangs,
}

pub(crate) struct Server {
    pub(crate) way: Mutex<Way>,
    /// What it answers on a session that it does not know.
    pub(crate) gone: u16,
    /// Whose they are, and whether `initialized` has come.
    pub(crate) sessions: Mutex<HashMap<String, (Option<String>, bool)>>,
    /// How often it was asked whether it knows a session.
    pub(crate) asked: AtomicUsize,
    asking: AtomicUsize,
    pub(crate) most_asking: AtomicUsize,
    /// How long a `ping` or a DELETE takes it to answer, after it has looked.
    pub(crate) takes: Mutex<Duration>,
    pub(crate) deletes: Mutex<Vec<String>>,
}

impl Server {
    pub(crate) fn new(way: Way, gone: u16) -> Arc<Self> {
        Arc::new(Self {
            way: Mutex::new(way),
            gone,
            sessions: Mutex::default(),
            asked: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
            most_asking: AtomicUsize::new(0),
            takes: Mutex::default(),
            deletes: Mutex::default(),
        })
    }

    pub(crate) fn forget(&self) {
        self.sessions.lock().clear();
    }

    pub(crate) fn take_asked(&self) -> usize {
        self.asked.swap(0, SeqCst)
    }

    fn service(self: &Arc<Self>) -> BoxedServer {
        let server = Arc::clone(self);
        BoxCloneSyncService::new(service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok(server.serve(request).await) }
        }))
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let header = |name| {
            let value = HeaderMap::get(&head.headers, name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (id, caller) = (header("mcp-session-id"), header("authorization"));
        let way = *self.way.lock();
        let is_question = message["method"] == "ping" && message["id"].is_string();
        self.asked.fetch_add(usize::from(is_question), SeqCst);
        match way {
            Way::Broken => return plain(500, "broken"),
            Way::Hangs => std::future::pending().await,
            Way::WantsAuthorization if caller.is_none() => return plain(401, "who?"),
            _ => {}
        }
        let Some(id) = id else {
            let id = uuid::Uuid::new_v4().to_string();
            self.sessions.lock().insert(id.clone(), (caller, false));
            let mut response = json(200, &json!({"id": message["id"], "result": {}}));
            response
                .headers_mut()
                .insert("mcp-session-id", id.parse().unwrap());
            return response;
        };
        let known = self.sessions.lock().get(&id).cloned();
        let answer = match known {
            Some((owner, is_initialized)) if owner == caller => {
                self.answer(&id, &head.method, way, is_initialized, &message)
            }
            _ if way == Way::GetFails && head.method == Method::GET => {
                plain(500, "no such session")
            }
            _ => plain(self.gone, "No valid session ID provided"),
        };
        if head.method == Method::DELETE {
            self.deletes.lock().push(id);
        } else if !is_question {
            return answer;
        }
        let now = self.asking.fetch_add(1, SeqCst) + 1;
        self.most_asking.fetch_max(now, SeqCst);
        let takes = *self.takes.lock();
        if !takes.is_zero() {
            sleep(takes).await;
        }
        self.asking.fetch_sub(1, SeqCst);
        answer
    }

    fn answer(
        &self,
        id: &str,
        method: &Method,
        way: Way,
        is_initialized: bool,
        message: &Value,
    ) -> Response<Body> {
        if *method == Method::DELETE {
            self.sessions.lock().remove(id);
            return plain(204, "");
        }
        if *method == Method::GET {
            let mut response = plain(200, "");
            let kind = "text/event-stream".parse().unwrap();
            response.headers_mut().insert("content-type", kind);
            *response.body_mut() =
                Body::from_stream(futures_util::stream::pending::<Result<&str, Infallible>>());
            return response;
        }
        let error = |status, code: i32| {
            json(
                status,
                &json!({"id": message["id"], "error": {"code": code, "message": ""}}),
            )
        };
        match (message["method"].as_str().unwrap_or_default(), way) {
            ("notifications/initialized", _) => {
                self.sessions.lock().get_mut(id).unwrap().1 = true;
                plain(202, "")
            }
            (_, Way::InitializedFirst) if !is_initialized => error(400, -32600),
            ("ping", Way::NoPing(status)) => error(status, -32601),
            ("bad", _) => error(400, -32602),
            ("nothing", _) => plain(404, "no such resource"),
            _ => json(200, &json!({"id": message["id"], "result": {}})),
        }
    }
}

/// A layer before a server.
pub(crate) struct Gate {
    pub(crate) layer: SessionLayer,
    pub(crate) server: Arc<Server>,
    pub(crate) service: SessionService<BoxedServer>,
}

type BoxedServer = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

impl Gate {
    pub(crate) fn new(store: &impl StoreOf, way: Way, gone: u16) -> Self {
        Self::with(store, way, gone, |layer| layer)
    }

    pub(crate) fn with(
        store: &impl StoreOf,
        way: Way,
        gone: u16,
        set: impl FnOnce(SessionLayer) -> SessionLayer,
    ) -> Self {
        let server = Server::new(way, gone);
        let layer = set(layer(store.clone()));
        Self {
            service: layer.layer(server.service()),
            layer,
            server,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.service.clone().oneshot(request).await.unwrap()
    }

    /// The status of the answer.
    pub(crate) async fn status(&self, request: Request<Body>) -> u16 {
        self.send(request).await.status().as_u16()
    }

    /// A session on which `initialized` has been said; its id.
    pub(crate) async fn open(&self, auth: &str) -> String {
        let created = self.send(from(auth, requests::initialize())).await;
        let id = id_of(&created).expect("a session");
        let initialized = from(auth, call(&id, "notifications/initialized"));
        assert_eq!(self.status(initialized).await, 202);
        settled().await;
        self.server.take_asked();
        id
    }
}

pub(crate) trait StoreOf: SessionStore + Clone {}
impl<S: SessionStore + Clone> StoreOf for S {}

/// With these credentials; none if empty.
pub(crate) fn from(auth: &str, request: Request<Body>) -> Request<Body> {
    match auth {
        "" => request,
        auth => requests::with_header(request, "authorization", auth),
    }
}

pub(crate) fn call(id: &str, method: &str) -> Request<Body> {
    let mut request = requests::post(id);
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method});
    *request.body_mut() = Body::from(body.to_string());
    request
}

fn json(status: u16, body: &Value) -> Response<Body> {
    let mut response = plain(status, &body.to_string());
    let kind = "application/json".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

fn plain(status: u16, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

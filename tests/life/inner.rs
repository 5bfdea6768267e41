//! An inner service that does what a request tells it to.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use http_body::Frame;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    task::yield_now,
    time::sleep,
};
use tower::{service_fn, util::BoxCloneSyncService};

use crate::support::{
    answers::{RESULT, question_of, result_of},
    requests::with_header,
};

/// What the inner service is to do with this request, in words: `wait` at the gate, `refuse` the call,
/// issue a `stray` id or one that is `issue=`d again, answer with a `stream`, or with `status=` and three digits.
pub(crate) fn scripted(request: Request<Body>, script: &str) -> Request<Body> {
    with_header(request, "x-script", script)
}

pub(crate) type InnerService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// An inner service that issues ids and keeps a list of its sessions.
pub(crate) struct Inner {
    pub(crate) sessions: Mutex<BTreeSet<String>>,
    /// Every DELETE it was sent: id, path, all headers.
    pub(crate) deletes: Mutex<Vec<(String, String, HeaderMap)>>,
    /// What it answers to a DELETE; each of these once, before it does as it should.
    pub(crate) answers: Mutex<Vec<u16>>,
    /// How long a DELETE takes it.
    pub(crate) delete_takes: Mutex<Duration>,
    deleting: AtomicUsize,
    pub(crate) most_deleting: AtomicUsize,
    /// Bodies of streams that exist.
    pub(crate) bodies: Arc<AtomicUsize>,
    /// Requests that wait at the gate, by all time.
    pub(crate) waiting: AtomicUsize,
    /// Lets those through that `wait`.
    pub(crate) gate: Semaphore,
    pub(crate) streams: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
    /// With which status it answers on sessions that it has not; if none, it serves them.
    pub(crate) unknown: Mutex<Option<u16>>,
    /// How often it was asked whether it knows a session.
    pub(crate) asked: AtomicUsize,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            deletes: Mutex::default(),
            answers: Mutex::default(),
            delete_takes: Mutex::default(),
            deleting: AtomicUsize::new(0),
            most_deleting: AtomicUsize::new(0),
            bodies: Arc::default(),
            waiting: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            streams: Mutex::default(),
            unknown: Mutex::default(),
            asked: AtomicUsize::new(0),
        }
    }
}

impl Inner {
    pub(crate) fn service(self: &Arc<Self>) -> InnerService {
        let inner = Arc::clone(self);
        BoxCloneSyncService::new(service_fn(move |request| {
            let inner = Arc::clone(&inner);
            async move { Ok(inner.serve(request).await) }
        }))
    }

    pub(crate) fn bodies(&self) -> usize {
        self.bodies.load(SeqCst)
    }

    pub(crate) fn deleted(&self) -> Vec<String> {
        let deletes = self.deletes.lock();
        deletes.iter().map(|(id, _, _)| id.clone()).collect()
    }

    /// Waits until so many requests have come to the gate, in all.
    pub(crate) async fn until_waiting(&self, number: usize) {
        while self.waiting.load(SeqCst) < number {
            yield_now().await;
        }
    }

    pub(crate) async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (request, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes());
        let question = question_of(&body.unwrap_or_default());
        if question.is_some() {
            self.asked.fetch_add(1, SeqCst);
        }
        let header = |name| {
            let value = request.headers.get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let id = header("mcp-session-id");
        let script = header("x-script").unwrap_or_default();
        let mut response = Response::new(Body::empty());
        let unknown = *self.unknown.lock();
        if let (Some(id), Some(status)) = (&id, unknown)
            && !self.sessions.lock().contains(id)
        {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.body_mut() = Body::from("which session?");
            return response;
        }
        if let Some(question) = question {
            *response.body_mut() = Body::from(result_of(&question));
            return response;
        }
        if script.contains("wait") {
            self.waiting.fetch_add(1, SeqCst);
            self.gate.acquire().await.unwrap().forget();
        }
        let (_, status) = script.split_once("status=").unwrap_or_default();
        if let Some(status) = status.get(..3) {
            *response.status_mut() = status.parse().unwrap();
            set(&mut response, "content-type", "application/json");
            set(&mut response, "x-inner", "yes");
            *response.body_mut() = Body::from(NO_SUCH_TOOL);
            return response;
        }
        if request.method == Method::DELETE {
            return self.delete(id.unwrap(), request).await;
        }
        if script.contains("refuse") {
            *response.status_mut() = StatusCode::NOT_FOUND;
            set(&mut response, "content-type", "application/json");
            *response.body_mut() = Body::from(NO_SUCH_TOOL);
            return response;
        }
        if id.is_none() || script.contains("stray") {
            let again = script.split_once("issue=").map(|(_, id)| id.to_owned());
            let issued = again.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            set(&mut response, "mcp-session-id", &issued);
            self.sessions.lock().insert(issued);
        }
        if script.contains("stream") || request.method == Method::GET {
            set(&mut response, "content-type", "text/event-stream");
            *response.body_mut() = self.stream();
        } else if script.contains("unfinished") {
            set(&mut response, "content-type", "application/json");
            *response.body_mut() = self.stream();
        } else {
            set(&mut response, "content-type", "application/json");
            *response.body_mut() = Body::from(RESULT);
        }
        response
    }

    async fn delete(&self, id: String, request: Parts) -> Response<Body> {
        let now = self.deleting.fetch_add(1, SeqCst) + 1;
        self.most_deleting.fetch_max(now, SeqCst);
        let time = *self.delete_takes.lock();
        if !time.is_zero() {
            sleep(time).await;
        }
        self.deleting.fetch_sub(1, SeqCst);
        let path = request.uri.path().to_owned();
        let headers = request.headers;
        let has_host = headers.contains_key("host");
        self.deletes.lock().push((id.clone(), path, headers));
        let answer = self.answers.lock().pop();
        let status = match answer {
            Some(status) => status,
            None if !has_host => 400,
            None if self.sessions.lock().remove(&id) => 204,
            None => 404,
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    fn stream(&self) -> Body {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.streams.lock().push(sender);
        self.bodies.fetch_add(1, SeqCst);
        Body::new(Events {
            receiver,
            bodies: Arc::clone(&self.bodies),
        })
    }
}

fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    response.headers_mut().insert(name, value.parse().unwrap());
}

/// The body of a stream. Its number is taken back when it is dropped.
struct Events {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    bodies: Arc<AtomicUsize>,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.receiver.poll_recv(cx);
        next.map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.bodies.fetch_sub(1, SeqCst);
    }
}

const NO_SUCH_TOOL: &str =
    r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no such tool"}}"#;

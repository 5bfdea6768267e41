//! An inner service that says what each request tells it to, may forget its sessions, and notes what it sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use axum::body::{Body, Bytes};
use http::{Method, Request, Response, request::Parts};
use http_body_util::{BodyExt as _, StreamBody};
use mcp_session_layer::{MemoryStore, Session, SessionStore as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tower::{service_fn, util::BoxCloneSyncService};

use crate::{
    reference::Reached,
    steps::{Flow, Says},
    support::{
        answers::{RESULT, lines, question_of, result_of},
        sessions::{is_live, owner, session_id},
    },
};

pub(crate) type InnerService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What a client's request tells it, in an extension.
#[derive(Clone, Copy)]
pub(crate) struct Orders {
    pub(crate) number: u64,
    pub(crate) says: Says,
    pub(crate) flow: Flow,
}

pub(crate) struct Inner {
    memory: MemoryStore,
    notes: Mutex<Notes>,
    arrival: Notify,
}

#[derive(Default)]
struct Notes {
    reached: BTreeMap<u64, Reached>,
    held: BTreeMap<u64, oneshot::Sender<()>>,
    streams: BTreeMap<u64, mpsc::UnboundedSender<Bytes>>,
    forgotten: BTreeSet<String>,
    told: Vec<(String, bool)>,
    wrong: Vec<String>,
}

impl Inner {
    /// `memory` is what decides which sessions are live.
    pub(crate) fn new(memory: &MemoryStore) -> Arc<Self> {
        Arc::new(Self {
            memory: memory.clone(),
            notes: Mutex::default(),
            arrival: Notify::new(),
        })
    }

    pub(crate) fn service(self: &Arc<Self>) -> InnerService {
        let inner = Arc::clone(self);
        BoxCloneSyncService::new(service_fn(move |request| {
            let inner = Arc::clone(&inner);
            async move { Ok(inner.serve(request).await) }
        }))
    }

    pub(crate) fn reached(&self, number: u64) -> Option<Reached> {
        self.notes.lock().reached.get(&number).cloned()
    }

    pub(crate) async fn until_reached(&self, number: u64) {
        loop {
            let arrival = self.arrival.notified();
            if self.reached(number).is_some() {
                return;
            }
            arrival.await;
        }
    }

    pub(crate) fn release(&self, number: u64) {
        self.notes.lock().held.remove(&number);
    }

    pub(crate) fn finish(&self, number: u64) {
        self.notes.lock().streams.remove(&number);
    }

    /// Whether the body of this stream is still there.
    pub(crate) fn has_body(&self, number: u64) -> bool {
        let notes = self.notes.lock();
        let sender = notes.streams.get(&number);
        sender.is_some_and(|sender| !sender.is_closed())
    }

    pub(crate) fn forget(&self, ids: impl IntoIterator<Item = String>) {
        self.notes.lock().forgotten.extend(ids);
    }

    pub(crate) fn remember(&self) {
        self.notes.lock().forgotten.clear();
    }

    /// Of which ends it was told, and whether the session lived at that moment.
    pub(crate) fn take_told(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.notes.lock().told)
    }

    /// What reached it against the first promise.
    pub(crate) fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().wrong)
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        let id = lines(&head.headers, "mcp-session-id").pop();
        let Some(orders) = head.extensions.get::<Orders>().copied() else {
            return self.hear_layer(&head, id.expect("an id"), &body).await;
        };
        let session = head.extensions.get::<Session>().cloned();
        self.check(&head, id.as_deref(), session.as_ref()).await;
        let of = |session: &Session| {
            let principal = session.owner().principal.as_ref();
            let principal = principal.map(|principal| principal.as_str().to_owned());
            (session.id().expose().to_owned(), principal)
        };
        let reached = Reached {
            id: id.clone(),
            session: session.as_ref().map(of),
        };
        self.notes.lock().reached.insert(orders.number, reached);
        self.arrival.notify_waiters();
        if orders.flow == Flow::Held {
            let (sender, receiver) = oneshot::channel();
            self.notes.lock().held.insert(orders.number, sender);
            // Its end is the word.
            let _ = receiver.await;
        }
        match id {
            // Elsewhere an id is nothing to it.
            Some(id) if head.uri.path() == "/mcp" && self.notes.lock().forgotten.contains(&id) => {
                unknown()
            }
            id => self.answer(&head.method, id, orders),
        }
    }

    /// That a request on a session is its owner's, and that the session lives at this moment.
    async fn check(&self, head: &Parts, id: Option<&str>, session: Option<&Session>) {
        if head.uri.path() != "/mcp" {
            return;
        }
        let user = head
            .headers
            .get("x-user")
            .map(|user| user.to_str().unwrap());
        let named = id.or(session.map(|session| session.id().expose()));
        let Some(named) = named else {
            return;
        };
        let found = self.memory.load(&session_id(named)).await.unwrap();
        if session.is_none_or(|session| session.id().expose() != named)
            || found.is_none_or(|found| *found.session.owner() != owner(user))
        {
            let wrong = format!("{named} of {user:?} reached the inner service and is not live");
            self.notes.lock().wrong.push(wrong);
        }
    }

    /// What the layer sends by itself: questions, and the ends of sessions.
    async fn hear_layer(&self, head: &Parts, id: String, body: &[u8]) -> Response<Body> {
        if let Some(question) = question_of(body) {
            return match self.notes.lock().forgotten.contains(&id) {
                true => unknown(),
                false => json(200, result_of(&question)),
            };
        }
        assert_eq!(head.method, Method::DELETE);
        let is_live = is_live(&self.memory, &id).await;
        self.notes.lock().told.push((id, is_live));
        status(204)
    }

    fn answer(&self, method: &Method, id: Option<String>, orders: Orders) -> Response<Body> {
        let Orders { number, says, .. } = orders;
        let mut response = match says {
            Says::Refused if method == Method::DELETE => return status(405),
            Says::Refused => return json(404, RPC_ERROR.to_owned()),
            Says::Broken => return json(500, RPC_ERROR.to_owned()),
            _ if method == Method::DELETE => return status(204),
            _ if method == Method::GET => self.stream(number),
            Says::Error => json(200, RPC_ERROR.to_owned()),
            Says::Result | Says::Silent | Says::Stray => json(200, RESULT.to_owned()),
        };
        let issued = match (says, id) {
            (Says::Silent, _) => return response,
            (Says::Stray, None) => "not an id".to_owned(),
            (Says::Stray, Some(_)) => stray(number),
            (_, None) => issued(number),
            (_, Some(id)) => id,
        };
        let headers = response.headers_mut();
        headers.insert("mcp-session-id", issued.parse().unwrap());
        response
    }

    fn stream(&self, number: u64) -> Response<Body> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.notes.lock().streams.insert(number, sender);
        let events = UnboundedReceiverStream::new(receiver);
        let frames = events.map(|event| Ok::<_, Infallible>(http_body::Frame::data(event)));
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        let headers = response.headers_mut();
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        response
    }
}

/// The id that the inner service issues in its answer to this request.
pub(crate) fn issued(number: u64) -> String {
    format!("session-{number}")
}

/// The id that nobody asked for, in its answer to this request.
pub(crate) fn stray(number: u64) -> String {
    format!("stray-{number}")
}

fn unknown() -> Response<Body> {
    json(404, "\"which session?\"".to_owned())
}

fn status(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status.try_into().unwrap();
    response
}

fn json(code: u16, body: String) -> Response<Body> {
    let mut response = status(code);
    *response.body_mut() = body.into();
    let headers = response.headers_mut();
    headers.insert("content-type", "application/json".parse().unwrap());
    response
}

const RPC_ERROR: &str =
    r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no such tool"}}"#;

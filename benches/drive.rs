//! Sends many requests of one kind to one service.
//!
//! `SERVICE REQUEST N`, or with so many live sessions `SERVICE REQUEST@SESSIONS N`. What has to be there beforehand is
//! made, and visited once, before anything is counted.

use std::{convert::Infallible, fmt::Debug, future::Future, pin::Pin};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use mcp_session_layer::{BoxSessionStore, McpSessionLayer, MemoryStore, Principal, SessionStore};
use tokio::runtime::Builder;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::{
    peers::{self, ByHand},
    request::{INITIALIZED, Template},
    services::{Asked, HOUR, Inner, Noop, Served, live_session, rmcp},
    strangers,
};

/// Sends so many requests.
pub fn main(service: &str, request: &str, requests: &str) {
    let requests = requests.parse().expect("a number of requests");
    // One thread: the tasks that a request leaves behind are counted too.
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let sending = runtime.block_on(prepare(service, request, requests));
    counted(|| runtime.block_on(sending));
}

/// Named, so that callgrind can be told to look at nothing else.
#[inline(never)]
pub fn counted(requests: impl FnOnce()) {
    requests();
    // So that it is not left by a jump.
    std::hint::black_box(());
}

pub(crate) type Sending = Pin<Box<dyn Future<Output = ()>>>;

async fn prepare(service: &str, request: &str, requests: usize) -> Sending {
    if let "unknown" | "foreign" = request {
        return strangers::prepare(service, request, requests).await;
    }
    let (request, sessions) = match request.split_once('@') {
        Some((request, sessions)) => (request, sessions.parse().expect("a number of sessions")),
        None => (request, 1),
    };
    let principal = (request == "principal").then(crate::request::alice);
    let store = MemoryStore::new();
    let mut ids = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        let session = live_session(&store, principal.clone()).await;
        ids.push(session.id().expose().to_owned());
    }
    let inner = Inner {
        json: request == "json",
    };
    let mut template = Template::new(request, &ids);
    let mut parts = service.split('+').collect::<Vec<_>>();
    if parts.get(1) == Some(&"timer") {
        // What a pending timer costs a runtime that parks. The layer's keeper has one.
        tokio::spawn(tokio::time::sleep(HOUR));
        tokio::task::yield_now().await;
        parts.remove(1);
    }
    let session = match parts[0] {
        "handin" => Some(live_session(&store, principal).await),
        _ => None,
    };
    if matches!(parts[0], "bare" | "noop" | "handin") && parts.get(1).is_none() {
        template.expected = StatusCode::OK;
    }
    match (&parts[..], request) {
        (["bare"], _) => ready(inner, template, requests).await,
        (["noop" | "handin"], "principal") => {
            ready(routed(Noop { inner, session }), template, requests).await
        }
        (["noop" | "handin"], _) => ready(Noop { inner, session }, template, requests).await,
        (["memory"], "principal") => {
            let layer = McpSessionLayer::new(store)
                .with_principal(|parts| Ok(parts.extensions.get::<Principal>().cloned()));
            ready(routed(layer.layer(inner)), template, requests).await
        }
        (["memory"], _) => ready(guarded(store, inner), template, requests).await,
        (["boxed"], _) => {
            let store = BoxSessionStore::new(store);
            ready(guarded(store, inner), template, requests).await
        }
        (["async"], _) => ready(guarded(Asked(store), inner), template, requests).await,
        (["from_fn"], _) => ready(ByHand::new(&ids).layer(inner), template, requests).await,
        (["tower-sessions"], _) => {
            let mcp = peers::tower_sessions(&mut template, false, inner).await;
            ready(mcp, template, requests).await
        }
        (["tower-sessions", "save"], _) => {
            let mcp = peers::tower_sessions(&mut template, true, inner).await;
            ready(mcp, template, requests).await
        }
        (["rmcp"], _) => on_rmcp(rmcp(), request, requests).await,
        (["noop" | "handin", "rmcp"], _) => {
            let inner = rmcp();
            on_rmcp(Noop { inner, session }, request, requests).await
        }
        (["layer", "rmcp"], _) => {
            let layer = McpSessionLayer::new(store).with_paths(["/mcp"]);
            on_rmcp(layer.layer(rmcp()), request, requests).await
        }
        _ => panic!("no such service: {service}"),
    }
}

/// The layer in front of one service.
fn guarded(store: impl SessionStore, inner: impl Served) -> impl Served {
    McpSessionLayer::new(store)
        .with_paths(["/mcp"])
        .layer(inner)
}

fn routed(mcp: impl Served) -> Router {
    Router::new().route_service("/mcp", mcp)
}

/// Opens a session on a service that has some itself, and makes requests on it.
async fn on_rmcp<S, B>(service: S, request: &str, requests: usize) -> Sending
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    B: http_body::Body<Data = Bytes, Error: Debug> + 'static,
{
    let mut initialize = Template::new("initialize", &[]);
    let Ok(answer) = service.clone().oneshot(initialize.request()).await;
    let id = answer.headers()["mcp-session-id"].to_str();
    let ids = [id.expect("an id").to_owned()];
    answer.into_body().collect().await.expect("an answer");

    let mut initialized = Template::new("live", &ids);
    initialized.body = Bytes::from_static(INITIALIZED.as_bytes());
    let Ok(answer) = service.clone().oneshot(initialized.request()).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    ready(service, Template::new(request, &ids), requests).await
}

/// Visits every session once, so that what a first visit makes is there.
pub(crate) async fn ready<S, B>(mut service: S, mut template: Template, requests: usize) -> Sending
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
    B: http_body::Body<Data = Bytes, Error: Debug> + 'static,
{
    send(&mut service, &mut template, SOME).await;
    if template.names.len() > SOME {
        let all = template.names.len();
        send(&mut service, &mut template, all).await;
        // The ones that will be asked for were so a moment ago, as where there are few: the first visit after a pause
        // costs more, however many there are.
        template.start_again();
        send(&mut service, &mut template, requests).await;
        template.start_again();
    }
    // Neither is dropped: the end of many sessions is not a request's.
    let (service, template) = (Box::leak(Box::new(service)), Box::leak(Box::new(template)));
    Box::pin(send(service, template, requests))
}

const SOME: usize = 10;

async fn send<S, B>(service: &mut S, template: &mut Template, requests: usize)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error: Debug>,
{
    for _ in 0..requests {
        let Ok(ready) = service.ready().await;
        let Ok(answer) = ready.call(template.request()).await;
        assert_eq!(answer.status(), template.expected);
        answer.into_body().collect().await.expect("an answer");
        // Lets the tasks run that a request leaves behind.
        tokio::task::yield_now().await;
    }
}

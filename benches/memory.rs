//! The bytes that a session keeps, and a stream, in one process without sockets.

use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    num::NonZeroU64,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use mcp_session_layer::{CreationRates, McpSessionLayer, MemoryStore, Principal};
use tokio::runtime::Builder;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::{
    id_of,
    request::Template,
    resident,
    services::{Noop, Served, live_session},
    streams::{Frames, Streaming, open},
};

/// Issues an id to whoever has none, and keeps nothing.
#[derive(Clone, Default)]
struct Issuing(Arc<AtomicU64>);

impl Service<Request<Body>> for Issuing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut answer = Response::new(Body::empty());
        if !request.headers().contains_key(ID) {
            let id = id_of(self.0.fetch_add(1, Relaxed));
            let id = HeaderValue::try_from(id).expect("an id");
            answer.headers_mut().insert(ID, id);
        }
        ready(Ok(answer))
    }
}

/// Opens so many sessions through the layer and makes one call in each. All of it is made as hyper would: nothing in a
/// request is shared with another one.
pub fn sessions(who: &str, sessions: usize, live: impl Fn() -> u64) {
    let principal = |number: u64| match who {
        "anonymous" => None,
        "shared" => Some(principal_of(number / 10)),
        "distinct" => Some(principal_of(number)),
        _ => panic!("anonymous, shared or distinct"),
    };
    let layer = McpSessionLayer::new(MemoryStore::new())
        .with_max_sessions(NonZeroU64::MAX)
        .with_creation_rates(CreationRates::unlimited())
        .with_principal(|parts| Ok(parts.extensions.get::<Principal>().cloned()));
    let mut service = layer.layer(Issuing::default());
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        // So that what is made once is there.
        open_one(&mut service, &mut Template::new("initialize", &[]), None).await;
        let (bytes, pages) = (live(), resident("self"));
        for number in 1..=sessions as u64 {
            let mut template = Template::new("initialize", &[]);
            open_one(&mut service, &mut template, principal(number)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let bytes = (live() - bytes) as f64 / sessions as f64;
        let pages = (resident("self") - pages) as f64 / sessions as f64;
        println!("sessions\twho\trequested\tresident");
        println!("{sessions}\t{who}\t{bytes:.0}\t{pages:.0}");
    });
}

async fn open_one(
    service: &mut impl Served,
    initialize: &mut Template,
    principal: Option<Principal>,
) {
    initialize.principal.clone_from(&principal);
    let ready = service.ready().await.expect("never fails");
    let answer = ready.call(initialize.request()).await;
    let answer = answer.expect("never fails");
    let id = answer.headers()[ID].to_str().expect("an id");

    let mut call = Template::new("live", &[id.to_owned()]);
    call.principal = principal;
    let ready = service.ready().await.expect("never fails");
    let answer = ready.call(call.request()).await.expect("never fails");
    assert!(answer.status().is_success());
    // The layer's own tasks are to run as well.
    tokio::task::yield_now().await;
}

/// 20 characters.
fn principal_of(number: u64) -> Principal {
    Principal::new(format!("user-{number:015}"))
}

/// The bytes that an open stream keeps: those of one session, and those of as many.
pub fn streams(streams: usize, live: impl Fn() -> u64 + Copy) {
    println!("streams\tway\tbytes");
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let store = MemoryStore::new();
        let mut ids = Vec::new();
        for _ in 0..streams {
            let session = live_session(&store, None).await;
            ids.push(session.id().expose().to_owned());
        }
        let inner = Streaming(Frames::new(None, false));
        let session = None;
        let bare = Noop { inner, session };
        let layer = McpSessionLayer::new(store).layer(inner);
        // What a session's first visit makes is not the stream's.
        for id in &ids {
            drop(open(layer.clone(), std::slice::from_ref(id)).await);
        }
        let one = |_: usize| &ids[..1];
        let each = |nth: usize| &ids[nth..=nth];
        let bare = opened(bare, streams, one, live).await;
        println!("{streams}\twithout the layer\t{bare:.0}");
        let same = opened(layer.clone(), streams, one, live).await;
        println!("{streams}\twatched, all of one session\t{same:.0}");
        let own = opened(layer, streams, each, live).await;
        println!("{streams}\twatched, each of its own session\t{own:.0}");
    });
}

async fn opened<'a>(
    service: impl Served,
    streams: usize,
    ids: impl Fn(usize) -> &'a [String],
    live: impl Fn() -> u64,
) -> f64 {
    let mut bodies = Vec::with_capacity(streams);
    let before = live();
    for nth in 0..streams {
        let mut body = open(service.clone(), ids(nth)).await;
        // Somebody waits for it.
        poll_fn(|cx| {
            let polled = Pin::new(&mut body).poll_frame(cx);
            assert!(polled.is_pending());
            Poll::Ready(())
        })
        .await;
        bodies.push(body);
    }
    (live() - before) as f64 / streams as f64
}

const ID: &str = "mcp-session-id";

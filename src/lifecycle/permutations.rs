//! In whatever order a creation and the ends of its session meet: a client never has an id that is live in one place and
//! ended in another.

use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Request, request::Parts};
use http_body_util::BodyExt as _;
use shuttle::{future::block_on, thread};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};

use super::{
    terminate::{end_heard, revoke, revoke_all},
    *,
};
use crate::{
    protocol::{SessionId, SessionRef},
    session::Route,
    store::{Feed, FeedEvent, MemoryStore, SessionFilter, SessionStore as _},
    sync::permute,
};

const ID: &str = "issued";

fn reference() -> SessionRef {
    ID.parse::<SessionId>().unwrap().reference()
}

fn lifecycle(store: &MemoryStore) -> Arc<Lifecycle> {
    Arc::new(Lifecycle::new(BoxSessionStore::new(store.clone())))
}

/// What the inner service answers to an `initialize`: an id, and a stream that goes on.
fn answer() -> Response<Body> {
    let silent = stream::pending::<Result<&str, std::io::Error>>();
    Response::builder()
        .header("mcp-session-id", ID)
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(silent))
        .unwrap()
}

/// A creation whose answer is on its way: the client gets it and reads it to its end, if it has one.
fn creating(lifecycle: &Arc<Lifecycle>) -> thread::JoinHandle<Option<Body>> {
    let (parts, ()): (Parts, ()) = Request::post("/mcp").body(()).unwrap().into_parts();
    let route = Arc::new(Route::of(1, &parts.uri, &parts.headers));
    let params = Some(InitializeParams::default());
    let creation = block_on(Creation::begin(lifecycle, &parts, route, params));
    let creation = creation.unwrap_or_else(|_| panic!("nothing is in its way"));
    thread::spawn(move || {
        let answer = block_on(creation.record(answer()));
        answer.status().is_success().then(|| answer.into_body())
    })
}

/// What the keeper does with a feed, and as late as it may be.
fn hear(lifecycle: &Lifecycle, feed: &mut Feed) {
    while let Some(Some(event)) = feed.next().now_or_never() {
        if let FeedEvent::Ended { reference, reason } = event {
            end_heard(lifecycle, &reference, reason);
        }
    }
}

/// That a client with this answer has a live session, or a stream that is over, once what was left to the background is done.
fn assert_certain(
    runtime: &Runtime,
    lifecycle: &Lifecycle,
    store: &MemoryStore,
    created: Option<Body>,
) {
    runtime.block_on(async {
        for _ in 0..8 {
            yield_now().await;
        }
    });
    let is_stored = block_on(store.load(&ID.parse().unwrap()))
        .unwrap()
        .is_some();
    let is_served = lifecycle.alive.registry.get(&reference()).is_some();
    assert_eq!(is_served, is_stored, "here and in the store");
    match created {
        Some(body) if !is_stored => {
            assert!(block_on(body.collect()).unwrap().to_bytes().is_empty());
        }
        Some(_) => {}
        None => assert!(!is_stored, "nobody has its id"),
    }
}

/// Within a runtime whose timers never ring, for nothing here waits for one, and which runs its tasks when it is told to.
fn permute_in_runtime(run: impl Fn(&Runtime) + Send + Sync + 'static) {
    permute(move || {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let entered = runtime.enter();
        run(&runtime);
        drop(entered);
    });
}

#[test]
fn a_session_that_is_ended_while_it_is_created_is_ended_everywhere() {
    permute_in_runtime(|runtime| {
        let store = MemoryStore::new();
        let lifecycle = lifecycle(&store);
        let creating = creating(&lifecycle);
        let ended = block_on(revoke(&lifecycle, &reference())).unwrap();
        let created = creating.join().unwrap();
        assert!(ended || created.is_some(), "it was ended by nobody");
        assert_certain(runtime, &lifecycle, &store, created);
        let is_live = lifecycle.alive.registry.get(&reference()).is_some();
        assert_eq!(is_live, !ended);
    });
}

#[test]
fn a_session_whose_owner_s_are_ended_while_it_is_created_is_ended_too() {
    permute_in_runtime(|runtime| {
        let store = MemoryStore::new();
        let lifecycle = lifecycle(&store);
        let mut feed = store.feed().unwrap();
        let creating = creating(&lifecycle);
        let filter = SessionFilter::Scope(lifecycle.settings.anonymous.scope.clone());
        block_on(revoke_all(&lifecycle, &filter)).unwrap();
        let created = creating.join().unwrap();
        hear(&lifecycle, &mut feed);
        assert_certain(runtime, &lifecycle, &store, created);
        assert!(lifecycle.alive.registry.get(&reference()).is_none());
    });
}

#[test]
fn a_session_that_is_ended_on_another_node_while_it_is_created_is_ended_here() {
    permute_in_runtime(|runtime| {
        let store = MemoryStore::new();
        let lifecycle = lifecycle(&store);
        let mut feed = store.feed().unwrap();
        let creating = creating(&lifecycle);
        let reason = crate::store::EndReason::Deleted;
        let ended = block_on(store.delete(&ID.parse().unwrap(), reason)).unwrap();
        // Once before the creation is through, maybe, and once after it.
        hear(&lifecycle, &mut feed);
        let created = creating.join().unwrap();
        hear(&lifecycle, &mut feed);
        assert_certain(runtime, &lifecycle, &store, created);
        let is_live = lifecycle.alive.registry.get(&reference()).is_some();
        assert_eq!(is_live, !ended);
    });
}

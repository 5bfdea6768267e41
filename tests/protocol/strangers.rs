//! What a stranger learns from asking: that a session is not its own, and not whether there is such a session.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::body::Body;
use http::{Request, Response};
use mcp_session_layer::{CachedStore, Issuer, RejectionKind, Scope, SessionId, SigningKeys};
use tower::{Layer as _, Service};

use crate::{
    inner::{Inner, json, with_ids},
    setup::{over, plant, remote_store},
    support::{
        answers::{RESULT, send},
        layer::{SessionLayer, user_header},
        requests::{as_user, initialize, on, post},
        sessions::{is_live, owner},
        store::TestStore,
    },
};

const METHODS: [&str; 4] = ["POST", "GET", "DELETE", "PUT"];
const STRANGERS: [Option<&str>; 3] = [None, Some(""), Some("alice")];
const KEY: [u8; 32] = [1; 32];

fn by(caller: Option<&str>, request: Request<Body>) -> Request<Body> {
    match caller {
        Some(user) => as_user(request, user),
        None => request,
    }
}

/// All ways that a layer may look a session up in, each with the store whose calls count.
fn layers() -> Vec<(&'static str, TestStore, SessionLayer)> {
    let cached = |staleness| {
        let primary = remote_store();
        let store = Arc::new(CachedStore::new(primary.clone(), staleness));
        (primary, over(&store))
    };
    let (memory, remote) = (TestStore::default(), remote_store());
    let (on_memory, on_remote) = (over(&memory), over(&remote));
    let (behind, on_cached) = cached(Duration::from_secs(30));
    let (asked, on_asking) = cached(Duration::ZERO);
    [
        ("memory", memory, on_memory),
        ("remote", remote, on_remote),
        ("cached", behind, on_cached),
        ("cached, but asked", asked, on_asking),
    ]
    .map(|(name, store, layer)| (name, store, layer.with_principal(user_header)))
    .into()
}

/// Asks as each stranger, in each way, twice: what is remembered of the first time must tell nothing either.
async fn assert_alike<S>(name: &str, service: &S, store: &TestStore, unknown: &str, foreign: &str)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    assert_eq!(unknown.len(), foreign.len());
    for stranger in STRANGERS {
        for method in METHODS {
            for time in ["first", "second"] {
                store.take_calls();
                let of_unknown = send(service, by(stranger, on(unknown, method))).await;
                let calls_of_unknown = store.take_calls();
                let of_foreign = send(service, by(stranger, on(foreign, method))).await;
                let calls_of_foreign = store.take_calls();
                let case = format!("{name}: {method} by {stranger:?}, {time} time");
                assert_eq!(of_unknown.status, 404, "{case}");
                assert_eq!(of_foreign.wire(), of_unknown.wire(), "{case}");
                assert_eq!(of_foreign.kind(), of_unknown.kind(), "{case}");
                assert_eq!(calls_of_foreign, calls_of_unknown, "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_session_looks_like_none_and_costs_the_same_calls() {
    for claims in [false, true] {
        for (name, store, layer) in layers() {
            let layer = match claims {
                true => layer.with_claim_on_login(),
                false => layer,
            };
            let service = layer.layer(Inner::silent());
            let elsewhere = layer.with_scope(Scope::new("other")).layer(Inner::silent());
            let bobs = send(&service, as_user(initialize(), "bob")).await.id();
            let unknown = SessionId::issue();
            // Of one that the cache has in its memory, too.
            for _ in 0..2 {
                assert_alike(name, &service, &store, unknown.expose(), &bobs).await;
                assert_alike(name, &elsewhere, &store, unknown.expose(), &bobs).await;
                assert_eq!(
                    send(&service, as_user(post(&bobs), "bob")).await.status,
                    200
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn so_it_is_where_ids_are_signed() {
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let introducing = SigningKeys::new(KEY).insecure_accept_unsigned_until(in_an_hour);
    for (keys, accepts_unsigned) in [(SigningKeys::new(KEY), false), (introducing, true)] {
        for claims in [false, true] {
            for (name, store, layer) in layers() {
                let layer = layer.with_signed_ids(keys.clone());
                let layer = match claims {
                    true => layer.with_claim_on_login(),
                    false => layer,
                };
                let service = layer.layer(Inner::silent());
                let bobs = send(&service, as_user(initialize(), "bob")).await.id();
                let (id, _) = bobs.split_once('.').unwrap();
                let made_up = SessionId::issue();
                let made_up = made_up.expose();
                let unknown = format!("{made_up}.{}", "A".repeat(43));
                assert_alike(name, &service, &store, &unknown, &bobs).await;
                assert_alike(name, &service, &store, made_up, id).await;
                let of_bob = send(&service, as_user(post(id), "bob")).await;
                assert_eq!(of_bob.status == 200, accepts_unsigned);
            }
        }
    }
}

/// Such a session is looked up in another way, by its owner.
#[tokio::test(start_paused = true)]
async fn a_session_that_seems_forgotten_is_as_unknown_to_strangers() {
    for claims in [false, true] {
        for (name, store, layer) in layers() {
            let layer = match claims {
                true => layer.with_claim_on_login(),
                false => layer,
            };
            let inner = Inner::new(|call| match call.session {
                Some(_) => json(404, "{}"),
                None => with_ids(json(200, RESULT), &["issued"]),
            });
            let service = layer.layer(inner.questioned(|_| json(404, "{}")));
            // Created on another node, so that it does not end here.
            plant(&store, "bobs", owner(Some("bob")), Issuer::Inner).await;
            let answer = send(&service, as_user(post("bobs"), "bob")).await;
            assert_eq!(answer.kind(), Some(RejectionKind::InnerGone));
            assert!(is_live(&store, "bobs").await);
            assert_alike(name, &service, &store, "nope", "bobs").await;
            store.take_calls();
            send(&service, as_user(post("bobs"), "bob")).await;
            assert_eq!(store.take_calls()[0], "load", "{name}: it is marked");
        }
    }
}

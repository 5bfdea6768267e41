//! Whose session it is.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use mcp_session_layer::{Issuer, MemoryStore, RejectionKind, Scope, SessionStore as _};
use tokio::time::advance;
use tower::Layer as _;

use crate::{
    inner::Inner,
    setup::{create, over, plant, remote_store},
    support::{
        answers::send,
        layer::user_header,
        requests::{as_user, initialize, on, post},
        sessions::{idle_left, is_live, owner, session_id},
    },
};

fn by(caller: Option<&str>, request: Request<Body>) -> Request<Body> {
    match caller {
        Some(user) => as_user(request, user),
        None => request,
    }
}

const CALLERS: [Option<&str>; 4] = [None, Some(""), Some("alice"), Some("bob")];

#[tokio::test(start_paused = true)]
async fn a_session_is_its_owner_s_alone() {
    let store = MemoryStore::new();
    let inner = Inner::silent();
    let service = over(&store)
        .with_principal(user_header)
        .layer(inner.clone());
    for owner_of in CALLERS {
        let answer = send(&service, by(owner_of, initialize())).await;
        let id = answer.id();
        inner.calls();
        let found = store.load(&session_id(&id)).await.unwrap().unwrap();
        assert_eq!(found.session.owner(), &owner(owner_of));
        for caller in CALLERS {
            for method in ["POST", "GET"] {
                let answer = send(&service, by(caller, on(&id, method))).await;
                if caller == owner_of {
                    assert_eq!(answer.status, 200, "{owner_of:?} {caller:?}");
                    assert_eq!(inner.calls().len(), 1);
                } else {
                    answer.assert_not_found(RejectionKind::Unknown);
                    assert!(inner.calls().is_empty());
                }
            }
        }
        for stranger in CALLERS.into_iter().filter(|caller| *caller != owner_of) {
            let answer = send(&service, by(stranger, on(&id, "DELETE"))).await;
            answer.assert_not_found(RejectionKind::Unknown);
        }
        assert!(is_live(&store, &id).await);
        let answer = send(&service, by(owner_of, on(&id, "DELETE"))).await;
        assert_eq!(answer.status, 204);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cannot_be_told_is_500_and_not_anonymous() {
    let store = MemoryStore::new();
    let inner = Inner::silent();
    let service = over(&store)
        .with_principal(user_header)
        .layer(inner.clone());
    plant(&store, "live", owner(None), Issuer::Inner).await;
    for request in [
        post("live"),
        on("live", "DELETE"),
        post("never"),
        initialize(),
    ] {
        let answer = send(&service, by(Some("!"), request)).await;
        answer.assert_refused(RejectionKind::PrincipalFailed, 500, "Internal server error");
        assert!(inner.calls().is_empty());
    }
    assert!(is_live(&store, "live").await);
}

/// Neither by what the store's memory answers at once nor by what it has to be asked.
#[tokio::test(start_paused = true)]
async fn a_stranger_extends_nothing() {
    let memory = MemoryStore::new();
    let remote = remote_store();
    plant(&memory, "alices", owner(Some("alice")), Issuer::Inner).await;
    plant(
        &remote.memory,
        "alices",
        owner(Some("alice")),
        Issuer::Inner,
    )
    .await;
    let at_once = over(&memory)
        .with_principal(user_header)
        .layer(Inner::silent());
    let asking = over(&remote)
        .with_principal(user_header)
        .layer(Inner::silent());
    for minute in 1..15 {
        advance(Duration::from_secs(60)).await;
        for stranger in [None, Some("bob")] {
            for method in ["POST", "GET", "DELETE"] {
                let request = || by(stranger, on("alices", method));
                assert_eq!(send(&at_once, request()).await.status, 404);
                assert_eq!(send(&asking, request()).await.status, 404);
            }
        }
        let expected = Some(Duration::from_secs(900 - 60 * minute));
        assert_eq!(idle_left(&memory, "alices").await, expected);
        assert_eq!(idle_left(&remote.memory, "alices").await, expected);
    }
    let own = || by(Some("alice"), post("alices"));
    assert_eq!(send(&at_once, own()).await.status, 200);
    assert_eq!(send(&asking, own()).await.status, 200);
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(idle_left(&memory, "alices").await, hour);
    assert_eq!(idle_left(&remote.memory, "alices").await, hour);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_one_scope_does_not_exist_in_another() {
    let store = MemoryStore::new();
    let inner = Inner::silent();
    let here = over(&store).layer(inner.clone());
    let there = over(&store)
        .with_scope(Scope::new("other"))
        .layer(inner.clone());
    let id = create(&here, &inner).await;
    send(&there, post(&id))
        .await
        .assert_not_found(RejectionKind::Unknown);
    assert_eq!(send(&here, post(&id)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_session_is_lost_at_login_unless_it_may_be_claimed() {
    for claims in [false, true] {
        let store = MemoryStore::new();
        let inner = Inner::silent();
        let mut layer = over(&store).with_principal(user_header);
        if claims {
            layer = layer.with_claim_on_login();
        }
        let service = layer.layer(inner.clone());
        let id = create(&service, &inner).await;
        let answer = send(&service, by(Some("alice"), post(&id))).await;
        assert_eq!(answer.status, if claims { 200 } else { 404 });
        for (caller, expected) in [
            (None, !claims),
            (Some("bob"), false),
            (Some("alice"), claims),
        ] {
            let answer = send(&service, by(caller, post(&id))).await;
            assert_eq!(answer.status == 200, expected, "{caller:?}");
        }
    }
}

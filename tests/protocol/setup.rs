//! The inner service behind a layer, and sessions that are there before it.

use std::convert::Infallible;

use axum::body::Body;
use http::{Request, Response};
use mcp_session_layer::{Issuer, MemoryStore, Owner, SessionStore, store::Terms};
use tower::{Layer as _, Service};

use crate::{
    inner::Inner,
    support::{
        answers::send,
        layer::{SessionLayer, layer},
        requests::initialize,
        sessions::{insert, session, terms},
        store::TestStore,
        time::MINUTE,
    },
};

/// A layer over a store that stays at hand.
pub(crate) fn over(store: &(impl SessionStore + Clone)) -> SessionLayer {
    layer(store.clone())
}

/// A store with no memory to answer from at once.
pub(crate) fn remote_store() -> TestStore {
    TestStore::default().remote().without_feed()
}

/// The inner service behind a layer with the defaults.
pub(crate) fn guard(
    inner: &Inner,
) -> (
    MemoryStore,
    impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + use<>,
) {
    let store = MemoryStore::new();
    let service = over(&store).layer(inner.clone());
    (store, service)
}

/// Creates a session through the layer and says its id. What the inner service saw of it is forgotten.
pub(crate) async fn create<S>(service: &S, inner: &Inner) -> String
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    let answer = send(service, initialize()).await;
    assert_eq!(answer.status, 200, "{}", answer.wire());
    inner.calls();
    answer.id()
}

/// Puts a session into a store without the layer: with an hour to be idle, a quarter of an hour until its first request.
pub(crate) async fn plant(store: &impl SessionStore, id: &str, owner: Owner, issuer: Issuer) {
    let terms = Terms {
        initial_idle: 15 * MINUTE,
        ..terms()
    };
    insert(store, &session(id, owner, issuer), &terms).await;
}

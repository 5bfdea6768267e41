//! A node: a layer over an inner service of its own. Two of them over one store are two machines.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    inner::{Inner, InnerService},
    support::{
        answers::id_of,
        layer::{SessionLayer, SessionService, layer, user_header},
        requests::{as_user, delete, get, initialize, post},
        store::TestStore,
    },
};

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) layer: SessionLayer,
    pub(crate) service: SessionService<InnerService>,
    pub(crate) inner: Arc<Inner>,
}

impl Node {
    pub(crate) fn new(store: &TestStore) -> Self {
        Self::with(store, |layer| layer)
    }

    pub(crate) fn with(store: &TestStore, set: impl FnOnce(SessionLayer) -> SessionLayer) -> Self {
        let layer = set(layer(store.clone()).with_principal(user_header));
        let inner = Arc::<Inner>::default();
        Self {
            service: layer.layer(inner.service()),
            layer,
            inner,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.service.clone().oneshot(request).await.unwrap()
    }

    /// Creates an anonymous session; its id.
    pub(crate) async fn initialize(&self) -> String {
        self.created(initialize()).await
    }

    pub(crate) async fn initialize_as(&self, user: &str) -> String {
        self.created(as_user(initialize(), user)).await
    }

    /// Creates a session, and takes the whole answer: one that is dropped unread has not arrived.
    pub(crate) async fn created(&self, request: Request<Body>) -> String {
        let response = self.send(request).await;
        let id = id_of(&response).expect("a session");
        response
            .into_body()
            .collect()
            .await
            .expect("a whole answer");
        id
    }

    /// A stream on this session.
    pub(crate) async fn open(&self, id: &str) -> Body {
        let response = self.send(get(id)).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    }

    /// The status of a call on this session.
    pub(crate) async fn post(&self, id: &str) -> StatusCode {
        self.send(post(id)).await.status()
    }

    pub(crate) async fn delete(&self, id: &str) -> StatusCode {
        self.send(delete(id)).await.status()
    }
}

//! An inner service without its type.

use std::{any::TypeId, sync::Arc};

use axum::body::{Body, Bytes};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tower::{BoxError, Service, ServiceExt as _};

use crate::{session::Upstream, sync::Mutex};

/// A clone of an inner service, for what the layer sends by itself. `is_part` says that it may not be the whole endpoint.
pub(super) fn upstream<S, B>(inner: S, is_part: bool) -> Arc<Upstream>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // A service need not be `Sync`.
    let inner = Mutex::new(inner);
    Arc::new(Upstream::new(TypeId::of::<S>(), is_part, move |request| {
        let inner = inner.lock().clone();
        Box::pin(async move {
            let response = inner.oneshot(request).await.map_err(Into::into)?;
            Ok(response.map(Body::new))
        })
    }))
}

/// Whether the innermost of these services is one of axum's routes: what `Router::layer` puts a layer around, a method's
/// handler for example. There is no better way to tell, and nothing but a hint depends on it.
pub(super) fn is_route<S>() -> bool {
    std::any::type_name::<S>().contains("axum::routing::route::Route")
}

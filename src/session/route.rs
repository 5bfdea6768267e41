//! Where, and with which headers, an inner service last saw a session.

use std::sync::{Arc, Weak};

use axum::body::Body;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{InnerContext, Upstream, context::copy};
use crate::{
    protocol::{Era, PROTOCOL_VERSION, SESSION_ID, SessionId},
    sync::Mutex,
};

/// All that a request of the layer's own needs to be understood: rmcp answers a DELETE without a `Host`, or with a
/// revision that has no sessions, by refusing it.
///
/// Everything is a copy. A slice of what came over a connection would keep the connection's whole buffer alive for as
/// long as the session. The inner service is not kept alive either.
pub(crate) struct Route {
    digest: u64,
    /// The latest there.
    upstream: Arc<Mutex<Weak<Upstream>>>,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Option<HeaderValue>,
    /// Of the one session whose route this is.
    context: Option<Box<InnerContext>>,
}

impl Route {
    /// The route of a request, which is named by its digest.
    pub(crate) fn of(digest: u64, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            digest,
            upstream: Arc::default(),
            uri: place(uri),
            host: headers.get(&HOST).map(copy),
            version: legacy_version(headers).map(copy),
            context: None,
        }
    }

    /// The same for one session only, with what its requests have and others' have not. No digest names it, so that the
    /// next request makes its own.
    pub(crate) fn with_context(&self, context: InnerContext) -> Self {
        Self {
            digest: 0,
            upstream: Arc::clone(&self.upstream),
            uri: self.uri.clone(),
            host: self.host.clone(),
            version: self.version.clone(),
            context: Some(Box::new(context)),
        }
    }

    /// Whether sessions have it, or one made of it.
    pub(crate) fn is_in_use(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || Arc::strong_count(&self.upstream) > 1
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The inner service, unless it is gone.
    pub(crate) fn upstream(&self) -> Option<Arc<Upstream>> {
        self.upstream.lock().upgrade()
    }

    /// Its inner service is this one from now on.
    pub(crate) fn note_upstream(&self, upstream: &Arc<Upstream>) {
        *self.upstream.lock() = Arc::downgrade(upstream);
        upstream.note(self.digest);
    }

    /// The protocol version that a request there named.
    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_ref()?.to_str().ok()
    }

    /// A request without a body on this session.
    pub(crate) fn request(&self, method: Method, id: &SessionId) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        if let Some(context) = &self.context {
            context.put_on(&mut request);
        }
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(&SESSION_ID, id.to_header());
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        if let Some(version) = &self.version {
            headers.insert(&PROTOCOL_VERSION, version.clone());
        }
        request
    }
}

/// The version header of a request, if it names a revision with sessions: in others a DELETE means nothing.
fn legacy_version(headers: &HeaderMap) -> Option<&HeaderValue> {
    let version = headers.get(&PROTOCOL_VERSION);
    version.filter(|version| Era::of(Some(version)) == Era::Legacy)
}

/// Where a request went, without its query, which may hold a secret.
fn place(uri: &Uri) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = PathAndQuery::try_from(uri.path()).ok();
    parts.authority = uri
        .authority()
        .and_then(|authority| Authority::try_from(authority.as_str()).ok());
    parts.scheme = uri
        .scheme()
        .and_then(|scheme| Scheme::try_from(scheme.as_str()).ok());
    Uri::from_parts(parts).unwrap_or_default()
}

//! Telling the inner service, whatever its type, of sessions whose end it did not see.

use std::{
    error::Error,
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header::HOST, request::Parts};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tower::{BoxError, Service, ServiceExt as _};

use crate::{
    protocol::SessionId,
    protocol::request::{Era, PROTOCOL_VERSION, SESSION_ID},
    registry::{Live, LiveSession},
    service::layer::Core,
    session::{Issuer, Session},
    store::BoxFuture,
};

/// An inner service that can be called from a future of ours.
pub(crate) trait Inner: Clone + Send + 'static {
    type Failure: Send + 'static;

    /// Calls the service, which must be ready.
    fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Self::Failure>> + Send;
}

impl<S, B> Inner for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Send, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Failure = S::Error;

    fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, S::Error>> + Send {
        let answer = self.call(request);
        async move { Ok(answer.await?.map(Body::new)) }
    }
}

/// Something that can be sent a DELETE: an inner service with its type left behind.
pub(crate) trait Tell: Send + Sync {
    fn tell(&self, request: Request<Body>) -> BoxFuture<'static, Result<StatusCode, BoxError>>;
}

/// A clone of an inner service, kept for telling it things.
pub(crate) struct Teller<S>(Mutex<S>);

impl<S> Teller<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self(Mutex::new(inner))
    }
}

impl<S, B> Tell for Teller<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Send,
{
    fn tell(&self, request: Request<Body>) -> BoxFuture<'static, Result<StatusCode, BoxError>> {
        let inner = self.0.lock().clone();
        Box::pin(async move {
            let response = inner.oneshot(request).await.map_err(Into::into)?;
            Ok(response.status())
        })
    }
}

/// Where, and with which headers, an inner service last saw a session: rmcp answers a DELETE without a `Host` or
/// with a revision that has no sessions by refusing it.
#[derive(Clone)]
pub(crate) struct Route {
    teller: Weak<dyn Tell>,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

impl Route {
    pub(crate) fn of(parts: &Parts, teller: &Arc<dyn Tell>) -> Self {
        Self {
            teller: Arc::downgrade(teller),
            uri: parts.uri.clone(),
            host: parts.headers.get(&HOST).cloned(),
            version: legacy_version(parts).cloned(),
        }
    }

    /// Whether a request takes this very route.
    pub(crate) fn is_of(&self, parts: &Parts, teller: &Arc<dyn Tell>) -> bool {
        self.uri.path() == parts.uri.path()
            && self.host.as_ref() == parts.headers.get(&HOST)
            && (self.version.as_ref() == parts.headers.get(&PROTOCOL_VERSION)
                || self.version.as_ref() == legacy_version(parts))
            && std::ptr::addr_eq(self.teller.as_ptr(), Arc::as_ptr(teller))
    }

    fn request(&self, id: &SessionId) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(&SESSION_ID, id.to_header());
        if let Some(host) = &self.host {
            headers.insert(&HOST, host.clone());
        }
        if let Some(version) = &self.version {
            headers.insert(&PROTOCOL_VERSION, version.clone());
        }
        request
    }

    /// Tells the inner service that a session has ended, in the background: a few at a time, none dropped, repeated
    /// for an hour when it failed. An inner service that is gone needs no telling.
    pub(crate) fn tell(self, id: SessionId, live: &Live) {
        let turns = Arc::clone(&live.tells);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!(session = %id.reference(), "outside a runtime the inner service cannot be told of an end");
            return;
        };
        runtime.spawn(async move {
            let given_up = Instant::now() + LONGEST;
            let mut pause = FIRST_PAUSE;
            while Instant::now() < given_up {
                let turn = turns.acquire().await;
                let Some(teller) = self.teller.upgrade() else {
                    return;
                };
                let told = timeout(PATIENCE, teller.tell(self.request(&id))).await;
                drop(teller);
                drop(turn);
                match told {
                    Ok(Ok(status)) if is_understood(status) => return,
                    Ok(Ok(status)) => {
                        tracing::warn!(session = %id.reference(), %status, "the inner service refused to be told of a session's end");
                        if !may_change(status) {
                            return;
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(session = %id.reference(), error = &*error as &dyn Error, "the inner service could not be told of a session's end");
                    }
                    Err(_) => {
                        tracing::warn!(session = %id.reference(), "the inner service took too long to be told of a session's end");
                    }
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            tracing::error!(session = %id.reference(), "gave up telling the inner service of a session's end");
        });
    }
}

impl<St> Core<St> {
    /// Tells the inner service of a session's end, once.
    pub(crate) fn tell_inner(&self, live: &LiveSession) {
        let session = live.session();
        if let (true, Some(route)) = (self.inner_knows(&session), live.route_to_tell()) {
            route.tell(session.id().clone(), &self.live);
        }
    }

    /// Whether the inner service knows a session by its id.
    pub(crate) fn inner_knows(&self, session: &Session) -> bool {
        session.record().issuer == Issuer::Inner || self.settings.forwards_issued
    }
}

/// The version header of a request, if it names a revision with sessions: in others a DELETE means nothing.
fn legacy_version(parts: &Parts) -> Option<&HeaderValue> {
    let version = parts.headers.get(&PROTOCOL_VERSION);
    version.filter(|version| Era::of(Some(version)) == Era::Legacy)
}

/// Ended now, or unknown already, or the service does not let clients end sessions.
fn is_understood(status: StatusCode) -> bool {
    status.is_success()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        )
}

/// Whether another try may be answered otherwise.
fn may_change(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        )
}

const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An inner service that fails for longer must forget the session by its own means. Without an end the ends untold
/// would pile up.
const LONGEST: Duration = Duration::from_secs(60 * 60);
